"""The storage interface: whole objects by key, created exclusively, with StoreError as errors."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from operator import methodcaller
from typing import Any, Self

from dasklake import creds
from dasklake._format import object_keys
from dasklake._storage.block_cache import CacheSettings
from dasklake._storage.cached_backend import CachedBackend
from dasklake._storage.connection import Connection
from dasklake._storage.local_backend import temporary_target
from dasklake._storage.object_reader import ObjectReader
from dasklake._storage.retry import STORE_RETRIES, RetryPolicy
from dasklake._storage.store_limits import StoreLimits
from dasklake._storage.urls import absolute_url
from dasklake.exceptions import (
    ObjectExistsError,
    ObjectNotFoundError,
    UnsupportedStoreError,
)

__all__ = ["ObjectStore", "absolute_url", "temporary_target"]


class ObjectStore(ObjectReader):
    """Objects under one URL.

    A store is pickled as its URL and options. Each process connects at its first operation.

    Parameters
    ----------
    url : str or os.PathLike
        Root of the store; made absolute.
    storage_options : mapping, callable, str or None
        Options of the fsspec file system, a function that returns them, or a credentials key; see
        :func:`dasklake.creds.resolve`.
    single_writer : bool, default False
        Allow storage that cannot create exclusively; the caller guarantees that there is only one
        writer.
    confined : bool, default True
        On a disk, refuse symbolic links that leave the root. False is only for files of the user.
    cache : CacheSettings, optional
        Local cache of the chunks that :attr:`cached` reads.
    limits : StoreLimits, optional
        Limits of retries and caches, in every process that uses the store.

    Attributes
    ----------
    url : str
        Root without user, password and query, for messages.
    single_writer : bool
        Whether storage that cannot create exclusively is allowed.
    limits : StoreLimits
        Limits of retries and caches.

    Examples
    --------
    >>> store = ObjectStore("memory://example")
    >>> store.put("a/b", b"hello")
    >>> store.get_range("a/b", 1, 3), store.names("a"), store.walk("")
    (b'el', ['b'], [('a/b', 5)])
    >>> store.delete(["a/b"])
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        storage_options: creds.StorageOptions = None,
        *,
        single_writer: bool = False,
        confined: bool = True,
        cache: CacheSettings | None = None,
        limits: StoreLimits | None = None,
    ) -> None:
        super().__init__(Connection(absolute_url(url), storage_options, confined=confined))
        self._cache = cache
        self.limits = limits or StoreLimits()
        self._retries = replace(STORE_RETRIES, seconds=self.limits.read_seconds)
        self.single_writer = single_writer

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectStore):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._connection.url, self.single_writer))

    def __reduce__(self) -> tuple[Any, ...]:
        connection = self._connection
        url, options, confined = connection.url, connection.storage_options, connection.confined
        is_cached = connection.cache is not None
        state = (url, options, self.single_writer, confined, self._cache, self.limits, is_cached)
        return _rebuild, state

    @property
    def creates_exclusively(self) -> bool:
        """Support of exclusive creation, as declared by the backend; :meth:`probe` tests it."""
        return self._connection.files.creates_exclusively

    @property
    def read_only(self) -> bool:
        """True if the storage cannot be written, for example under a chained URL."""
        return not self._connection.files.writable

    @cached_property
    def cached(self) -> ObjectStore:
        """The same store, whose chunks are read through its local cache, if it has one."""
        connection = self._connection
        if self._cache is None or connection.cache is not None:
            return self
        store = self.with_retries(self._retries)
        store._connection = Connection(  # noqa: SLF001 # a new copy
            connection.url,
            connection.storage_options,
            confined=connection.confined,
            cache=self._cache,
        )
        return store

    def forget(self, key: str) -> bool:
        """Remove an object from the local cache; return whether it was there."""
        files = self._connection.files
        return isinstance(files, CachedBackend) and files.forget(key)

    def with_retries(self, policy: RetryPolicy) -> Self:
        """Return the same store and connection with another retry policy, which is not pickled."""
        store = copy.copy(self)
        store._retries = policy  # noqa: SLF001 # a new copy
        return store

    def put(self, key: str, data: Any) -> None:
        """Write or replace an object atomically; ``data`` has the buffer protocol.

        Raises
        ------
        StoreError
            The storage failed.
        """
        self._check_writable()
        self._do("write", key, lambda files: files.put(key, _view(data)))

    def create(self, key: str, data: Any) -> None:
        """Create an object atomically; it must not exist yet.

        Raises
        ------
        ObjectExistsError
            The object exists; this call may have created it, if an answer was lost.
        UnsupportedStoreError
            The storage cannot create objects exclusively.
        StoreError
            The storage failed; the object may exist nevertheless.
        """
        self._check_writable()
        single = self.single_writer
        self._do("create", key, lambda files: files.create(key, _view(data), single_writer=single))

    def sync(self, key: str) -> None:
        """Flush the directory of an object to the disk."""
        self._do("flush the directory of", key, lambda files: files.sync(key))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects concurrently, and ignore missing ones."""
        self._check_writable()
        self._each(lambda key: self._do("delete", key, lambda f: f.delete(key)), list(keys))

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return keys and ids of multipart uploads that were neither completed nor aborted.

        They use storage, and no other listing shows them. Only object storages have them.
        """
        if self.read_only:
            return []
        return sorted(self._do("list", prefix, lambda files: files.pending_uploads(prefix)))

    def abort_uploads(self, uploads: Iterable[tuple[str, str]]) -> None:
        """Abort multipart uploads, given by keys and ids, and delete their parts; ignore missing ones."""
        for key, upload in uploads:
            with suppress(ObjectNotFoundError):
                self._do("abort an upload of", key, methodcaller("abort_upload", key, upload))

    def probe(self) -> None:
        """Check that the storage is writable and creates objects exclusively.

        Raises
        ------
        UnsupportedStoreError
            The storage accepted a second create, refused the first one, or is read-only.
        StoreError
            The storage failed.
        """
        key = object_keys.probe_key()
        try:
            self.create(key, b"first")
            refused = False
        except ObjectExistsError:
            refused = True
        # The key is new: it can exist only if the answer to an earlier attempt was lost. The check
        # stays outside the handler, so that its own errors are not taken for the refusal.
        if refused and not self.exists(key):
            raise UnsupportedStoreError(
                f"{self.url} refused to create a new object, as if it existed already. Check "
                "the storage's support of conditional writes, or use another storage."
            )
        try:
            self.create(key, b"second")
        except ObjectExistsError:
            return
        finally:
            self.delete([key])
        raise UnsupportedStoreError(
            f"{self.url} created the same object twice, so that two writers could overwrite each "
            "other's commits. Use another storage, or single_writer=True if there is only one "
            "writer."
        )

    def _check_writable(self) -> None:
        if self.read_only:
            raise UnsupportedStoreError(
                f"{self.url} is read-only. Use the URL of the storage itself, such as s3://bucket/lake."
            )


def _rebuild(
    url: str,
    options: creds.StorageOptions,
    single_writer: bool,  # noqa: FBT001 # pickle
    confined: bool,  # noqa: FBT001 # pickle
    cache: CacheSettings | None,
    limits: StoreLimits,
    is_cached: bool,  # noqa: FBT001 # pickle
) -> ObjectStore:
    store = ObjectStore(
        url,
        options,
        single_writer=single_writer,
        confined=confined,
        cache=cache,
        limits=limits,
    )
    return store.cached if is_cached else store


def _view(data: Any) -> memoryview:
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
