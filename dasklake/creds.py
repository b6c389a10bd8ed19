"""Resolve credentials keys to storage options in each process; only keys are stored or sent."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias

from dasklake._fork import RenewedLock
from dasklake.exceptions import InvalidInputError, PermissionDeniedError

__all__ = [
    "AMBIENT",
    "ENTRY_POINTS",
    "Credentials",
    "StorageOptions",
    "current",
    "either",
    "in_use",
    "populate",
    "populated",
    "renewed",
    "replaced",
    "resolve",
]

#: Group of entry points: their names are credentials keys, their values are callables.
ENTRY_POINTS = "dasklake.creds"

#: Key of the credentials that the storage's library finds in the environment, in its configuration
#: files, or in the metadata service of the machine.
AMBIENT = "ENV"

StorageOptions: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | str | None

#: AWS names of credentials, and the names of s3fs.
_AWS = {
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "aws_profile": "profile",
    "profile_name": "profile",
}
_REGION = ("aws_region", "region_name")
_EXPIRATION = "expiration"

#: Credentials are renewed this many seconds before they expire, or after half of their lifetime.
_MARGIN = 60.0


class Credentials(NamedTuple):
    """Resolved storage options, and their expiry.

    Attributes
    ----------
    options : dict
        Options of the fsspec file system.
    until : float or None
        Time of the next lookup, in seconds since the epoch; None if the credentials do not expire.
    """

    options: dict[str, Any]
    until: float | None = None

    def __repr__(self) -> str:
        return f"Credentials({sorted(self.options)}, until={self.until})"

    @property
    def fresh(self) -> bool:
        """True until the credentials have to be renewed."""
        return self.until is None or time.time() < self.until


def resolve(storage_options: StorageOptions) -> dict[str, Any]:
    """Resolve storage options to options of an fsspec file system, in this process.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        A mapping is used unchanged, except that AWS names (``aws_access_key_id``,
        ``aws_secret_access_key``, ``aws_session_token``, ``aws_region``, ``aws_profile``) become
        those of s3fs. A callable is called without arguments and returns a mapping. A string is a
        credentials key. Its mapping is looked up among the values of :func:`populate`, in Dask's
        configuration under ``dasklake.creds.<key>``, then among the entry points of the group
        ``dasklake.creds``. ``"ENV"`` stands for the credentials that the storage's library finds.

    Returns
    -------
    dict
        New dict; empty for None.

    Raises
    ------
    PermissionDeniedError
        This process has no credentials under the key, or the callable failed.
    InvalidInputError
        ``storage_options``, or the value that the callable returned, is not a mapping.

    Examples
    --------
    >>> resolve({"anon": True})
    {'anon': True}
    >>> resolve(lambda: {"aws_access_key_id": "me", "aws_region": "eu-west-1"})
    {'key': 'me', 'client_kwargs': {'region_name': 'eu-west-1'}}
    """
    return renewed(storage_options).options


def either(storage_options: StorageOptions, creds: StorageOptions) -> StorageOptions:
    """Return the given one of two parameters with the same meaning.

    Raises
    ------
    InvalidInputError
        Both parameters are given.
    """
    if storage_options is not None and creds is not None:
        raise InvalidInputError(
            "creds and storage_options have the same meaning. Give one of them."
        )
    return creds if storage_options is None else storage_options


def current(storage_options: StorageOptions) -> Credentials:
    """Resolve storage options, and cache the credentials of a key until they are about to expire.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        As for :func:`resolve`. The ``"expiration"`` of a mapping is a ``datetime`` with a time
        zone, ISO 8601 text, or seconds since the epoch.

    Returns
    -------
    Credentials
        Options, and the time of the next lookup.

    Raises
    ------
    PermissionDeniedError, InvalidInputError
        As for :func:`resolve`.
    """
    if not isinstance(storage_options, str):
        return renewed(storage_options)
    entry = (os.getpid(), storage_options)
    credentials = _cache.get(entry)
    if credentials is None or not credentials.fresh:
        # One thread looks the key up; all other threads wait for it.
        with _guard.lock:
            credentials = _cache.get(entry)
            if credentials is None or not credentials.fresh:
                credentials = renewed(storage_options)
    return credentials


def renewed(storage_options: StorageOptions) -> Credentials:
    """Resolve storage options now, without the cache; see :func:`current`."""
    if storage_options is None:
        return Credentials({})
    options: Any = storage_options
    source = "storage_options"
    if isinstance(storage_options, str):
        source = f"The value of the credentials key {storage_options!r}"
        options = _configured(storage_options)
    elif callable(storage_options):
        source = "The value that the storage_options callable returned"
    if callable(options):
        options = _called(options, source)
    if not isinstance(options, Mapping):
        raise InvalidInputError(
            f"{source} must be a mapping of option names to values, got {type(options).__name__}. "
            "Give the options of the fsspec file system."
        )
    credentials = _credentials({str(name): value for name, value in options.items()}, source)
    if isinstance(storage_options, str):
        _cache[os.getpid(), storage_options] = credentials
    return credentials


def replaced(storage_options: StorageOptions, refused: Credentials) -> Credentials | None:
    """Look up credentials again after a storage refused them.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        Source of the credentials.
    refused : Credentials
        Refused credentials.

    Returns
    -------
    Credentials or None
        New credentials, or None if they have not changed.
    """
    if not (isinstance(storage_options, str) or callable(storage_options)):
        return None
    with _guard.lock:
        credentials = current(storage_options)
        if credentials.options == refused.options and isinstance(storage_options, str):
            credentials = renewed(storage_options)
    return None if credentials.options == refused.options else credentials


def in_use() -> list[dict[str, Any]]:
    """Return the storage options of all keys that this process has resolved."""
    process = os.getpid()
    return [entry.options for (owner, _), entry in list(_cache.items()) if owner == process]


def populate(key: str, storage_options: StorageOptions) -> None:
    """Set the storage options of a credentials key in this process.

    They are not stored, and sent only to worker processes that ``eval(num_workers=...)`` starts on this
    machine.

    Parameters
    ----------
    key : str
        Credentials key.
    storage_options : mapping, callable, str or None
        As for :func:`resolve`. A string is another key; None removes the options of the key.

    Raises
    ------
    PermissionDeniedError, InvalidInputError
        ``storage_options`` cannot be resolved; see :func:`resolve`.

    Examples
    --------
    >>> populate("example", {"anon": True})
    >>> resolve("example")
    {'anon': True}
    >>> populate("example", None)
    """
    if storage_options is not None:
        renewed(storage_options)
    with _guard.lock:
        _cache.pop((os.getpid(), key), None)
        if storage_options is None:
            _populated.pop(key, None)
        else:
            _populated[key] = storage_options


def populated() -> dict[str, StorageOptions]:
    """Return the values of :func:`populate` of this process, by key."""
    with _guard.lock:
        return dict(_populated)


#: Values of :func:`populate` by key, and resolved credentials by process and key.
_populated: dict[str, StorageOptions] = {}
_cache: dict[tuple[int, str], Credentials] = {}
_guard = RenewedLock()


def _credentials(named: dict[str, Any], source: str) -> Credentials:
    """Rename options to the names of s3fs, and separate their expiration."""
    expiration = named.pop(_EXPIRATION, None)
    options: dict[str, Any] = {}
    for name, value in named.items():
        option = _AWS.get(name, name)
        if name in _REGION:
            option, value = "client_kwargs", {"region_name": value}  # noqa: PLW2901 # renamed
        if option == "client_kwargs" and isinstance(value, Mapping):
            value = {**options.get(option, {}), **value}  # noqa: PLW2901 # renamed
        elif option in options:
            raise InvalidInputError(
                f"{source} must contain each option once, got two values for {option!r}. Remove one."
            )
        options[option] = value
    if expiration is None:
        return Credentials(options)
    now, end = time.time(), _seconds(expiration, source)
    return Credentials(options, max(end - _MARGIN, now + (end - now) / 2))


def _seconds(expiration: object, source: str) -> float:
    if isinstance(expiration, str):
        try:
            expiration = datetime.fromisoformat(expiration)
        except ValueError:
            expiration = None
    if isinstance(expiration, datetime):
        zone = expiration.tzinfo or UTC  # as in the responses of AWS without a time zone
        return expiration.replace(tzinfo=zone).timestamp()
    if isinstance(expiration, int | float) and not isinstance(expiration, bool):
        return float(expiration)
    raise InvalidInputError(
        f"{source} must have a valid expiration. Give a datetime, ISO 8601 text, or seconds since "
        "the epoch."
    )


def _called(function: Callable[[], Any], source: str) -> Any:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 # the reason follows
        kind = type(error).__name__
    # This is code of the user: any error means that credentials are missing. Its message may contain
    # secrets. So it is left out, and raised out of the handler, because it would be the context.
    raise PermissionDeniedError(
        f"{source} could not be computed: the function raised {kind}. Fix the function, and check that "
        "everything it reads exists on each worker."
    )


def _configured(key: str) -> Any:
    if key in _populated:
        options = _populated[key]
        return _configured(options) if isinstance(options, str) and options != key else options
    # Layers below the operations do not import Dask. Its configuration is shared by all processes
    # of a cluster, so this is the only exception, by name.
    config = importlib.import_module("dask.config")
    options = config.get(f"dasklake.creds.{key}", None)
    if options is not None:
        return options
    for point in metadata.entry_points(group=ENTRY_POINTS, name=key):
        return point.load()
    if key == AMBIENT:
        return {}
    raise PermissionDeniedError(
        f"This process has no credentials under the key {key!r}. Set dasklake.creds.{key} in "
        f"the Dask configuration of each worker, or install an entry point of the group "
        f"{ENTRY_POINTS!r} with that name. What populate_creds() sets is known to the process that "
        "called it, and to workers that eval(num_workers=...) starts."
    )
