"""Tests of compaction: fewer chunks, the same rows, and safe beside other writers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import chunk_key_at, join_manifests
from dasklake._log.log import Draft, Log
from dasklake._log.refs import create_branch, restore
from dasklake._log.transactions import next_commit
from dasklake._maintenance import compact as compacting
from dasklake._maintenance.compact import CompactReport, compact
from dasklake._maintenance.reset import reset
from dasklake._maintenance.vacuum import vacuum
from dasklake._maintenance.verify import verify
from dasklake._model.commit import Commit, Kind
from dasklake._model.tensor_history import TensorHistory
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    LakeNotFoundError,
    RunAbortedError,
    RunActiveError,
)
from dasklake.testing.faults import Crash
from tests.support.flaky import FlakyStore
from tests.support.lakes import SmallLake
from tests.support.s3 import S3Server


def run_compact(lake: SmallLake, chunk_size: int = 64 << 20) -> CompactReport:
    """Compact with a log of its own."""
    return compact(lake.store, Log(lake.store, lake.branch), chunk_size=chunk_size)


def rows(lake: SmallLake, commit: Commit | None = None) -> list[int]:
    """Return the values of a version, by default the newest, in order."""
    log = Log(lake.store, lake.branch)
    manifest = log.manifest(commit or log.require_head())
    found: list[int] = []
    for i in range(len(manifest)):
        key = chunk_key_at(manifest, i)
        data = lake.store.get(key)
        head = ChunkHead.parse(data, len(data), key, int(manifest.crc[i]))
        found += head.batch.column(0).to_pylist()
    return found


def write(
    lake: SmallLake, run: str, partitions: Sequence[Sequence[Sequence[int]]], of: int | None = None
) -> Commit:
    """Write a run with a commit for each partition, the last one first."""
    writer = lake.begin(run, of or len(partitions))
    for number in reversed(range(len(partitions))):
        done = writer.commit([lake.write(writer, number, partitions[number])], [])
    return done


def check_sound(lake: SmallLake) -> None:
    """Verify all versions."""
    assert verify(lake.store, Log(lake.store)).damaged == ()


@pytest.fixture(params=["file", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> SmallLake:
    """Make an empty lake on each kind of storage."""
    if request.param == "file":
        return SmallLake(ObjectStore(tmp_path / "lake"))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket()
    return SmallLake(ObjectStore(f"{bucket.url}/lake", bucket.options))


def test_fewer_chunks_and_the_same_rows(lake: SmallLake) -> None:
    """Small chunks of each finished run become one at the same position; earlier versions stay."""
    write(lake, "one", [[[1], [2, 3]], [[]], [[4]], [[5, 6], [7]]])
    write(lake, "open", [[[8]], [[9]]], of=3)
    before = write(lake, "two", [[[10], [11]], [[12]]])
    report = run_compact(lake)
    after = lake.head
    assert after.kind is Kind.COMPACT
    assert (report.version, report.joined, report.into) == (after.version, 9, 2)
    assert rows(lake) == rows(lake, before) == list(range(1, 13))
    manifest = Log(lake.store).manifest(after)
    assert manifest.rows.tolist() == [7, 1, 1, 3]
    assert manifest.order.tolist() == [0, 1, 1, 2]
    assert manifest.home[manifest.run[1]] == "main/open"
    assert len(manifest.home) == 2
    assert after.totals == replace(before.totals, chunks=4, size=int(manifest.size.sum()))
    assert report.bytes == int(manifest.size[[0, 3]].sum())
    check_sound(lake)
    vacuum(lake.store, Log(lake.store))
    check_sound(lake)
    assert rows(lake) == list(range(1, 13))
    assert run_compact(lake) == CompactReport(None, 0, 0, 0)


def test_statistics_are_those_of_the_new_chunks(small_lake: SmallLake) -> None:
    """Joined chunks are measured again, under the names of their tensors; the others keep theirs."""
    write(small_lake, "one", [[[4], [2, 3]]])
    write(small_lake, "open", [[[8]]], of=2)
    past = {"x": TensorHistory(former=((3, "y"),))}

    def build(head: Commit, _: object, commit_id: str) -> Draft:
        return Draft(next_commit(head, commit_id, Kind.SCHEMA, "", histories=past))

    def statistics() -> list[str | None]:
        manifest = Log(small_lake.store).manifest(small_lake.head, statistics=True)
        assert manifest.statistics is not None
        texts: list[str | None] = manifest.statistics.to_pylist()
        return texts

    assert run_compact(small_lake).into == 1
    assert statistics() == ['{"x":{"min":2,"max":4}}', '{"x":{"min":8,"max":8}}']
    # A column that the version does not have under this name is not measured.
    small_lake.log.publish(small_lake.head, build)
    write(small_lake, "two", [[[5], [6]]])
    assert run_compact(small_lake).into == 1
    assert statistics()[2] == '{"x":{"min":5,"max":6}}'
    check_sound(small_lake)


def test_full_chunks_stay(small_lake: SmallLake) -> None:
    """A chunk of half the size stays, and no joined chunk exceeds the size."""
    long = list(range(1000))
    write(small_lake, "run", [[[1], [2]], [long], [[3], [4], [5]], [long, [6]]])
    manifest = Log(small_lake.store).manifest(small_lake.head)
    small = int(manifest.size.min())
    size = 2 * int(manifest.size.max())
    before = rows(small_lake)
    report = run_compact(small_lake, size)
    assert (report.joined, report.into) == (5, 2)
    assert rows(small_lake) == before
    assert run_compact(small_lake, size).version is None
    # Three small ones do not fit into two and a half of them.
    write(small_lake, "other", [[long, *([n] for n in range(6))]])
    assert run_compact(small_lake, 5 * small // 2).into == 3
    assert rows(small_lake) == [*before, *long, *range(6)]
    check_sound(small_lake)


def test_a_chunk_stays_on_its_side_of_a_schema_change(small_lake: SmallLake) -> None:
    """Chunks from before and from after a tensor was added or renamed are not joined."""
    write(small_lake, "run", [[[n]] for n in range(6)])
    past = {"x": TensorHistory(since=2, former=((4, "y"),))}

    def build(head: Commit, _: object, commit_id: str) -> Draft:
        return Draft(next_commit(head, commit_id, Kind.SCHEMA, "", histories=past))

    small_lake.log.publish(small_lake.head, build)
    assert run_compact(small_lake).into == 3
    assert Log(small_lake.store).manifest(small_lake.head).rows.tolist() == [2, 2, 2]
    assert rows(small_lake) == list(range(6))


def test_partitions_that_a_resume_misses_are_not_hidden(small_lake: SmallLake) -> None:
    """Chunks of a run that may be resumed stay, so that they are not written again."""
    write(small_lake, "run", [[[1]], [[2]]], of=3)
    reset(small_lake.store, Log(small_lake.store))
    assert run_compact(small_lake).version is None
    again = small_lake.resume("run")
    again.commit([small_lake.write(again, 2, [[3]])], [])
    assert run_compact(small_lake).joined == 3
    assert rows(small_lake) == [1, 2, 3]


def test_rows_that_a_branch_began_with(small_lake: SmallLake) -> None:
    """On a branch, rows of its source can be joined, whatever the state of their run elsewhere."""
    start = write(small_lake, "run", [[[1]], [[2]]], of=3)
    create_branch(small_lake.log, small_lake.head, "b", ("main", start.version))
    branch = SmallLake(small_lake.store, "b")
    write(branch, "run", [[[3]], [[4]]])
    assert run_compact(branch).into == 1
    assert rows(branch) == [1, 2, 3, 4]
    again = small_lake.resume("run")
    again.commit([small_lake.write(again, 2, [[5]])], [])
    assert rows(small_lake) == [1, 2, 5]
    vacuum(small_lake.store, Log(small_lake.store))
    assert (rows(branch), rows(small_lake)) == ([1, 2, 3, 4], [1, 2, 5])
    check_sound(small_lake)


def test_rows_to_come_keep_their_place(small_lake: SmallLake) -> None:
    """Chunks of several runs are joined, but not across the position of an unfinished run."""
    for run in ("one", "two"):
        write(small_lake, run, [[[1]]])
    waiting = small_lake.begin("open", 1)
    for run in ("three", "four"):
        write(small_lake, run, [[[3]]])
    report = run_compact(small_lake)
    assert (report.joined, report.into) == (4, 2)
    waiting.commit([small_lake.write(waiting, 0, [[2]])], [])
    assert rows(small_lake) == [1, 1, 2, 3, 3]
    assert run_compact(small_lake).into == 1
    assert rows(small_lake) == [1, 1, 2, 3, 3]


class TestBesideOthers:
    """Commits concurrent with a compaction."""

    @pytest.fixture
    def busy(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> Callable[..., SmallLake]:
        """Run an action before the commit of the next compaction."""
        write(flaky_lake, "one", [[[1], [2]], [[3]]])

        def order(action: Callable[[], object], *, skip: int = 1) -> SmallLake:
            flaky_store.at("create", action, "_lake/log", skip=skip)
            return flaky_lake

        return order

    def test_appends(self, busy: Callable[..., SmallLake], flaky_lake: SmallLake) -> None:
        """Rows that are appended concurrently follow the joined ones."""
        busy(lambda: write(flaky_lake, "two", [[[4]], [[5]]]))
        assert run_compact(flaky_lake).joined == 3
        assert rows(flaky_lake) == [1, 2, 3, 4, 5]
        assert Log(flaky_lake.store).manifest(flaky_lake.head).rows.tolist() == [3, 1, 1]
        check_sound(flaky_lake)

    @pytest.mark.usefixtures("busy")
    def test_a_writer_goes_on(self, flaky_lake: SmallLake) -> None:
        """An unfinished run continues after a compaction."""
        writer = flaky_lake.begin("two", 2)
        writer.commit([flaky_lake.write(writer, 0, [[4]])], [])
        run_compact(flaky_lake)
        writer.commit([flaky_lake.write(writer, 1, [[5]])], [])
        assert rows(flaky_lake) == [1, 2, 3, 4, 5]
        check_sound(flaky_lake)

    def test_another_compaction(
        self, busy: Callable[..., SmallLake], flaky_lake: SmallLake
    ) -> None:
        """Of two concurrent compactions one takes effect; the other's chunks are garbage."""
        busy(lambda: run_compact(flaky_lake))
        assert run_compact(flaky_lake) == CompactReport(None, 0, 0, 0)
        assert rows(flaky_lake) == [1, 2, 3]
        vacuum(flaky_lake.store, Log(flaky_lake.store))
        data = [key for key in flaky_lake.objects() if key.startswith("data/")]
        assert len(data) == 1
        check_sound(flaky_lake)

    @pytest.mark.parametrize("kind", [Kind.OVERWRITE, Kind.RESTORE])
    def test_replaced(
        self, busy: Callable[..., SmallLake], flaky_lake: SmallLake, kind: Kind
    ) -> None:
        """A compaction that loses a race to an overwrite or a restore stops."""

        def overwrite() -> None:
            writer = flaky_lake.begin("new", 1, overwrite=True)
            writer.commit([flaky_lake.write(writer, 0, [[9]])], [])

        def back() -> None:
            restore(Log(flaky_lake.store), flaky_lake.head, 0)

        busy(overwrite if kind is Kind.OVERWRITE else back)
        with pytest.raises(ConflictError, match=kind.value):
            run_compact(flaky_lake)
        assert rows(flaky_lake) == ([9] if kind is Kind.OVERWRITE else [])
        vacuum(flaky_lake.store, Log(flaky_lake.store))
        assert not any("compact-" in key for key in flaky_lake.objects())
        check_sound(flaky_lake)

    @pytest.mark.usefixtures("busy")
    def test_an_overwrite_is_not_disturbed(self, flaky_lake: SmallLake) -> None:
        """An overwrite that loses a race to a compaction continues, as no sample was added."""
        writer = flaky_lake.begin("new", 1, overwrite=True)
        receipt = flaky_lake.write(writer, 0, [[9]])
        run_compact(flaky_lake)
        writer.commit([receipt], [])
        assert rows(flaky_lake) == [9]

    def test_reset(
        self,
        busy: Callable[..., SmallLake],
        flaky_lake: SmallLake,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A reset refuses beside an active compaction, and a forced reset ends it."""
        refused = []

        def meddle() -> None:
            with pytest.raises(RunActiveError) as told:
                reset(flaky_lake.store, Log(flaky_lake.store))
            refused.append(told)
            reset(flaky_lake.store, Log(flaky_lake.store), force=True)

        monkeypatch.setattr("dasklake._log.heartbeat.BEAT_SECONDS", 0.02)
        busy(meddle)
        with pytest.raises(RunAbortedError, match="reset"):
            run_compact(flaky_lake)
        assert refused
        assert not any(key.startswith("data/main/compact") for key in flaky_lake.objects())
        assert rows(flaky_lake) == [1, 2, 3]

    def test_vacuum(self, busy: Callable[..., SmallLake], flaky_lake: SmallLake) -> None:
        """A vacuum deletes neither the inputs nor the outputs of a running compaction."""
        busy(lambda: vacuum(flaky_lake.store, Log(flaky_lake.store)))
        assert run_compact(flaky_lake).joined == 3
        check_sound(flaky_lake)
        assert rows(flaky_lake) == [1, 2, 3]

    def test_crash(self, busy: Callable[..., SmallLake], flaky_lake: SmallLake) -> None:
        """A reset deletes the chunks of a crashed compaction, and it can run again."""

        def end() -> None:
            raise Crash

        busy(end)
        with pytest.raises(Crash):
            run_compact(flaky_lake)
        before = flaky_lake.objects()
        left = {key for key in before if key.startswith("data/main/compact")}
        assert left
        assert set(reset(flaky_lake.store, Log(flaky_lake.store), force=True).objects) == left
        assert run_compact(flaky_lake).joined == 3
        assert rows(flaky_lake) == [1, 2, 3]


def test_damage_is_not_copied(small_lake: SmallLake) -> None:
    """A damaged small chunk is named, and nothing is changed."""
    before = write(small_lake, "run", [[[1]], [[2]]])
    manifest = Log(small_lake.store).manifest(before)
    key = chunk_key_at(manifest, 1)
    data = bytearray(small_lake.store.get(key))
    data[-30] ^= 1
    small_lake.store.put(key, data)
    with pytest.raises(CorruptionError, match="run/1-1-"):
        run_compact(small_lake)
    assert small_lake.head.segments == before.segments


def test_refusals(small_lake: SmallLake, tmp_path: Path) -> None:
    """An invalid size and a missing lake are refused."""
    with pytest.raises(InvalidInputError):
        run_compact(small_lake, 0)
    store = ObjectStore(tmp_path / "none")
    with pytest.raises(LakeNotFoundError):
        compact(store, Log(store))


def test_result_is_logged(small_lake: SmallLake, caplog: pytest.LogCaptureFixture) -> None:
    """A compaction logs its counts."""
    caplog.set_level("INFO", "dasklake._maintenance")
    write(small_lake, "one", [[[1], [2]]])
    report = compact(small_lake.store, Log(small_lake.store))
    assert f"2 chunks joined into 1 ({report.bytes} bytes)" in caplog.text


def test_progress(small_lake: SmallLake) -> None:
    """A compaction reports the number of joined chunks."""
    write(small_lake, "one", [[[1], [2]], [[3]]])
    write(small_lake, "two", [[[1], [2]]])
    told: list[tuple[int, int]] = []
    small_lake.begin("open", 1)
    write(small_lake, "three", [[[1], [2]]])
    compact(small_lake.store, Log(small_lake.store), on_status=lambda *n: told.append(n))
    assert told == [(5, 7), (7, 7)]


def test_chunks_are_told_apart(small_lake: SmallLake) -> None:
    """Chunks that differ in one of attempt, partition, epoch or number are different chunks."""
    write(small_lake, "run", [[[1]], [[2]]])
    one = Log(small_lake.store).manifest(small_lake.head)
    assert compacting._is_in(one, one).tolist() == [True, True]
    assert compacting._is_in(join_manifests([]), one).tolist() == []
    assert compacting._is_in(one, join_manifests([])).tolist() == [False, False]
    for name in ("attempt", "partition", "epoch", "chunk"):
        numbers = getattr(one, name).copy()
        numbers[1] += 7
        assert compacting._is_in(one, replace(one, **{name: numbers})).tolist() == [True, False]
