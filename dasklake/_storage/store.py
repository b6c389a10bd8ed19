"""The only door to storage: whole objects by key, created exclusively, with errors mapped."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from operator import methodcaller
from typing import Any, Self, TypeVar

from dasklake import creds
from dasklake._format import object_keys
from dasklake._storage.errors import translate_errors
from dasklake._storage.fsspec_backend import Backend, open_backend
from dasklake._storage.local_backend import temporary_target
from dasklake._storage.retry import STORE_RETRIES, RetryPolicy, in_context
from dasklake._storage.urls import absolute_url, safe_url
from dasklake.exceptions import (
    CorruptionError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedStoreError,
)

__all__ = ["ObjectStore", "absolute_url", "temporary_target"]

#: Requests at the same time, where the file system cannot do that by itself.
_REQUESTS = 16

_T = TypeVar("_T")


class ObjectStore:
    """The objects under one URL.

    Pickles as its URL and options: each process connects for itself, when it first needs to.

    Parameters
    ----------
    url : str or os.PathLike
        The root; made absolute.
    storage_options : mapping, callable, str or None
        What fsspec takes for this kind of storage, a function that returns it, or a credentials
        key; see :func:`dasklake.creds.resolve`.
    single_writer : bool, default False
        Write to storage that cannot create exclusively, on the caller's word that nobody else
        writes.
    confined : bool, default True
        On a disk, refuse symbolic links that leave the root; only for the user's own files may it
        be left out.

    Attributes
    ----------
    url : str
        The root as it may be shown: without user, password and query.
    single_writer : bool
        As given.

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
    ) -> None:
        self._address = absolute_url(url)
        self._confined = confined
        self._storage_options = storage_options
        self._retries = STORE_RETRIES
        self._connected: tuple[int, Backend, dict[str, Any]] | None = None
        self._known = creds.Credentials({})
        self.url = safe_url(self._address)
        self.single_writer = single_writer

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectStore):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash((self._address, self.single_writer))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            self._address,
            self._storage_options,
            self.single_writer,
            self._confined,
        )

    @property
    def creates_exclusively(self) -> bool:
        """Whether the storage says that it creates exclusively; :meth:`probe` tries it."""
        return self._files.creates_exclusively

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written, as under chained URLs."""
        return not self._files.writable

    @property
    def shared(self) -> bool:
        """Whether other processes can see the storage at all."""
        return self._files.shared

    def with_retries(self, policy: RetryPolicy) -> Self:
        """Return the same store with another policy for failing operations.

        Parameters
        ----------
        policy : RetryPolicy
            How long operations are retried. The policy is not pickled with the store.

        Returns
        -------
        ObjectStore
            A store that shares the connection of this one.
        """
        store = copy.copy(self)
        store._retries = policy  # noqa: SLF001 # a copy of our own
        return store

    def put(self, key: str, data: Any) -> None:
        """Write an object, whole or not at all, over what was there.

        Parameters
        ----------
        key : str
            Its place under the root.
        data : bytes-like
            What to write; anything with the buffer protocol. Local disks take it uncopied.

        Raises
        ------
        StoreError
            The storage refused or failed.
        """
        self._check_writable()
        self._do("write", key, lambda files: files.put(key, _view(data)))

    def create(self, key: str, data: Any) -> None:
        """Write an object that must not be there yet, whole or not at all.

        Parameters
        ----------
        key : str
            Its place under the root.
        data : bytes-like
            What to write.

        Raises
        ------
        ObjectExistsError
            It is there already; perhaps by this very call, where an answer was lost.
        UnsupportedStoreError
            The storage cannot create exclusively.
        StoreError
            The storage refused or failed; the object may be there all the same.
        """
        self._check_writable()
        one = self.single_writer
        self._do("create", key, lambda f: f.create(key, _view(data), single_writer=one))

    def sync(self, key: str) -> None:
        """Make the directory that holds an object durable, whoever wrote it.

        Parameters
        ----------
        key : str
            The object.
        """
        self._do("flush the directory of", key, lambda files: files.sync(key))

    def get(self, key: str, most: int | None = None) -> bytes:
        """Read a whole object.

        Parameters
        ----------
        key : str
            The object.
        most : int, optional
            Its largest length, in bytes: no more than one byte beyond it is fetched.

        Returns
        -------
        bytes
            All of it.

        Raises
        ------
        ObjectNotFoundError
            It is not there.
        CorruptionError
            It is longer than ``most``.
        """
        if most is None:
            return self._do("read", key, lambda files: files.get(key))
        try:
            found = self._do("read", key, lambda files: files.get(key, most + 1))
        except StoreError as error:
            # Object storages refuse any range of an object without bytes.
            if type(error) is not StoreError or self.size(key):
                raise
            return b""
        if len(found) > most:
            raise CorruptionError(
                f"Object {key} has more than {most} bytes: it is not as it was written. Restore it "
                "from a copy."
            )
        return found

    def get_many(self, keys: Sequence[str]) -> list[bytes]:
        """Read whole objects at the same time; see :meth:`get`.

        Parameters
        ----------
        keys : sequence of str
            The objects.

        Returns
        -------
        list of bytes
            One for each key, in order.
        """
        return self._each(self.get, keys)

    def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Read a part of an object; see :meth:`get_ranges`.

        Parameters
        ----------
        key : str
            The object.
        start, stop : int
            First byte, and the one after the last.

        Returns
        -------
        bytes
            ``stop - start`` of them.
        """
        return self.get_ranges(key, [(start, stop)])[0]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read parts of an object at the same time.

        Parameters
        ----------
        key : str
            The object.
        ranges : sequence of (int, int)
            First byte, and the one after the last, of each part.

        Returns
        -------
        list of bytes
            One for each part, in order.

        Raises
        ------
        CorruptionError
            The object is shorter than that.
        ObjectNotFoundError
            It is not there.
        """
        wanted = [(start, stop) for start, stop in ranges if start < stop]
        if not wanted:
            return [b""] * len(ranges)
        try:
            found = self._do("read", key, lambda files: files.get_ranges(key, wanted))
        except StoreError as error:
            # Object storages refuse a range that begins beyond the end.
            if type(error) is not StoreError or self.size(key) >= max(stop for _, stop in wanted):
                raise
            found = []
        parts = iter(found)
        result = [next(parts, b"") if start < stop else b"" for start, stop in ranges]
        for (start, stop), part in zip(ranges, result, strict=True):
            if len(part) != max(stop - start, 0):
                raise CorruptionError(
                    f"{self.url}/{key} ends before byte {stop}: it is not as it was written. "
                    "Restore it from a copy; `dasklake verify` shows what else is damaged."
                )
        return result

    def size(self, key: str) -> int:
        """Return the length of an object, in bytes.

        Parameters
        ----------
        key : str
            The object.

        Returns
        -------
        int
            Its length.

        Raises
        ------
        ObjectNotFoundError
            It is not there.
        """
        return self._do("look up", key, lambda files: files.size(key))

    def exists(self, key: str) -> bool:
        """Tell whether an object is there.

        Parameters
        ----------
        key : str
            The object.

        Returns
        -------
        bool
            True if it is.
        """
        try:
            self.size(key)
        except ObjectNotFoundError:
            return False
        return True

    def names(self, prefix: str) -> list[str]:
        """List one level, as it is now, without half-written files.

        Parameters
        ----------
        prefix : str
            The directory.

        Returns
        -------
        list of str
            Base names of its objects and directories, sorted; none where it is not there.
        """
        return self._do("list", prefix, lambda files: files.names(prefix))

    def walk(self, prefix: str, *, temporary: bool = False) -> list[tuple[str, int]]:
        """List all objects under a directory, as they are now.

        Parameters
        ----------
        prefix : str
            The directory; ``""`` is the root.
        temporary : bool, default False
            Also list files that a writer is filling, or left when it was killed;
            :func:`temporary_target` tells what they were meant to become.

        Returns
        -------
        list of (str, int)
            Keys, sorted, and lengths in bytes.
        """
        found = self._do("list", prefix, lambda files: files.walk(prefix))
        return sorted(e for e in found if temporary or temporary_target(e[0]) is None)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, several at the same time; those that are not there are passed over.

        Parameters
        ----------
        keys : iterable of str
            The objects.
        """
        self._check_writable()
        self._each(lambda key: self._do("delete", key, lambda f: f.delete(key)), list(keys))

    def pending_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """List uploads in parts that were begun and neither completed nor abandoned.

        They take room, and no other listing shows them. Only object storages have them.

        Parameters
        ----------
        prefix : str
            The directory.

        Returns
        -------
        list of (str, str)
            The keys they are meant for, and their ids.
        """
        if self.read_only:
            return []
        return sorted(self._do("list", prefix, lambda files: files.pending_uploads(prefix)))

    def abort_uploads(self, uploads: Iterable[tuple[str, str]]) -> None:
        """Remove the parts of uploads that nobody will complete.

        Parameters
        ----------
        uploads : iterable of (str, str)
            Keys and ids, as :meth:`pending_uploads` lists them; those that are gone are passed over.
        """
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
            The storage refused or failed.
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

    @property
    def _files(self) -> Backend:
        return self._connect()[0]

    def _connect(self) -> tuple[Backend, dict[str, Any]]:
        """Connect once in each process: what a fork brought along does not work in a child.

        And once more whenever the credentials are about to expire.
        """
        found = self._connected
        if found is None or found[0] != os.getpid() or not self._known.fresh:
            found = self._open(creds.current(self._storage_options))
        return found[1:]

    def _open(self, known: creds.Credentials) -> tuple[int, Backend, dict[str, Any]]:
        options = known.options
        with translate_errors("open", "", self._address, options):
            files = open_backend(self._address, options, confined=self._confined)
        self._known, self._connected = known, (os.getpid(), files, options)
        return self._connected

    def _renew(self) -> bool:
        """Connect with other credentials than those that were refused, where there are any."""
        found = creds.replaced(self._storage_options, self._known)
        if found is not None:
            self._open(found)
        return found is not None

    def _do(self, operation: str, key: str, action: Callable[[Backend], _T]) -> _T:
        if key.startswith("/") or ".." in key.split("/"):
            raise CorruptionError(f"{key!r} leaves the root of the lake. Restore what names it.")
        return self._retries.call(lambda: self._attempt(operation, key, action))

    def _attempt(self, operation: str, key: str, action: Callable[[Backend], _T]) -> _T:
        """Call the backend, and once more if it refused credentials that can be renewed."""
        files, options = self._connect()
        try:
            with translate_errors(operation, key, self._address, options):
                return action(files)
        except PermissionDeniedError:
            if not self._renew():
                raise
        files, options = self._connect()
        with translate_errors(operation, key, self._address, options):
            return action(files)

    def _check_writable(self) -> None:
        if self.read_only:
            raise UnsupportedStoreError(
                f"{self.url} can only be read. Write to the storage itself, such as s3://bucket/x."
            )

    def _each(self, action: Callable[[str], _T], keys: Sequence[str]) -> list[_T]:
        if len(keys) < 2:
            return [action(key) for key in keys]
        with ThreadPoolExecutor(min(_REQUESTS, len(keys))) as pool:
            return list(pool.map(in_context(action), keys))


def _rebuild(
    url: str,
    options: creds.StorageOptions,
    single_writer: bool,  # noqa: FBT001 # pickle
    confined: bool,  # noqa: FBT001 # pickle
) -> ObjectStore:
    return ObjectStore(url, options, single_writer=single_writer, confined=confined)


def _view(data: Any) -> memoryview:
    view = memoryview(data)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")
