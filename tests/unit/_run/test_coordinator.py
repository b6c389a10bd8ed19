"""Commits of the coordinator: their content, their time, and the handling of failures."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from dasklake._log.log import Log
from dasklake._model.receipt import Failure
from dasklake._run import coordinator as module
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake._write.job import Outcome
from dasklake.exceptions import (
    LakeError,
    RunFailedError,
    StoreError,
    TooManyFailuresError,
    TransformError,
)
from tests.support.flaky import Fault, FlakyStore
from tests.support.lakes import SmallLake, failure
from tests.support.unsteady import LOG, PATIENCE, MakeLead, committed


class TestCommits:
    """Content and time of commits."""

    def test_whole_run(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Without checkpoints, a run makes one commit at its end."""
        run = lead(3).start()
        run.write(2, 0)
        assert run.coordinator.status().commits == 0
        run.write(1)
        status = run.end()
        assert (status.problem, status.commits, status.version) == (
            None,
            1,
            flaky_lake.head.version,
        )
        assert (status.partitions, status.of, status.samples, status.committed) == (3, 3, 9, 9)
        assert status.size == flaky_lake.head.totals.size
        assert flaky_lake.head.runs["run"].finished
        assert committed(flaky_lake) == [0, 1, 2]

    def test_log_lines(self, lead: MakeLead, caplog: pytest.LogCaptureFixture) -> None:
        """Each checkpoint and the end of a run are logged with run, version and counts."""
        caplog.set_level(logging.INFO, "dasklake")
        run = lead(2, interval=CheckpointInterval(inputs=1)).start()
        run.write(0)
        run.until(lambda s: s.commits == 1)
        run.write(1)
        run.end()
        assert [text for name, _, text in caplog.record_tuples if name == module.__name__] == [
            "Run 'run': checkpoint, version 2, 1 of 2 partitions, 3 samples, 0 failures",
            "Run 'run': checkpoint, version 3, 2 of 2 partitions, 6 samples, 0 failures",
            "Run 'run' ended: finished, version 3, 2 of 2 partitions, 6 samples, 0 failures",
        ]

    def test_log_line_of_a_failure(self, lead: MakeLead, caplog: pytest.LogCaptureFixture) -> None:
        """The end of a run that failed is logged with the type of its error."""
        caplog.set_level(logging.INFO, "dasklake")
        run = lead(2).start()
        run.fail(0, ValueError("bad"))
        run.coordinator.drain()
        run.end()
        assert "Run 'run' ended: TransformError, version 1, 0 of 2 partitions" in caplog.text

    def test_interval_of_inputs(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """A checkpoint is made as soon as the given number of input samples is complete."""
        run = lead(4, interval=CheckpointInterval(inputs=6)).start()
        run.write(3)
        assert run.coordinator.status().commits == 0
        run.write(1)
        assert run.until(lambda s: s.commits == 1).partitions == 2
        assert committed(flaky_lake) == [1, 3]
        run.write(0, 2)
        assert run.end().commits == 2

    def test_interval_of_time(self, lead: MakeLead) -> None:
        """A checkpoint is made after the given time, even if nothing else happens."""
        run = lead(3, interval=CheckpointInterval(seconds=0.05)).start()
        for partition in range(2):
            run.write(partition)
            run.until(lambda s, expected=partition + 1: s.partitions == expected)  # type: ignore[misc] # bound early
        run.write(2)
        assert run.end().commits == 3

    def test_lost_partitions_after_an_interval(self, lead: MakeLead) -> None:
        """Failed partitions are committed after the given time too, even without any receipt."""
        run = lead(2, interval=CheckpointInterval(seconds=0.05), skip=True).start()
        run.coordinator.record_failure(failure("run", 1, 0), ValueError())
        assert run.until(lambda s: s.partitions == 1).failures == 1
        run.write(0)
        assert run.end().problem is None

    def test_a_slow_commit_holds_nobody_up(
        self, lead: MakeLead, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """Receipts that arrive during a commit are part of the next one."""
        begun, go = threading.Event(), threading.Event()

        def hold() -> None:
            begun.set()
            assert go.wait(PATIENCE)

        run = lead(4, interval=CheckpointInterval(inputs=1)).start()
        flaky_store.at("create", hold, LOG)
        run.write(0)
        assert begun.wait(PATIENCE)
        run.write(1, 2, 3)
        status = run.coordinator.status()
        assert (status.running, status.written, status.committed) == (True, 12, 0)
        go.set()
        assert run.end().commits == 2
        kinds = [c.progress.partitions for c in Log(flaky_store).walk(2) if c.progress]
        assert kinds == [1, 4]
        assert committed(flaky_lake) == [0, 1, 2, 3]

    def test_first_receipt_counts(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """A second attempt at a partition is ignored, even after the first was committed."""
        run = lead(2, interval=CheckpointInterval(inputs=1)).start()
        run.write(0, 0)
        run.until(lambda s: s.partitions == 1)
        run.write(0, 1, 1)
        assert run.end().samples == 6
        assert committed(flaky_lake) == [0, 1]

    def test_strangers(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Receipts of partitions that are not missing, or of other epochs, are ignored."""
        run = lead(3, missing=(1, 2)).start()
        own = flaky_lake.write(run.writer, 1)
        for receipt in (flaky_lake.write(run.writer, 0), replace(own, epoch=2), own):
            run.coordinator.deliver(Outcome(receipt))
        run.write(2)
        status = run.end()
        assert committed(flaky_lake) == [1, 2]
        assert isinstance(status.problem, RunFailedError)
        assert "resume" in str(status.problem)

    def test_failures_are_kept(self, lead: MakeLead, flaky_store: FlakyStore) -> None:
        """Failures of a partition are committed with it, including those in a separate object."""
        run = lead(2).start()
        inline = (failure("run", 0, 7),)
        receipt = run.lake.write(run.writer, 0)
        run.coordinator.deliver(Outcome(replace(receipt, failures=inline, failed=1)))
        run.write(1, failures=12)
        assert run.end().failures == 13
        log = Log(flaky_store)
        assert len(log.failures(log.require_head())) == 13

    def test_answer_lost(self, lead: MakeLead, flaky_store: FlakyStore) -> None:
        """A commit whose response is lost is made once."""
        run = lead(1).start()
        flaky_store.fail("create", Fault.AFTER, LOG)
        run.write(0)
        assert (run.end().commits, len(list(Log(flaky_store).walk(2)))) == (1, 1)


class TestFailures:
    """Partitions that failed outside their write task, and the limit on them."""

    def test_skipped(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """A skipped partition counts as written, is empty, and is in the failures table."""
        run = lead(2, skip=True).start()
        lost = Failure("run", 1, None, None, None, None, "ValueError", "bad", "trace")
        run.coordinator.record_failure(lost, ValueError("bad"))
        run.write(0)
        assert run.end().problem is None
        head = flaky_lake.head
        assert (head.totals.samples, head.totals.chunks, head.totals.failures) == (3, 2, 1)
        assert Log(flaky_lake.store).failures(head) == [lost]
        assert committed(flaky_lake) == [0, 1]

    @pytest.mark.parametrize(
        ("skip", "fatal", "error", "raised"),
        [
            (False, False, ValueError("bad"), TransformError),
            (True, True, ValueError("bad"), TransformError),
            (True, False, MemoryError(), TransformError),
            (True, False, StoreError("no. Look."), StoreError),
        ],
    )
    def test_not_skipped(
        self,
        lead: MakeLead,
        flaky_lake: SmallLake,
        *,
        skip: bool,
        fatal: bool,
        error: Exception,
        raised: type[LakeError],
    ) -> None:
        """Nothing is skipped without on_error='skip', and errors of the system never are."""
        run = lead(2, skip=skip).start()
        run.coordinator.record_failure(failure("run", 1, 0), error, fatal=fatal)
        run.coordinator.drain()
        assert type(run.end().problem) is raised
        assert committed(flaky_lake) == []

    def test_too_many(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Too many failures end the run; the failed partitions are left for a resume."""
        run = lead(4, skip=True, max_failures=MaxFailures(count=2)).start()
        run.write(0, 1)
        run.write(2, failures=3)
        assert run.coordinator.stopping
        run.coordinator.drain({3})
        run.write(3, failures=1)
        problem = run.end().problem
        assert isinstance(problem, TooManyFailuresError)
        assert "resume" in str(problem)
        assert committed(flaky_lake) == [0, 1]

    def test_too_many_at_the_very_end(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """A limit that is exceeded with the last partition is reported, even if that one is good."""
        limit = MaxFailures(share=0.1, after=8)
        run = lead(2, skip=True, max_failures=limit, interval=CheckpointInterval(inputs=1)).start()
        run.write(0, failures=2)
        run.until(lambda s: s.partitions == 1)
        run.write(1)
        problem = run.end().problem
        assert isinstance(problem, TooManyFailuresError)
        assert "finished" in str(problem)
        assert flaky_lake.head.runs["run"].finished

    def test_storage_that_fails(
        self, lead: MakeLead, flaky_store: FlakyStore, flaky_lake: SmallLake
    ) -> None:
        """Retries cover the empty chunks of lost partitions and the reading of long failure lists."""
        run = lead(2, skip=True).start()
        run.coordinator.record_failure(failure("run", 1, 0), ValueError("bad"))
        receipt = flaky_lake.write(run.writer, 0, failures=9)
        flaky_store.fail("put", Fault.BEFORE, "data/")
        flaky_store.fail("get", Fault.BEFORE, "data/")
        run.coordinator.deliver(Outcome(receipt))
        status = run.end()
        assert (status.problem, status.failures) == (None, 10)
