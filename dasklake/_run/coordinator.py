"""The coordinator of one epoch, which commits in threads of its own and reports its status.

All fronts use this class. Its owner calls :meth:`Coordinator.deliver`,
:meth:`Coordinator.record_failure` and :meth:`Coordinator.stop`, which never block. One thread
commits, and another writes heartbeats.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._format.segment import read_failures
from dasklake._log.heartbeat import BEAT_SECONDS
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure, Receipt
from dasklake._run.outcome import explain, storage_error
from dasklake._run.progress import Batch, RunProgress, Stop
from dasklake._run.run_spec import Assignment
from dasklake._schema.printable import safe_repr
from dasklake._storage.retry import NO_RETRIES
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import write_lost
from dasklake._write.failures import never_skipped
from dasklake._write.job import Outcome
from dasklake.exceptions import LakeError, RunFailedError, StoreError

_LOGGER = logging.getLogger(__name__)

#: Longest wait, in seconds, for tasks that are running when the run is stopped.
_DRAIN = 60.0

#: Seconds after that in which operations on a failing storage are still retried.
_INSIST = 60.0

#: Seconds between two status reports.
_REPORT = 0.5


@dataclass(frozen=True, slots=True)
class Status:
    """The progress of a run, and its outcome.

    Attributes
    ----------
    running : bool
        Whether the run has not ended yet.
    version : int
        The newest version that the coordinator committed.
    partitions, of : int
        Partitions committed since the run began, and planned.
    written, committed : int
        Input samples whose partitions are written, and committed, since the run began.
    total : int or None
        Input samples planned, if known.
    samples, failures, size, commits : int
        Committed samples, failures and bytes of the run; commits of this epoch.
    delayed : str or None
        The storage error that makes commits late, if any.
    problem, cause : BaseException or None
        The exception to raise, and its cause.
    """

    running: bool
    version: int
    partitions: int
    of: int
    written: int
    committed: int
    total: int | None
    samples: int
    failures: int
    size: int
    commits: int
    delayed: str | None = None
    problem: BaseException | None = None
    cause: BaseException | None = None

    def __str__(self) -> str:
        return (
            f"version {self.version}, {self.partitions} of {self.of} partitions, {self.samples} "
            f"samples, {self.failures} failures"
        )


@dataclass(slots=True, eq=False)
class Coordinator:
    """Coordinator of one epoch of a run: collects receipts and commits them.

    Parameters
    ----------
    assignment : Assignment
        The work of the epoch.
    on_change : callable
        Called without arguments after each change of the status, from any thread.
    """

    assignment: Assignment
    on_change: Callable[[], None] = lambda: None
    _progress: RunProgress = field(init=False)
    _writer: RunWriter = field(init=False)
    _changed: threading.Condition = field(init=False, default_factory=threading.Condition)
    _problem: BaseException | None = field(init=False, default=None)
    _cause: BaseException | None = field(init=False, default=None)
    _done: bool = field(init=False, default=False)
    _deadline: float | None = field(init=False, default=None)
    _beat: Heartbeat | None = field(init=False, default=None)
    _threads: list[threading.Thread] = field(init=False, default_factory=list)

    def start(self) -> None:
        """Read the epoch's entry, write a heartbeat, and start both threads.

        Raises
        ------
        LakeError
            The storage does not show the entry, or cannot be written from here.
        """
        a = self.assignment
        self._writer = a.open_writer()
        self._progress = a.track(self._writer.state, time.monotonic())
        self._put_beat()
        for receipt in a.recovered:
            self._progress.received(receipt)
        for target in (self._commit_loop, self._beat_loop):
            name = f"dasklake-{a.run}-{target.__name__.strip('_')}"
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def deliver(self, outcome: Outcome) -> None:
        """Record the outcome of a write task."""
        with self._changed:
            record_outcome(self._progress, outcome)
            self._changed.notify_all()
        self.on_change()

    def record_failure(
        self, failure: Failure, error: BaseException | None, *, fatal: bool = False
    ) -> None:
        """Record a partition that failed outside the code of its write task.

        Parameters
        ----------
        failure : Failure
            The partition and a description of the error.
        error : BaseException or None
            The error itself.
        fatal : bool, default False
            Whether the error is not the user's and must not be skipped.
        """
        with self._changed:
            if self.assignment.spec.skip and not fatal and not never_skipped(error):
                self._progress.failed(failure)
            else:
                self._progress.end(Stop("failed", failure, error))
            self._changed.notify_all()
        self.on_change()

    def stop(self, kind: str, error: BaseException | None = None) -> None:
        """End the run early; its owner then has to call :meth:`drain`."""
        with self._changed:
            self._progress.end(Stop(kind, None, error))
            self._changed.notify_all()

    def drain(self, running: Collection[int] = ()) -> None:
        """Wait for the running partitions of a stopped run only; commit all complete ones."""
        _LOGGER.debug("Run %r: waiting for %d running tasks", self.assignment.run, len(running))
        with self._changed:
            self._progress.drain(frozenset(running))
            self._deadline = time.monotonic() + (_DRAIN if running else 0.0)
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until the run has ended, at most ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._done, timeout)
        return self.status()

    def follow(self, on_status: Callable[[Status], object]) -> Status:
        """Wait until the run has ended, and report its status regularly."""
        while (status := self.wait(_REPORT)).running:
            on_status(status)
        on_status(status)
        return status

    @property
    def stopping(self) -> bool:
        """True if the run has ended or is ending, so that no further partition should start."""
        return self._done or self._progress.stop is not None

    def status(self) -> Status:
        """Return the progress of the run, and its outcome if it has ended."""
        with self._changed:
            state, progress = self._writer.state, self._progress
            return Status(
                running=not self._done,
                version=self._writer.head.version,
                partitions=state.partitions,
                of=state.plan.partitions,
                written=progress.before.inputs + progress.written_inputs,
                committed=state.inputs,
                total=state.plan.inputs,
                samples=state.samples,
                failures=progress.before.failures + progress.failures,
                size=state.size,
                commits=progress.commits,
                delayed=self._writer.log.retry_reason,
                problem=self._problem,
                cause=self._cause,
            )

    def _commit_loop(self) -> None:
        try:
            while self._commit_next():
                pass
        except LakeError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 # a thread has no caller to raise to
            self._fail(
                RunFailedError(f"The coordinator failed: {safe_repr(error)}. Resume the run."),
                error,
            )
        finally:
            status = self.status()
            outcome = "finished" if status.problem is None else type(status.problem).__name__
            _LOGGER.info("Run %r ended: %s, %s", self.assignment.run, outcome, status)
            with self._changed:
                self._done = True
                self._changed.notify_all()
            self.on_change()

    def _fail(self, error: BaseException, cause: BaseException | None = None) -> None:
        with self._changed:
            self._progress.put_back()
            self._progress.end(Stop("conflict", None, error))
            self._progress.drain(())
            if isinstance(error, StoreError):
                inputs = self._writer.state.inputs
                error, cause = storage_error(error, self.assignment.run, inputs), error
            self._problem, self._cause = error, cause

    def _commit_next(self) -> bool:
        """Wait until a commit is due and make it; return False if the run has ended."""
        with self._changed:
            while not self._progress.due(time.monotonic()):
                if self._progress.ended:
                    self._problem, self._cause = explain(
                        self.assignment.run, self._progress, self._writer.state
                    )
                    return False
                self._changed.wait(self._timeout())
                if self._deadline is not None and time.monotonic() >= self._deadline:
                    self._progress.drain(())
            batch = self._progress.take()
        self._commit(batch)
        with self._changed:
            self._progress.committed(time.monotonic())
            self._changed.notify_all()
        _LOGGER.info("Run %r: checkpoint, %s", self.assignment.run, self.status())
        self.on_change()
        return True

    def _timeout(self) -> float | None:
        """Return the seconds that the commit loop may sleep; None for no limit."""
        now, progress = time.monotonic(), self._progress
        due = progress.wait(now) if progress.pending or progress.lost else None
        limit = None
        if self._deadline is not None and progress.draining:
            limit = max(0.0, self._deadline - now)
        return min((seconds for seconds in (due, limit) if seconds is not None), default=None)

    def _commit(self, batch: Batch) -> Commit:
        a = self.assignment
        retry = self._writer.log.retry
        empty = [
            retry(partial(write_lost, a.location, a.spec.schema, failure)) for failure in batch.lost
        ]
        receipts = [*batch.receipts, *empty]
        return self._writer.commit(receipts, lambda: load_failures(a.location.store, receipts))

    def _beat_loop(self) -> None:
        done, reason = False, None
        while not done:
            with self._changed:
                done = self._changed.wait_for(lambda: self._done, BEAT_SECONDS)
                if self._deadline is not None and time.monotonic() >= self._deadline + _INSIST:
                    self._writer.log.stop.set()
            if (self._writer.log.retry_reason is None) != (reason is None):
                reason = self._writer.log.retry_reason
                if reason is not None:
                    _LOGGER.warning("Run %r: commits are late: %s", self.assignment.run, reason)
                self.on_change()
            # Advisory: a late heartbeat delays an observer by some seconds and costs no data.
            # No retry: this loop also reports late commits, and stops them at the deadline.
            with contextlib.suppress(StoreError):
                NO_RETRIES.call(self._put_beat)

    def _put_beat(self) -> None:
        a, status = self.assignment, self.status()
        key = object_keys.heartbeat_key(a.location.branch, a.run)
        if not status.running and self._writer.state.finished:
            a.location.store.delete([key])
            return
        self._beat = Heartbeat(
            epoch=a.location.epoch,
            coordinator=self._beat.coordinator if self._beat else object_keys.new_id(),
            counter=self._beat.counter + 1 if self._beat else 1,
            state="running" if status.running else "stopped",
            inputs=status.written,
            failures=status.failures,
            trouble=status.delayed or "",
        )
        a.location.store.put(key, heartbeat_bytes(self._beat))
        _LOGGER.debug("Run %r: heartbeat %d", a.run, self._beat.counter)

    def join(self) -> None:
        """Wait until both threads have ended."""
        for thread in self._threads:
            thread.join()


def record_outcome(progress: RunProgress, outcome: Outcome) -> None:
    """Record a write task's outcome: a receipt, or a failure that ends the run."""
    if outcome.receipt is not None:
        progress.received(outcome.receipt)
    else:
        kind = "interrupted" if outcome.interrupt else "failed"
        progress.end(Stop(kind, outcome.failure, outcome.error))


def load_failures(store: ObjectStore, receipts: Sequence[Receipt]) -> list[Failure]:
    """Return the failures of receipts; long lists are read from storage."""
    failures: list[Failure] = []
    for receipt in receipts:
        if receipt.failures_key is None:
            failures += receipt.failures
        else:
            data = store.get(receipt.failures_key)
            failures += read_failures(data, None, receipt.failures_key)
    return failures


def commit_recovered(assignment: Assignment) -> Status:
    """Commit a run all of whose missing partitions were recovered from storage."""
    coordinator = Coordinator(assignment)
    coordinator.start()
    if coordinator.stopping:
        # Too many recovered failures: no running task is left to wait for.
        coordinator.drain()
    status = coordinator.wait()
    coordinator.join()
    return status
