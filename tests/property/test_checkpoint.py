"""Test the state of a run under any order of receipts, failures, time, stops and lost commits."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dasklake._model.commit import Plan, RunState
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake._run.progress import Batch, CheckpointInterval, MaxFailures, RunProgress, Stop, Tally
from tests.support.lakes import failure

PARTITIONS = 8
partitions = st.integers(0, PARTITIONS - 1)
#: Exact in binary, so that their sums are exact.
quarters = st.integers(1, 40).map(lambda n: n / 4)
subsets = st.sets(partitions)
everies = st.one_of(
    st.just(CheckpointInterval()),
    st.builds(CheckpointInterval, inputs=st.integers(1, 30)),
    st.builds(CheckpointInterval, seconds=quarters),
)
limits = st.one_of(
    st.just(MaxFailures(share=None)),
    st.builds(MaxFailures, count=st.integers(0, 5)),
    st.builds(
        MaxFailures,
        share=st.floats(0, 1),
        after=st.integers(0, 60),
        none=st.integers(1, 9),
    ),
)


class Progress(RuleBasedStateMachine):
    """A run in progress, compared with a simple model of it."""

    @initialize(
        missing=subsets,
        interval=everies,
        limit=limits,
        closed=st.integers(0, 2),
        epoch=st.integers(3, 4),
        ordered=st.booleans(),
    )
    def begin(
        self,
        missing: set[int],
        interval: CheckpointInterval,
        limit: MaxFailures,
        closed: int,
        epoch: int,
        *,
        ordered: bool,
    ) -> None:
        """Begin an epoch with missing partitions."""
        plan = Plan(PARTITIONS, None, "0" * 32, None)
        self.before = RunState(plan, 0, epoch=epoch, closed=closed, inputs=10, samples=9)
        self.now = self.clock = 1000.0
        self.interval, self.limit, self.missing = interval, limit, missing
        self.progress = RunProgress(missing, interval, limit, self.before, self.now, ordered)
        self.ordered = ordered
        #: The valid receipt or failure of each partition, in order of arrival.
        self.taken: dict[int, Receipt | Failure] = {}
        #: All accepted receipts and failures.
        self.history: list[Receipt | Failure] = []
        self.committed: list[int] = []
        self.flying: Batch | None = None
        self.draining: set[int] | None = None
        self.hopeless: set[int] = set()
        self.stop: Stop | None = None

    @property
    def open(self) -> set[int]:
        """Partitions without a receipt or failure."""
        return self.missing - self.taken.keys()

    @property
    def waiting(self) -> list[int]:
        """Accepted partitions that may be committed, in the order of the next commit."""
        waiting = [p for p in self.uncommitted if p < self.frontier]
        return sorted(waiting) if self.ordered else waiting

    @property
    def frontier(self) -> int:
        """Partition before which commits end."""
        return min(self.open, default=PARTITIONS) if self.ordered else PARTITIONS

    @property
    def uncommitted(self) -> list[int]:
        """Accepted partitions that are in no commit, in order of arrival."""
        flying = partitions_of(self.flying) if self.flying else []
        return [p for p in self.taken if p not in self.committed and p not in flying]

    def tally(self) -> Tally:
        """Return the totals of the model."""
        receipts = [outcome for outcome in self.history if isinstance(outcome, Receipt)]
        whole = len(self.history) - len(receipts)
        whole += sum(1 for r in receipts if r.failed and not r.inputs)
        failed = sum(r.failed for r in receipts) + len(self.history) - len(receipts)
        inputs = self.before.inputs + sum(r.inputs for r in receipts)
        size = max(1, inputs // max(1, PARTITIONS - len(self.open) - whole))
        samples = self.before.samples + sum(r.samples for r in receipts)
        return Tally(failed, samples, inputs + whole * size, failed - whole + whole * size)

    def take_in(self, partition: int, outcome: Receipt | Failure) -> None:
        """Record an accepted receipt or failure, and check the failure limit."""
        self.taken[partition] = outcome
        self.history.append(outcome)
        if self.stop is None and self.limit.exceeded(self.tally(), complete=not self.open):
            self.stop = self.progress.stop
            assert self.stop is not None
            assert self.stop.kind == "too-many"
        if self.stop is not None and self.stop.kind == "too-many":
            for waiting in self.uncommitted:
                if has_failures(self.taken[waiting]):
                    del self.taken[waiting]
                    self.hopeless.add(waiting)

    @rule(
        partition=st.integers(0, PARTITIONS + 1),
        epoch=st.integers(0, 5),
        rows=st.integers(0, 9),
        failed=st.integers(0, 3),
        whole=st.booleans(),
    )
    def receipt(self, partition: int, epoch: int, rows: int, failed: int, *, whole: bool) -> None:
        """Deliver a receipt, possibly of a finished partition or a repeated one."""
        rows, inputs = (0, 0) if whole else (rows, rows + failed)
        chunk = ChunkRef(0, rows, 100, 50, 1)
        receipt = Receipt("run", epoch, partition, "ab" * 8, (chunk,), inputs, failed=failed)
        accepted = partition in self.open and self.before.closed < epoch <= self.before.epoch
        assert self.progress.received(receipt) is accepted
        if accepted:
            self.take_in(partition, receipt)

    @rule(partition=partitions)
    def record_failure(self, partition: int) -> None:
        """Skip a partition that failed as a whole."""
        skipped = failure("run", partition, 0)
        accepted = partition in self.open
        assert self.progress.failed(skipped) is accepted
        if accepted:
            self.take_in(partition, skipped)

    @rule(kind=st.sampled_from(["failed", "cancelled", "lost"]), partition=partitions)
    def end(self, kind: str, partition: int) -> None:
        """End the run for a reason."""
        stop = Stop(kind, failure("run", partition, 0) if kind == "failed" else None)
        self.progress.end(stop)
        self.stop = self.stop or stop
        if kind == "failed":
            self.hopeless.add(partition)

    @precondition(lambda self: self.stop is not None)
    @rule(running=subsets)
    def drain(self, running: set[int]) -> None:
        """Report the running partitions."""
        self.progress.drain(frozenset(running))
        self.draining = running

    @rule(seconds=quarters)
    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @precondition(lambda self: self.progress.due(self.now))
    @rule()
    def take(self) -> None:
        """Begin a due commit: it gets all waiting partitions once, in order of arrival."""
        waiting = self.waiting
        batch = self.progress.take()
        assert sorted(partitions_of(batch)) == sorted(waiting)
        assert list(batch.receipts) == [self.taken[p] for p in waiting if self.is_receipt(p)]
        assert list(batch.lost) == [self.taken[p] for p in waiting if not self.is_receipt(p)]
        self.flying = batch

    def is_receipt(self, partition: int) -> bool:
        """Return whether the partition has a receipt."""
        return isinstance(self.taken[partition], Receipt)

    @precondition(lambda self: self.flying is not None)
    @rule()
    def land(self) -> None:
        """Land the commit."""
        assert self.flying is not None
        self.committed += partitions_of(self.flying)
        self.flying = None
        self.clock = self.now
        self.progress.committed(self.now)

    @precondition(lambda self: self.flying is not None)
    @rule()
    def fail(self) -> None:
        """Lose the commit; its partitions are committed again before all others."""
        back = partitions_of(self.flying)
        self.flying = None
        self.taken = {p: self.taken[p] for p in [*back, *(p for p in self.taken if p not in back)]}
        self.progress.put_back()

    @invariant()
    def never_twice(self) -> None:
        """Check that no partition is committed twice or without a receipt."""
        assert len(set(self.committed)) == len(self.committed)
        assert set(self.committed) <= self.taken.keys() <= self.missing
        assert self.progress.stop == self.stop

    @invariant()
    def commits_a_prefix(self) -> None:
        """Check that the commits in the order of the input are a prefix of the missing partitions."""
        if self.ordered:
            assert sorted(self.missing)[: len(self.committed)] == sorted(self.committed)

    @invariant()
    def due_with_something(self) -> None:
        """Check that a commit is due exactly if partitions wait, no commit is in flight, and its time has come."""
        waiting = self.waiting
        inputs = sum(r.inputs for p in waiting if isinstance(r := self.taken[p], Receipt))
        time = {
            self.interval.inputs is not None and inputs >= self.interval.inputs,
            self.interval.seconds is not None and self.now - self.clock >= self.interval.seconds,
            not self.open,
            self.over(),
        }
        due = bool(waiting) and self.flying is None and True in time
        assert self.progress.due(self.now) == due

    @invariant()
    def wakes_in_time(self) -> None:
        """Check that a commit is due after the announced delay, if it depends on time."""
        wait = self.progress.wait(self.now)
        if wait is not None and self.waiting and self.flying is None:
            assert self.progress.due(self.now + wait)

    @invariant()
    def ended_with_nothing(self) -> None:
        """Check that the run has ended exactly if no partition waits or can still arrive."""
        idle = not self.waiting and self.flying is None
        assert self.progress.complete == (not self.open)
        assert self.progress.ended == (idle and (not self.open or self.over()))

    @invariant()
    def counts(self) -> None:
        """Check that the reported counts equal those of the accepted receipts."""
        receipts = [outcome for outcome in self.history if isinstance(outcome, Receipt)]
        assert self.progress.written_inputs == sum(r.inputs for r in receipts)
        assert self.progress.written_samples == sum(r.samples for r in receipts)
        assert self.progress.tally() == self.tally()

    def over(self) -> bool:
        """Return whether a stopped run waits for no more partitions."""
        if self.stop is None or self.draining is None:
            return False
        return self.draining & self.open <= self.hopeless

    def teardown(self) -> None:
        """End the run: all accepted partitions that may be committed are committed."""
        if not hasattr(self, "progress"):
            return
        self.progress.end(Stop("cancelled"))
        self.progress.drain(())
        while not self.progress.ended:
            if self.progress.in_flight is None:
                assert self.progress.due(self.now)
                self.progress.take()
            self.committed += partitions_of(self.progress.in_flight)
            self.progress.committed(self.now)
        assert sorted(self.committed) == sorted(p for p in self.taken if p < self.frontier)
        assert not self.progress.due(self.now)


def has_failures(outcome: Receipt | Failure) -> bool:
    """Return whether a sample or the whole partition failed."""
    return isinstance(outcome, Failure) or outcome.failed > 0


def partitions_of(batch: Batch | None) -> list[int]:
    """Return the partitions in a batch."""
    assert batch is not None
    return [r.partition for r in batch.receipts] + [f.partition for f in batch.lost]


TestProgress = Progress.TestCase
