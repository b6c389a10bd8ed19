"""Failures: which may be skipped, and what is kept of them."""

from __future__ import annotations

import contextlib
import errno
import json
import traceback
from collections.abc import Mapping
from typing import Any

from dasklake._model.receipt import Failure
from dasklake._storage.errors import safe_text
from dasklake.exceptions import CorruptionError, MissingExtraError, SampleError, StoreError

__all__ = [
    "attach",
    "attached",
    "describe_item",
    "failure_of_sample",
    "failure_of_task",
    "kept_value",
    "never_skipped",
]

#: Characters kept of an item, a message and a traceback.
_ITEM, _MESSAGE, _TRACEBACK = 120, 500, 4000

#: Characters of JSON up to which an item is kept whole.
_VALUE = 4096

#: Attribute of an error that is raised to Dask.
_PLACE = "_dasklake_failure"

#: Never a property of one sample: the run must stop, or Dask must try again.
_NEVER_SKIPPED = (
    MemoryError,
    PermissionError,
    ConnectionError,
    TimeoutError,
    StoreError,
    CorruptionError,
    MissingExtraError,
)
_NEVER_SKIPPED_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


def never_skipped(error: BaseException | None) -> bool:
    """Whether an error says something of the storage or the machine, not of a sample."""
    if isinstance(error, OSError) and error.errno in _NEVER_SKIPPED_ERRNO:
        return True
    # Workers that die one after the other; the class is distributed's, unknown on this floor.
    died = type(error).__name__ == "KilledWorker"
    return died or isinstance(error, _NEVER_SKIPPED)


def failure_of_sample(
    run: str,
    partition: int,
    error: BaseException,
    place: tuple[int | None, int | None],
    item: Any,
) -> Failure:
    """Describe a sample that failed in a write task, or a partition that did.

    Parameters
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    error : BaseException
        What was raised.
    place : tuple of (int or None, int or None)
        Place of the partition's first sample in the input, where known; and of the failed sample
        in the partition, None where the partition failed as a whole.
    item : object
        The failed item.
    """
    start, position = place
    return Failure(
        run=run,
        partition=partition,
        position=position,
        index=None if start is None or position is None else start + position,
        item=None if position is None else describe_item(item),
        value=None if position is None else kept_value(item),
        tensor=error.tensor if isinstance(error, SampleError) else None,
        exception=type(error).__qualname__,
        message=_shorten(str(error), _MESSAGE),
        traceback=_shorten("".join(traceback.format_exception(error)), _TRACEBACK),
    )


def describe_item(item: Any) -> str:
    """Show an item as far as it helps to find it again."""
    if isinstance(item, Mapping):
        inside = ", ".join(f"{key!r}: {describe_item(value)}" for key, value in item.items())
        return _shorten(f"{{{inside}}}", _ITEM)
    # In this order: the shape of a file is in its header, which may have to be read.
    if hasattr(item, "dtype") and hasattr(item, "shape") and bool(getattr(item, "ndim", 0)):
        return f"array of shape {tuple(item.shape)} and dtype {item.dtype}"
    return _shorten(repr(item), _ITEM)


def kept_value(item: Any) -> str | None:
    """Return an item as JSON from which it comes back exactly; None where there is none.

    Examples
    --------
    >>> kept_value({"id": 7, "tags": ["a"]}), kept_value((7,)), kept_value("https://me:pw@x/y")
    ('{"id":7,"tags":["a"]}', None, None)
    """
    try:
        if not _is_plain(item):
            return None
        text = json.dumps(item, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):  # no number, too long a number, or too deep
        return None
    # A failure is stored: what could be a password is not.
    return text if len(text) <= _VALUE and safe_text(text) == text else None


def _is_plain(item: Any) -> bool:
    """Whether JSON has the type; looks no further than into what is small."""
    if item is None or type(item) in (bool, int, float):
        return True
    if type(item) not in (str, list, dict) or len(item) > _VALUE:
        return False
    if type(item) is dict:
        return all(type(key) is str and _is_plain(value) for key, value in item.items())
    return type(item) is str or all(map(_is_plain, item))


def _shorten(text: str, most: int) -> str:
    text = safe_text(text)  # a failure is stored: no password of a URL may be in it
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def attach(error: BaseException, failure: Failure) -> None:
    """Let an error that is raised to Dask carry the place where it happened."""
    with contextlib.suppress(AttributeError, TypeError):  # a class without room for it
        error.__dict__[_PLACE] = failure


def attached(error: BaseException | None) -> Failure | None:
    """Return what :func:`attach` let an error carry, also from another process."""
    found = getattr(error, "__dict__", {}).get(_PLACE)
    return found if isinstance(found, Failure) else None


def failure_of_task(
    run: str, partition: int, error: BaseException | None, text: str, message: str | None = None
) -> Failure:
    """Describe a partition whose task failed before our part of it was reached.

    Parameters
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    error : BaseException or None
        What was raised, where it could be brought here.
    text : str
        Its traceback.
    message : str, optional
        Its message, where the error itself could not be brought here.
    """
    known = attached(error)
    if known is not None:
        return known
    name = type(error).__qualname__ if error is not None else "Exception"
    said = str(error) if error is not None else str(message)
    return Failure(
        run=run,
        partition=partition,
        position=None,
        index=None,
        item=None,
        tensor=None,
        exception=name,
        message=_shorten(said, _MESSAGE),
        traceback=_shorten(text, _TRACEBACK),
    )
