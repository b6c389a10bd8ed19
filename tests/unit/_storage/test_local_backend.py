"""Files of a local disk: order of flushes, file systems without links, what a kill leaves."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from dasklake._storage import local_backend
from dasklake._storage.store import ObjectStore, temporary_target
from dasklake.exceptions import ObjectExistsError, StoreError, UnsupportedStoreError

CALLS = ("fsync", "link", "rename", "replace", "unlink")


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record which file each call to the system is about; the calls are made."""
    seen: list[tuple[str, str]] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def call(what: Any, *args: Any, **kwargs: Any) -> Any:
            path = f"/proc/self/fd/{what}" if isinstance(what, int) else None
            place = str(Path(path).readlink()) if path else os.fspath(args[0] if args else what)
            seen.append((name, place))
            return real(what, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in CALLS:
        record(name)
    return seen


def refuse(number: int) -> Any:
    """Return a function that fails like a file system would."""

    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(("verb", "naming"), [("create", "link"), ("put", "replace")])
def test_order_of_flushes(
    tmp_path: Path, trace: list[tuple[str, str]], verb: str, naming: str
) -> None:
    """The data is on the disk before it gets its name, and every new directory after."""
    store = ObjectStore(tmp_path / "lake")
    getattr(store, verb)("log/000000/0.json", b"x")
    target = str(tmp_path / "lake/log/000000/0.json")
    names = [name for name, _ in trace]
    named = next(i for i, (n, p) in enumerate(trace) if n in (naming, "rename") and p == target)
    data = next(i for i, (n, p) in enumerate(trace) if n == "fsync" and p.endswith(".tmp"))
    assert data < named
    after = [place for name, place in trace[named:] if name == "fsync"]
    chain = [str(tmp_path / part) for part in ("lake/log/000000", "lake/log", "lake", "")]
    assert after[:4] == [place.rstrip("/") for place in chain]
    assert names.count("fsync") >= 5


def test_known_directories_are_flushed_alone(tmp_path: Path, trace: list[tuple[str, str]]) -> None:
    """Once the directories above are on the disk, a write flushes the file and its directory."""
    store = ObjectStore(tmp_path)
    store.create("log/0", b"x")
    trace.clear()
    store.create("log/1", b"x")
    flushed = [place for name, place in trace if name == "fsync"]
    assert flushed[1:] == [str(tmp_path / "log")]
    assert flushed[0].endswith(".tmp")


def test_directories_made_by_others_are_flushed(
    tmp_path: Path, trace: list[tuple[str, str]]
) -> None:
    """A directory that another process made and did not flush is flushed into its parent."""
    (tmp_path / "log" / "000001").mkdir(parents=True)
    ObjectStore(tmp_path).create("log/000001/1000.json", b"x")
    flushed = [place for name, place in trace if name == "fsync"]
    assert str(tmp_path / "log") in flushed
    assert str(tmp_path) in flushed


def test_sync_flushes_the_directory(tmp_path: Path, trace: list[tuple[str, str]]) -> None:
    """The directory of an object that another process wrote can be flushed."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "999.json").write_bytes(b"theirs")
    ObjectStore(tmp_path).sync("log/999.json")
    assert ("fsync", str(tmp_path / "log")) in trace


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A file system without hard links is one without exclusive create."""
    monkeypatch.setattr(os, "link", refuse(number))
    store = ObjectStore(tmp_path)
    with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
        store.probe()
    assert not store.creates_exclusively
    assert store.walk("", temporary=True) == []
    alone = ObjectStore(tmp_path, single_writer=True)
    alone.probe()
    alone.create("key", b"first")
    with pytest.raises(ObjectExistsError):
        alone.create("key", b"second")
    assert alone.get("key") == b"first"


def test_link_that_was_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network file system that repeats a request, and refuses the repetition, has done it."""
    real = os.link

    def twice(*args: Any) -> None:
        real(*args)
        real(*args)

    monkeypatch.setattr(os, "link", twice)
    store = ObjectStore(tmp_path)
    store.create("key", b"value")
    assert store.get("key") == b"value"


@pytest.mark.parametrize("verb", ["put", "create"])
def test_failed_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A full disk is a StoreError that says so, and leaves no part of a file."""
    store = ObjectStore(tmp_path)
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        getattr(store, verb)("a/key", b"value")
    monkeypatch.undo()
    assert store.walk("", temporary=True) == []


def test_half_written_files_are_no_objects(tmp_path: Path) -> None:
    """What a killed writer leaves is not listed, and known for what it was to become."""
    store = ObjectStore(tmp_path)
    store.put("data/chunk.arrow", b"whole")
    left = "data/.other.arrow.0123456789abcdef.tmp"
    (tmp_path / left).write_bytes(b"ha")
    assert store.names("data") == ["chunk.arrow"]
    assert store.walk("data") == [("data/chunk.arrow", 5)]
    assert store.walk("data", temporary=True) == [(left, 2), ("data/chunk.arrow", 5)]
    assert temporary_target(left) == "data/other.arrow"
    assert temporary_target("data/chunk.arrow") is None


def test_writes_go_on_after_short_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that moves fewer bytes than asked for still ends with all of them."""
    monkeypatch.setattr(local_backend, "_MOST_BYTES", 3)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, place: real(fd, min(size, 2), place))
    store = ObjectStore(tmp_path)
    store.put("key", b"0123456789")
    assert store.get("key") == b"0123456789"
    assert store.get_range("key", 1, 9) == b"12345678"


def test_replaced_files_are_read_anew(tmp_path: Path) -> None:
    """A file that was replaced, or deleted and made again, is never served from before."""
    store = ObjectStore(tmp_path)
    store.put("key", b"first")
    assert store.get_range("key", 0, 5) == b"first"
    other = tmp_path / "other"
    other.write_bytes(b"other")
    other.replace(tmp_path / "key")
    assert store.get_range("key", 0, 5) == b"other"
