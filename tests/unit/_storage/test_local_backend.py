"""Files of a local disk: order of flushes, file systems without links, temporary files."""

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
    """Record the file of each system call, and make the call."""
    calls: list[tuple[str, str]] = []

    def record(name: str) -> None:
        real = getattr(os, name)

        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            descriptor = f"/proc/self/fd/{file}" if isinstance(file, int) else None
            target = args[0] if args else file
            path = str(Path(descriptor).readlink()) if descriptor else os.fspath(target)
            calls.append((name, path))
            return real(file, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in CALLS:
        record(name)
    return calls


def refuse(number: int) -> Any:
    """Return a function that raises an OSError."""

    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(("verb", "naming"), [("create", "link"), ("put", "replace")])
def test_order_of_flushes(
    tmp_path: Path, trace: list[tuple[str, str]], verb: str, naming: str
) -> None:
    """The data is flushed before it gets its name, and every new directory after that."""
    store = ObjectStore(tmp_path / "lake")
    getattr(store, verb)("log/000000/0.json", b"x")
    target = str(tmp_path / "lake/log/000000/0.json")
    names = [name for name, _ in trace]
    named = next(i for i, (n, p) in enumerate(trace) if n in (naming, "rename") and p == target)
    data = next(i for i, (n, p) in enumerate(trace) if n == "fsync" and p.endswith(".tmp"))
    assert data < named
    after = [path for name, path in trace[named:] if name == "fsync"]
    chain = [str(tmp_path / part) for part in ("lake/log/000000", "lake/log", "lake", "")]
    assert after[:4] == [path.rstrip("/") for path in chain]
    assert names.count("fsync") >= 5


def test_known_directories_are_flushed_alone(tmp_path: Path, trace: list[tuple[str, str]]) -> None:
    """If the directories above are flushed, a write flushes only the file and its directory."""
    store = ObjectStore(tmp_path)
    store.create("log/0", b"x")
    trace.clear()
    store.create("log/1", b"x")
    flushed = [path for name, path in trace if name == "fsync"]
    assert flushed[1:] == [str(tmp_path / "log")]
    assert flushed[0].endswith(".tmp")


def test_directories_of_other_processes_are_flushed(
    tmp_path: Path, trace: list[tuple[str, str]]
) -> None:
    """A directory that another process created is flushed into its parent."""
    (tmp_path / "log" / "000001").mkdir(parents=True)
    ObjectStore(tmp_path).create("log/000001/1000.json", b"x")
    flushed = [path for name, path in trace if name == "fsync"]
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
    """A file system without hard links cannot create exclusively."""
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
    """A link succeeds if a network file system repeats the request and refuses the repetition."""
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
    """A write to a full disk raises a StoreError, and leaves no temporary file."""
    store = ObjectStore(tmp_path)
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        getattr(store, verb)("a/key", b"value")
    monkeypatch.undo()
    assert store.walk("", temporary=True) == []


def test_temporary_files_are_not_objects(tmp_path: Path) -> None:
    """A file of a killed writer is listed only on request, and its target key is known."""
    store = ObjectStore(tmp_path)
    store.put("data/chunk.arrow", b"whole")
    temporary = "data/.other.arrow.0123456789abcdef.tmp"
    (tmp_path / temporary).write_bytes(b"ha")
    assert store.names("data") == ["chunk.arrow"]
    assert store.walk("data") == [("data/chunk.arrow", 5)]
    assert store.walk("data", temporary=True) == [(temporary, 2), ("data/chunk.arrow", 5)]
    assert temporary_target(temporary) == "data/other.arrow"
    assert temporary_target("data/chunk.arrow") is None


def test_short_reads_and_writes_are_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are read and written, even if system calls process fewer than requested."""
    monkeypatch.setattr(local_backend, "_MOST_BYTES", 3)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: real(fd, min(size, 2), offset))
    store = ObjectStore(tmp_path)
    store.put("key", b"0123456789")
    assert store.get("key") == b"0123456789"
    assert store.get_range("key", 1, 9) == b"12345678"


def test_replaced_files_are_read_anew(tmp_path: Path) -> None:
    """After a file was replaced, the new content is read."""
    store = ObjectStore(tmp_path)
    store.put("key", b"first")
    assert store.get_range("key", 0, 5) == b"first"
    other = tmp_path / "other"
    other.write_bytes(b"other")
    other.replace(tmp_path / "key")
    assert store.get_range("key", 0, 5) == b"other"
