"""What runs commit: the lake itself, their beginnings, and their data.

The counterexamples of the commit protocol are replayed by their names.
"""

from __future__ import annotations

import getpass

import pytest

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._log.run_entries import abort, begin, resume
from dasklake._log.run_writer import RunWriter
from dasklake._log.transactions import author, create_lake
from dasklake._model.commit import Commit, Kind, RunState
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    LakeExistsError,
    RunAbortedError,
    UnsupportedStoreError,
)
from tests.support.flaky import Fault, FlakyStore
from tests.support.lakes import SCHEMA, SmallLake, failure
from tests.support.unsteady import LOG, add_entry, committed, plan

OTHER = Schema({"y": TensorSpec(dtype="float64", shape=())})


class TestCreateLake:
    """Creation of a lake."""

    def test_made_once(self, flaky_store: FlakyStore) -> None:
        """The first call creates the lake, the next one opens its current version."""
        made, ours = create_lake(Log(flaky_store), SCHEMA)
        assert ours
        assert (made.version, made.kind, made.parent, made.schema) == (0, Kind.INIT, None, SCHEMA)
        assert made.author == author() != ""
        assert create_lake(Log(flaky_store), OTHER) == (made, False)

    @pytest.mark.parametrize("schema", [SCHEMA, OTHER])
    def test_loser_opens_the_winners(self, flaky_store: FlakyStore, schema: Schema) -> None:
        """A call that loses the race for version 0 returns the winner's current version."""
        other: list[Commit] = []

        def win() -> None:
            create_lake(Log(flaky_store), SCHEMA)
            log = Log(flaky_store)
            other.append(begin(log, log.require_head(), "run", plan(1)))

        flaky_store.at("create", win, LOG)
        assert create_lake(Log(flaky_store), schema) == (other[0], False)

    def test_loser_made_nothing(self, flaky_store: FlakyStore) -> None:
        """The loser did not create the lake, even with the same schema."""
        flaky_store.at("create", lambda: create_lake(Log(flaky_store), SCHEMA), LOG)
        made, ours = create_lake(Log(flaky_store), SCHEMA)
        assert (made.version, ours) == (0, False)

    def test_answer_lost(self, flaky_store: FlakyStore) -> None:
        """A lake whose create got no response counts as created by the call."""
        flaky_store.fail("create", Fault.AFTER, LOG)
        made, ours = create_lake(Log(flaky_store), SCHEMA)
        assert ours
        assert Log(flaky_store).head() == made

    def test_storage_is_tried_first(
        self, flaky_store: FlakyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No lake is created if the probe fails; single writers are recorded."""

        def fail() -> None:
            raise UnsupportedStoreError("no. Use another.")

        monkeypatch.setattr(flaky_store, "probe", fail)
        with pytest.raises(UnsupportedStoreError):
            create_lake(Log(flaky_store), SCHEMA)
        assert flaky_store.walk("") == []
        monkeypatch.undo()
        assert create_lake(Log(flaky_store), SCHEMA, single_writer=True)[0].single_writer

    def test_h23_probes_never_meet(self, flaky_store: FlakyStore) -> None:
        """H23: the object of a crashed probe does not fail the next probe."""
        flaky_store.fail("delete", Fault.BEFORE, "_lake/probe")
        with pytest.raises(OSError, match="no answer"):
            create_lake(Log(flaky_store), SCHEMA)
        assert len(flaky_store.walk("_lake/probe")) == 1
        assert create_lake(Log(flaky_store), SCHEMA)[1]


class TestBegin:
    """Begin entries."""

    def test_entry(self, flaky_lake: SmallLake) -> None:
        """The entry has run, plan, epoch 1 and order, and changes nothing else."""
        log, before = flaky_lake.log, flaky_lake.head
        first = begin(log, before, "a", plan(2, 10))
        second = begin(log, first, "b", plan(3))
        assert (first.kind, first.entry) == (Kind.BEGIN, {"run": "a", "epoch": 1})
        assert first.runs == {"a": RunState(plan(2, 10), order=0)}
        assert second.runs["b"] == RunState(plan(3), order=1)
        assert second.runs["a"] == first.runs["a"]
        assert (second.segments, second.totals) == (before.segments, before.totals)
        assert not first.kind.is_data

    @pytest.mark.parametrize("name", ["", "../x", "a/b"])
    def test_names(self, flaky_lake: SmallLake, name: str) -> None:
        """An invalid run name is refused."""
        with pytest.raises(InvalidInputError):
            begin(flaky_lake.log, flaky_lake.head, name, plan(1))
        assert flaky_lake.head.version == 0

    def test_h7_begun_meanwhile(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H7: a run that another process began concurrently is not begun again."""
        head = flaky_lake.head
        flaky_lake.begin("run", 2)
        with pytest.raises(LakeExistsError, match=r"'run'.*resume"):
            begin(Log(flaky_store), head, "run", plan(2))
        flaky_store.at("create", lambda: flaky_lake.begin("other", 2), LOG)
        with pytest.raises(LakeExistsError, match="'other'"):
            begin(Log(flaky_store), flaky_lake.head, "other", plan(2))

    def test_h20_order_is_unique(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H20: two runs that begin concurrently have different order numbers."""
        flaky_store.at("create", lambda: flaky_lake.begin("fast", 1), LOG)
        slow = flaky_lake.begin("slow", 1)
        assert (slow.head.runs["fast"].order, slow.state.order) == (0, 1)

    def test_checked_on_each_version(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """The check of the version is repeated after a lost race."""
        seen: list[int] = []

        def check(known: Commit) -> None:
            seen.append(known.version)
            if known.runs:
                raise LakeExistsError("no. Look.")

        flaky_store.at("create", lambda: flaky_lake.begin("fast", 1), LOG)
        with pytest.raises(LakeExistsError, match="Look"):
            begin(Log(flaky_store), flaky_lake.head, "slow", plan(1), check=check)
        assert seen == [0, 1]
        assert set(flaky_lake.head.runs) == {"fast"}

    @pytest.mark.parametrize("later", [0, 1, 2])
    def test_closed_branch(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, later: int
    ) -> None:
        """No run begins or resumes on a branch that is or gets deleted."""
        flaky_lake.begin("old", 1)
        head = flaky_lake.head

        def close() -> None:
            add_entry(flaky_lake, Kind.CLOSED)
            for _ in range(later - 1):
                add_entry(flaky_lake, Kind.FENCE)

        if later:
            flaky_store.at("create", close, LOG)
        else:
            head = add_entry(flaky_lake, Kind.CLOSED)
        with pytest.raises(ConflictError, match="deleted"):
            begin(Log(flaky_store), head, "run", plan(1))
        with pytest.raises(ConflictError, match="deleted"):
            resume(Log(flaky_store), head, "old")


class TestCommit:
    """Data commits."""

    def test_what_it_says(self, flaky_lake: SmallLake) -> None:
        """A commit adds its receipts to the totals of the version and of the run."""
        writer = RunWriter(
            Log(flaky_lake.store),
            "run",
            1,
            begin(flaky_lake.log, flaky_lake.head, "run", plan(3, 12)),
            SCHEMA,
            message="my data",
        )
        receipts = [
            flaky_lake.write(writer, 2),
            flaky_lake.write(writer, 0, [[1], [2, 3, 4]], failures=1),
        ]
        made = writer.commit(receipts, [failure("run", 0, 1), failure("run", 9, 1)])
        size = sum(receipt.size for receipt in receipts)
        assert made == flaky_lake.head == writer.head
        assert (made.kind, made.entry) == (Kind.DATA, {"run": "run", "epoch": 1})
        assert (made.totals.samples, made.totals.chunks) == (7, 3)
        assert (made.totals.failures, made.totals.size) == (1, size)
        state = made.runs["run"]
        assert (state.partitions, state.inputs, state.samples, state.failures) == (2, 8, 7, 1)
        assert (state.size, state.finished, state.overwrote) == (size, False, False)
        assert made.progress is not None
        assert (made.progress.partitions, made.progress.of, made.progress.inputs) == (2, 3, 8)
        assert made.message == (
            "my data\n"
            "Auto-commit during to_lake of run after 66.67% progress\n"
            "Total samples processed: 8"
        )
        assert committed(flaky_lake) == [0, 0, 2]
        assert Log(flaky_lake.store).failures(made) == [failure("run", 0, 1)]

    def test_last_one_is_at_100(self, flaky_lake: SmallLake) -> None:
        """The commit that completes the partitions finishes the run at 100 %."""
        head = begin(flaky_lake.log, flaky_lake.head, "run", plan(2, 1_000))
        writer = RunWriter(Log(flaky_lake.store), "run", 1, head, SCHEMA)
        first = writer.commit([flaky_lake.write(writer, 1)], [])
        last = writer.commit([flaky_lake.write(writer, 0)], [])
        assert (first.runs["run"].finished, last.runs["run"].finished) == (False, True)
        assert first.progress is not None
        assert last.progress is not None
        assert (first.progress.percent, last.progress.percent) == (0.3, 100.0)

    def test_more_samples_than_planned(self, flaky_lake: SmallLake) -> None:
        """An input longer than planned is at most 100 %."""
        head = begin(flaky_lake.log, flaky_lake.head, "run", plan(2, 1))
        writer = RunWriter(Log(flaky_lake.store), "run", 1, head, SCHEMA)
        first = writer.commit([flaky_lake.write(writer, 1)], [])
        assert first.progress is not None
        assert first.progress.percent == 100.0
        assert not first.runs["run"].finished

    def test_runs_side_by_side(self, flaky_lake: SmallLake) -> None:
        """Concurrent appends keep each other's rows, in the order of their begin entries."""
        first, second = flaky_lake.begin("first", 2), flaky_lake.begin("second", 2)
        for partition in (1, 0):
            second.commit([flaky_lake.write(second, partition)], [])
            first.commit([flaky_lake.write(first, partition)], [])
        assert flaky_lake.head.totals.samples == 12
        assert all(state.finished for state in flaky_lake.head.runs.values())
        manifest = Log(flaky_lake.store).manifest(flaky_lake.head)
        assert manifest.order.tolist() == [0, 0, 1, 1]
        assert manifest.partition.tolist() == [0, 1, 0, 1]

    def test_tables_are_merged(self, flaky_lake: SmallLake) -> None:
        """Many small commits name few tables, which hold everything."""
        writer = flaky_lake.begin("run", 40)
        for partition in range(40):
            failed = failure("run", partition, 0)
            made = writer.commit([flaky_lake.write(writer, partition)], [failed])
            assert made.totals.chunks == made.totals.failures == partition + 1
        assert [ref.level for ref in made.segments] == [1, 1, *[0] * 8]
        assert [ref.rows for ref in made.failures] == [16, 16, *[1] * 8]
        assert [ref.samples for ref in made.segments] == [48, 48, *[3] * 8]
        assert committed(flaky_lake) == list(range(40))
        failures = Log(flaky_lake.store).failures(made)
        assert [each.partition for each in failures] == list(range(40))

    def test_statistics_survive_merges(self, flaky_lake: SmallLake) -> None:
        """However many segments were merged, each chunk keeps its statistics."""
        writer = flaky_lake.begin("run", 40)
        for partition in range(40):
            writer.commit([flaky_lake.write(writer, partition, [[partition, 99]])], [])
        log = Log(flaky_lake.store)
        assert {ref.level for ref in flaky_lake.head.segments} == {0, 1}
        manifest = log.manifest(flaky_lake.head, statistics=True)
        assert manifest.statistics is not None
        assert manifest.statistics.to_pylist() == [
            f'{{"x":{{"min":{partition},"max":99}}}}' for partition in range(40)
        ]
        assert log.manifest(flaky_lake.head).statistics is None

    def test_merge_of_what_is_lost(self, flaky_lake: SmallLake) -> None:
        """A merge that misses a segment of a version that was not expired is corruption."""
        writer = flaky_lake.begin("run", 16)
        for partition in range(15):
            made = writer.commit([flaky_lake.write(writer, partition)], [])
        flaky_lake.store.delete([object_keys.segment_key(made.segments[3].name)])
        writer = RunWriter(Log(flaky_lake.store), "run", 1, made, SCHEMA)
        with pytest.raises(CorruptionError, match=made.segments[3].name):
            writer.commit([flaky_lake.write(writer, 15)], [])
        assert flaky_lake.head == made

    def test_failures_are_fetched_in_the_commit(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """Failures that a forced reset deleted end the run as reset, not as corruption."""
        writer = flaky_lake.begin("run", 1)
        receipt = flaky_lake.write(writer, 0, failures=9)
        assert receipt.failures_key is not None
        abort(Log(flaky_store), flaky_lake.head, ["run"])
        flaky_store.delete([receipt.failures_key])

        def fetch() -> list[object]:
            return [flaky_store.get(str(receipt.failures_key))]

        with pytest.raises(RunAbortedError):
            writer.commit([receipt], fetch)  # type: ignore[arg-type] # never returns

    def test_nothing_new_is_named(self, flaky_lake: SmallLake) -> None:
        """A partition without a chunk adds no segment, but is counted."""
        writer = flaky_lake.begin("run", 1)
        made = writer.commit([Receipt("run", 1, 0, "ab" * 8, (), 5)], [])
        assert (made.segments, made.failures) == ((), ())
        assert made.runs["run"].finished

    def test_h18_objects_of_a_lost_race(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H18: an object from a lost race is never named, not even by the same writer."""
        writer, other = flaky_lake.begin("run", 3), flaky_lake.begin("other", 1)
        receipt = flaky_lake.write(other, 0)
        flaky_store.landed.clear()
        flaky_store.at("create", lambda: other.commit([receipt], []), LOG)
        for partition in range(3):
            writer.commit([flaky_lake.write(writer, partition)], [failure("run", partition, 0)])
        written = {
            at for op, at, _ in flaky_store.landed if op == "put" and at.startswith("_lake/")
        }
        head = flaky_lake.head
        named = {object_keys.segment_key(ref.name) for ref in head.segments}
        named |= {object_keys.failures_key(ref.name) for ref in head.failures}
        assert named < written
        assert {at.rpartition("/")[0] for at in written - named} == {
            "_lake/segments",
            "_lake/failures",
        }
        assert len(written - named) == 2

    @pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATE])
    def test_h19_no_answer(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, fault: Fault
    ) -> None:
        """H19, H19b: a commit without a response holds its receipts once, and the run continues."""
        writer = flaky_lake.begin("run", 2)
        flaky_store.fail("create", fault, LOG)
        flaky_store.at("create", flaky_store.arrive_all, LOG, skip=1)
        writer.commit([flaky_lake.write(writer, 0)], [])
        writer.commit([flaky_lake.write(writer, 1)], [])
        assert committed(flaky_lake) == [0, 1]
        assert [c.kind for c in Log(flaky_store).walk(2)] == [Kind.DATA, Kind.DATA]


def test_author_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a user name can commit."""

    def fail() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", fail)
    assert author() == "unknown"


def test_storage_that_cannot_create_exclusively(tmp_path: object) -> None:
    """On storage without exclusive create, a lake is created only if the caller asks for it."""
    store = ObjectStore(f"file://{tmp_path}/lake", single_writer=True)
    made, ours = create_lake(Log(store), SCHEMA, single_writer=store.single_writer)
    assert ours
    assert made.single_writer
