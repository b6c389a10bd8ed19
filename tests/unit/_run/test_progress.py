"""Due times of checkpoints, the limit on failures, and the partitions that a stopped run waits for."""

from __future__ import annotations

import pytest

from dasklake._model.commit import Plan, RunState
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._run.progress import CheckpointInterval, MaxFailures, RunProgress, Stop, Tally
from tests.support.lakes import failure

NEVER = MaxFailures(share=None)


def progress(
    partitions: int,
    interval: CheckpointInterval = CheckpointInterval(),  # noqa: B008 # frozen
    limit: MaxFailures = NEVER,
    *,
    inputs: int | None = None,
) -> RunProgress:
    """Make the progress of a first epoch, at time 0."""
    before = RunState(Plan(partitions, inputs, "0" * 32, None), 0)
    return RunProgress(range(partitions), interval, limit, before, 0.0)


def receipt(partition: int, rows: int = 10, failed: int = 0, *, whole: bool = False) -> Receipt:
    """Make a receipt; without inputs if the whole partition failed."""
    chunk = ChunkRef(0, rows, 100, 50, 1)
    inputs = 0 if whole else rows + failed
    failures = tuple(failure("run", partition, n) for n in range(failed))
    return Receipt("run", 1, partition, "ab" * 8, (chunk,), inputs, failures, failed=failed)


class TestDue:
    """Due times of commits."""

    def test_inputs(self) -> None:
        """A count includes failed input samples, and starts again after a commit."""
        run = progress(5, CheckpointInterval(inputs=25))
        run.received(receipt(0))
        assert not run.due(1e9)
        run.received(receipt(3, rows=5, failed=10))
        assert run.due(0.0)
        assert [r.partition for r in run.take().receipts] == [0, 3]
        run.received(receipt(1))
        run.committed(1.0)
        assert not run.due(1e9)

    def test_seconds(self) -> None:
        """Time counts from the last commit, and only with pending receipts."""
        run = progress(5, CheckpointInterval(seconds=60))
        assert not run.due(100.0)
        run.received(receipt(0))
        assert run.due(100.0)
        run.take()
        run.committed(130.0)
        run.received(receipt(1))
        assert (run.due(189.0), run.wait(180.0), run.due(190.0)) == (False, 10.0, True)

    def test_end(self) -> None:
        """Without checkpoints, a commit is due when the last partition is written."""
        run = progress(2)
        run.received(receipt(1))
        assert (run.due(1e9), run.wait(1e9), run.complete) == (False, None, False)
        run.received(receipt(0))
        assert (run.due(0.0), run.complete, run.ended) == (True, True, False)
        run.take()
        assert not run.due(0.0)
        run.committed(0.0)
        assert run.ended

    def test_one_at_a_time(self) -> None:
        """During a commit no other is due; receipts that arrive are part of the next one."""
        run = progress(3, CheckpointInterval(inputs=1))
        run.received(receipt(0))
        run.take()
        run.received(receipt(1))
        assert not run.due(0.0)
        run.committed(0.0)
        assert [r.partition for r in run.take().receipts] == [1]

    def test_put_back(self) -> None:
        """A failed commit is repeated together with newer receipts, in the order of arrival."""
        run = progress(3, CheckpointInterval(inputs=1))
        run.failed(failure("run", 2, 0))
        run.received(receipt(0))
        run.take()
        run.received(receipt(1))
        run.put_back()
        run.put_back()
        batch = run.take()
        assert [r.partition for r in batch.receipts] == [0, 1]
        assert [f.partition for f in batch.lost] == [2]
        assert run.commits == 0


class TestInputOrder:
    """Commits of the contiguous prefix only."""

    def ordered(self, partitions: int, limit: MaxFailures = NEVER) -> RunProgress:
        """Make the progress of a first epoch in the order of the input."""
        before = RunState(Plan(partitions, None, "0" * 32, None), 0)
        interval = CheckpointInterval(inputs=15)
        return RunProgress(range(partitions), interval, limit, before, 0.0, ordered=True)

    def test_straggler(self) -> None:
        """Partitions behind a slow one wait, do not count for the interval, and follow it."""
        run = self.ordered(5)
        for partition in (3, 1, 2):
            run.received(receipt(partition))
        assert not run.due(1e9)
        assert run.written_inputs == 30
        run.received(receipt(0))
        assert [r.partition for r in run.take().receipts] == [0, 1, 2, 3]
        run.committed(0.0)
        run.received(receipt(4))
        assert [r.partition for r in run.take().receipts] == [4]
        run.committed(0.0)
        assert run.ended

    def test_end_before_the_straggler(self) -> None:
        """A run that ends early commits its prefix, and leaves the receipts behind the gap."""
        run = self.ordered(4)
        run.received(receipt(0))
        run.received(receipt(2))
        run.end(Stop("failed", failure("run", 1, 0)))
        run.drain({1, 3})
        run.received(receipt(3))
        assert [r.partition for r in run.take().receipts] == [0]
        run.committed(0.0)
        assert (run.ended, run.complete) == (True, False)

    def test_skipped_partition(self) -> None:
        """A partition that failed as a whole is complete, and is committed in its turn."""
        run = self.ordered(3)
        run.failed(failure("run", 1, 0))
        run.received(receipt(2))
        assert not run.lost
        run.received(receipt(0))
        batch = run.take()
        assert [r.partition for r in batch.receipts] == [0, 2]
        assert [f.partition for f in batch.lost] == [1]

    def test_too_many_failures(self) -> None:
        """Failed partitions that are left for a resume are gaps, which later partitions wait for."""
        run = self.ordered(4, MaxFailures(count=1))
        run.received(receipt(0))
        run.received(receipt(1, failed=1))
        run.received(receipt(2))
        run.received(receipt(3, failed=1))
        run.drain(())
        assert [r.partition for r in run.take().receipts] == [0]
        run.committed(0.0)
        assert run.ended


class TestStopped:
    """Runs that end early."""

    def test_waits_to_be_drained(self) -> None:
        """A stopped run ends once its running partitions are known and have arrived."""
        run = progress(3)
        run.end(Stop("cancelled"))
        assert not run.ended
        run.drain({1})
        assert not run.ended
        run.received(receipt(1))
        assert (run.due(0.0), run.ended) == (True, False)
        run.take()
        run.committed(0.0)
        assert run.ended

    def test_nothing_runs(self) -> None:
        """A run that was stopped without running tasks ends at once."""
        run = progress(3)
        run.drain(())
        assert not run.ended
        run.end(Stop("cancelled"))
        assert run.ended

    def test_those_that_failed(self) -> None:
        """Failed partitions are not awaited, whatever ended the run first."""
        run = progress(3)
        run.end(Stop("cancelled"))
        run.drain({0, 1})
        ended = []
        for partition in (0, 1):
            run.end(Stop("failed", failure("run", partition, 0)))
            ended.append(run.ended)
        assert ended == [False, True]
        assert run.stop == Stop("cancelled")

    def test_those_that_are_left_for_a_resume(self) -> None:
        """After too many failures, failed partitions are neither committed nor awaited."""
        run = progress(4, limit=MaxFailures(count=1))
        run.received(receipt(0))
        run.received(receipt(1, failed=1))
        run.received(receipt(2, failed=1))
        assert run.stop is not None
        assert run.stop.kind == "too-many"
        run.drain({0, 1, 2, 3})
        run.received(receipt(3, failed=4))
        assert run.due(0.0)
        assert [r.partition for r in run.take().receipts] == [0]
        run.committed(0.0)
        assert (run.ended, run.complete) == (True, False)


class TestTakingIn:
    """Receipts that count, and those that do not."""

    def test_first_one_counts(self) -> None:
        """Of several attempts at a partition the first one counts, failures included."""
        run = progress(2)
        assert run.received(receipt(0))
        assert not run.received(receipt(0))
        assert not run.failed(failure("run", 0, 0))
        assert run.failed(failure("run", 1, 0))
        assert not run.received(receipt(1))
        assert (run.written_inputs, run.failures) == (10, 1)

    @pytest.mark.parametrize(("epoch", "taken"), [(1, False), (2, True), (3, True), (4, False)])
    def test_epochs(self, epoch: int, *, taken: bool) -> None:
        """Receipts of open epochs up to one's own count."""
        before = RunState(Plan(1, None, "0" * 32, None), 0, epoch=3, closed=1)
        run = RunProgress([0], CheckpointInterval(), NEVER, before, 0.0)
        receipt_of_epoch = Receipt("run", epoch, 0, "ab" * 8, (), 1)
        assert run.received(receipt_of_epoch) is taken


class TestTooMany:
    """The limit on failures."""

    @pytest.mark.parametrize(
        ("limit", "tally", "complete", "exceeded"),
        [
            (MaxFailures(count=2), Tally(2, 0, 2, 2), True, False),
            (MaxFailures(count=2), Tally(3, 900, 903, 3), False, True),
            (MaxFailures(count=0), Tally(0, 0, 0, 0), True, False),
            (MaxFailures(share=None), Tally(10**6, 0, 10**6, 10**6), True, False),
            (MaxFailures(share=0.01), Tally(99, 900, 999, 99), False, False),
            (MaxFailures(share=0.01), Tally(10, 990, 1000, 10), False, False),
            (MaxFailures(share=0.01), Tally(11, 989, 1000, 11), False, True),
            (MaxFailures(share=0.01), Tally(1, 0, 1, 1), True, True),
            (MaxFailures(share=0.01), Tally(1, 0, 1, 1), False, False),
            (MaxFailures(share=0.01), Tally(99, 0, 99, 99), False, False),
            (MaxFailures(share=0.01), Tally(100, 0, 100, 100), False, True),
            (MaxFailures(share=1.0), Tally(5, 1, 6, 5), True, False),
            (MaxFailures(share=1.0), Tally(5000, 0, 5000, 5000), False, False),
            (MaxFailures(share=1.0), Tally(5000, 0, 5000, 5000), True, True),
        ],
    )
    def test_limits(
        self, limit: MaxFailures, tally: Tally, *, complete: bool, exceeded: bool
    ) -> None:
        """A count applies at once and a fraction later, but a run without any sample always fails."""
        assert limit.exceeded(tally, complete=complete) is exceeded

    def test_earlier_epochs_count(self) -> None:
        """Counts of earlier epochs are part of the limit and of the written samples."""
        before = RunState(Plan(3, None, "0" * 32, None), 0, failures=2, inputs=50, samples=48)
        run = RunProgress([2], CheckpointInterval(), MaxFailures(count=2), before, 0.0)
        run.received(receipt(2, rows=9, failed=1))
        assert run.stop is not None
        assert run.tally() == Tally(3, 57, 60, 3)

    @pytest.mark.parametrize(("inputs", "size"), [(400, 100), (None, 10), (2, 1)])
    def test_whole_partitions(self, inputs: int | None, size: int) -> None:
        """A partition that failed as a whole counts with the average size of partitions."""
        run = progress(4, inputs=inputs)
        run.received(receipt(0))
        run.received(receipt(1, rows=0, failed=1, whole=True))
        run.failed(failure("run", 2, 0))
        assert run.tally() == Tally(2, 10, 10 + 2 * size, 2 * size)
