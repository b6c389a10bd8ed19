"""Sizes of decoded values in memory, from stored shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._codecs.sequence import item_locations
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob

#: Decoded bytes of a chunk, as a multiple of the bytes at which it is full. Photographs stay below
#: it, so only chunks of masks, drawings and constant arrays are written earlier.
DECODED_RATIO = 16

#: Sizes beyond this number of bytes only have to be large.
_MAX_SIZE = 2**50


def expands(spec: TensorSpec, *, frame: bool = False) -> bool:
    """Return whether values can be larger in memory than in a chunk.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    frame : bool, default False
        Whether the values are those of a frame, in which files are not decoded.
    """
    item = spec.item if spec.sequence else spec
    if item.linked:
        return False
    if item.kind.codec == "image":
        return not (frame and item.encoded)
    if item.kind.codec == "mask":
        return True
    return item.kind.codec == "array" and item.compression is not None and not item.encoded


def bytes_of_shape(spec: TensorSpec, shape: Sequence[Any]) -> int:
    """Return the decoded bytes of a value of some shape."""
    width = 1 if spec.numpy_dtype is None else spec.numpy_dtype.itemsize
    elements: int = math.prod(max(0, axis) for axis in shape)
    return min(_MAX_SIZE, elements * width)


def bytes_of_stored(spec: TensorSpec, stored: Any) -> int:
    """Return the decoded bytes of a stored value of a tensor that expands.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    stored : Encoded
        The stored value.
    """
    if not isinstance(stored, Blob):
        return 0  # no value
    if not spec.sequence:
        return bytes_of_shape(spec, stored.shape)
    return _bytes_of_items(spec.item, stored.shape, len(stored.data))


def _bytes_of_items(spec: TensorSpec, directory: tuple[int, ...], size: int) -> int:
    return sum(bytes_of_shape(spec, item.shape) for item in item_locations(directory, size))


def bytes_of_shapes(
    spec: TensorSpec, shapes: pa.Array, stored: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the decoded bytes of the values of a column.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor, which expands.
    shapes : pyarrow.Array
        The column of shapes, or of the directories of lists.
    stored : numpy.ndarray
        The stored bytes of each value.

    Raises
    ------
    CorruptionError
        A directory does not match its bytes.
    """
    if pa.types.is_fixed_size_list(shapes.type):
        axes = shapes.flatten().to_numpy(zero_copy_only=False).reshape(len(shapes), -1)
        products = np.maximum(axes, 0).astype(float).prod(axis=1) * bytes_of_shape(spec, ())
        sizes: npt.NDArray[np.int64] = np.minimum(products, _MAX_SIZE).astype(np.int64)
        return sizes
    rows = shapes.to_pylist()
    if not spec.sequence:
        return np.array([bytes_of_shape(spec, shape or ()) for shape in rows], np.int64)
    return np.array(
        [
            _bytes_of_items(spec.item, tuple(row), size) if size and row else 0
            for row, size in zip(rows, stored.tolist(), strict=True)
        ],
        np.int64,
    )
