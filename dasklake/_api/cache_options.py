"""Parse and validate the arguments of a local cache."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from dask.utils import format_bytes, parse_bytes

from dasklake._storage.block_cache import CacheSettings, open_private, private_directory
from dasklake.exceptions import InvalidInputError

#: Smallest limit in bytes: a few requests of a reader.
_MIN_SIZE = 16 * 2**20


def parse_cache(cache: object, size: int) -> CacheSettings:
    """Return the settings of a local cache.

    Parameters
    ----------
    cache : str or os.PathLike
        A local directory; it is created when the first block is stored.
    size : int
        Most bytes that it takes.

    Raises
    ------
    InvalidInputError
        ``cache`` is not a local directory of the current user.
    """
    if not isinstance(cache, str | os.PathLike) or not _is_local(str(cache)):
        raise InvalidInputError(
            f"cache must be the path of a local directory, got {cache!r}. Give for example "
            '"/scratch/cache".'
        )
    settings = CacheSettings(
        os.path.abspath(os.path.expanduser(os.fsdecode(cache))),  # noqa: PTH100, PTH111 # keeps links
        size,
    )
    # A disk that fails is reported when it is used; reading continues without it.
    with suppress(OSError):
        os.close(open_private(private_directory(settings.directory)))
    return settings


def _is_local(path: str) -> bool:
    """Return whether a path may be one of a local disk."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return bool(path.strip()) and "://" not in path and "\0" not in path


def parse_cache_size(value: Any, name: str = "cache_size") -> int:
    """Parse the argument ``name`` into bytes.

    Raises
    ------
    InvalidInputError
        ``value`` is not a size of at least 16 MiB.
    """
    try:
        size = None if isinstance(value, bool) else int(parse_bytes(value))
    except (ValueError, TypeError, OverflowError, AttributeError):
        size = None
    if size is None or size < _MIN_SIZE:
        raise InvalidInputError(
            f"{name} must be a size of at least {format_bytes(_MIN_SIZE)}, got {value!r}. Give "
            'for example "50 GiB".'
        )
    return size
