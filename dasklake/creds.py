"""Credential keys to values, in each process: what is stored or sent names a key at most."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeAlias

from dasklake.exceptions import InvalidInputError, PermissionDeniedError

__all__ = ["ENTRY_POINTS", "StorageOptions", "resolve"]

#: Group of entry points whose names are credential keys and whose values are callables.
ENTRY_POINTS = "dasklake.creds"

StorageOptions: TypeAlias = Mapping[str, Any] | Callable[[], Mapping[str, Any]] | str | None


def resolve(storage_options: StorageOptions) -> dict[str, Any]:
    """Turn storage options into what fsspec takes, with what this process knows.

    Parameters
    ----------
    storage_options : mapping, callable, str or None
        A mapping is taken as it is. A callable is called without arguments and returns a
        mapping. A string is a credentials key: the mapping is looked up in Dask's configuration
        under ``dasklake.creds.<key>``, then among the entry points of the group
        ``dasklake.creds``.

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
    >>> resolve(lambda: {"anon": True})
    {'anon': True}
    """
    if storage_options is None:
        return {}
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
    return {str(name): value for name, value in found.items()}


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
    # Dask is not imported below the floor of the operations; its configuration is what every
    # process of a cluster shares, so it is asked for by name, here only.
    config = importlib.import_module("dask.config")
    found = config.get(f"dasklake.creds.{key}", None)
    if found is not None:
        return found
    for point in metadata.entry_points(group=ENTRY_POINTS, name=key):
        return point.load()
    raise PermissionDeniedError(
        f"This process knows no credentials under the key {key!r}. Set dasklake.creds.{key} in "
        f"the Dask configuration of each worker, or install an entry point of the group "
        f"{ENTRY_POINTS!r} with that name."
    )
