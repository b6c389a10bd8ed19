"""Describe failures, and decide which of them may be skipped."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dasklake._codecs.sample import raw_value
from dasklake._model.receipt import Failure
from dasklake._schema.printable import error_text, printable, safe_repr, safe_str, shorten_middle
from dasklake._storage.hidden import safe_text
from dasklake.exceptions import CorruptionError, MissingExtraError, SampleError, StoreError

#: Most characters of an item, a message and a traceback.
_ITEM, _MESSAGE, _TRACEBACK = 120, 500, 4000

#: Size of the texts that are searched for passwords, as a multiple of what is kept of them.
_CUT = 20

#: Most characters of the JSON of an item that is kept whole.
_VALUE = 4096

#: Attribute of errors that are raised to Dask.
_ATTRIBUTE = "_dasklake_failure"

#: Errors that no sample causes: the run must end, or Dask must retry.
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
    """Return whether an error concerns the storage or the machine rather than one sample."""
    if isinstance(error, OSError) and error.errno in _NEVER_SKIPPED_ERRNO:
        return True
    # Several workers died; this layer does not import the class, which is distributed's.
    return type(error).__name__ == "KilledWorker" or isinstance(error, _NEVER_SKIPPED)


def failure_of_sample(
    run: str,
    partition: int,
    error: BaseException,
    position: tuple[int | None, int | None],
    item: Any,
) -> Failure:
    """Describe a sample or a partition that failed in a write task.

    Parameters
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    error : BaseException
        The error that was raised.
    position : tuple of (int or None, int or None)
        Index of the partition's first sample in the input, if known; and position of the failed
        sample in the partition, or None if the partition failed as a whole.
    item : object
        The failed item.
    """
    start, row = position
    return Failure(
        run=run,
        partition=partition,
        position=row,
        index=None if start is None or row is None else start + row,
        item=None if row is None else describe_item(item),
        value=None if row is None else kept_value(item),
        tensor=_tensor_of(error),
        exception=_shorten(type(error).__qualname__, _ITEM),
        message=_shorten(safe_str(error), _MESSAGE),
        traceback=_shorten(error_text(error), _TRACEBACK),
    )


def describe_item(item: Any) -> str:
    """Return a short text that identifies an item, also if its repr or its attributes raise."""
    try:
        return _shorten(_description(item), _ITEM)
    except Exception:  # noqa: BLE001 # the class is the user's
        return _shorten(safe_repr(item), _ITEM)


def _description(item: Any) -> str:
    if isinstance(item, Mapping):
        # One key more than fits, so that the text is cut there.
        names = islice(item, _ITEM // 2)
        text = ", ".join(f"{safe_repr(n)}: {describe_item(raw_value(item, n))}" for n in names)
        return f"{{{text}}}"
    # In this order: reading the shape of a file may require to read its header.
    if hasattr(item, "dtype") and hasattr(item, "shape") and bool(getattr(item, "ndim", 0)):
        return f"array of shape {tuple(item.shape)} and dtype {item.dtype}"
    return safe_repr(item)


def _tensor_of(error: BaseException) -> str | None:
    tensor = error.tensor if isinstance(error, SampleError) else None
    # The user's code may raise the error too, with the name of a tensor that is not a string.
    return None if tensor is None else _shorten(safe_str(tensor), _ITEM)


def kept_value(item: Any) -> str | None:
    """Return JSON from which an item can be restored exactly, or None if this is not possible.

    Examples
    --------
    >>> kept_value({"id": 7, "tags": ["a"]}), kept_value((7,)), kept_value("https://me:pw@x/y")
    ('{"id":7,"tags":["a"]}', None, None)
    """
    try:
        if not _is_plain(item):
            return None
        text = json.dumps(item, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):  # not finite, too many digits, or too deep
        return None
    # Failures are stored, so a text that may contain a password is left out.
    return text if len(text) <= _VALUE and safe_text(text) == text else None


def _is_plain(item: Any) -> bool:
    """Return whether an item has only types of JSON; large containers count as not plain."""
    if item is None or type(item) in (bool, int, float):
        return True
    if type(item) not in (str, list, dict) or len(item) > _VALUE:
        return False
    if type(item) is dict:
        return all(type(key) is str and _is_plain(value) for key, value in item.items())
    return type(item) is str or all(map(_is_plain, item))


def _shorten(text: str, limit: int) -> str:
    # Cut twice: the search for passwords would take long in a huge text, and a URL that the first
    # cut splits lies outside the second.
    text = printable(shorten_middle(text, _CUT * limit))
    return shorten_middle(safe_text(text), limit)  # failures are stored


def attach(error: BaseException, failure: Failure | None) -> None:
    """Attach the description of a failure to an error that is raised to Dask."""
    with contextlib.suppress(AttributeError, TypeError):  # a class without a writable __dict__
        error.__dict__[_ATTRIBUTE] = failure


def attached(error: BaseException | None) -> Failure | None:
    """Return the failure that :func:`attach` added, also in another process, or None."""
    failure = getattr(error, "__dict__", {}).get(_ATTRIBUTE)
    return failure if isinstance(failure, Failure) else None


def failure_of_task(
    run: str, partition: int, error: BaseException | None, text: str, message: str | None = None
) -> Failure:
    """Describe a partition whose task failed outside of dasklake's code.

    Parameters
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    error : BaseException or None
        The error, if it could be transferred to this process.
    text : str
        The traceback.
    message : str, optional
        The message, if the error itself could not be transferred.
    """
    failure = attached(error)
    if failure is not None:
        return failure
    name = type(error).__qualname__ if error is not None else "Exception"
    described = safe_str(message if error is None else error)
    return Failure(
        run=run,
        partition=partition,
        position=None,
        index=None,
        item=None,
        tensor=None,
        exception=_shorten(name, _ITEM),
        message=_shorten(described, _MESSAGE),
        traceback=_shorten(text, _TRACEBACK),
    )
