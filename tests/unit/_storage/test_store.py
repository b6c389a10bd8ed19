"""The store: URLs, storages that cannot create exclusively, chained URLs, secrets."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import fsspec
import pytest
from fsspec.registry import _registry

from dasklake._storage.connection import Connection
from dasklake._storage.retry import NO_RETRIES, STORE_RETRIES
from dasklake._storage.store import ObjectStore, absolute_url
from dasklake.exceptions import (
    InvalidInputError,
    MissingExtraError,
    ObjectExistsError,
    PermissionDeniedError,
    StoreError,
    UnsupportedStoreError,
)
from dasklake.testing.faults import Fault, FaultStore


class Careless(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A file system that accepts ``mode="create"`` and overwrites nevertheless."""

    protocol = "careless"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        """Overwrite in every mode."""
        self.objects[self._strip_protocol(path)] = value

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Read."""
        return self.objects[path][start:end]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Look up an object."""
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.objects[path]), "type": "file"}

    def rm_file(self, path: str) -> None:
        """Delete."""
        del self.objects[path]


class CarelessCloud(Careless):
    """The same file system under a protocol that should create exclusively."""

    protocol = "abfs"


class Answering(Careless):
    """A file system that answers with HTTP statuses before it creates an object."""

    protocol = "gs"
    answers: ClassVar[list[int]] = []

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        """Answer, or write."""
        if not self.answers:
            super().pipe_file(path, value, **kwargs)
            return
        error = OSError("an answer")
        error.__cause__ = RuntimeError("of the library")
        error.__cause__.status = self.answers.pop(0)  # type: ignore[attr-defined] # as aiohttp
        raise error


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Register the file systems for one test."""
    before = dict(_registry)
    fsspec.register_implementation("careless", Careless, clobber=True)
    fsspec.register_implementation("abfs", CarelessCloud, clobber=True)
    fsspec.register_implementation("gs", Answering, clobber=True)
    yield
    _registry.clear()
    _registry.update(before)
    Careless.objects.clear()
    Answering.answers.clear()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/lakes/coco", "file:///data/lakes/coco"),
        ("/data//lakes/../coco/", "file:///data/coco"),
        (Path("/data/coco"), "file:///data/coco"),
        ("file:///data/coco/", "file:///data/coco"),
        ("local:///data/coco", "file:///data/coco"),
        ("s3://bucket//coco/train/", "s3://bucket/coco/train"),
        ("s3://bucket", "s3://bucket"),
        ("memory://a//b/", "memory://a/b"),
        ("memory:///a/b", "memory://a/b"),
        ("simplecache::s3://bucket/x/", "simplecache::s3://bucket/x"),
    ],
)
def test_absolute_url(url: Any, expected: str) -> None:
    """All spellings of a URL become the same URL."""
    assert absolute_url(url) == expected


def test_absolute_url_of_a_relative_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths and the home directory are those of the caller."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert absolute_url("lake") == f"file://{tmp_path}/lake"
    assert absolute_url("file://lake") == f"file://{tmp_path}/lake"
    assert absolute_url("~/lake") == f"file://{tmp_path}/home/lake"


@pytest.mark.parametrize("url", ["", "  ", "s3://", "s3://bucket/../x", 42, None, b"bytes"])
def test_absolute_url_refuses(url: Any) -> None:
    """An invalid URL is refused."""
    with pytest.raises(InvalidInputError):
        absolute_url(url)


@pytest.mark.parametrize("url", ["careless://bucket/x", "abfs://bucket/x"])
def test_probe_refuses_careless_storage(url: str) -> None:
    """Storage without exclusive creation is refused, with a remedy; no object remains."""
    with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
        ObjectStore(url).probe()
    assert Careless.objects == {}


@pytest.mark.parametrize("url", ["careless://bucket/x", "abfs://bucket/x"])
def test_single_writer(url: str) -> None:
    """A single writer may use such a storage; an existing object is still refused."""
    store = ObjectStore(url, single_writer=True)
    store.probe()
    store.create("log/0", b"first")
    with pytest.raises(ObjectExistsError):
        store.create("log/0", b"second")
    assert store.get("log/0") == b"first"
    assert pickle.loads(pickle.dumps(store)).single_writer


def test_probe_refuses_storage_that_refuses_every_create() -> None:
    """A storage that answers 412 to every create does not pass the probe."""
    store = FaultStore()
    store.gate = lambda operation, _: Fault.REFUSED if operation == "create" else Fault.NONE
    with pytest.raises(UnsupportedStoreError, match="refused to create a new object"):
        store.probe()
    assert store.landed == []


def test_probe_accepts_a_lost_answer() -> None:
    """A create that is repeated because its answer was lost does not fail the probe."""
    store = FaultStore(retries=replace(STORE_RETRIES, wait=lambda _: None))
    store.fail("create", Fault.AFTER)
    store.probe()
    assert [operation for operation, _, _ in store.landed] == ["create", "delete"]
    assert store.pending == 0


def test_conflicts_and_busy_storage_are_retried() -> None:
    """A create is retried after 409 and 503, for a limited time."""
    pauses: list[float] = []
    policy = replace(STORE_RETRIES, wait=pauses.append)
    store = ObjectStore("gs://bucket/x").with_retries(policy)
    Answering.answers.extend([409, 503, 409, 409])
    store.create("key", b"value")
    assert Careless.objects == {"bucket/x/key": b"value"}
    assert len(pauses) == 4
    Answering.answers.extend([409] * 100)
    with pytest.raises(StoreError) as caught:
        store.with_retries(replace(policy, seconds=0.0)).create("other", b"value")
    assert type(caught.value) is StoreError
    assert caught.value.transient
    Answering.answers.clear()


def test_refused_condition_is_an_existing_object() -> None:
    """A refused condition raises ObjectExistsError."""
    Answering.answers.append(412)
    with pytest.raises(ObjectExistsError):
        ObjectStore("gs://bucket/x").create("key", b"value")
    assert Answering.answers == []


@pytest.mark.parametrize("options", [{}, {"simplecache": {"same_names": True}}])
def test_chained_urls_are_read_only(options: dict[str, Any]) -> None:
    """A chained URL is readable, and refuses every write without side effects."""
    ObjectStore("memory://chained/lake").put("key", b"value")
    store = ObjectStore("simplecache::memory://chained/lake", options)
    assert store.get("key") == b"value"
    assert store.names("") == ["key"]
    assert store.read_only
    writes: list[Callable[[], None]] = [
        lambda: store.put("k", b""),
        lambda: store.create("k", b""),
        store.probe,
    ]
    for write in writes:
        with pytest.raises(UnsupportedStoreError, match="is read-only"):
            write()
    with pytest.raises(UnsupportedStoreError, match="is read-only"):
        store.delete(["key"])


def test_directory_file_system_is_unwrapped(tmp_path: Path) -> None:
    """A directory file system uses the backend of its target: local disks stay durable."""
    store = ObjectStore("dir://sub", {"path": str(tmp_path), "target_protocol": "file"})
    store.create("key", b"value")
    assert (tmp_path / "sub" / "key").read_bytes() == b"value"
    assert store.creates_exclusively


def test_unknown_protocol() -> None:
    """An unknown protocol is named by the error."""
    with pytest.raises(UnsupportedStoreError, match="nonsense"):
        ObjectStore("nonsense://bucket/x").get("key")


def test_missing_library() -> None:
    """If the library of a protocol is not installed, the error names it."""
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from dasklake._storage.store import ObjectStore\n"
        "from dasklake.exceptions import MissingExtraError\n"
        "try: ObjectStore('s3://bucket/x').get('key')\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "dasklake[s3]"' in done.stdout
    assert MissingExtraError("x", "s3").extra == "s3"


@pytest.mark.parametrize("start", ["https://me:hunter2@", "https://hunter2@"])
def test_userinfo_is_never_shown(start: str) -> None:
    """User and password of a URL are in no repr and in no message, and still used."""
    store = ObjectStore(f"{start}127.0.0.1:1/lake?sig=hunter2")
    with pytest.raises(StoreError) as caught:
        store.with_retries(NO_RETRIES).get("key")
    shown = f"{store!r} {store.url} {caught.value} {caught.value.__cause__}"
    assert "hunter2" not in shown
    assert store.url == "https://127.0.0.1:1/lake"
    assert pickle.loads(pickle.dumps(store))._connection.url == store._connection.url


def test_denied_directory(tmp_path: Path) -> None:
    """A directory that may not be written is PermissionDeniedError, naming the object."""
    if os.geteuid() == 0:
        # Root may write anywhere but to the kernel's own files.
        root, key = Path("/proc/self"), "lake"
    else:
        root, key = tmp_path, "lake"
        tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="lake") as caught:
        ObjectStore(root).put(key, b"")
    assert isinstance(caught.value, PermissionDeniedError) or os.geteuid() == 0


def test_connects_again_after_a_fork(tmp_path: Path) -> None:
    """A store that was used before a fork works in the child."""
    store = ObjectStore(tmp_path)
    store.put("key", b"value")
    connection = store._connection
    connection._opened = connection.current()._replace(process=-1)
    assert store.get("key") == b"value"
    assert connection.current().process == os.getpid()


@pytest.mark.parametrize("threads", [1, 4])
def test_credentials_that_expire_in_quick_succession_are_renewed(threads: int) -> None:
    """A call succeeds with the newest credentials, whichever thread renewed them."""
    newest, refusals = {"key": "0"}, iter(range(3))
    lock = threading.Lock()

    def options() -> dict[str, str]:
        return dict(newest)

    connection = Connection(f"memory://{uuid4().hex}", options, confined=True)

    def action(backend: Any) -> str:
        key = str(backend._fs.storage_options["key"])
        with lock:
            number = next(refusals, None) if key == newest["key"] else None
            if number is not None:
                newest["key"] = str(number + 1)
            if key != newest["key"]:
                raise PermissionError("expired")
        return key

    with ThreadPoolExecutor(threads) as pool:
        results = [pool.submit(connection.call, "read", "key", action) for _ in range(threads)]
        assert [result.result() for result in results] == ["3"] * threads


def test_credentials_that_do_not_change_are_refused_once() -> None:
    """A call fails at once if the function returns the refused credentials again."""
    calls: list[Any] = []

    def action(backend: Any) -> None:
        calls.append(backend)
        raise PermissionError("denied")

    connection = Connection(f"memory://{uuid4().hex}", dict, confined=True)
    with pytest.raises(PermissionDeniedError):
        connection.call("read", "key", action)
    assert len(calls) == 1
