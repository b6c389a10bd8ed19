"""The connection of a process to a storage: opened once, and again when credentials expire."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from dasklake import creds
from dasklake._storage.errors import translate_errors
from dasklake._storage.fsspec_backend import Backend, open_backend
from dasklake.exceptions import PermissionDeniedError

_T = TypeVar("_T")


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
    """

    def __init__(self, url: str, storage_options: creds.StorageOptions, *, confined: bool) -> None:
        self.url = url
        self.storage_options = storage_options
        self.confined = confined
        self._opened: tuple[int, Backend, dict[str, Any]] | None = None
        self._credentials = creds.Credentials({})

    @property
    def files(self) -> Backend:
        """The backend, opened if necessary."""
        return self._current()[0]

    def call(self, operation: str, key: str, action: Callable[[Backend], _T]) -> _T:
        """Call the backend, and repeat the call once with renewed credentials if access is denied.

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
        files, options = self._current()
        try:
            with translate_errors(operation, key, self.url, options):
                return action(files)
        except PermissionDeniedError:
            credentials = creds.replaced(self.storage_options, self._credentials)
            if credentials is None:
                raise
            self._open(credentials)
        files, options = self._current()
        with translate_errors(operation, key, self.url, options):
            return action(files)

    def _current(self) -> tuple[Backend, dict[str, Any]]:
        opened = self._opened
        if opened is None or opened[0] != os.getpid() or not self._credentials.fresh:
            opened = self._open(creds.current(self.storage_options))
        return opened[1:]

    def _open(self, credentials: creds.Credentials) -> tuple[int, Backend, dict[str, Any]]:
        options = credentials.options
        with translate_errors("open", "", self.url, options):
            files = open_backend(self.url, options, confined=self.confined)
        self._credentials, self._opened = credentials, (os.getpid(), files, options)
        return self._opened
