"""The bytes of arrays, compressed or not, and what messages show of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError

__all__ = [
    "Encoded",
    "as_blob",
    "check_size",
    "compress",
    "decompress",
    "from_blob",
    "most_decoded",
    "shorten",
]

#: An Arrow-compatible scalar, an array or a blob, by the layout.
Encoded = Any

#: Fastest level: on masks higher ones cost several times more and save little.
_ZSTD_LEVEL = 1

#: A sample may become as large as this, or this many times as large as what is stored of it, in
#: bytes. A few bytes can be made to unfold into any amount of memory; lakes may come from anybody.
_ALWAYS = 4 * 2**30
_TIMES = 1000


def compress(data: npt.NDArray[Any], compression: str) -> bytes:
    """Compress the bytes of a contiguous array with ``"lz4"`` (frames) or ``"zstd"``."""
    # As bytes: the buffer that Arrow returns otherwise shows memoryview its size before the cut.
    return bytes(_codec(compression).compress(pa.py_buffer(data), asbytes=True))


def decompress(data: Any, compression: str, size: int) -> pa.Buffer:
    """Undo :func:`compress`; the buffer of ``size`` bytes may be written to.

    Raises
    ------
    CorruptionError
        The bytes are not those of ``size`` compressed bytes.
    """
    try:
        if compression == "lz4":
            return _lz4(data, size)
        found = _codec(compression).decompress(pa.py_buffer(data), size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptionError(
            f"A sample cannot be decompressed with {compression}: {error}. "
            "Restore its chunk from a copy."
        ) from error
    return found


def _lz4(data: Any, size: int) -> pa.Buffer:
    """Decompress frames of lz4, which do not say for themselves to how many bytes."""
    found = np.empty(size, np.uint8)
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "lz4") as stream:
        # Codec.decompress would leave what is missing at the end as it lay in memory.
        if stream.readinto(found) != size or stream.read(1):
            raise ValueError(f"it does not hold {size} bytes")
    return pa.py_buffer(found)


def as_blob(array: npt.NDArray[Any], shape: tuple[int, ...], compression: str | None) -> Blob:
    """Return the bytes of a C-contiguous array, compressed where asked for."""
    flat = array.reshape(-1).view(np.uint8)
    if compression is None:
        return Blob(flat.data, shape)
    return Blob(compress(flat, compression), shape)


def from_blob(blob: Blob, dtype: np.dtype[Any], compression: str | None) -> npt.NDArray[Any]:
    """Undo :func:`as_blob`.

    Raises
    ------
    CorruptionError
        The bytes are fewer or more than the shape asks for.
    """
    size = check_size(blob, dtype.itemsize)
    data: Any = blob.data if compression is None else decompress(blob.data, compression, size)
    if len(data) != size:
        raise CorruptionError(
            f"A sample of shape {blob.shape} has {len(data)} bytes, not {size}. "
            "Restore its chunk from a copy."
        )
    return np.frombuffer(data, dtype).reshape(blob.shape)


def check_size(blob: Blob, width: int) -> int:
    """Return the bytes of a sample of a blob's shape, with ``width`` bytes for each element.

    Raises
    ------
    CorruptionError
        It has a negative length, or is far larger than what is stored of it.
    """
    size = math.prod(blob.shape) * width
    if any(axis < 0 for axis in blob.shape) or size > most_decoded(len(blob.data)):
        raise CorruptionError(
            f"A sample of {len(blob.data)} bytes is said to be of shape {blob.shape}. Restore its "
            "chunk from a copy."
        )
    return size


def most_decoded(stored: Any) -> Any:
    """Return to how many bytes a sample of which so many are stored may decode."""
    return np.maximum(_ALWAYS, np.multiply(stored, _TIMES, dtype=float))


def shorten(value: object, most: int = 60) -> str:
    """Return the repr of a value for a message, cut to ``most`` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _codec(compression: str) -> pa.Codec:
    if compression == "zstd":
        return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
    return pa.Codec("lz4")
