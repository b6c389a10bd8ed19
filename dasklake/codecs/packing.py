"""The bytes of arrays, compressed or not, and what messages show of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._model.values import Blob
from dasklake.exceptions import CorruptionError

__all__ = ["Encoded", "as_blob", "compress", "decompress", "from_blob", "shorten"]

#: An Arrow-compatible scalar, an array or a blob, by the layout.
Encoded = Any

#: Fastest level: on masks higher ones cost several times more and save little.
_ZSTD_LEVEL = 1


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
        found = _codec(compression).decompress(pa.py_buffer(data), size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptionError(
            f"A sample cannot be decompressed with {compression}: {error}. "
            "Restore its chunk from a copy."
        ) from error
    return found


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
    size = math.prod(blob.shape) * dtype.itemsize
    data: Any = blob.data if compression is None else decompress(blob.data, compression, size)
    if len(data) != size:
        raise CorruptionError(
            f"A sample of shape {blob.shape} has {len(data)} bytes, not {size}. "
            "Restore its chunk from a copy."
        )
    return np.frombuffer(data, dtype).reshape(blob.shape)


def shorten(value: object, most: int = 60) -> str:
    """Return the repr of a value for a message, cut to ``most`` characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _codec(compression: str) -> pa.Codec:
    if compression == "zstd":
        return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
    return pa.Codec("lz4")
