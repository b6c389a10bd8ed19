"""Life and outcomes of the coordinator: every wait ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from dasklake._log.heartbeat import newest_heartbeat
from dasklake._log.log import Log
from dasklake._log.run_entries import abort
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import Kind
from dasklake._run import coordinator as module
from dasklake._run.coordinator import (
    commit_recovered,
    load_failures,
)
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake.exceptions import (
    LakeError,
    ObjectNotFoundError,
    RunAbortedError,
    RunFailedError,
    RunLostError,
    RunSupersededError,
    SchemaError,
    StoreError,
    TooManyFailuresError,
    TransformError,
    VersionNotFoundError,
)
from tests.support.flaky import Fault, FlakyStore
from tests.support.lakes import SmallLake, failure
from tests.support.unsteady import LOG, PATIENCE, MakeLead, committed


class TestEndings:
    """Outcomes of runs that do not finish."""

    @pytest.mark.parametrize(
        ("kind", "error", "raised"),
        [
            ("cancelled", None, RunFailedError),
            ("lost", None, RunLostError),
            ("interrupted", SystemExit("enough"), SystemExit),
            ("failed", SchemaError("no. Look."), SchemaError),
        ],
    )
    def test_kinds(
        self,
        lead: MakeLead,
        flaky_lake: SmallLake,
        kind: str,
        error: BaseException | None,
        raised: type[BaseException],
    ) -> None:
        """Each reason has its exception; complete partitions are committed and reported."""
        run = lead(3).start()
        run.write(1)
        run.coordinator.stop(kind, error)
        run.coordinator.drain()
        problem = run.end().problem
        assert type(problem) is raised
        assert error is not None or "mode='resume', run='run'" in str(problem)
        assert committed(flaky_lake) == [1]

    def test_failed_sample(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """The exception names the failed sample and the committed progress, and has the cause."""
        run = lead(3).start()
        run.write(1)
        cause = ValueError("bad")
        run.fail(2, cause)
        assert run.coordinator.stopping
        run.coordinator.drain()
        status = run.end()
        problem = status.problem
        assert isinstance(problem, TransformError)
        assert (problem.partition, problem.position, problem.samples_processed) == (2, 3, 3)
        assert status.cause is cause
        assert committed(flaky_lake) == [1]

    def test_first_reason_counts(self, lead: MakeLead) -> None:
        """The first reason ends the run."""
        run = lead(2).start()
        run.coordinator.stop("cancelled")
        run.coordinator.stop("lost")
        run.coordinator.drain()
        assert "cancelled" in str(run.end().problem)

    def test_running_tasks_are_waited_for(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Tasks that are running when a run is stopped are committed as well."""
        run = lead(4).start()
        run.write(0)
        run.coordinator.stop("cancelled")
        run.coordinator.drain({1, 2})
        run.write(1)
        assert run.coordinator.wait(0).running
        run.write(2)
        assert not run.end().running
        assert committed(flaky_lake) == [0, 1, 2]

    def test_failing_tasks_are_not_waited_for(self, lead: MakeLead) -> None:
        """If the running tasks fail as well, the run ends at once."""
        run = lead(4).start()
        run.fail(0, ValueError("bad"))
        run.coordinator.drain({1, 2})
        run.fail(1, ValueError("bad"))
        run.coordinator.record_failure(failure("run", 2, 0), ValueError("bad"))
        assert isinstance(run.end().problem, TransformError)

    def test_waiting_has_an_end(
        self, lead: MakeLead, flaky_lake: SmallLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A task that never returns is abandoned after a time limit."""
        monkeypatch.setattr(module, "_DRAIN", 0.05)
        run = lead(3).start()
        run.write(0)
        run.coordinator.stop("cancelled")
        run.coordinator.drain({1})
        assert isinstance(run.end().problem, RunFailedError)
        assert committed(flaky_lake) == [0]

    def test_finished_all_the_same(self, lead: MakeLead) -> None:
        """A run that was stopped while its last partitions arrived is finished, not failed."""
        run = lead(2).start()
        run.write(0)
        run.coordinator.stop("cancelled")
        run.coordinator.drain({1})
        run.write(1)
        assert run.end().problem is None

    def test_after_the_end(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Receipts that arrive after the end are not committed."""
        run = lead(2).start()
        run.coordinator.stop("cancelled")
        run.coordinator.drain()
        head = run.end().version
        run.write(0, 1)
        run.coordinator.stop("lost")
        run.coordinator.drain({0})
        assert not run.coordinator.wait(PATIENCE).running
        assert flaky_lake.head.version == head


class TestStorage:
    """Failing storage, and other writers."""

    def test_failing_for_a_while(
        self,
        lead: MakeLead,
        flaky_lake: SmallLake,
        flaky_store: FlakyStore,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """While the storage fails, status, heartbeat and log give the reason; then commits are made."""
        reasons: list[str | None] = []
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
        run = lead(1).start()

        def observe() -> None:
            reasons.append(run.coordinator.status().delayed)
            # This commit is made only once the heartbeat has the reason for the delay.
            deadline = time.monotonic() + PATIENCE
            while not (beat := newest_heartbeat(flaky_store, "main", "run")) or not beat.trouble:
                assert time.monotonic() < deadline
            reasons.append(beat.trouble)

        flaky_store.fail("create", Fault.BEFORE, LOG)
        flaky_store.at("create", observe, LOG)
        run.write(0)
        status = run.end()
        assert "no answer to create" in str(reasons[0])
        assert reasons[1] == reasons[0]
        assert f"Run 'run': commits are late: {reasons[0]}" in caplog.text
        assert (status.problem, status.delayed) == (None, None)
        assert committed(flaky_lake) == [0]

    def test_permanent_failure(
        self,
        lead: MakeLead,
        flaky_lake: SmallLake,
        flaky_store: FlakyStore,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A run that is stopped while the storage fails stops retrying soon."""
        monkeypatch.setattr(module, "_INSIST", 0.05)
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
        run = lead(2).start()
        flaky_store.broken = "_lake/segments"
        run.write(0)
        run.coordinator.stop("cancelled")
        run.coordinator.drain()
        assert isinstance(run.end().problem, StoreError)
        flaky_store.broken = ""
        assert committed(flaky_lake) == []

    @pytest.mark.parametrize(
        ("interfere", "raised"),
        [
            (lambda lake: lake.resume("run"), RunSupersededError),
            (lambda lake: abort(Log(lake.store), lake.head, ["run"]), RunAbortedError),
        ],
        ids=["resumed", "reset"],
    )
    def test_another_writer(
        self,
        lead: MakeLead,
        flaky_lake: SmallLake,
        interfere: Callable[[SmallLake], object],
        raised: type[LakeError],
    ) -> None:
        """A coordinator that finds its epoch ended reports it and never commits again."""
        run = lead(3, interval=CheckpointInterval(inputs=1)).start()
        interfere(flaky_lake)
        before = flaky_lake.head
        run.write(0)
        assert isinstance(run.end().problem, raised)
        assert run.coordinator.stopping
        run.write(1, 2)
        assert flaky_lake.head == before

    def test_finished_by_another(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """If another coordinator has finished the run, the outcome is success."""
        run = lead(1).start()
        other = flaky_lake.resume("run")
        other.commit([flaky_lake.write(other, 0)], [])
        run.write(0)
        status = run.end()
        assert (status.problem, status.version) == (None, flaky_lake.head.version)
        assert committed(flaky_lake) == [0]

    def test_corruption(self, lead: MakeLead, flaky_store: FlakyStore) -> None:
        """An error of the lake ends the run unchanged."""
        run = lead(1).start()
        flaky_store.put(f"{LOG}/000000/{2:020d}.json", b"junk")
        run.write(0)
        problem = run.end().problem
        assert isinstance(problem, LakeError)
        assert problem.code == "corruption"

    def test_unexpected_error(self, lead: MakeLead, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unexpected error ends the run and is the cause of the exception."""
        run = lead(1).start()
        mistake = RuntimeError("what?")

        def fail(*_: object) -> None:
            raise mistake

        monkeypatch.setattr(RunWriter, "commit", fail)
        run.write(0)
        status = run.end()
        assert isinstance(status.problem, RunFailedError)
        assert status.cause is mistake

    def test_owner_that_fails(self, lead: MakeLead) -> None:
        """A callback that fails in the commit thread ends the run, and no wait lasts forever."""
        run = lead(2, interval=CheckpointInterval(inputs=1))
        calls: list[int] = []

        def fail() -> None:
            if threading.current_thread().name.startswith("dasklake-") and not calls:
                calls.append(1)
                raise RuntimeError("owner")

        run.coordinator.on_change = fail
        run.start().write(0)
        assert isinstance(run.end().problem, RunFailedError)


class TestLife:
    """Start, heartbeats, and waiting."""

    def test_entry_is_not_there(self, lead: MakeLead) -> None:
        """If the storage does not show the entry, no thread is started."""
        run = lead(1)
        entry = replace(run.assignment.entry, version=99)
        run.coordinator.assignment = replace(run.assignment, entry=entry)
        with pytest.raises(VersionNotFoundError):
            run.start()
        assert run.coordinator._threads == []
        run.coordinator.join()

    def test_storage_cannot_be_written(self, lead: MakeLead, flaky_store: FlakyStore) -> None:
        """If the storage cannot be written, no thread is started."""
        run = lead(1)
        flaky_store.broken = "_lake/runs"
        with pytest.raises(StoreError):
            run.start()
        assert run.coordinator._threads == []

    def test_beats(
        self, lead: MakeLead, flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It writes a heartbeat before it starts, then regularly, and a last one when it stops."""
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
        beaten = threading.Event()
        run = lead(2).start()
        first = newest_heartbeat(flaky_store, "main", "run")
        assert first is not None
        assert (first.epoch, first.state) == (1, "running")
        flaky_store.fail("put", Fault.BEFORE, "_lake/runs")
        run.write(1)
        flaky_store.at("put", beaten.set, "_lake/runs", skip=3)
        assert beaten.wait(PATIENCE)
        later = newest_heartbeat(flaky_store, "main", "run")
        assert later is not None
        assert later.coordinator == first.coordinator
        assert (later.counter > first.counter, later.inputs) == (True, 3)
        run.coordinator.stop("cancelled")
        run.coordinator.drain()
        run.end()
        last = newest_heartbeat(flaky_store, "main", "run")
        assert last is not None
        assert last.state == "stopped"

    def test_finished_run_leaves_no_heartbeat(
        self, lead: MakeLead, flaky_store: FlakyStore
    ) -> None:
        """The heartbeat of a run is deleted when the run is finished."""
        run = lead(1).start()
        run.write(0)
        run.end()
        assert flaky_store.walk("_lake/runs") == []

    def test_wait_has_a_limit(self, lead: MakeLead) -> None:
        """A wait ends after its timeout, with the current status."""
        run = lead(1).start()
        assert run.coordinator.wait(0.01).running

    def test_recovered(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Recovered partitions are committed together with written ones."""
        run = lead(2)
        recovered = (flaky_lake.write(run.writer, 1),)
        run.coordinator.assignment = replace(run.assignment, missing=(0,), recovered=recovered)
        run.start().write(0)
        assert run.end().problem is None
        assert committed(flaky_lake) == [0, 1]

    def test_everything_recovered(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """A run whose missing partitions are all recovered is committed and finished at once."""
        run = lead(2)
        recovered = tuple(flaky_lake.write(run.writer, p) for p in (1, 0))
        status = commit_recovered(replace(run.assignment, missing=(), recovered=recovered))
        assert (status.running, status.problem, status.commits) == (False, None, 1)
        assert committed(flaky_lake) == [0, 1]

    def test_too_many_recovered_failures(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Too many failures in recovered partitions end the run without a wait."""
        run = lead(2, max_failures=MaxFailures(count=1))
        recovered = tuple(flaky_lake.write(run.writer, p, failures=p) for p in (0, 1, 2))
        status = commit_recovered(replace(run.assignment, missing=(), recovered=recovered))
        assert isinstance(status.problem, TooManyFailuresError)

    def test_nothing_missing(self, lead: MakeLead, flaky_lake: SmallLake) -> None:
        """Without missing partitions the run ends at once, and only the log decides about success."""
        run = lead(2, missing=()).start()
        assert isinstance(run.end().problem, RunFailedError)
        assert flaky_lake.head.kind is Kind.BEGIN


def test_failures_that_are_gone(flaky_lake: SmallLake) -> None:
    """A missing list of failures is an error, not an empty list."""
    writer = flaky_lake.begin("run", 1)
    receipt = flaky_lake.write(writer, 0, failures=9)
    assert len(load_failures(flaky_lake.store, [receipt])) == 9
    flaky_lake.store.delete([str(receipt.failures_key)])
    with pytest.raises(ObjectNotFoundError):
        load_failures(flaky_lake.store, [receipt])
