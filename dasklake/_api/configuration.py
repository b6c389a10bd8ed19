"""Read the keys ``dasklake.*`` of Dask's configuration: the defaults of arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask.config

from dasklake._api.cache_options import parse_cache_size
from dasklake._run.options import (
    parse_checkpoint_interval,
    parse_retries,
    parse_seconds,
    parse_size,
)
from dasklake._run.progress import CheckpointInterval
from dasklake._schema.printable import safe_repr
from dasklake._storage.store import ObjectStore, absolute_url
from dasklake._storage.store_limits import StoreLimits
from dasklake.exceptions import InvalidInputError

_FILE = Path(__file__).parents[1] / "dasklake.yaml"

#: The value of ``checkpoint_every`` that stands for the configured one, since None has a meaning.
AUTO = "auto"

#: The section of the credentials, whose keys are chosen by users.
_CREDS = "creds"


def _flat(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of nested sections as Dask writes them, with dots and hyphens."""
    for key, value in section.items():
        name = prefix + str(key).replace("_", "-")
        if name == _CREDS:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


(_PACKAGED,) = dask.config.collect_yaml([str(_FILE)])
_DEFAULTS: dict[str, Any] = dict(_flat(_PACKAGED["dasklake"]))


def add_defaults() -> None:
    """Add the packaged defaults to Dask's configuration; values of users have precedence."""
    dask.config.update_defaults(_PACKAGED)


def _name(key: str) -> str:
    """Return the name of a key for messages."""
    return f"The configuration key dasklake.{key}"


def _value(key: str) -> Any:
    """Return the value of a key.

    Raises
    ------
    InvalidInputError
        The configuration has a key that dasklake does not know.
    """
    section = dask.config.get("dasklake", default=None) or {}
    if not isinstance(section, Mapping):
        raise InvalidInputError(
            "The configuration key dasklake must be a mapping of keys to values, got "
            f"{safe_repr(section)}. Set, for example, dasklake.chunk-size."
        )
    for name, value in _flat(section):
        if name not in _DEFAULTS:
            raise InvalidInputError(_unknown(name, value))
    return dask.config.get(f"dasklake.{key}", default=_DEFAULTS[key])


def _unknown(name: str, value: object) -> str:
    children = [key for key in _DEFAULTS if key.startswith(f"{name}.")]
    if children:
        return f"{_name(name)} must be a mapping, got {safe_repr(value)}. Set {_joined(children)}."
    close = difflib.get_close_matches(name, _DEFAULTS, n=1, cutoff=0.8) or list(_DEFAULTS)
    return f"{_name(name)} does not exist. Remove it, or use {_joined(close)}."


def _joined(keys: list[str]) -> str:
    return " or ".join(f"dasklake.{key}" for key in keys)


def chunk_size_of(given: Any) -> int:
    """Return a chunk size in bytes; None means the configured one.

    Raises
    ------
    InvalidInputError
        The argument or the configured value is not a positive number of bytes.
    """
    if given is not None:
        return parse_size(given)
    return parse_size(_value("chunk-size"), _name("chunk-size"))


def checkpoint_interval_of(given: Any) -> CheckpointInterval:
    """Return the interval between checkpoints; ``"auto"`` means the configured one.

    Raises
    ------
    InvalidInputError
        The argument or the configured value is not a positive number or duration.
    """
    if not (isinstance(given, str) and given == AUTO):
        return parse_checkpoint_interval(given)
    return parse_checkpoint_interval(_value("checkpoint-every"), _name("checkpoint-every"))


def retries_of(given: Any) -> int:
    """Return the number of retries of a task; None means the configured one.

    Raises
    ------
    InvalidInputError
        The argument or the configured value is not a whole number of at least 0.
    """
    if given is not None:
        return parse_retries(given)
    return parse_retries(_value("retries"), _name("retries"))


def cache_size_of(given: Any) -> int:
    """Return the bytes of a cache on the disk; None means the configured size.

    Raises
    ------
    InvalidInputError
        The argument or the configured value is not a size of at least 16 MiB.
    """
    if given is not None:
        return parse_cache_size(given)
    return parse_cache_size(_value("cache-size"), _name("cache-size"))


def open_store(url: Any, storage_options: Any, **arguments: Any) -> ObjectStore:
    """Return a store with the configured limits, which it takes along to other processes.

    Parameters
    ----------
    url, storage_options, **arguments
        As for :class:`ObjectStore`.

    Raises
    ------
    InvalidInputError
        A configured value is not valid.
    """
    seconds = {
        f"{key}_seconds": parse_seconds(
            _value(f"retry-time.{key}"), _name(f"retry-time.{key}"), "30s"
        )
        for key in ("read", "write", "commit")
    }
    size = parse_size(_value("memory-cache-size"), _name("memory-cache-size"))
    limits = StoreLimits(**seconds, cache_bytes=size)
    return ObjectStore(absolute_url(url), storage_options, limits=limits, **arguments)
