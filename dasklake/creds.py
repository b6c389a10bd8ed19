"""Credential keys to values, in each process: what is stored or sent names a key at most."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple, TypeAlias

from dasklake.exceptions import InvalidInputError, PermissionDeniedError

__all__ = [
    "AMBIENT",
    "ENTRY_POINTS",
    "Credentials",
    "StorageOptions",
    "current",
    "either",
    "populate",
    "renewed",
    "replaced",
    "resolve",
]

#: Group of entry points whose names are credential keys and whose values are callables.
ENTRY_POINTS = "dasklake.creds"

#: The key that always means: what the storage's own library finds in the environment, in its
#: configuration files, or from the machine it runs on.
AMBIENT = "ENV"

StorageOptions: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | str | None

#: AWS's names, as s3fs calls them.
_AWS = {
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
    "aws_profile": "profile",
    "profile_name": "profile",
}
_REGION = ("aws_region", "region_name")
_EXPIRATION = "expiration"

#: Credentials are renewed so long before they expire, in seconds, or after half of their time.
_MARGIN = 60.0


class Credentials(NamedTuple):
    """What a process knows under a key, and how long it may be used.

    Attributes
    ----------
    options : dict
        What fsspec takes.
    until : float or None
        Time (seconds since the epoch) from which on they have to be looked up again; None for
        those that do not expire.
    """

    options: dict[str, Any]
    until: float | None = None

    def __repr__(self) -> str:
        return f"Credentials({sorted(self.options)}, until={self.until})"

    @property
    def fresh(self) -> bool:
        """Whether they need not be looked up again yet."""
        return self.until is None or time.time() < self.until


def resolve(storage_options: StorageOptions) -> dict[str, Any]:
    """Turn storage options into what fsspec takes, with what this process knows.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        A mapping is taken as it is, but for AWS's names of credentials
        (``aws_access_key_id``, ``aws_secret_access_key``, ``aws_session_token``, ``aws_region``,
        ``aws_profile``), which become those of s3fs. A callable is called without arguments and
        returns a mapping. A string is a credentials key: the mapping is looked up among those
        that :func:`populate` was given, in Dask's configuration under ``dasklake.creds.<key>``,
        then among the entry points of the group ``dasklake.creds``. ``"ENV"`` means what the
        storage's own library finds.

    Returns
    -------
    dict
        A fresh dict; empty for None.

    Raises
    ------
    PermissionDeniedError
        This process knows no credentials under the key, or the callable failed.
    InvalidInputError
        The options, or what the callable returned, are not a mapping.

    Examples
    --------
    >>> resolve({"anon": True})
    {'anon': True}
    >>> resolve(lambda: {"aws_access_key_id": "me", "aws_region": "eu-west-1"})
    {'key': 'me', 'client_kwargs': {'region_name': 'eu-west-1'}}
    """
    return renewed(storage_options).options


def either(storage_options: StorageOptions, creds: StorageOptions) -> StorageOptions:
    """Return the one of two words for the same that was given.

    Raises
    ------
    InvalidInputError
        Both were.
    """
    if storage_options is not None and creds is not None:
        raise InvalidInputError("creds and storage_options are two words for one. Give one.")
    return creds if storage_options is None else storage_options


def current(storage_options: StorageOptions) -> Credentials:
    """Return what :func:`resolve` does, looked up again only when it is about to expire.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        As for :func:`resolve`. A mapping's ``"expiration"`` says when it expires: a time zone
        aware ``datetime``, ISO 8601 text, or seconds since the epoch.

    Returns
    -------
    Credentials
        The options, and until when to use them.

    Raises
    ------
    PermissionDeniedError, InvalidInputError
        As for :func:`resolve`.
    """
    if not isinstance(storage_options, str):
        return renewed(storage_options)
    place = (os.getpid(), storage_options)
    found = _known.get(place)
    if found is None or not found.fresh:
        # One thread asks, the others wait for its answer.
        with _lock:
            found = _known.get(place)
            if found is None or not found.fresh:
                found = _known[place] = renewed(storage_options)
    return found


def renewed(storage_options: StorageOptions) -> Credentials:
    """Return what :func:`current` does, looked up now."""
    if storage_options is None:
        return Credentials({})
    found: Any = storage_options
    source = "storage_options"
    if isinstance(storage_options, str):
        source = f"The credentials under the key {storage_options!r}"
        found = _configured(storage_options)
    elif callable(storage_options):
        source = "What the storage_options callable returned"
        found = storage_options
    if callable(found):
        found = _called(found, source)
    if not isinstance(found, Mapping):
        raise InvalidInputError(
            f"{source} must be a mapping of option names to values, not {type(found).__name__}. "
            "Give what fsspec takes for this kind of storage."
        )
    known = _credentials({str(name): value for name, value in found.items()}, source)
    if isinstance(storage_options, str):
        _known[os.getpid(), storage_options] = known
    return known


def replaced(storage_options: StorageOptions, refused: Credentials) -> Credentials | None:
    """Return other credentials than those that a storage has refused, where there are any.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        Where they came from.
    refused : Credentials
        What it refused.

    Returns
    -------
    Credentials or None
        None where looking them up again finds the same.
    """
    if not (isinstance(storage_options, str) or callable(storage_options)):
        return None
    with _lock:
        found = current(storage_options)
        if found.options == refused.options and isinstance(storage_options, str):
            found = renewed(storage_options)
    return None if found.options == refused.options else found


def populate(key: str, storage_options: StorageOptions) -> None:
    """Give a key its values in this process; nothing is stored or sent.

    Parameters
    ----------
    key : str
        The credentials key.
    storage_options : mapping, callable, str or None
        As for :func:`resolve`; a string is another key, None forgets what was given before.

    Raises
    ------
    PermissionDeniedError, InvalidInputError
        The values cannot be used.

    Examples
    --------
    >>> populate("example", {"anon": True})
    >>> resolve("example")
    {'anon': True}
    >>> populate("example", None)
    """
    if storage_options is not None:
        renewed(storage_options)
    with _lock:
        _known.pop((os.getpid(), key), None)
        if storage_options is None:
            _populated.pop(key, None)
        else:
            _populated[key] = storage_options


#: What :func:`populate` was given, and what was looked up by process and key.
_populated: dict[str, StorageOptions] = {}
_known: dict[tuple[int, str], Credentials] = {}
_lock = threading.RLock()


def _credentials(found: dict[str, Any], source: str) -> Credentials:
    """Give options the names that s3fs knows, and take out when they expire."""
    expiration = found.pop(_EXPIRATION, None)
    options: dict[str, Any] = {}
    for name, value in found.items():
        known = _AWS.get(name, name)
        if name in _REGION:
            known, value = "client_kwargs", {"region_name": value}  # noqa: PLW2901 # renamed
        if known == "client_kwargs" and isinstance(value, Mapping):
            value = {**options.get(known, {}), **value}  # noqa: PLW2901 # renamed
        elif known in options:
            raise InvalidInputError(f"{source}: {known!r} is given twice. Give it once.")
        options[known] = value
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
        zone = expiration.tzinfo or UTC  # as AWS's own answers, where they do not say it
        return expiration.replace(tzinfo=zone).timestamp()
    if isinstance(expiration, int | float) and not isinstance(expiration, bool):
        return float(expiration)
    raise InvalidInputError(
        f"{source}: the expiration is no time. Give a datetime, ISO 8601 text, or seconds since "
        "the epoch."
    )


def _called(function: Callable[[], Any], source: str) -> Any:
    try:
        return function()
    except Exception as error:  # noqa: BLE001 # the reason follows
        # The caller's own code: any of its errors means that there are no credentials. Its text
        # is left out, for it may hold what must not be logged.
        raise PermissionDeniedError(
            f"{source}: looking up the credentials failed with {type(error).__name__}. Mend the "
            "function, and see that what it reads is there on each worker."
        ) from None


def _configured(key: str) -> Any:
    if key in _populated:
        found = _populated[key]
        return _configured(found) if isinstance(found, str) and found != key else found
    # Dask is not imported below the floor of the operations; its configuration is what every
    # process of a cluster shares, so it is asked for by name, here only.
    config = importlib.import_module("dask.config")
    found = config.get(f"dasklake.creds.{key}", None)
    if found is not None:
        return found
    for point in metadata.entry_points(group=ENTRY_POINTS, name=key):
        return point.load()
    if key == AMBIENT:
        return {}
    raise PermissionDeniedError(
        f"This process knows no credentials under the key {key!r}. Set dasklake.creds.{key} in "
        f"the Dask configuration of each worker, or install an entry point of the group "
        f"{ENTRY_POINTS!r} with that name."
    )
