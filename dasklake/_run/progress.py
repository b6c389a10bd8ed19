"""The state of a run while it is written: takes receipts, and decides when a commit is due.

Pure: it uses no storage, no Dask and no clock. Every front (scheduler plugin, local scheduler,
client) drives the same class, and Hypothesis tests it in microseconds.

::

               received / failed
    missing ─────────────────────▶ pending ──┐ take()
                                      ▲      ▼
                           put_back() └── in flight ──▶ committed()

With ``ordered`` only the contiguous prefix becomes pending, so that every commit is a prefix of the
input: a receipt behind a missing partition waits until that partition is complete. If the run ends
before, its chunks stay on storage, where a resume recovers them.

    end(stop) ─▶ drain(running): running partitions are awaited, then all pending receipts are
    committed and the run has ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dasklake._model.commit import RunState
from dasklake._model.receipt import Failure, Receipt


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """Interval between checkpoints, in input samples or in seconds.

    Attributes
    ----------
    inputs : int or None
        Completed input samples.
    seconds : float or None
        Seconds since the last commit.
    """

    inputs: int | None = None
    seconds: float | None = None


class Tally(NamedTuple):
    """Counts of a run so far.

    Attributes
    ----------
    failures : int
        Rows of the failures table.
    samples : int
        Samples written.
    inputs, lost_inputs : int
        Input samples, and lost ones among them. A partition that failed as a whole counts with
        its number of samples, or with the average of the partitions.
    """

    failures: int
    samples: int
    inputs: int
    lost_inputs: int


@dataclass(frozen=True, slots=True)
class MaxFailures:
    """Limit on failed samples, above which the run fails.

    Attributes
    ----------
    count : int or None
        Maximum number of failures.
    share : float or None
        Maximum fraction of the input samples, checked once ``after`` of them are processed.
    after : int
        Input samples before the fraction is checked.
    none : int
        Failures that exceed the limit before that, if there is not a single sample. Not if all
        input samples but one may fail (``share`` of 1).
    """

    count: int | None = None
    share: float | None = 0.01
    after: int = 1000
    none: int = 100

    @property
    def value(self) -> float | None:
        """The value that the caller gave."""
        return self.share if self.count is None else self.count

    def exceeded(self, tally: Tally, *, complete: bool) -> bool:
        """Return whether the failures exceed the limit."""
        if self.count is not None:
            return tally.failures > self.count
        if self.share is None:
            return False
        hopeless = self.share < 1 and tally.failures >= self.none
        if tally.failures and not tally.samples and (complete or hopeless):
            # Whatever the size of the input: a run without any sample must not succeed.
            return True
        return tally.inputs >= self.after and tally.lost_inputs > self.share * tally.inputs


class Stop(NamedTuple):
    """Reason for which a run ends early.

    Attributes
    ----------
    kind : str
        ``"failed"``, ``"too-many"``, ``"interrupted"``, ``"cancelled"``, ``"lost"`` or
        ``"conflict"``.
    failure : Failure or None
        The sample or partition that ended it.
    error : BaseException or None
        The cause.
    """

    kind: str
    failure: Failure | None = None
    error: BaseException | None = None


class Batch(NamedTuple):
    """Content of one commit: receipts, and failures of partitions that have no receipt."""

    receipts: tuple[Receipt, ...]
    lost: tuple[Failure, ...]


@dataclass(slots=True)
class RunProgress:
    """Progress of the partitions that an epoch has to write.

    Parameters
    ----------
    missing : iterable of int
        Partitions to write.
    interval : CheckpointInterval
        When a checkpoint is due.
    max_failures : MaxFailures
        Limit on failures.
    before : RunState
        The state committed by earlier epochs.
    now : float
        Seconds on the caller's monotonic clock.
    ordered : bool, default False
        Whether only the contiguous prefix of complete partitions is committed.
    """

    missing: Iterable[int]
    interval: CheckpointInterval
    max_failures: MaxFailures
    before: RunState
    now: float
    ordered: bool = False
    stop: Stop | None = None
    draining: Collection[int] | None = None
    pending: list[Receipt] = field(default_factory=list)
    lost: list[Failure] = field(default_factory=list)
    in_flight: Batch | None = None
    written_inputs: int = 0
    written_samples: int = 0
    failures: int = 0
    commits: int = 0
    _open: set[int] = field(init=False)
    _order: list[int] = field(init=False)
    _next: int = field(init=False, default=0)
    _waiting: list[tuple[int, Receipt | Failure]] = field(init=False, default_factory=list)
    _failed: set[int] = field(init=False, default_factory=set)
    _lost_partitions: int = field(init=False, default=0)
    _pending_inputs: int = field(init=False, default=0)
    _last_commit: float = field(init=False)

    def __post_init__(self) -> None:
        self._open = set(self.missing)
        self._order = sorted(self._open)
        self._last_commit = self.now

    def received(self, receipt: Receipt) -> bool:
        """Record a receipt; return False if its partition has one already or its epoch is closed."""
        if receipt.partition not in self._open:
            return False
        if not self.before.closed < receipt.epoch <= self.before.epoch:
            return False
        self._open.discard(receipt.partition)
        self._add(receipt)
        self.written_inputs += receipt.inputs
        self.written_samples += receipt.samples
        self.failures += receipt.failed
        if receipt.failed and not receipt.inputs:
            self._lost_partitions += 1
        self._judge(receipt.failures[-1] if receipt.failures else None)
        return True

    def failed(self, failure: Failure) -> bool:
        """Record that a whole partition failed and is skipped; return False if it is done already."""
        if failure.partition not in self._open:
            return False
        self._open.discard(failure.partition)
        self._add(failure)
        self.failures += 1
        self._lost_partitions += 1
        self._judge(failure)
        return True

    def _add(self, outcome: Receipt | Failure) -> None:
        heapq.heappush(self._waiting, (outcome.partition, outcome))
        self._release()

    def _release(self) -> None:
        """Move outcomes that may be committed from the waiting to the pending ones."""
        if self.ordered:
            while self._next < len(self._order) and self._order[self._next] not in self._open:
                self._next += 1
        more = self.ordered and self._next < len(self._order)
        frontier = self._order[self._next] if more else None
        while self._waiting and (frontier is None or self._waiting[0][0] < frontier):
            outcome = heapq.heappop(self._waiting)[1]
            if isinstance(outcome, Failure):
                self.lost.append(outcome)
            else:
                self.pending.append(outcome)
                self._pending_inputs += outcome.inputs

    def end(self, stop: Stop) -> None:
        """End the run early; the first reason counts, and failed partitions are not awaited."""
        self.stop = self.stop or stop
        if stop.failure is not None:
            self._failed.add(stop.failure.partition)

    def drain(self, running: Collection[int]) -> None:
        """Wait for the running partitions only, once the run ends early."""
        self.draining = running

    def tally(self) -> Tally:
        """Return the counts of the run, including earlier epochs."""
        failures = self.before.failures + self.failures
        inputs = self.before.inputs + self.written_inputs
        lost = self._lost_partitions * self._partition_size(inputs)
        return Tally(
            failures=failures,
            samples=self.before.samples + self.written_samples,
            inputs=inputs + lost,
            lost_inputs=failures - self._lost_partitions + lost,
        )

    def _partition_size(self, inputs: int) -> int:
        """Return the number of input samples in a partition, or its best estimate."""
        plan = self.before.plan
        if plan.inputs is not None:
            return max(1, plan.inputs // plan.partitions)
        read = plan.partitions - len(self._open) - self._lost_partitions
        return max(1, inputs // max(1, read))

    def _judge(self, failure: Failure | None) -> None:
        if self.max_failures.exceeded(self.tally(), complete=not self._open):
            self.end(Stop("too-many", failure))
        if self.stop is not None and self.stop.kind == "too-many":
            # Left open and not awaited, so that a resume with a fixed function writes them.
            outcomes = [*self.pending, *self.lost, *(outcome for _, outcome in self._waiting)]
            good = [r for r in outcomes if isinstance(r, Receipt) and not r.failed]
            partitions = {r.partition for r in outcomes}.difference(r.partition for r in good)
            self._open |= partitions
            self._failed |= partitions
            self._next = 0
            self._waiting = []
            self._put([], [])
            for receipt in good:
                self._add(receipt)

    @property
    def complete(self) -> bool:
        """Return whether every partition has a receipt or a failure."""
        return not self._open

    @property
    def ended(self) -> bool:
        """Return whether all work is done, including commits."""
        idle = not self.pending and not self.lost and self.in_flight is None
        return idle and (self.complete or self.drained)

    @property
    def drained(self) -> bool:
        """Return whether a run that ends early has no partition left to wait for."""
        if self.stop is None or self.draining is None:
            return False
        return not self._open.intersection(self.draining) - self._failed

    def due(self, now: float) -> bool:
        """Return whether a commit should be made now."""
        if self.in_flight is not None or not (self.pending or self.lost):
            return False
        return self.complete or self.drained or self.wait(now) == 0.0

    def wait(self, now: float) -> float | None:
        """Return the seconds until a commit is due by time; None if commits do not depend on time."""
        if self.interval.inputs is not None:
            return 0.0 if self._pending_inputs >= self.interval.inputs else None
        if self.interval.seconds is None:
            return None
        return max(0.0, self._last_commit + self.interval.seconds - now)

    def take(self) -> Batch:
        """Return the content of the next commit, which is in flight until it is committed."""
        self.in_flight = Batch(tuple(self.pending), tuple(self.lost))
        self._put([], [])
        return self.in_flight

    def _put(self, pending: list[Receipt], lost: list[Failure]) -> None:
        self.pending, self.lost = pending, lost
        self._pending_inputs = sum(receipt.inputs for receipt in pending)

    def committed(self, now: float) -> None:
        """Record that the batch in flight is committed."""
        self.in_flight = None
        self.commits += 1
        self._last_commit = now

    def put_back(self) -> None:
        """Return the batch in flight to the pending receipts after a failed commit."""
        if self.in_flight is not None:
            receipts, lost = self.in_flight
            self.in_flight = None
            self._put([*receipts, *self.pending], [*lost, *self.lost])
