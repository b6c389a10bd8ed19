"""The start of a write: its run, its epoch and its missing partitions, also with concurrent writers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._log import heartbeat
from dasklake._log.log import Log
from dasklake._log.run_entries import abort
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import Kind
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._run.start import start_run
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    LakeExistsError,
    PlanMismatchError,
    RunActiveError,
    RunSupersededError,
    SchemaError,
)
from tests.support.flaky import FlakyStore
from tests.support.lakes import SCHEMA, SmallLake
from tests.support.unsteady import LOG, committed

OTHER = Schema({"y": TensorSpec(dtype="float64", shape=())})


def request(mode: str, run: str | None = "run", **changes: Any) -> RunSpec:
    """Make a specification of three partitions of an input with an identity."""
    return replace(RunSpec(mode, run, SCHEMA, 3, 9, "ab" * 16), **changes)


def start(store: FlakyStore, mode: str, run: str | None = "run", **changes: Any) -> Assignment:
    """Start a run, with a log of its own."""
    return start_run(Log(store), request(mode, run, **changes))


def writer_of(lake: SmallLake, begun: Assignment) -> RunWriter:
    """Return the writer of commits of a started run."""
    log = Log(lake.store)
    return RunWriter(log, begun.run, begun.state.epoch, begun.entry, SCHEMA)


def write(lake: SmallLake, begun: Assignment, *partitions: int) -> None:
    """Commit partitions of a started run."""
    writer = writer_of(lake, begun)
    writer.commit([lake.write(writer, partition) for partition in partitions], [])


class TestNew:
    """Runs that begin."""

    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "resume"])
    def test_where_nothing_is(self, flaky_store: FlakyStore, mode: str) -> None:
        """Every mode creates a missing lake, and begins with all partitions."""
        begun = start(flaky_store, mode)
        assert (begun.entry.version, begun.entry.kind) == (1, Kind.BEGIN)
        assert (begun.run, begun.missing, begun.recovered) == ("run", (0, 1, 2), ())
        assert begun.entry.schema == SCHEMA
        plan = begun.state.plan
        assert (plan.partitions, plan.inputs, plan.input_id) == (3, 9, "ab" * 16)
        assert plan.overwrite == (mode == "overwrite")

    @pytest.mark.parametrize("mode", ["create", "append", "overwrite", "resume"])
    def test_without_a_name(self, flaky_store: FlakyStore, mode: str) -> None:
        """A run without a name gets a random one."""
        assert start(flaky_store, mode, None).run.startswith("run-")

    def test_bad_name(self, flaky_store: FlakyStore) -> None:
        """An invalid name is an error before anything is created."""
        with pytest.raises(InvalidInputError):
            start(flaky_store, "create", "../x")
        assert flaky_store.walk("") == []

    def test_after_a_crash_in_between(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A lake that was created and never written can still be created."""
        assert flaky_lake.head.kind is Kind.INIT
        assert start(flaky_store, "create").missing == (0, 1, 2)

    def test_create_refuses_an_unfinished_run(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """Create on an unfinished run says how to continue or discard it."""
        flaky_lake.begin("broken", 2)
        with pytest.raises(LakeExistsError, match=r"mode='resume', run='broken'.*reset"):
            start(flaky_store, "create")

    def test_create_refuses_a_lake(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """Create on a lake reports its content and the other modes."""
        write(flaky_lake, start(flaky_store, "create", "first"), 0, 1, 2)
        before = flaky_lake.head
        with pytest.raises(LakeExistsError, match=r"9 samples.*append"):
            start(flaky_store, "create")
        assert flaky_lake.head == before

    def test_create_beside_create(self, flaky_store: FlakyStore) -> None:
        """Of two simultaneous creates one wins and the other fails, wherever they meet."""
        for key, skip in ((f"{LOG}/000000/{0:020d}", 0), (f"{LOG}/000000/{1:020d}", 0)):
            store = FlakyStore()
            store.at("create", lambda store=store: start(store, "create", "fast"), key, skip=skip)  # type: ignore[misc] # bound early
            with pytest.raises(LakeExistsError, match="run='fast'"):
                start(store, "create", "slow")
            assert set(Log(store).require_head().runs) == {"fast"}
            store.clear()
        assert flaky_store.walk("") == []

    def test_append_beside_a_run(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A run may begin while another is written; its rows follow the rows of the other."""
        first = start(flaky_store, "create", "first")
        second = start(flaky_store, "append", "second")
        write(flaky_lake, second, 0, 1, 2)
        write(flaky_lake, first, 0, 1, 2)
        assert [s.order for s in flaky_lake.head.runs.values()] == [0, 1]

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_name_is_taken(self, flaky_store: FlakyStore, mode: str) -> None:
        """A name that the lake has already cannot begin another run."""
        start(flaky_store, "create")
        with pytest.raises(LakeExistsError, match=r"'run' already.*resume"):
            start(flaky_store, mode)

    def test_overwrite_beside_the_same_overwrite(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A second process with the same name and mode waits for the first one, whenever it starts."""
        monkeypatch.setattr(heartbeat, "OBSERVE_SECONDS", 0.0)
        write(flaky_lake, start(flaky_store, "overwrite"), 0, 1, 2)
        flaky_store.at("create", lambda: start(flaky_store, "overwrite"), LOG)
        with pytest.raises(RunActiveError, match="'run-2' is being written"):
            start(flaky_store, "overwrite")
        assert set(flaky_lake.head.runs) == {"run", "run-2"}

    @pytest.mark.parametrize("changes", [{"input_id": None}, {"input_id": "cd" * 16}])
    def test_overwrite_of_an_unknown_input(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, changes: dict[str, Any]
    ) -> None:
        """An interrupted overwrite is continued only if its input is known to be the same."""
        write(flaky_lake, start(flaky_store, "overwrite", **changes), 0)
        again = start(flaky_store, "overwrite", input_id=None)
        assert (again.run, again.missing) == ("run-2", (0, 1, 2))

    @pytest.mark.parametrize("mode", ["append", "resume"])
    def test_other_schema(self, flaky_store: FlakyStore, mode: str) -> None:
        """A schema that does not fit the lake is an error; nothing is committed."""
        start(flaky_store, "create", "first")
        with pytest.raises(SchemaError, match="overwrite"):
            start(flaky_store, mode, "second", schema=OTHER)
        assert Log(flaky_store).require_head().version == 1

    def test_schema_that_changes_before_the_begin(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """The schema is compared with that of the version the run begins on, after a lost race."""
        over = start(flaky_store, "overwrite", "over", schema=OTHER)

        def replace_it() -> None:
            writer = replace(writer_of(flaky_lake, over), schema=OTHER)
            writer.commit([flaky_lake.write(writer, 0)], [])

        flaky_store.at("create", replace_it, LOG)
        with pytest.raises(SchemaError):
            start(flaky_store, "append", "late")
        assert set(flaky_lake.head.runs) == {"over"}

    def test_overwrite_brings_its_schema(self, flaky_store: FlakyStore) -> None:
        """An overwrite may have any schema; the lake keeps its own until the first checkpoint."""
        start(flaky_store, "create", "first")
        begun = start(flaky_store, "overwrite", "second", schema=OTHER)
        assert begun.entry.schema == SCHEMA


class TestResume:
    """Runs that are resumed."""

    def test_missing_partitions(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A resume is the next epoch, and writes what the log does not have."""
        first = start(flaky_store, "resume")
        other = start(flaky_store, "append", "other")
        write(flaky_lake, first, 1)
        write(flaky_lake, other, 0, 2)
        again = start(flaky_store, "resume")
        assert (again.entry.kind, again.state.epoch) == (Kind.EPOCH, 2)
        assert again.missing == (0, 2)
        write(flaky_lake, again, 0, 2)
        assert committed(flaky_lake) == [0, 1, 2]

    def test_finished(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A resume of a finished run has nothing to do, and commits nothing."""
        write(flaky_lake, start(flaky_store, "resume"), 0, 1, 2)
        before = flaky_lake.head
        again = start(flaky_store, "resume")
        assert (again.entry, again.missing, again.recovered) == (before, (), ())
        assert flaky_lake.head == before

    def test_finished_before_the_epoch(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """A run that is finished before its next epoch is committed has nothing to do either."""
        begun = start(flaky_store, "resume")
        flaky_store.at("create", lambda: write(flaky_lake, begun, 0, 1, 2), LOG)
        again = start(flaky_store, "resume")
        assert (again.entry.kind, again.missing) == (Kind.DATA, ())
        assert flaky_lake.head == again.entry

    def test_h4_committed_before_the_epoch(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H4: partitions that are committed before the next epoch is are not missing any more."""
        begun = start(flaky_store, "resume")
        flaky_store.at("create", lambda: write(flaky_lake, begun, 1), LOG)
        again = start(flaky_store, "resume")
        assert (again.missing, again.recovered) == ((0, 2), ())
        write(flaky_lake, again, 0, 2)
        assert committed(flaky_lake) == [0, 1, 2]

    def test_recovers(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """Complete partitions of open epochs are recovered; those of closed epochs are not."""
        first = writer_of(flaky_lake, start(flaky_store, "resume"))
        flaky_lake.write(first, 0)
        abort(Log(flaky_store), flaky_lake.head, ["run"])
        second = writer_of(flaky_lake, start(flaky_store, "resume"))
        receipt = flaky_lake.write(second, 2)
        third = start(flaky_store, "resume")
        assert (third.state.epoch, third.missing) == (3, (0, 1))
        assert third.recovered == (receipt,)

    def test_log_lines(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Begin and resume are logged with run, version and counts, recovered partitions as DEBUG."""
        caplog.set_level(logging.DEBUG, "dasklake._run")
        begun = start(flaky_store, "create")
        write(flaky_lake, begun, 0)
        flaky_lake.write(writer_of(flaky_lake, begun), 2)
        start(flaky_store, "resume")
        begin, recovered, resume = caplog.records
        assert begin.message == "Run 'run' begun, version 1, 3 partitions"
        assert recovered.message == "Run 'run': recovered partition 2"
        assert resume.message == (
            "Run 'run' resumed, version 3, 1 of 3 partitions committed, 1 recovered, 1 missing"
        )
        assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG", "INFO"]

    def test_nothing_of_a_newer_epoch_is_recovered(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """Partitions that a newer epoch wrote in the meantime are not recovered by the older one."""
        start(flaky_store, "resume")

        def take_over() -> None:
            other = writer_of(flaky_lake, start(flaky_store, "resume"))
            flaky_lake.write(other, 0)

        flaky_store.at("walk", take_over, "data/")
        own = start(flaky_store, "resume")
        assert (own.state.epoch, own.missing, own.recovered) == (2, (0, 1, 2), ())

    def test_the_only_run(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """Without a name the lake's only run is resumed; with several runs a name is required."""
        write(flaky_lake, start(flaky_store, "create", "own"), 1)
        again = start(flaky_store, "resume", None)
        assert (again.run, again.missing) == ("own", (0, 2))
        with pytest.warns(UserWarning, match="interrupted run 'own'"):
            start(flaky_store, "append", "second")
        with pytest.raises(InvalidInputError, match=r"'own', 'second'.*run="):
            start(flaky_store, "resume", None)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"partitions": 4}, "4 partitions, not 3"),
            ({"schema": OTHER}, "another schema"),
            ({"input_id": "cd" * 16}, f"{'cd' * 16}, not {'ab' * 16}"),
        ],
    )
    def test_another_input(
        self, flaky_store: FlakyStore, changes: dict[str, Any], said: str
    ) -> None:
        """A run continues only with the input it was begun with."""
        start(flaky_store, "resume")
        with pytest.raises(PlanMismatchError, match=said):
            start(flaky_store, "resume", **changes)
        assert Log(flaky_store).require_head().version == 1

    @pytest.mark.parametrize("ids", [(None, "ab"), ("ab", None), (None, None)])
    def test_input_without_an_identity(
        self, flaky_store: FlakyStore, ids: tuple[str | None, str | None]
    ) -> None:
        """If one of the inputs has no identity, only counts are compared."""
        start(flaky_store, "resume", input_id=ids[0])
        assert start(flaky_store, "resume", input_id=ids[1]).state.epoch == 2

    def test_overwrite_before_its_first_checkpoint(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """A run that was to replace the schema can be resumed though it never committed."""
        write(flaky_lake, start(flaky_store, "create", "old"), 0, 1, 2)
        start(flaky_store, "overwrite", "new", schema=OTHER)
        again = start(flaky_store, "resume", "new", schema=OTHER)
        assert (again.state.epoch, again.state.plan.overwrite) == (2, True)
        assert again.missing == (0, 1, 2)

    def test_overwritten(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A run that another run has overwritten cannot be resumed."""
        start(flaky_store, "create", "old")
        write(flaky_lake, start(flaky_store, "overwrite", "new"), 0)
        with pytest.raises(ConflictError, match="new run name"):
            start(flaky_store, "resume", "old")


class TestTogether:
    """Two first calls of the same script."""

    @pytest.mark.parametrize("run", ["run", None])
    def test_one_run(self, flaky_lake: SmallLake, flaky_store: FlakyStore, run: str | None) -> None:
        """Two simultaneous first resumes are one run, named or not: nothing is written twice."""
        started: list[Assignment] = []
        flaky_store.at("create", lambda: started.append(start(flaky_store, "resume", run)), LOG)
        own = start(flaky_store, "resume", run)
        assert own.run == started[0].run
        assert (started[0].state.epoch, own.state.epoch) == (1, 2)
        with pytest.raises(RunSupersededError):
            write(flaky_lake, started[0], 0)
        write(flaky_lake, own, 0, 1, 2)
        assert len(flaky_lake.head.runs) == 1

    def test_another_input(self, flaky_store: FlakyStore) -> None:
        """Without a name, a run that began in the meantime over another input is a mismatch."""
        flaky_store.at("create", lambda: start(flaky_store, "append", "x", partitions=7), LOG)
        with pytest.raises(PlanMismatchError, match="3 partitions, not 7"):
            start(flaky_store, "resume", None)

    def test_two_resumes(self, flaky_store: FlakyStore) -> None:
        """Of two resumes of a broken run one wins."""
        start(flaky_store, "resume")
        flaky_store.at("create", lambda: start(flaky_store, "resume"), LOG)
        with pytest.raises(RunSupersededError):
            start(flaky_store, "resume")


class TestAlive:
    """Runs that another coordinator is writing."""

    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(heartbeat, "OBSERVE_SECONDS", 0.1)
        monkeypatch.setattr(heartbeat, "_CHECK_SECONDS", 0.01)

    def beat(self, store: FlakyStore, counter: int, epoch: int = 1) -> None:
        """Write a heartbeat."""
        data = heartbeat_bytes(Heartbeat(epoch, "coordinator", counter))
        store.put(object_keys.heartbeat_key("main", "run"), data)

    def keep_beating(self, store: FlakyStore, epoch: int = 1) -> None:
        """Change the heartbeat whenever it is read."""
        self.beat(store, 0, epoch)
        for counter in range(1, 100):
            act: Callable[[], None] = lambda c=counter: self.beat(store, c, epoch)  # type: ignore[misc] # noqa: E731 # bound early
            store.at("get", act, "_lake/runs")

    def test_refused(self, flaky_store: FlakyStore) -> None:
        """A run whose heartbeat changes is not resumed."""
        start(flaky_store, "resume")
        self.keep_beating(flaky_store)
        with pytest.raises(RunActiveError, match="'run' is being written"):
            start(flaky_store, "resume")
        assert Log(flaky_store).require_head().version == 1

    def test_dead(self, flaky_store: FlakyStore) -> None:
        """A run whose heartbeat does not change is resumed."""
        start(flaky_store, "resume")
        self.beat(flaky_store, 10)
        assert start(flaky_store, "resume").state.epoch == 2

    def test_closed(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A heartbeat of an epoch that a reset closed neither prevents nor delays a resume."""
        start(flaky_store, "resume")
        abort(Log(flaky_store), flaky_lake.head, ["run"])
        self.keep_beating(flaky_store)
        before = flaky_store.count("get", "_lake/runs")
        assert start(flaky_store, "resume").state.epoch == 2
        assert flaky_store.count("get", "_lake/runs") == before

    def test_resumed_while_it_was_watched(self, flaky_store: FlakyStore) -> None:
        """An epoch that is committed while the heartbeat is watched is noticed and not taken over."""
        start(flaky_store, "resume")
        self.beat(flaky_store, 1)
        flaky_store.at("get", lambda: start(flaky_store, "resume"), "_lake/runs", skip=2)
        with pytest.raises(RunSupersededError):
            start(flaky_store, "resume")
