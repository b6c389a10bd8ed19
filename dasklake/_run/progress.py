"""The state of a run while it is written: receipts in, "a commit is due" out.

Pure: no storage, no Dask, no clock of its own. Every front (scheduler plugin, local scheduler,
client) drives the same object, and Hypothesis drives it in microseconds.

::

               received / failed
    missing ─────────────────────▶ pending ──┐ take()
                                      ▲      ▼
                           put_back() └── in flight ──▶ committed()

    end(stop) ─▶ drain(running): what runs already is waited for, then all that is pending is
    committed and the run has ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dasklake._model.commit import RunState
from dasklake._model.receipt import Failure, Receipt

__all__ = ["Batch", "CheckpointInterval", "MaxFailures", "RunProgress", "Stop"]


@dataclass(frozen=True, slots=True)
class CheckpointInterval:
    """When a checkpoint is due: after so many input samples, or so many seconds.

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
    """What a run has come to so far.

    Attributes
    ----------
    failures : int
        Rows of the failures table.
    samples : int
        Samples written.
    inputs, lost_inputs : int
        Input samples, and those of them that are lost; a partition that failed as a whole counts
        as many as it has, or as partitions have on average.
    """

    failures: int
    samples: int
    inputs: int
    lost_inputs: int


@dataclass(frozen=True, slots=True)
class MaxFailures:
    """How many samples may fail before the run gives up.

    Attributes
    ----------
    count : int or None
        So many, whatever the size of the input.
    share : float or None
        That part of the input samples, judged once ``after`` of them are processed.
    after : int
        Input samples before a share says anything.
    none : int
        Failures without a single sample that are enough for a verdict before that.
    """

    count: int | None = None
    share: float | None = 0.01
    after: int = 1000
    none: int = 100

    def exceeded(self, tally: Tally, *, complete: bool) -> bool:
        """Whether so many failures are too many."""
        if self.count is not None:
            return tally.failures > self.count
        if self.share is None:
            return False
        if tally.failures and not tally.samples and (complete or tally.failures >= self.none):
            # However small the input: a wrong key must not succeed with nothing.
            return True
        return tally.inputs >= self.after and tally.lost_inputs > self.share * tally.inputs


class Stop(NamedTuple):
    """Why a run ends early.

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
    """What one commit takes: receipts, and partitions that failed before they could give one."""

    receipts: tuple[Receipt, ...]
    lost: tuple[Failure, ...]


@dataclass(slots=True)
class RunProgress:
    """What has happened to each partition that this epoch has to write.

    Parameters
    ----------
    missing : iterable of int
        Partitions to write.
    interval : CheckpointInterval
        When a checkpoint is due.
    max_failures : MaxFailures
        When failures are too many.
    before : RunState
        What earlier epochs committed.
    now : float
        Seconds on the caller's monotonic clock.
    """

    missing: Iterable[int]
    interval: CheckpointInterval
    max_failures: MaxFailures
    before: RunState
    now: float
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
    _failed: set[int] = field(init=False, default_factory=set)
    _lost_partitions: int = field(init=False, default=0)
    _pending_inputs: int = field(init=False, default=0)
    _last_commit: float = field(init=False)

    def __post_init__(self) -> None:
        self._open = set(self.missing)
        self._last_commit = self.now

    def received(self, receipt: Receipt) -> bool:
        """Take a receipt in; False where its partition has one already, or its epoch is closed."""
        if receipt.partition not in self._open:
            return False
        if not self.before.closed < receipt.epoch <= self.before.epoch:
            return False
        self._open.discard(receipt.partition)
        self.pending.append(receipt)
        self._pending_inputs += receipt.inputs
        self.written_inputs += receipt.inputs
        self.written_samples += receipt.samples
        self.failures += receipt.failed
        if receipt.failed and not receipt.inputs:
            self._lost_partitions += 1
        self._judge(receipt.failures[-1] if receipt.failures else None)
        return True

    def failed(self, failure: Failure) -> bool:
        """Take in that a whole partition failed and is to be skipped."""
        if failure.partition not in self._open:
            return False
        self._open.discard(failure.partition)
        self.lost.append(failure)
        self.failures += 1
        self._lost_partitions += 1
        self._judge(failure)
        return True

    def end(self, stop: Stop) -> None:
        """End the run early; the first reason counts, and no partition that failed is waited for."""
        self.stop = self.stop or stop
        if stop.failure is not None:
            self._failed.add(stop.failure.partition)

    def drain(self, running: Collection[int]) -> None:
        """Say which partitions a run that ends early still waits for: those that are running."""
        self.draining = running

    def tally(self) -> Tally:
        """Return what the run has come to, earlier epochs included."""
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
        """Return how many input samples a partition has, as far as anybody knows."""
        plan = self.before.plan
        if plan.inputs is not None:
            return max(1, plan.inputs // plan.partitions)
        read = plan.partitions - len(self._open) - self._lost_partitions
        return max(1, inputs // max(1, read))

    def _judge(self, failure: Failure | None) -> None:
        if self.max_failures.exceeded(self.tally(), complete=not self._open):
            self.end(Stop("too-many", failure))
        if self.stop is not None and self.stop.kind == "too-many":
            # Left open, for a resume with a mended function to write, and waited for by nobody.
            left = {f.partition for f in self.lost}
            left |= {r.partition for r in self.pending if r.failed}
            self._open |= left
            self._failed |= left
            self._put([r for r in self.pending if not r.failed], [])

    @property
    def complete(self) -> bool:
        """Whether every partition is accounted for."""
        return not self._open

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do, not even a commit."""
        idle = not self.pending and not self.lost and self.in_flight is None
        return idle and (self.complete or self.drained)

    @property
    def drained(self) -> bool:
        """Whether a run that ends early waits for nothing any more."""
        if self.stop is None or self.draining is None:
            return False
        return not self._open.intersection(self.draining) - self._failed

    def due(self, now: float) -> bool:
        """Whether a commit should be made now."""
        if self.in_flight is not None or not (self.pending or self.lost):
            return False
        return self.complete or self.drained or self.wait(now) == 0.0

    def wait(self, now: float) -> float | None:
        """Return the seconds until a commit may be due by the clock; None for "not by the clock"."""
        if self.interval.inputs is not None:
            return 0.0 if self._pending_inputs >= self.interval.inputs else None
        if self.interval.seconds is None:
            return None
        return max(0.0, self._last_commit + self.interval.seconds - now)

    def take(self) -> Batch:
        """Hand out what the next commit holds; nothing else is handed out until it is settled."""
        self.in_flight = Batch(tuple(self.pending), tuple(self.lost))
        self._put([], [])
        return self.in_flight

    def _put(self, pending: list[Receipt], lost: list[Failure]) -> None:
        self.pending, self.lost = pending, lost
        self._pending_inputs = sum(receipt.inputs for receipt in pending)

    def committed(self, now: float) -> None:
        """Take in that the batch in flight is committed."""
        self.in_flight = None
        self.commits += 1
        self._last_commit = now

    def put_back(self) -> None:
        """Take in that the batch in flight could not be committed."""
        if self.in_flight is not None:
            receipts, lost = self.in_flight
            self.in_flight = None
            self._put([*receipts, *self.pending], [*lost, *self.lost])
