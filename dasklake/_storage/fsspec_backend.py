"""Open the backend of an object store; the only module that opens fsspec file systems."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import fsspec
import fsspec.asyn
import numpy as np
import numpy.typing as npt
from fsspec.asyn import AsyncFileSystem, get_loop
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dasklake._fork import RenewedLock, inherit_after_fork
from dasklake._storage.local_backend import LocalBackend, temporary_target
from dasklake._storage.memory_pool import Allocate, Check
from dasklake._storage.urls import LOCAL, absolute_url, is_chained, is_local, safe_url
from dasklake.exceptions import MissingExtraError, UnsupportedStoreError

#: File systems whose ``pipe_file(mode="create")`` is one conditional request of the storage.
_CONDITIONAL = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "azure"}

_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}

#: Makes a create in ``memory://`` atomic: fsspec checks for the object, then writes.
_MEMORY = RenewedLock()


# Releases of fsspec before 2025 leave the loop of the parent process to a forked child, where no
# thread runs it.
if not hasattr(fsspec.asyn, "reset_after_fork"):
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)


def whole_options(fs: Any) -> dict[str, Any]:
    """Return the arguments that make a file system read a whole object with one request.

    Recent releases of s3fs first request the size, to split large objects into parts. Chunks are
    read concurrently already, and all other objects are small.
    """
    read = getattr(fs, "_cat_file", None)
    split = read is not None and "max_concurrency" in inspect.signature(read).parameters
    return {"max_concurrency": 1} if split else {}


class Backend(Protocol):
    """Operations of a backend. The store translates its errors."""

    creates_exclusively: bool
    local: bool
    shared: bool
    writable: bool

    def put(self, key: str, data: memoryview) -> None: ...
    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None: ...
    def sync(self, key: str) -> None: ...
    def get(self, key: str, max_bytes: int | None = None) -> bytes: ...
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]: ...
    def get_arrays(
        self, key: str, ranges: Sequence[tuple[int, int]], allocate: Allocate, check: Check
    ) -> list[npt.NDArray[np.uint8]]: ...
    def size(self, key: str) -> int: ...
    def names(self, prefix: str) -> list[str]: ...
    def walk(self, prefix: str) -> list[tuple[str, int]]: ...
    def delete(self, key: str) -> None: ...
    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]: ...
    def abort_upload(self, key: str, upload: str) -> None: ...


class FsspecBackend:
    """Objects of an fsspec file system under one path."""

    local = False

    def __init__(self, fs: Any, root: str, *, writable: bool) -> None:
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._fs = fs
        self._root = root.rstrip("/")
        self.writable = writable
        self.shared = True
        self.creates_exclusively = writable and bool(protocols & _CONDITIONAL)
        self._whole = whole_options(fs)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def put(self, key: str, data: memoryview) -> None:
        # The HTTP libraries accept only bytes; no other backend copies the data.
        self._fs.pipe_file(self._path(key), bytes(data))

    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None:
        if single_writer:
            with suppress(FileNotFoundError):
                self.size(key)
                raise FileExistsError(key)
        elif not self.creates_exclusively:
            raise UnsupportedStoreError(
                f"The storage must create objects exclusively, and {type(self._fs).__name__} cannot: "
                "two writers could overwrite each other's commits. Use a local disk, s3, gs or "
                "abfs, or single_writer=True if there is only one writer."
            )
        mode = {"mode": "create"} if self.creates_exclusively else {}
        self._fs.pipe_file(self._path(key), bytes(data), **mode)

    def sync(self, key: str) -> None:
        """Do nothing: an acknowledged object is durable."""

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        if max_bytes is None:
            return bytes(self._fs.cat_file(self._path(key), **self._whole))
        return bytes(self._fs.cat_file(self._path(key), start=0, end=max_bytes))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        path = self._path(key)
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        if isinstance(self._fs, AsyncFileSystem) and len(ranges) > 1:
            parts = self._fs.cat_ranges([path] * len(ranges), starts, stops, on_error="raise")
            return [bytes(part) for part in parts]
        return [bytes(self._fs.cat_file(path, start=start, end=stop)) for start, stop in ranges]

    def get_arrays(
        self,
        key: str,
        ranges: Sequence[tuple[int, int]],
        allocate: Allocate,  # noqa: ARG002 # file systems allocate what they return
        check: Check,
    ) -> list[npt.NDArray[np.uint8]]:
        arrays = [np.frombuffer(part, np.uint8) for part in self.get_ranges(key, ranges)]
        for (start, stop), data in zip(ranges, arrays, strict=True):
            if len(data) == stop - start:
                check(start, data)
        return arrays

    def size(self, key: str) -> int:
        self._fs.invalidate_cache(self._path(key))
        info = self._fs.info(self._path(key))
        if info["type"] != "file" or info["size"] is None:
            raise FileNotFoundError(key)
        return int(info["size"])

    def names(self, prefix: str) -> list[str]:
        path = self._path(prefix)
        self._fs.invalidate_cache(path)
        try:
            paths = self._fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        inside = (name.rstrip("/") for name in paths)
        names = {name.rsplit("/", 1)[-1] for name in inside if self._relative(name) != prefix}
        return sorted(name for name in names if name and temporary_target(name) is None)

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        path = self._path(prefix)
        # Some file systems cache a listing of every level.
        self._fs.invalidate_cache()
        try:
            files = self._fs.find(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        keys = ((self._relative(name), info["size"]) for name, info in files.items())
        return [(key, int(size or 0)) for key, size in keys if key != prefix]

    def _relative(self, name: str) -> str:
        return name.strip("/").removeprefix(self._root.strip("/")).strip("/")

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(key))

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return keys and ids of incomplete multipart uploads."""
        if type(self._fs).__module__ != "s3fs.core" or not self.writable:
            return []
        bucket, folder, _ = self._fs.split_path(self._path(prefix))
        uploads: list[tuple[str, str]] = []
        after: dict[str, str] = {}
        while True:
            page = self._fs.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=f"{folder}/", **after
            )
            uploads += [
                (self._relative(f"{bucket}/{upload['Key']}"), upload["UploadId"])
                for upload in page.get("Uploads", ())
            ]
            if not page.get("IsTruncated"):
                return uploads
            after = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }

    def abort_upload(self, key: str, upload: str) -> None:
        bucket, name, _ = self._fs.split_path(self._path(key))
        self._fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload)


class _MemoryBackend(FsspecBackend):
    """Objects in the memory of this process, one operation at a time."""

    def __init__(self, fs: Any, root: str) -> None:
        super().__init__(fs, root, writable=True)
        self.shared = False
        self.creates_exclusively = True

    def put(self, key: str, data: memoryview) -> None:
        with _MEMORY.lock:
            super().put(key, data)

    def create(self, key: str, data: memoryview, *, single_writer: bool) -> None:
        with _MEMORY.lock:
            super().create(key, data, single_writer=single_writer)

    def size(self, key: str) -> int:
        with _MEMORY.lock:
            return super().size(key)

    def names(self, prefix: str) -> list[str]:
        with _MEMORY.lock:
            return super().names(prefix)

    def walk(self, prefix: str) -> list[tuple[str, int]]:
        with _MEMORY.lock:
            return super().walk(prefix)

    def delete(self, key: str) -> None:
        with _MEMORY.lock:
            super().delete(key)


def open_backend(url: str, options: dict[str, Any], *, confined: bool = True) -> Backend:
    """Open the backend of a URL; ``confined`` refuses symbolic links that leave a local root."""
    protocol = url.partition("://")[0]
    chained = is_chained(url)
    if protocol in LOCAL and not chained:
        return LocalBackend(url.removeprefix("file://"), confined=confined)
    fs, root = file_system_of(url, options)
    if chained or protocol in ("http", "https"):
        return FsspecBackend(fs, root, writable=False)
    if isinstance(fs, LocalFileSystem):
        return LocalBackend(root, confined=confined)
    if isinstance(fs, MemoryFileSystem) and type(fs).pipe_file is MemoryFileSystem.pipe_file:
        return _MemoryBackend(fs, root)
    return FsspecBackend(fs, root, writable=True)


def file_system_of(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it."""
    protocol = url.partition("://")[0]
    # Listings must be fresh. The cache is also invalidated before each listing, for file systems
    # that ignore this option, and if the caller overrides it.
    chained = is_chained(url)
    if protocol in _CONDITIONAL and not chained:
        options = {"use_listings_cache": False, **options}
    try:
        for part in url.split("::") if chained else [url]:
            fsspec.get_filesystem_class(part.partition("://")[0])
    except ValueError as error:
        raise UnsupportedStoreError(f"{safe_url(url)}: {error}. Correct the URL.") from error
    except ImportError as error:
        if protocol not in _EXTRAS:
            raise UnsupportedStoreError(f"{safe_url(url)}: {error}.") from error
        raise MissingExtraError(f"{protocol}://", _EXTRAS[protocol]) from error
    if chained or "::" not in url:
        fs, root = fsspec.url_to_fs(url, **options)
    else:
        # fsspec takes two colons in a name for a chain.
        kind = fsspec.get_filesystem_class(protocol)
        named = kind._get_kwargs_from_urls(url)  # noqa: SLF001 # as url_to_fs does
        fs, root = kind(**{**named, **options}), kind._strip_protocol(url)  # noqa: SLF001 # as above
    inherit_after_fork(fs)
    while isinstance(fs, DirFileSystem):
        fs, root = fs.fs, fs._join(root)  # noqa: SLF001 # has no public equivalent
    return fs, root


def user_file_of(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """Return the fsspec file system of a file of the user, and the path of the file in it.

    Raises
    ------
    FileNotFoundError
        The URL ends with a slash, and the file system has no files of such names.
    """
    fs, path = file_system_of(absolute_url(url) if is_local(url) else url, options)
    name = url.partition("::")[0] if is_chained(url) else url
    slashes = len(name) - len(name.rstrip("/"))
    if slashes and not path.endswith("/"):
        # fsspec removes the slashes, and would read another file.
        if type(fs).__module__ != "s3fs.core" or is_chained(url):
            raise FileNotFoundError("must be a file, but the name ends with a slash")
        path += "/" * slashes
    return fs, path


def io_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of fsspec, which runs in its own thread."""
    loop: asyncio.AbstractEventLoop = get_loop()
    return loop
