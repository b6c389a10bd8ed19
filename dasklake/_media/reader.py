"""Interface and helpers of the readers of all formats: errors, imports and slices."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dasklake.exceptions import LakeError, MissingExtraError, SampleError

__all__ = ["MediaReader", "convert", "library", "reading", "rows_of_item"]


class MediaReader(Protocol):
    """Reads the files of one family of formats."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the shape of the content, from the header where that says it."""

    def info(self, data: bytes) -> dict[str, Any]:
        """Return what else the header says, in plain values."""

    def open(self, data: bytes) -> Any:
        """Return the file as its library has it."""

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return some of the content, along its first axis."""


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a library raises for bytes that it cannot read into a SampleError."""
    try:
        yield
    except LakeError:
        raise
    # Each library has errors of its own, and damaged bytes raise any others as well.
    except Exception as error:
        raise SampleError(
            f"the {what} cannot be decoded: {str(error) or type(error).__name__}. Its bytes are "
            "returned by .bytes()."
        ) from error


def library(name: str, what: str, extra: str) -> Any:
    """Import an optional library: lakes without such files do not need it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(what, extra) from error


def rows_of_item(item: int | slice, length: int) -> range:
    """Return the places along the first axis that an index means."""
    if isinstance(item, slice):
        return range(*item.indices(length))
    if not -length <= item < length:
        raise IndexError(f"Row {item} is out of range: there are {length} rows.")
    return range(item % length, item % length + 1)


def convert(array: Any, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
    """Return rows that were read as the index and the dtype want them."""
    found = np.asarray(array, dtype=dtype)
    return found if isinstance(item, slice) else found[0]
