"""Conversion of arrays to bytes with or without compression, and short reprs for messages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._schema.printable import printable, safe_repr
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

#: An Arrow-compatible scalar, an array or a blob, depending on the layout.
Encoded = Any

#: Fastest level: for masks, higher levels take several times as long and save little.
_ZSTD_LEVEL = 1

#: Limits of the decoded size of a sample: bytes that are always allowed, and a multiple of the stored
#: size. In a lake from an untrusted source, a few bytes could expand to any amount of memory.
_ALLOWED_SIZE = 4 * 2**30
_ALLOWED_RATIO = 1000


def compress(data: npt.NDArray[Any], compression: str) -> bytes:
    """Compress the bytes of a contiguous array with ``"lz4"`` (frames) or ``"zstd"``."""
    # As bytes: Arrow shrinks its buffers, but a memoryview of one shows the size before that.
    return bytes(_codec(compression).compress(pa.py_buffer(data), asbytes=True))


def decompress(data: Any, compression: str, size: int) -> pa.Buffer:
    """Decompress bytes to a writable buffer of ``size`` bytes.

    Raises
    ------
    CorruptionError
        ``data`` does not decompress to ``size`` bytes.
    """
    try:
        if compression == "lz4":
            return _lz4(data, size)
        return _codec(compression).decompress(pa.py_buffer(data), size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptionError(
            f"A sample cannot be decompressed with {compression}: {error}. "
            "Restore its chunk from a copy."
        ) from error


def _lz4(data: Any, size: int) -> pa.Buffer:
    """Decompress lz4 frames, which do not store the decompressed size."""
    decompressed = np.empty(size, np.uint8)
    with pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "lz4") as stream:
        # If bytes are missing, Codec.decompress would return uninitialized memory at the end.
        if stream.readinto(decompressed) != size or stream.read(1):
            raise ValueError(f"the content does not have {size} bytes")
    return pa.py_buffer(decompressed)


def as_blob(array: npt.NDArray[Any], shape: tuple[int, ...], compression: str | None) -> Blob:
    """Return the bytes of a C-contiguous array, compressed unless ``compression`` is None."""
    flat = array.reshape(-1).view(np.uint8)
    if compression is None:
        return Blob(flat.data, shape)
    return Blob(compress(flat, compression), shape)


def from_blob(blob: Blob, dtype: np.dtype[Any], compression: str | None) -> npt.NDArray[Any]:
    """Return the array of a blob.

    Raises
    ------
    CorruptionError
        The number of decompressed bytes does not match the shape of ``blob``.
    """
    size = decoded_size(blob, dtype.itemsize)
    data: Any = blob.data if compression is None else decompress(blob.data, compression, size)
    check_length(blob.shape, dtype, len(data))
    return np.frombuffer(data, dtype).reshape(blob.shape)


def check_length(shape: tuple[int, ...], dtype: np.dtype[Any], length: int) -> None:
    """Check the number of bytes of an array.

    Raises
    ------
    CorruptionError
        ``length`` does not match the shape, or an axis is negative.
    """
    size = math.prod(shape) * dtype.itemsize
    if length != size or any(axis < 0 for axis in shape):
        raise CorruptionError(
            f"A sample of shape {shape} must have {size} bytes, got {length}. "
            "Restore its chunk from a copy."
        )


def decoded_size(blob: Blob, width: int) -> int:
    """Return the decoded size of a blob in bytes, with ``width`` bytes per element.

    Raises
    ------
    CorruptionError
        The shape has a negative axis, or the decoded size is implausible for the stored size.
    """
    size = math.prod(blob.shape) * width
    if any(axis < 0 for axis in blob.shape) or size > max_decoded_size(len(blob.data)):
        raise CorruptionError(
            f"A sample of {len(blob.data)} bytes has the invalid shape {blob.shape}. Restore its "
            "chunk from a copy."
        )
    return size


def max_decoded_size(stored_size: Any) -> Any:
    """Return the largest allowed decoded size of a sample for its stored size, in bytes."""
    return np.maximum(_ALLOWED_SIZE, np.multiply(stored_size, _ALLOWED_RATIO, dtype=float))


def shorten(value: object, length: int = 60) -> str:
    """Return a string or the repr of a value, cut to ``length`` characters, for a message."""
    text = printable(value) if isinstance(value, str) else safe_repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def wrong_value(expected: str, value: object, remedy: str) -> SampleError:
    """Return the error of a value that is not what is expected."""
    kind = type(value).__name__
    return SampleError(
        f"the value must be {expected}, got {shorten(value)} of type {kind}. {remedy}"
    )


def _codec(compression: str) -> pa.Codec:
    if compression == "zstd":
        return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
    return pa.Codec("lz4")
