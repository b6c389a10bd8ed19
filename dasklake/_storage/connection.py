"""The connection of a process to a storage: opened once, and again when credentials expire."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

from dasklake import creds
from dasklake._storage.block_cache import BlockCache, CacheSettings
from dasklake._storage.cached_backend import CachedBackend
from dasklake._storage.errors import translate_errors
from dasklake._storage.fsspec_backend import Backend, open_backend
from dasklake._storage.urls import safe_url
from dasklake.exceptions import PermissionDeniedError

_T = TypeVar("_T")

#: Times that one call renews credentials. Those of a busy session may expire again at once.
_MAX_RENEWALS = 3


class Opened(NamedTuple):
    """An opened backend, the process that opened it, and its credentials."""

    process: int
    backend: Backend
    credentials: creds.Credentials


class Connection:
    """The backend of a URL in this process.

    It is opened once in each process, because it does not survive a fork, and again when its
    credentials are about to expire or are refused.

    Parameters
    ----------
    url : str
        Absolute URL.
    storage_options : mapping, callable, str or None
        Options of the fsspec file system, a function that returns them, or a credentials key.
    confined : bool
        Whether symbolic links that leave the root are refused.
    cache : CacheSettings, optional
        Local cache through which chunks are read.
    """

    def __init__(
        self,
        url: str,
        storage_options: creds.StorageOptions,
        *,
        confined: bool,
        cache: CacheSettings | None = None,
    ) -> None:
        self.url = url
        self.storage_options = storage_options
        self.confined = confined
        self.cache = cache
        self._blocks = None if cache is None else BlockCache(cache)
        self._opened: Opened | None = None

    @property
    def files(self) -> Backend:
        """The backend, opened if necessary."""
        return self.current().backend

    def call(self, operation: str, key: str, action: Callable[[Backend], _T]) -> _T:
        """Call the backend, and repeat the call with renewed credentials if access is denied.

        Parameters
        ----------
        operation : str
            Verb for the message of an error, such as ``"read"``.
        key : str
            Key of the object, for the message.
        action : callable
            Called with the backend.

        Raises
        ------
        StoreError
            The backend raised an error; often a subclass.
        """
        opened = self.current()
        for _ in range(_MAX_RENEWALS):
            try:
                return self._call(opened, operation, key, action)
            except PermissionDeniedError:
                # Another thread may have renewed the credentials in the meantime.
                if self.current().credentials is opened.credentials:
                    renewed = creds.replaced(self.storage_options, opened.credentials)
                    if renewed is None:
                        raise
                    self._open(renewed)
            opened = self.current()
        return self._call(opened, operation, key, action)

    def _call(
        self, opened: Opened, operation: str, key: str, action: Callable[[Backend], _T]
    ) -> _T:
        with translate_errors(operation, key, self.url, opened.credentials.options):
            return action(opened.backend)

    def current(self) -> Opened:
        """Return the opened backend; open it if necessary."""
        opened = self._opened
        if opened is None or opened.process != os.getpid() or not opened.credentials.fresh:
            opened = self._open(creds.current(self.storage_options))
        return opened

    def _open(self, credentials: creds.Credentials) -> Opened:
        options = credentials.options
        with translate_errors("open", "", self.url, options):
            backend = open_backend(self.url, options, confined=self.confined)
        if self._blocks is not None:
            storage = f"{safe_url(self.url)}\0{_endpoint(options)}"
            backend = cast("Backend", CachedBackend(backend, self._blocks, storage))
        self._opened = Opened(os.getpid(), backend, credentials)
        return self._opened


def _endpoint(options: Mapping[str, Any]) -> str:
    """Return the server in some storage options: two servers may have buckets of one name."""
    client = options.get("client_kwargs")
    nested = client.get("endpoint_url") if isinstance(client, Mapping) else None
    names = ("endpoint_url", "account_name", "host", "port")
    return "\0".join(str(value or "") for value in (nested, *map(options.get, names)))
