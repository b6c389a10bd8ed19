"""Read objects of a storage by key, with errors of the storage as StoreError."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from dasklake._storage.connection import Connection
from dasklake._storage.fsspec_backend import Backend
from dasklake._storage.local_backend import temporary_target
from dasklake._storage.memory_pool import Allocate, Check
from dasklake._storage.retry import STORE_RETRIES, in_context
from dasklake._storage.urls import safe_url
from dasklake.exceptions import CorruptionError, ObjectNotFoundError, StoreError

#: Number of concurrent requests, if the file system has no concurrent operation.
_REQUESTS = 16

_A = TypeVar("_A")
_T = TypeVar("_T")


class Request(NamedTuple):
    """Parts of an object to read.

    Attributes
    ----------
    key : str
        Key of the object.
    ranges : sequence of (int, int)
        Offsets of the first byte, and after the last one, of each part.
    check : callable
        Called with the offset and the bytes of each part; raises an error if they are damaged.
    """

    key: str
    ranges: Sequence[tuple[int, int]]
    check: Check


class ObjectReader:
    """Reads objects under one URL.

    Parameters
    ----------
    connection : Connection
        Connection to the storage.

    Attributes
    ----------
    url : str
        Root without user, password and query, for messages.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._retries = STORE_RETRIES
        self.url = safe_url(connection.url)

    @property
    def local(self) -> bool:
        """True if the objects are files of a disk, so that small reads are cheap."""
        return self._connection.files.local

    @property
    def shared(self) -> bool:
        """True if other processes can access the storage."""
        return self._connection.files.shared

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """Read a whole object.

        Parameters
        ----------
        key : str
            Key of the object.
        max_bytes : int, optional
            Maximum length in bytes. At most one byte more is fetched.

        Raises
        ------
        ObjectNotFoundError
            The object does not exist.
        CorruptionError
            The object is longer than ``max_bytes``.
        """
        if max_bytes is None:
            return self._do("read", key, lambda files: files.get(key))
        try:
            data = self._do("read", key, lambda files: files.get(key, max_bytes + 1))
        except StoreError as error:
            # Object storages refuse any range of an empty object.
            if type(error) is not StoreError or self.size(key):
                raise
            return b""
        if len(data) > max_bytes:
            raise CorruptionError(
                f"Object {key} must have at most {max_bytes} bytes, and has more. Restore it from "
                "a backup."
            )
        return data

    def get_many(self, keys: Sequence[str]) -> list[bytes]:
        """Read whole objects concurrently; see :meth:`get`."""
        return self._each(self.get, keys)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Read a part of an object; see :meth:`get_ranges`."""
        return self.get_ranges(key, [(start, stop)])[0]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts of an object concurrently.

        Parameters
        ----------
        key : str
            Key of the object.
        ranges : sequence of (int, int)
            Offsets of the first byte, and after the last one, of each part.

        Returns
        -------
        list of bytes
            Parts, in the order of the ranges.

        Raises
        ------
        CorruptionError
            The object ends before a range.
        ObjectNotFoundError
            The object does not exist.
        """
        return self._parts(key, ranges, b"", lambda files, parts: files.get_ranges(key, parts))

    def read_many(
        self, requests: Sequence[Request], allocate: Allocate
    ) -> list[list[npt.NDArray[np.uint8]]]:
        """Read parts of several objects concurrently; see :meth:`get_ranges`.

        Parameters
        ----------
        requests : sequence of Request
            The parts of each object.
        allocate : callable
            Allocates memory, if the storage can read into memory of the caller.

        Returns
        -------
        list of list of numpy.ndarray
            uint8: parts of each object, in the order of the ranges. They are writable if they were
            allocated with ``allocate``.
        """
        empty = np.empty(0, np.uint8)

        def read(request: Request) -> list[npt.NDArray[np.uint8]]:
            key, ranges, check = request

            def arrays(files: Backend, parts: list[tuple[int, int]]) -> list[npt.NDArray[np.uint8]]:
                return files.get_arrays(key, parts, allocate, check)

            return self._parts(key, ranges, empty, arrays)

        if self.local:
            return self._retries.call(lambda: list(map(read, requests)))
        return self._each(read, requests)

    def _parts(
        self,
        key: str,
        ranges: Sequence[tuple[int, int]],
        empty: _T,
        read: Callable[[Backend, list[tuple[int, int]]], list[_T]],
    ) -> list[_T]:
        nonempty = [(start, stop) for start, stop in ranges if start < stop]
        if not nonempty:
            return [empty] * len(ranges)
        try:
            data = self._do("read", key, lambda files: read(files, nonempty))
        except StoreError as error:
            # Object storages refuse a range that begins beyond the end.
            if type(error) is not StoreError or self.size(key) >= max(stop for _, stop in nonempty):
                raise
            data = []
        parts = iter(data)
        result = [next(parts, empty) if start < stop else empty for start, stop in ranges]
        for (start, stop), part in zip(ranges, result, strict=True):
            if len(cast("Any", part)) != max(stop - start, 0):
                raise CorruptionError(
                    f"{self.url}/{key} is truncated: it ends before byte {stop}. Restore it from a "
                    "backup; `dasklake verify` lists all damaged objects."
                )
        return result

    def size(self, key: str) -> int:
        """Return the length of an object in bytes.

        Raises
        ------
        ObjectNotFoundError
            The object does not exist.
        """
        return self._do("look up", key, lambda files: files.size(key))

    def exists(self, key: str) -> bool:
        """Return whether an object exists."""
        try:
            self.size(key)
        except ObjectNotFoundError:
            return False
        return True

    def names(self, prefix: str) -> list[str]:
        """Return the sorted names in a directory, without caches and temporary files.

        The list is empty if the directory does not exist.
        """
        return self._do("list", prefix, lambda files: files.names(prefix))

    def walk(self, prefix: str, *, temporary: bool = False) -> list[tuple[str, int]]:
        """Return the sorted keys and the lengths of all objects under a directory, without caches.

        Parameters
        ----------
        prefix : str
            Key of the directory; ``""`` is the root.
        temporary : bool, default False
            Include files that a writer has not completed, or left when it was killed.
            :func:`temporary_target` returns their target keys.
        """
        objects = self._do("list", prefix, lambda files: files.walk(prefix))
        return sorted(o for o in objects if temporary or temporary_target(o[0]) is None)

    def _do(self, operation: str, key: str, action: Callable[[Backend], _T]) -> _T:
        if key.startswith("/") or ".." in key.split("/"):
            raise CorruptionError(
                f"The key {key!r} leaves the root of the lake. Restore the object that contains it "
                "from a backup."
            )
        return self._retries.call(lambda: self._connection.call(operation, key, action))

    def _each(self, action: Callable[[_A], _T], keys: Sequence[_A]) -> list[_T]:
        if len(keys) < 2:
            return [action(key) for key in keys]
        with ThreadPoolExecutor(min(_REQUESTS, len(keys))) as pool:
            return list(pool.map(in_context(action), keys))
