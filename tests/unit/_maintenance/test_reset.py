"""Tests of reset: it deletes leftovers, and no object that a version or a later writer needs."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._log import heartbeat
from dasklake._log.log import Log
from dasklake._maintenance.reset import ResetReport, reset
from dasklake._model.commit import Kind
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    LakeNotFoundError,
    RunAbortedError,
    RunActiveError,
    UnsupportedStoreError,
)
from tests.support.lakes import SmallLake
from tests.support.s3 import S3Server


class Meddled(ObjectStore):
    """A store that runs an action in the middle of another call, once."""

    def meddle(self, name: str, action: Callable[[], object], *, skip: int = 0) -> None:
        """Run ``action`` before the call of ``name`` that comes after ``skip`` others."""
        real = getattr(self, name)
        calls = iter([*[lambda: None] * skip, action])

        def call(*args: object, **kwargs: object) -> object:
            next(calls, lambda: None)()
            return real(*args, **kwargs)

        setattr(self, name, call)


def run_reset(lake: SmallLake, *, force: bool = False, dry_run: bool = False) -> ResetReport:
    """Reset with a log of its own."""
    return reset(lake.store, Log(lake.store), force=force, dry_run=dry_run)


@pytest.fixture(params=["file", "memory", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> SmallLake:
    """Make an empty lake on each kind of storage."""
    if request.param == "file":
        return SmallLake(ObjectStore(tmp_path / "lake"))
    if request.param == "memory":
        return SmallLake(ObjectStore(f"memory://{uuid.uuid4().hex}"))
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket()
    return SmallLake(ObjectStore(f"{bucket.url}/lake", bucket.options))


def test_leftovers_go_and_nothing_else(lake: SmallLake) -> None:
    """Uncommitted attempts are deleted; committed, foreign and unrelated objects stay."""
    done = lake.begin("done", 1)
    done.commit([lake.write(done, 0)], [])
    speculative = lake.write(done, 0)
    broken = lake.begin("broken", 3)
    committed = lake.write(broken, 0, [[1], [2, 3]], failures=2)
    broken.commit([committed], [])
    orphan = lake.write(broken, 0)
    lost = lake.write(broken, 1, [[1], [2, 3]], failures=2)
    lake.store.put("data/main/broken/notes.txt", b"foreign")
    lake.store.put("data/main/broken2/1-1-0000000000000000-0.arrow", b"another's")
    before = lake.objects()

    planned = run_reset(lake, dry_run=True)
    assert lake.objects() == before
    report = run_reset(lake)
    leftovers = lake.keys(orphan) | lake.keys(lost)
    assert set(planned.objects) == set(report.objects) == leftovers
    assert dict(planned.closed) == dict(report.closed) == {"main/broken": 1}
    assert planned.bytes == report.bytes > 0
    assert (planned.dry_run, report.dry_run) == (True, False)
    abort = lake.head
    assert abort.kind is Kind.ABORT
    commit = object_keys.commit_key("main", abort.version)
    assert lake.objects() == before - leftovers | {commit}
    assert lake.keys(committed) | lake.keys(speculative) <= lake.objects()


def test_nothing_left_to_do(small_lake: SmallLake) -> None:
    """A second reset, or one of a lake whose runs are finished, commits and deletes nothing."""
    writer = small_lake.begin("run", 2)
    small_lake.write(writer, 0)
    assert run_reset(small_lake).objects
    before = small_lake.objects()
    assert run_reset(small_lake) == ResetReport({}, (), 0, dry_run=False)
    assert small_lake.objects() == before
    second = small_lake.resume("run")
    second.commit([small_lake.write(second, p) for p in (0, 1)], [])
    before = small_lake.objects()
    assert run_reset(small_lake) == ResetReport({}, (), 0, dry_run=False)
    assert small_lake.objects() == before


def test_zombie_and_resume_after_reset(small_lake: SmallLake) -> None:
    """A coordinator of a closed epoch cannot commit; the next epoch of the run can."""
    zombie = small_lake.begin("run", 2)
    kept = small_lake.write(zombie, 0)
    zombie.commit([kept], [])
    late = small_lake.write(zombie, 1)
    run_reset(small_lake)
    with pytest.raises(RunAbortedError, match="'run'"):
        zombie.commit([late], [])
    leftover = small_lake.write(zombie, 1)
    again = small_lake.resume("run")
    again.commit([small_lake.write(again, 1)], [])
    assert small_lake.head.runs["run"].finished
    assert small_lake.head.totals.samples == 6
    assert small_lake.keys(leftover) <= small_lake.objects()


def test_late_objects_of_a_closed_epoch(small_lake: SmallLake) -> None:
    """Chunks that a zombie writes after a reset are deleted by the next one."""
    zombie = small_lake.begin("run", 2)
    run_reset(small_lake)
    late = small_lake.write(zombie, 0)
    assert set(run_reset(small_lake).objects) == small_lake.keys(late)


def test_newer_epoch_is_not_touched(tmp_path: Path) -> None:
    """Objects of an epoch that began after the abort stay, though no version names them yet."""
    store = Meddled(tmp_path / "lake")
    lake = SmallLake(store)
    first = lake.begin("run", 2)
    lost = lake.write(first, 0)
    seen = []

    def resume() -> None:
        writer = lake.resume("run")
        seen.append((writer, lake.write(writer, 1)))

    store.meddle("walk", resume, skip=1)
    report = run_reset(lake)
    [(writer, receipt)] = seen
    assert set(report.objects) == lake.keys(lost)
    writer.commit([receipt], [])
    assert lake.keys(receipt) <= lake.objects()


def test_epoch_that_came_in_between_is_closed(tmp_path: Path) -> None:
    """An epoch that began before the abort landed is closed by it, and stops."""
    store = Meddled(tmp_path / "lake")
    lake = SmallLake(store)
    lake.begin("run", 2)
    seen = []

    def resume() -> None:
        writer = lake.resume("run")
        seen.append((writer, lake.write(writer, 1)))

    store.meddle("create", resume)
    report = run_reset(lake)
    [(writer, receipt)] = seen
    assert dict(report.closed) == {"main/run": 2}
    assert set(report.objects) == lake.keys(receipt)
    with pytest.raises(RunAbortedError):
        writer.commit([receipt], [])


def test_commit_that_came_in_between_is_kept(tmp_path: Path) -> None:
    """Chunks committed before the abort landed are not leftovers, though they were listed."""
    store = Meddled(tmp_path / "lake")
    lake = SmallLake(store)
    writer = lake.begin("run", 2)
    receipt = lake.write(writer, 0)
    store.meddle("create", lambda: writer.commit([receipt], []))
    assert run_reset(lake).objects == ()
    assert lake.keys(receipt) <= lake.objects()


def test_run_that_finished_in_between(tmp_path: Path) -> None:
    """A run that finishes before the abort lands is not closed."""
    store = Meddled(tmp_path / "lake")
    lake = SmallLake(store)
    writer = lake.begin("run", 1)
    receipt = lake.write(writer, 0)
    store.meddle("create", lambda: writer.commit([receipt], []))
    assert run_reset(lake).closed == {}
    assert lake.head.kind is Kind.DATA
    assert lake.keys(receipt) <= lake.objects()


def test_older_versions_keep_their_objects(small_lake: SmallLake) -> None:
    """Chunks that only an older version names stay; the run's leftovers are deleted."""
    old = small_lake.begin("old", 2)
    receipt = small_lake.write(old, 0)
    old.commit([receipt], [])
    lost = small_lake.write(old, 1)
    new = small_lake.begin("new", 1, overwrite=True)
    new.commit([small_lake.write(new, 0)], [])
    assert set(run_reset(small_lake).objects) == small_lake.keys(lost)
    assert small_lake.keys(receipt) <= small_lake.objects()


def test_half_written_files(small_lake: SmallLake) -> None:
    """Temporary objects of a killed writer are deleted with its epoch."""
    writer = small_lake.begin("run", 2)
    small_lake.write(writer, 0)
    [chunk] = [key for key in small_lake.objects() if key.startswith("data/")]
    folder, _, name = chunk.rpartition("/")
    half = f"{folder}/.{name}.0123456789abcdef.tmp"
    small_lake.store.put(half, b"ha")
    assert half in run_reset(small_lake).objects
    assert half not in small_lake.objects()


def test_damaged_lake_is_left_alone(small_lake: SmallLake) -> None:
    """If a segment is missing, nothing is deleted."""
    writer = small_lake.begin("run", 2)
    commit = writer.commit([small_lake.write(writer, 0)], [])
    lost = small_lake.write(writer, 1)
    small_lake.store.delete([object_keys.segment_key(commit.segments[0].name)])
    with pytest.raises(CorruptionError, match="missing"):
        run_reset(small_lake)
    assert small_lake.keys(lost) <= small_lake.objects()


def beat(lake: SmallLake, counter: int, epoch: int = 1) -> None:
    """Write a heartbeat."""
    found = Heartbeat(epoch, "coordinator", counter)
    lake.store.put(object_keys.heartbeat_key("main", "run"), heartbeat_bytes(found))


def test_living_run_is_refused(small_lake: SmallLake) -> None:
    """An active run is not reset, even in a dry run, unless forced."""
    writer = small_lake.begin("run", 2)
    lost = small_lake.write(writer, 0)
    stop = threading.Event()

    def live() -> None:
        for counter in range(1, 10_000):
            beat(small_lake, counter)
            if stop.wait(0.02):
                return

    beat(small_lake, 0)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        for dry_run in (True, False):
            with pytest.raises(RunActiveError, match="'run'"):
                run_reset(small_lake, dry_run=dry_run)
        assert set(run_reset(small_lake, force=True).objects) == small_lake.keys(lost)
        # It beats on, but has been told to stop: another reset need not wait for it.
        assert run_reset(small_lake).objects == ()
    finally:
        stop.set()
        thread.join()


def test_dead_run_is_reset(small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat that does not change does not keep a run active."""
    monkeypatch.setattr(heartbeat, "OBSERVE_SECONDS", 0.3)
    small_lake.begin("run", 2)
    beat(small_lake, 10**9)
    assert dict(run_reset(small_lake).closed) == {"main/run": 1}


def test_force_needs_exclusive_create(tmp_path: Path) -> None:
    """A forced reset is refused on storage without exclusive create."""
    lake = SmallLake(ObjectStore(tmp_path, single_writer=True))
    lost = lake.write(lake.begin("run", 2), 0)
    with pytest.raises(UnsupportedStoreError, match="without force"):
        run_reset(lake, force=True)
    assert lake.keys(lost) <= lake.objects()
    assert set(run_reset(lake).objects) == lake.keys(lost)


def test_no_lake(tmp_path: Path) -> None:
    """A missing lake is an error, and nothing is created."""
    store = ObjectStore(tmp_path / "none")
    with pytest.raises(LakeNotFoundError):
        reset(store, Log(store))
    assert not (tmp_path / "none").exists()
