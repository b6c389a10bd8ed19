"""Tests of the log: its head, its versions, and commits on storage that fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import google_crc32c
import pytest

from dasklake._format import object_keys
from dasklake._format.documents import commit_bytes, schema_digest
from dasklake._log import log_reader
from dasklake._log.log import Build, Draft, Log
from dasklake._log.transactions import create_lake, next_commit
from dasklake._maintenance.reset import reset
from dasklake._maintenance.vacuum import vacuum
from dasklake._model.commit import Commit, Kind, SegmentRef, Totals
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeNotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedFormatError,
    VersionExpiredError,
    VersionNotFoundError,
)
from tests.hostile.sealing import Attacker
from tests.support.flaky import Fault, FlakyStore, quick_log
from tests.support.lakes import SCHEMA, SmallLake

LOG = "_lake/log/main"


class Notes:
    """Builds of a plain commit, and what they were given.

    Parameters
    ----------
    **changes : object
        Fields of the commit.
    """

    def __init__(self, **changes: object) -> None:
        self.changes = changes
        self.ids: list[str] = []
        self.since: list[list[int]] = []

    def __call__(self, head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
        """Build it with one new object."""
        self.ids.append(commit_id)
        self.since.append([commit.version for commit in since])
        commit = next_commit(head, commit_id, Kind.FENCE, "note", **self.changes)
        return Draft(commit, [(object_keys.segment_key(commit_id), b"new")])


@pytest.fixture
def store() -> Iterator[FlakyStore]:
    """Make an empty lake in memory."""
    store = FlakyStore()
    create_lake(Log(store), SCHEMA)
    store.sent.clear()
    store.landed.clear()
    yield store
    store.clear()


def publish(store: ObjectStore, build: Build | None = None, log: Log | None = None) -> Commit:
    """Publish one commit on the head."""
    log = log or quick_log(store)
    return log.publish(log.require_head(), build or Notes())


def key(version: int) -> str:
    """Return the key of a version."""
    return object_keys.commit_key("main", version)


class TestHead:
    """The newest version."""

    def test_none(self, tmp_path: Path) -> None:
        """A branch without a log has no head, and requiring one is an error with a remedy."""
        log = Log(ObjectStore(tmp_path))
        assert log.head() is None
        with pytest.raises(LakeNotFoundError, match="to_lake"):
            log.require_head()

    def test_follows_others(self, store: FlakyStore) -> None:
        """The head is the newest version at the time of the call, whoever wrote it."""
        log = Log(store)
        assert log.require_head().version == 0
        made = [publish(store) for _ in range(3)]
        assert log.require_head() == made[-1]
        assert [commit.version for commit in log.walk(0)] == [0, 1, 2, 3]

    def test_two_listings(self, store: FlakyStore) -> None:
        """Finding the head of a long log takes two listings and one read."""
        head = Log(store).require_head()
        for version in (999, 1000, 4321):
            store.put(key(version), commit_bytes(replace(head, version=version)))
        store.sent.clear()
        assert Log(store).require_head().version == 4321
        assert [(op, at) for op, at, _ in store.sent] == [
            ("names", LOG),
            ("names", f"{LOG}/000004"),
            ("get", key(4321)),
        ]

    def test_foreign_names(self, store: FlakyStore) -> None:
        """Foreign names, and commits in the wrong directory, are ignored."""
        for name in ("7/x", "000001/readme", "000001/1001.json", "00000\u0661/x", "notes.txt"):
            store.put(f"{LOG}/{name}", b"foreign")
        store.put(f"{LOG}/000009/{key(5).rpartition('/')[2]}", b"misplaced")
        assert Log(store).require_head().version == 0

    def test_empty_directory(self, tmp_path: Path) -> None:
        """A crash between creating a directory and its first commit does not hide the head."""
        lake = SmallLake(ObjectStore(tmp_path))
        (tmp_path / LOG / "000001").mkdir()
        assert lake.head.version == 0

    def test_branches_are_apart(self, store: FlakyStore) -> None:
        """Each branch has its own log, under a name that stays inside the lake."""
        assert Log(store, "other").head() is None
        with pytest.raises(InvalidInputError):
            Log(store, "../main")


class TestRead:
    """Existing and missing versions."""

    def test_unknown(self, store: FlakyStore) -> None:
        """A missing version is an error that names it."""
        with pytest.raises(VersionNotFoundError, match="version 7"):
            Log(store).read(7)
        with pytest.raises(VersionNotFoundError, match="version 1"):
            list(Log(store).walk(0, 3))

    def test_another_commit_in_its_place(self, store: FlakyStore) -> None:
        """A commit under the key of another is corruption."""
        store.put(key(1), store.get(key(0)))
        with pytest.raises(CorruptionError, match="must be version"):
            Log(store).read(1)

    def test_fetched_once(self, store: FlakyStore) -> None:
        """Commits that were read or written are not read again."""
        log = quick_log(store)
        made = publish(store, log=log)
        assert log.read(made.version) is log.read(made.version)
        assert log.read(0) is log.read(0)
        assert store.count("get", key(made.version)) == 0
        assert store.count("get", key(0)) == 1

    def test_memory_is_bounded(self, store: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A log caches recently used objects up to a number of bytes."""
        size = store.size(key(0))
        for _ in range(9):
            publish(store)
        monkeypatch.setattr(log_reader, "_COMMITS", 3 * size + size // 2)
        log = Log(store)
        store.sent.clear()
        for version in (*range(10), 9, 8, 0):
            log.read(version)
        fetched = [at for op, at, _ in store.sent if op == "get"]
        assert fetched == [key(version) for version in (*range(10), 0)]

    def test_memory_of_segments_is_bounded(
        self, small_lake: SmallLake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading many segments caches no more than the limit."""
        writer = small_lake.begin("run", 20)
        for partition in range(14):
            writer.commit([small_lake.write(writer, partition)], [])
        commit = small_lake.head
        monkeypatch.setattr(log_reader, "_SEGMENTS", 2 * commit.segments[0].size)
        log = Log(small_lake.store)
        assert len(log.manifest(commit)) == 14
        kept = [ref for ref in commit.segments if log._segments.get(ref.name) is not None]
        assert len(kept) == 2

    def test_threads_share_a_log(self, store: FlakyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Threads that share a log with a tiny cache read correct data."""
        for _ in range(5):
            publish(store)
        monkeypatch.setattr(log_reader, "_COMMITS", 2 * store.size(key(0)))
        log, wrong = Log(store), list[int]()

        def read() -> None:
            wrong.extend(v for v in [*range(6)] * 30 if log.read(v).version != v)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_large_schema_is_written_and_read_once(self, store: FlakyStore) -> None:
        """A large schema is one object that all its commits share."""
        large = Schema({f"tensor {n}": TensorSpec(dtype="int64", shape=()) for n in range(1_000)})
        place = object_keys.schema_key(schema_digest(large))
        for _ in range(3):
            publish(store, Notes(schema=large))
        assert store.count("put", place) == 1
        store.sent.clear()
        assert [commit.schema == large for commit in Log(store).walk(1)] == [True] * 3
        assert store.count("get", place) == 1


class TestMissing:
    """Missing objects that a version names."""

    def test_lost(self, store: FlakyStore) -> None:
        """A missing object of a version that is not expired is corruption."""
        ref = SegmentRef("ab" * 8, 1, 1, 1, 1)
        commit = publish(store, Notes(segments=(ref,), failures=(ref,), totals=Totals(1, 1, 1)))
        for read in (Log(store).manifest, Log(store).failures):
            with pytest.raises(CorruptionError, match=f"version {commit.version}.*{ref.name}"):
                read(commit)

    def test_expired(self, store: FlakyStore) -> None:
        """A missing object of an expired version is reported as expired."""
        ref = SegmentRef("ab" * 8, 1, 1, 1, 1)
        commit = publish(store, Notes(segments=(ref,), failures=(ref,), totals=Totals(1, 1, 1)))
        publish(store, Notes(expired={"main": Versions.each([commit.version])}))
        for read in (Log(store).manifest, Log(store).failures):
            with pytest.raises(VersionExpiredError, match=f"Version {commit.version}.*refresh"):
                read(commit)


class TestPublish:
    """Creating the next version."""

    def test_chain(self, store: FlakyStore) -> None:
        """Each version names its predecessor, and is written after its objects."""
        first, second = publish(store), publish(store)
        assert (first.version, second.version) == (1, 2)
        assert second.parent == first.id
        assert [at for _, at, _ in store.landed] == [
            object_keys.segment_key(first.id),
            key(1),
            object_keys.segment_key(second.id),
            key(2),
        ]

    def test_returns_what_readers_see(self, store: FlakyStore) -> None:
        """The returned commit equals the stored one in every field."""
        made = publish(store)
        assert Log(store).read(made.version) == made

    def test_refuses_what_a_newer_writer_needs(self, store: FlakyStore) -> None:
        """A version that needs an unknown writer is read, but never built on or deleted."""
        lake = SmallLake(store)
        first = lake.begin("run", 1)
        first.commit([lake.write(first, 0)], [])
        lake.write(lake.begin("stopped", 2), 0)
        second = lake.begin("new", 1, overwrite=True)
        second.commit([lake.write(second, 0)], [])
        flags = {"reader": [], "writer": ["past", "row-ids"]}
        Attacker(store).commit(lambda document: document | {"features": flags})
        before = store.walk("")
        log = quick_log(store)
        head = log.require_head()
        assert head.unknown == ("row-ids",)
        for write in (
            lambda: publish(store),
            lambda: lake.begin("other", 1),
            lambda: lake.resume("stopped"),
            lambda: reset(store, log),
            lambda: vacuum(store, log, older_than=timedelta(0)),
        ):
            with pytest.raises(UnsupportedFormatError, match=r"needs row-ids\. Upgrade"):
                write()
        assert store.walk("") == before
        assert Log(store).require_head() == head

    def test_refuses_a_newer_writer_that_came_in_between(self, store: FlakyStore) -> None:
        """A writer that loses a race to a version that needs an unknown writer stops."""
        known = Log(store).require_head()
        publish(store)
        flags = {"reader": [], "writer": ["row-ids"]}
        Attacker(store).commit(lambda document: document | {"features": flags})
        with pytest.raises(UnsupportedFormatError, match=r"Version 1 .*needs row-ids"):
            quick_log(store).publish(known, Notes())
        assert Log(store).head_version() == 1

    def test_nothing_to_commit(self, store: FlakyStore) -> None:
        """A builder without a commit returns the head, and nothing is written."""
        log = quick_log(store)
        head = log.require_head()
        assert log.publish(head, lambda *_: None) == head
        assert store.landed == []

    def test_lost_race(self, store: FlakyStore) -> None:
        """After a lost race, the commit is rebuilt on the new head with new id and objects."""
        log, build = quick_log(store), Notes()
        known = log.require_head()
        publish(store)
        made = log.publish(known, build)
        assert made.version == 2
        assert build.since == [[], [1]]
        assert made.id == build.ids[1] != build.ids[0]
        assert store.get(object_keys.segment_key(made.id)) == b"new"

    def test_every_commit_is_examined(self, store: FlakyStore) -> None:
        """A builder gets every commit since the first head, over all lost races."""
        log, build = quick_log(store), Notes()
        for _ in range(2):
            publish(store)
        for _ in range(3):
            store.at("create", lambda: publish(store), LOG)
        made = log.publish(log.read(0), build)
        assert build.since[-1] == [1, 2, 3, 4, 5]
        assert made.version == 6

    def test_repeated_lost_races_are_warnings(
        self, store: FlakyStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first two lost races of a publish are debug records, further ones are warnings."""
        caplog.set_level("DEBUG", "dasklake._log.log")

        def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
            if len(since) < 4:
                publish(store)
            return Notes()(head, since, commit_id)

        quick_log(store).publish(Log(store).require_head(), build)
        races = [r for r in caplog.records if r.message.startswith("Lost race")]
        assert [r.levelname for r in races] == ["DEBUG", "DEBUG", "WARNING", "WARNING"]
        assert "Lost race 4 of a commit to branch 'main'" in races[-1].message
        created = [r.message for r in caplog.records if r.message.startswith("Created")]
        assert created[-1].startswith("Created version 5 (fence) of branch 'main'")

    def test_freed_by_others(self, store: FlakyStore) -> None:
        """A missing segment during a merge is a lost race if newer commits exist."""
        log = quick_log(store)
        tried = []

        def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
            tried.append([commit.version for commit in since])
            if head.version < 2:
                store.get("_lake/segments/gone")
            return Notes()(head, since, commit_id)

        for _ in range(2):
            publish(store)
        made = log.publish(log.read(0), build)
        assert tried == [[], [1, 2]]
        assert made.version == 3

    def test_lost_for_ever(self, store: FlakyStore) -> None:
        """A missing segment during a merge is corruption without newer commits."""
        log = quick_log(store)

        def build(*_: object) -> Draft:
            store.get("_lake/segments/gone")
            raise AssertionError

        with pytest.raises(CorruptionError, match="segments/gone"):
            log.publish(log.require_head(), build)
        assert store.landed == []

    def test_directory_before_is_flushed(self, store: FlakyStore) -> None:
        """The last version of a directory is synced before the first one of the next."""
        head = Log(store).require_head()
        store.put(key(999), commit_bytes(replace(head, version=999)))
        store.sent.clear()
        publish(store)
        publish(store)
        done = [(op, at) for op, at, _ in store.sent if op in ("sync", "create")]
        assert done == [("sync", key(999)), ("create", key(1000)), ("create", key(1001))]


class TestDoubt:
    """Creates whose response is lost."""

    @pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATE])
    def test_one_version(self, store: FlakyStore, fault: Fault) -> None:
        """A create without a response ends with one commit."""
        store.fail("create", fault, LOG)
        build = Notes()
        made = publish(store, build)
        assert len(build.ids) == 1
        assert made.version == 1
        store.arrive_all()
        assert Log(store).require_head() == made

    @pytest.mark.parametrize("faults", [1, 2, 5])
    def test_same_bytes(self, store: FlakyStore, faults: int) -> None:
        """A create is retried with the same id and the same bytes (H19, H19b)."""
        for _ in range(faults):
            store.fail("create", Fault.LATE, LOG)
        build = Notes()
        store.at("create", store.arrive, LOG, skip=faults)
        made = publish(store, build)
        sent = {data for op, at, data in store.sent if op == "create" and at == key(1)}
        assert store.count("create", key(1)) == faults + 1
        assert sent == {commit_bytes(made)}
        assert build.ids == [made.id]
        store.arrive_all()
        assert [commit.version for commit in Log(store).walk(0)] == [0, 1]

    def test_own_version_though_others_followed(self, store: FlakyStore) -> None:
        """A commit is found in its own version, not only at the head."""
        store.fail("create", Fault.AFTER, LOG)
        store.at("get", lambda: publish(store), key(1))
        build = Notes()
        assert publish(store, build).version == 1
        assert len(build.ids) == 1
        assert Log(store).require_head().version == 2

    def test_race_lost_in_doubt(self, store: FlakyStore) -> None:
        """A create without a response is a lost race if the version has another id."""
        store.fail("create", Fault.BEFORE, LOG)
        store.at("get", lambda: publish(store), key(1))
        build = Notes()
        assert publish(store, build).version == 2
        assert build.since == [[], [1]]

    def test_read_back_may_fail_too(self, store: FlakyStore) -> None:
        """If reading back fails too, the same version is retried."""
        store.fail("create", Fault.AFTER, LOG)
        store.fail("get", Fault.BEFORE, key(1))
        build = Notes()
        assert publish(store, build).version == 1
        assert len(build.ids) == 1

    def test_said_to_exist(self, store: FlakyStore) -> None:
        """A refused create of a missing version is retried."""

        def refuse() -> None:
            raise FileExistsError

        store.at("create", refuse, LOG)
        build = Notes()
        assert publish(store, build).version == 1
        assert len(build.ids) == 1

    def test_objects_are_sent_again(self, store: FlakyStore) -> None:
        """A failed put of a named object is retried with the same bytes before the create."""
        for fault in (Fault.BEFORE, Fault.AFTER):
            store.fail("put", fault, "_lake/segments")
        made = publish(store)
        sent = [each for each in store.sent if each[0] in ("put", "create")]
        assert sent[:3] == [("put", object_keys.segment_key(made.id), b"new")] * 3
        assert sent[3][:2] == ("create", key(1))

    def test_reads_of_a_rebase_are_tried_again(self, store: FlakyStore) -> None:
        """A storage error while newer commits are read does not end the publish."""
        log, build = quick_log(store), Notes()
        known = log.require_head()
        publish(store)
        publish(store)
        store.fail("get", Fault.BEFORE, key(2))
        made = log.publish(known, build)
        assert made.version == 3
        assert build.since[-1] == [1, 2]

    def test_denied(self, store: FlakyStore) -> None:
        """A permission error is not retried."""

        def deny() -> None:
            raise PermissionError

        store.at("create", deny, LOG)
        with pytest.raises(PermissionDeniedError):
            publish(store)
        assert Log(store).require_head().version == 0

    def test_patience_ends(self, store: FlakyStore) -> None:
        """A storage that fails for longer than retry_seconds ends the commit."""
        store.fail("create", Fault.BEFORE, LOG)
        log = quick_log(store, retry_seconds=0)
        with pytest.raises(StoreError, match="no answer"):
            publish(store, log=log)
        assert Log(store).require_head().version == 0
        assert "no answer" in str(log.retry_reason)
        assert publish(store, log=log).version == 1
        assert log.retry_reason is None

    def test_stop_ends_it(self, store: FlakyStore) -> None:
        """A stopped log gives up after the next error, not before."""
        log = Log(store)
        log.stop.set()
        assert publish(store, log=log).version == 1
        store.fail("create", Fault.BEFORE, LOG)
        with pytest.raises(StoreError, match="no answer"):
            publish(store, log=log)

    def test_given_up_and_landed(self, store: FlakyStore) -> None:
        """A create that lands after its writer gave up is an ordinary version."""
        store.fail("create", Fault.LATE, LOG)
        with pytest.raises(StoreError):
            publish(store, log=quick_log(store, retry_seconds=0))
        other = publish(store)
        store.arrive()
        assert Log(store).require_head() == other

    def test_damaged_version(self, store: FlakyStore) -> None:
        """A damaged version is corruption, and is not overwritten."""
        store.put(key(1), b"junk")
        with pytest.raises(CorruptionError, match=key(1)):
            quick_log(store).publish(Log(store).read(0), Notes())
        assert store.get(key(1)) == b"junk"

    def test_newer_format(self, store: FlakyStore) -> None:
        """A version of a newer format is never passed over."""
        known = Log(store).read(0)
        made = publish(store)
        rest = commit_bytes(made)[21:].replace(b'"format":1', b'"format":9')
        store.put(key(1), b'{"crc32c":"%08x",' % google_crc32c.value(rest) + rest)
        with pytest.raises(UnsupportedFormatError, match="format 9"):
            quick_log(store).publish(known, Notes())


class TestRetry:
    """Retries of storage operations."""

    def test_final_errors(self, store: FlakyStore) -> None:
        """An error that is said to be final is raised at once."""
        tried = []

        def action() -> None:
            tried.append(1)
            store.get("not/there")

        with pytest.raises(ObjectNotFoundError):
            quick_log(store).retry(action, ObjectNotFoundError)
        assert len(tried) == 1

    def test_pauses_grow(self, store: FlakyStore) -> None:
        """The pauses between two tries grow, at random, and have a limit."""
        log = Log(store)
        pauses: list[float] = []

        class Stop(threading.Event):
            def wait(self, timeout: float | None = None) -> bool:
                pauses.append(timeout or 0.0)
                return len(pauses) == 40

        log.stop = Stop()
        with pytest.raises(ObjectNotFoundError):
            log.retry(lambda: store.get("not/there"))
        assert max(pauses[:3]) <= 0.2
        assert 1.0 < max(pauses[10:]) <= 15.0
        assert len(set(pauses)) == 40
