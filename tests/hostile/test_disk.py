"""Links, pipes and devices in a lake on disk: nothing outside the root is read or changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._maintenance.reset import reset
from dasklake._maintenance.verify import verify
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, LakeError
from tests.support.lakes import SmallLake

Read = Callable[[ObjectStore], object]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Create a directory with a file of another user."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_bytes(b"theirs")
    return folder


@pytest.fixture
def store(tmp_path: Path, outside: Path) -> ObjectStore:
    """Create a store with links to a file and a directory outside it, and one link inside it."""
    root = tmp_path / "lake"
    (root / "a").mkdir(parents=True)
    (root / "a" / "own").write_bytes(b"ours")
    (root / "file").symlink_to(outside / "file")
    (root / "folder").symlink_to(outside, target_is_directory=True)
    (root / "up").symlink_to("../outside/file")
    (root / "inside").symlink_to("a/own")
    return ObjectStore(root)


@pytest.mark.parametrize("key", ["file", "folder/file", "up"])
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda store, key: store.get(key), id="get"),
        pytest.param(lambda store, key: store.get_range(key, 0, 2), id="range"),
        pytest.param(lambda store, key: store.size(key), id="size"),
    ],
)
def test_links_out_of_the_root_are_not_read(
    store: ObjectStore, key: str, read: Callable[[ObjectStore, str], object]
) -> None:
    """A link that leaves the root is an error that names it, and its target is not read."""
    with pytest.raises(CorruptionError, match=f"{key.partition('/')[0]}.*symbolic link"):
        read(store, key)


def test_links_within_the_root_are_read(store: ObjectStore) -> None:
    """A link within the lake is followed."""
    assert store.get("inside") == b"ours"
    assert store.size("inside") == 4


def test_a_root_that_is_a_link(tmp_path: Path, store: ObjectStore) -> None:
    """The root itself may be reached through a link."""
    (tmp_path / "alias").symlink_to(tmp_path / "lake", target_is_directory=True)
    alias = ObjectStore(tmp_path / "alias")
    assert alias.get("a/own") == b"ours"
    alias.put("a/new", b"x")
    assert store.get("a/new") == b"x"


def test_links_are_not_listed_through(store: ObjectStore) -> None:
    """A listing neither shows nor visits files outside the root."""
    assert store.walk("") == [("a/own", 4), ("inside", 4)]
    with pytest.raises(CorruptionError, match="symbolic link"):
        store.names("folder")
    with pytest.raises(CorruptionError, match="symbolic link"):
        store.walk("folder")


def test_nothing_is_written_outside(store: ObjectStore, outside: Path) -> None:
    """Writing through a link that leaves the root is refused. A link to a file is replaced."""
    for write in (store.put, store.create):
        with pytest.raises(CorruptionError, match="symbolic link"):
            write("folder/new", b"x")
        with pytest.raises(CorruptionError, match="symbolic link"):
            write("folder/deeper/new", b"x")
    store.put("file", b"mine")
    assert store.get("file") == b"mine"
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_bytes() == b"theirs"


def test_nothing_is_deleted_outside(store: ObjectStore, outside: Path) -> None:
    """Deleting a link removes only the link. Nothing in a linked directory is removed."""
    store.delete(["file"])
    with pytest.raises(CorruptionError, match="symbolic link"):
        store.delete(["folder/file"])
    assert (outside / "file").read_bytes() == b"theirs"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("read", ["get", "get_range"])
def test_pipes_do_not_block(store: ObjectStore, tmp_path: Path, read: str) -> None:
    """A pipe instead of an object is an error at once, so the reader does not block."""
    os.mkfifo(tmp_path / "lake" / "pipe")
    with pytest.raises(CorruptionError, match="pipe or a device"):
        getattr(store, read)("pipe", *([0, 1] if read == "get_range" else []))


def test_links_to_devices_are_not_read(store: ObjectStore, tmp_path: Path) -> None:
    """A link to an endless device is refused."""
    (tmp_path / "lake" / "zero").symlink_to("/dev/zero")
    with pytest.raises(CorruptionError, match="symbolic link"):
        store.get("zero")


def test_a_reset_does_not_follow_links(small_lake: SmallLake, outside: Path) -> None:
    """If a link replaces the directory of a run, a reset does not delete files in its target."""
    writer = small_lake.begin("run", 2)
    small_lake.write(writer, 0)
    root = Path(small_lake.store.url.removeprefix("file://"))
    run = root / "data" / "main" / "run"
    for file in run.iterdir():
        file.rename(outside / file.name)
    run.rmdir()
    run.symlink_to(outside, target_is_directory=True)
    before = {path.name for path in outside.iterdir()}
    with pytest.raises(LakeError, match="symbolic link"):
        reset(small_lake.store, Log(small_lake.store), force=True)
    assert {path.name for path in outside.iterdir()} == before


def test_linked_objects_are_damage(small_lake: SmallLake, outside: Path) -> None:
    """Verify names a chunk that is a link to a file outside the lake."""
    writer = small_lake.begin("run", 1)
    receipt = small_lake.write(writer, 0)
    writer.commit([receipt], [])
    [key] = small_lake.keys(receipt)
    file = Path(small_lake.store.url.removeprefix("file://")) / key
    file.rename(outside / "chunk")
    file.symlink_to(outside / "chunk")
    [damage] = verify(small_lake.store, Log(small_lake.store)).damaged
    assert (damage.key, damage.rows) == (key, (0, 3))


def test_keys_out_of_the_root_are_refused(store: ObjectStore, outside: Path) -> None:
    """Keys outside the root are refused before they reach the disk."""
    for key in ("../outside/file", "a/../../outside/file", "/etc/passwd", ".."):
        for action in (store.get, store.size, store.names, store.walk):
            with pytest.raises(CorruptionError, match="leaves the root"):
                action(key)
        with pytest.raises(CorruptionError, match="leaves the root"):
            store.delete([key])
    for home in ("main/../..", "main/a/b", "../main/x", "/main/x", "main/"):
        branch, _, run = home.partition("/")
        with pytest.raises(LakeError):
            assert object_keys.valid_name("branch", branch) + object_keys.valid_name("run", run)
    assert (outside / "file").read_bytes() == b"theirs"
