"""Interface of the media readers, and helpers for imports, errors and row selection."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dasklake.exceptions import LakeError, MissingExtraError, SampleError

#: Remedy for content that cannot be decoded, on write and on read.
USE_BYTES = "Check the file, or get it undecoded with .bytes()."


class MediaReader(Protocol):
    """Reader of one family of file formats."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the shape of the content, from the header if the header holds it."""

    def info(self, data: bytes) -> dict[str, Any]:
        """Return further facts from the header as plain values."""

    def open(self, data: bytes) -> Any:
        """Open the file with its library and return the library's object."""

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode rows of the content, along its first axis."""


@contextmanager
def translate_errors(content: str) -> Iterator[None]:
    """Raise a SampleError in place of any error of a decoding library."""
    try:
        yield
    except LakeError:
        raise
    # Each library has its own errors, and damaged bytes can raise any other error.
    except Exception as error:
        raise SampleError(
            f"the {content} cannot be decoded: {str(error) or type(error).__name__}. {USE_BYTES}"
        ) from error


def import_optional(module: str, feature: str, extra: str) -> Any:
    """Import an optional library. A lake without such files does not need it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error


def selected_rows(item: int | slice, length: int) -> range:
    """Return the rows of the first axis that an index or a slice selects."""
    if isinstance(item, slice):
        return range(*item.indices(length))
    if not -length <= item < length:
        raise IndexError(f"row {item} is out of range: the content has {length} rows.")
    return range(item % length, item % length + 1)


def select_rows(array: npt.NDArray[Any], item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
    """Select rows of the whole content."""
    return convert(array[np.asarray(selected_rows(item, len(array)), int)], item, dtype)


def convert(rows: Any, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
    """Convert decoded rows to ``dtype``, and drop the first axis if ``item`` is an integer."""
    array = np.asarray(rows, dtype=dtype)
    return array if isinstance(item, slice) else array[0]
