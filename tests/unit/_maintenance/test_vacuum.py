"""Tests of vacuum: it deletes unneeded objects, and none that a version or a later writer needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._log import transactions
from dasklake._log.log import Log
from dasklake._log.refs import create_branch, delete_branch, restore, tag
from dasklake._log.run_writer import RunWriter
from dasklake._maintenance import vacuum as vacuuming
from dasklake._maintenance.reset import reset
from dasklake._maintenance.vacuum import VacuumReport, vacuum
from dasklake._maintenance.verify import verify
from dasklake._model.commit import Kind
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeNotFoundError,
    UnsupportedStoreError,
    VersionExpiredError,
)
from dasklake.testing.faults import Crash
from tests.support.flaky import FlakyStore
from tests.support.lakes import SmallLake
from tests.support.s3 import S3Server


def run_vacuum(
    lake: SmallLake, *, older_than: timedelta | None = None, dry_run: bool = False
) -> VacuumReport:
    """Vacuum with a log of its own."""
    return vacuum(lake.store, Log(lake.store), older_than=older_than, dry_run=dry_run)


def write(lake: SmallLake, run: str, *, overwrite: bool = False) -> tuple[int, set[str]]:
    """Write a run of one partition; return its version and the objects of its data."""
    writer = lake.begin(run, 1, overwrite=overwrite)
    receipt = lake.write(writer, 0)
    return writer.commit([receipt], []).version, lake.keys(receipt)


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


def test_what_only_old_versions_named_goes(lake: SmallLake) -> None:
    """Overwritten data, its tables and leftovers of ended runs are deleted; the log stays."""
    old, lost = write(lake, "old")
    broken = lake.begin("broken", 2)
    committed = lake.write(broken, 0, failures=3)
    broken.commit([committed], [])
    uncommitted = lake.write(broken, 1, failures=3)
    new, kept = write(lake, "new", overwrite=True)
    speculative = lake.write(RunWriter(Log(lake.store), "new", 1, lake.head, lake.head.schema), 0)
    open_run = lake.begin("open", 2)
    waiting = lake.keys(lake.write(open_run, 0))
    lake.store.put("data/main/old/notes.txt", b"foreign")
    lake.store.put("_lake/segments/notes.txt", b"foreign")
    lake.store.put("_lake/probe/0123", b"of a prober")
    before = lake.objects()
    segments = {key for key in before if key.startswith("_lake/segments/")}
    needed = {object_keys.segment_key(ref.name) for ref in lake.head.segments}

    planned = run_vacuum(lake, dry_run=True)
    assert lake.objects() == before
    report = run_vacuum(lake)
    gone = lost | lake.keys(committed) | lake.keys(uncommitted) | lake.keys(speculative)
    gone |= segments - needed - {"_lake/segments/notes.txt"}
    assert set(planned.objects) == set(report.objects) == gone
    assert planned.bytes == report.bytes > 0
    assert planned.expired == report.expired
    assert {old, new} & set(report.expired["main"]) == {old, new}
    commit = object_keys.commit_key("main", lake.head.version)
    assert lake.objects() == before - gone | {commit}
    assert kept | waiting <= lake.objects()
    with pytest.raises(VersionExpiredError):
        Log(lake.store).manifest(Log(lake.store).read(old))
    check_sound(lake)
    # Nothing is left to do, and nothing is done.
    assert run_vacuum(lake) == VacuumReport({}, (), 0, dry_run=False)
    assert lake.head.kind is Kind.EXPIRE
    open_run.commit([lake.write(open_run, p) for p in (0, 1)], [])
    check_sound(lake)


def test_kept_versions_stay_whole(small_lake: SmallLake) -> None:
    """Tagged versions, sources of branches and heads of branches keep all their objects."""
    tagged, first = write(small_lake, "one")
    source, second = write(small_lake, "two", overwrite=True)
    gone, third = write(small_lake, "three", overwrite=True)
    write(small_lake, "four", overwrite=True)
    tag(small_lake.log, small_lake.head, "t", "main", tagged)
    create_branch(small_lake.log, small_lake.head, "b", ("main", source))
    branch = SmallLake(small_lake.store, "b")
    restore(branch.log, branch.head, 0)
    _, fourth = write(branch, "five")
    report = run_vacuum(small_lake)
    assert third <= set(report.objects)
    assert gone in report.expired["main"]
    assert first | second | fourth <= small_lake.objects()
    assert {tagged, source}.isdisjoint(report.expired["main"])
    check_sound(small_lake)
    delete_branch(small_lake.log, small_lake.head, "b")
    assert fourth | second <= set(run_vacuum(small_lake).objects)
    assert first <= small_lake.objects()
    check_sound(small_lake)


def test_young_versions_are_kept(small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of a version is that of its successor: until then it was the newest."""
    times = iter(datetime(2026, 1, day, tzinfo=UTC) for day in range(2, 30))
    monkeypatch.setattr(transactions, "now", lambda: next(times))
    monkeypatch.setattr(vacuuming, "current_time", lambda: datetime(2026, 1, 10, tzinfo=UTC))
    old, first = write(small_lake, "one")  # committed on the 3rd, the newest until the 4th
    newer, second = write(small_lake, "two", overwrite=True)  # on the 5th, until the 6th
    write(small_lake, "three", overwrite=True)
    begun = newer + 1
    assert run_vacuum(small_lake, older_than=timedelta(days=7)).objects == ()
    assert run_vacuum(small_lake, older_than=timedelta(days=4), dry_run=True).expired == {
        "main": tuple(range(newer + 1))
    }
    report = run_vacuum(small_lake, older_than=timedelta(days=4, hours=1))
    assert report.expired == {"main": tuple(range(newer))}
    assert old == newer - 2
    assert first <= set(report.objects)
    assert second <= small_lake.objects()
    assert run_vacuum(small_lake, older_than=timedelta.max).objects == ()
    assert begun in run_vacuum(small_lake).expired["main"]
    with pytest.raises(InvalidInputError, match="negative"):
        run_vacuum(small_lake, older_than=timedelta(-1))


def test_runs_of_a_deleted_branch(small_lake: SmallLake) -> None:
    """Leftovers of an unfinished run on a deleted branch are deleted without a reset."""
    start, _ = write(small_lake, "one")
    create_branch(small_lake.log, small_lake.head, "b", ("main", start))
    branch = SmallLake(small_lake.store, "b")
    writer = branch.begin("run", 3)
    committed = branch.write(writer, 0)
    writer.commit([committed], [])
    uncommitted = branch.write(writer, 1)
    delete_branch(small_lake.log, small_lake.head, "b")
    assert reset(small_lake.store, Log(small_lake.store)).closed == {}
    gone = set(run_vacuum(small_lake).objects)
    assert branch.keys(committed) | branch.keys(uncommitted) <= gone
    check_sound(small_lake)
    # Made again, it goes on without them.
    create_branch(small_lake.log, small_lake.head, "b", ("main", small_lake.head.version))
    assert branch.head.totals.samples == 3
    check_sound(small_lake)


def test_half_written_files(small_lake: SmallLake) -> None:
    """Temporary objects of killed writers are deleted if they are tables or of ended runs."""
    _, keys = write(small_lake, "done")
    open_run = small_lake.begin("open", 1)
    (waiting,) = small_lake.keys(small_lake.write(open_run, 0))
    halves = []
    for key in [
        *keys,
        object_keys.segment_key("ab" * 8),
        waiting,
        object_keys.commit_key("main", 99),
    ]:
        folder, _, name = key.rpartition("/")
        halves.append(f"{folder}/.{name[:-7]}9.arrow.0123456789abcdef.tmp")
        small_lake.store.put(halves[-1], b"ha")
    report = run_vacuum(small_lake)
    assert set(report.objects) == set(halves[:2])


def test_heartbeats_of_finished_runs(small_lake: SmallLake) -> None:
    """The heartbeat of a finished run is deleted; that of an unfinished run stays."""
    write(small_lake, "done")
    small_lake.begin("open", 1)
    keys = [object_keys.heartbeat_key("main", run) for run in ("done", "open")]
    for key in keys:
        small_lake.store.put(key, heartbeat_bytes(Heartbeat(1, "c", 1)))
    assert run_vacuum(small_lake).objects == (keys[0],)
    assert keys[1] in small_lake.objects()


class TestWriters:
    """Writers that were paused during a vacuum."""

    def test_h8_only_closed_epochs(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H8: of a reset run that continues, only objects of closed epochs are deleted."""
        first = flaky_lake.begin("run", 2)
        first.commit([flaky_lake.write(first, 0)], [])
        reset(flaky_store, Log(flaky_store))
        late = flaky_lake.write(first, 1)
        second = flaky_lake.resume("run")
        receipt = flaky_lake.write(second, 1)
        report = run_vacuum(flaky_lake)
        assert flaky_lake.keys(late) <= set(report.objects)
        second.commit([receipt], [])
        check_sound(flaky_lake)

    @pytest.mark.parametrize("branch", ["main", "b"])
    def test_h9_a_segment_that_is_not_named_yet(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, branch: str
    ) -> None:
        """H9, H17, H18: a writer that paused before its create writes its segment again."""
        old, _ = write(flaky_lake, "old")
        create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", old))
        lake = SmallLake(flaky_store, branch)
        writer = lake.begin("run", 1)
        receipt = lake.write(writer, 0)
        reports = []
        flaky_store.at(
            "create", lambda: reports.append(run_vacuum(flaky_lake)), f"_lake/log/{branch}"
        )
        done = writer.commit([receipt], [])
        [report] = reports
        assert any(key.startswith("_lake/segments") for key in report.objects)
        assert done.runs["run"].finished
        check_sound(flaky_lake)

    def test_h17b_a_merge_whose_input_is_gone(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H17b: a merge that misses a segment reads the log again and continues."""
        for number in range(15):
            write(flaky_lake, f"run{number}")
        writer = flaky_lake.begin("run", 1)
        receipt = flaky_lake.write(writer, 0)

        def meddle() -> None:
            write(flaky_lake, "other")
            run_vacuum(flaky_lake)

        flaky_store.at("get", meddle, "_lake/segments")
        done = writer.commit([receipt], [])
        assert done.totals.samples == 17 * 3
        check_sound(flaky_lake)

    def test_h12_a_restore_of_what_expires(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H12: a restore concurrent with a vacuum is refused, or its objects are kept."""
        old, _ = write(flaky_lake, "old")
        write(flaky_lake, "new", overwrite=True)
        flaky_store.at("create", lambda: run_vacuum(flaky_lake), "_lake/log/main")
        with pytest.raises(VersionExpiredError):
            restore(flaky_lake.log, flaky_lake.head, old)
        check_sound(flaky_lake)

    def test_commit_in_between_is_kept(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """Objects committed between the listing and the expire are not deleted."""
        write(flaky_lake, "old")
        write(flaky_lake, "new", overwrite=True)
        writer = flaky_lake.begin("run", 1)
        receipt = flaky_lake.write(writer, 0)
        flaky_store.at("create", lambda: writer.commit([receipt], []), "_lake/log/main")
        report = run_vacuum(flaky_lake)
        assert report.objects
        assert flaky_lake.keys(receipt) <= flaky_lake.objects()
        check_sound(flaky_lake)

    def test_two_vacuums(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A vacuum that loses any of its races to another vacuum succeeds."""
        write(flaky_lake, "old")
        write(flaky_lake, "new", overwrite=True)
        flaky_store.at("create", lambda: run_vacuum(flaky_lake), "_lake/log/main")
        run_vacuum(flaky_lake)
        check_sound(flaky_lake)

    def test_interrupted(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """Leftovers of a vacuum that ended after its expire are deleted by the next one."""
        _, lost = write(flaky_lake, "old")
        write(flaky_lake, "new", overwrite=True)

        def end() -> None:
            raise Crash

        flaky_store.at("delete", end)
        with pytest.raises(Crash):
            run_vacuum(flaky_lake)
        assert lost <= flaky_lake.objects()
        assert lost <= set(run_vacuum(flaky_lake).objects)
        check_sound(flaky_lake)


def test_damaged_lake_is_left_alone(small_lake: SmallLake) -> None:
    """If a needed segment is missing, no version expires and nothing is deleted."""
    write(small_lake, "one")
    small_lake.store.delete([object_keys.segment_key(small_lake.head.segments[0].name)])
    version = small_lake.head.version
    with pytest.raises(CorruptionError, match="missing"):
        run_vacuum(small_lake)
    assert small_lake.head.version == version


def test_needs_exclusive_create(tmp_path: Path) -> None:
    """Rule 21: without exclusive create, a vacuum is refused, whichever process opens the lake."""
    lake = SmallLake(ObjectStore(tmp_path, single_writer=True))
    write(lake, "one")
    for store in (lake.store, ObjectStore(tmp_path)):
        with pytest.raises(UnsupportedStoreError, match="exclusive"):
            vacuum(store, Log(store))


def test_no_lake(tmp_path: Path) -> None:
    """A missing lake is an error, and nothing is created."""
    store = ObjectStore(tmp_path / "none")
    with pytest.raises(LakeNotFoundError):
        vacuum(store, Log(store))
    assert not (tmp_path / "none").exists()


def test_results_are_logged(flaky_lake: SmallLake, caplog: pytest.LogCaptureFixture) -> None:
    """Resets and vacuums log their counts."""
    caplog.set_level("INFO", "dasklake._maintenance")
    write(flaky_lake, "old")
    write(flaky_lake, "new", overwrite=True)
    flaky_lake.write(flaky_lake.begin("open", 1), 0)
    reset(flaky_lake.store, Log(flaky_lake.store), force=True)
    report = vacuum(flaky_lake.store, Log(flaky_lake.store), dry_run=True)
    first, second = caplog.messages
    assert first.startswith("Reset ")
    assert "1 runs closed, 1 objects deleted" in first
    assert second.startswith("Dry run of a vacuum of ")
    assert f"{len(report.objects)} objects deleted ({report.bytes} bytes)" in second


def test_progress(flaky_lake: SmallLake) -> None:
    """Resets and vacuums report their progress."""
    small_lake = flaky_lake
    writer = small_lake.begin("run", 600)
    for partition in range(600):
        small_lake.write(writer, partition)
    told: list[tuple[int, int]] = []
    reset(small_lake.store, Log(small_lake.store), on_status=lambda *n: told.append(n))
    assert told == [(256, 600), (512, 600), (600, 600)]
    write(small_lake, "old")
    write(small_lake, "new", overwrite=True)
    told.clear()
    report = vacuum(small_lake.store, Log(small_lake.store), on_status=lambda *n: told.append(n))
    assert told == [(len(report.objects), len(report.objects))]


def test_unfinished_uploads(s3_server: S3Server) -> None:
    """Parts of abandoned uploads are deleted with their epoch; those of an open one stay."""
    bucket = s3_server.bucket()
    lake = SmallLake(ObjectStore(f"{bucket.url}/lake", bucket.options))
    writer = lake.begin("run", 2)
    write(lake, "done")

    def upload(home: str, epoch: int) -> str:
        key = object_keys.chunk_key(home, 0, epoch, "ab" * 8, 0)
        name = f"/{bucket.url.removeprefix('s3://')}/lake/{key}"
        s3_server.request("POST", f"{name}?uploads")
        return key

    closed, late, foreign = upload("main/run", 1), upload("main/done", 1), "data/main/run/x"
    s3_server.request("POST", f"/{bucket.url.removeprefix('s3://')}/lake/{foreign}?uploads")
    assert reset(lake.store, Log(lake.store), dry_run=True).uploads == 1
    assert reset(lake.store, Log(lake.store)).uploads == 1
    assert lake.resume("run").epoch == writer.epoch + 1
    going = upload("main/run", 2)
    assert [key for key, _ in lake.store.pending_uploads("data")] == sorted([late, going, foreign])
    assert closed not in dict(lake.store.pending_uploads("data"))
    assert run_vacuum(lake).uploads == 1
    assert [key for key, _ in lake.store.pending_uploads("data")] == sorted([going, foreign])
    lake.store.abort_uploads([(going, "never-there")])
