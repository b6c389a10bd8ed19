"""Masks from run lengths and polygons, as annotation files store them.

Both are values of a ``binary_mask`` tensor. With ``compression="rle"`` run lengths are stored
unchanged, which is fast. With any other compression they are converted to pixels first. Reading
always returns pixels, equal to those of pycocotools' ``annToMask``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._schema.run_lengths import RunLengthMasks, compress_counts, expand_counts
from dasklake.exceptions import MissingExtraError, SampleError

try:
    from pycocotools import mask as drawing
except ImportError:  # run lengths need no library
    drawing = None

__all__ = ["RunLengthMasks", "from_polygons", "from_rle"]


def from_rle(rles: Iterable[Mapping[str, Any]], size: tuple[int, int]) -> RunLengthMasks:
    """Build the masks of one sample from COCO's run lengths.

    Parameters
    ----------
    rles : iterable of mapping
        One mapping for each mask. ``"counts"`` is bytes or str in COCO's compressed form, or a
        list of run lengths. ``"size"``, if given, is the size of the image.
    size : tuple of (int, int)
        Height and width of the image, in pixels.

    Returns
    -------
    RunLengthMasks
        The value to put into a sample.

    Raises
    ------
    SampleError
        Run lengths in ``rles`` are damaged, or belong to an image of another size.

    Examples
    --------
    >>> masks = from_rle([{"size": [2, 3], "counts": [1, 2, 3]}], size=(2, 3))
    >>> masks.shape
    (2, 3, 1)
    """
    height, width = _size(size)
    counts = [_counts(index, rle, height, width) for index, rle in enumerate(rles)]
    return RunLengthMasks(height, width, tuple(counts))


def from_polygons(
    polygons: Iterable[Sequence[Sequence[float]]], size: tuple[int, int]
) -> RunLengthMasks:
    """Build the masks of one sample from polygons.

    Parameters
    ----------
    polygons : iterable of sequence of sequence of float
        The polygons of each mask, each ``x, y, x, y, …`` in pixels. Polygons with fewer than
        three corners cover no pixels.
    size : tuple of (int, int)
        Height and width of the image, in pixels.

    Returns
    -------
    RunLengthMasks
        The value to put into a sample.

    Raises
    ------
    MissingExtraError
        pycocotools is not installed.
    SampleError
        An item of ``polygons`` is not a list of pairs of finite numbers.

    Examples
    --------
    >>> masks = from_polygons([[[0, 0, 2, 0, 2, 2, 0, 2]]], size=(4, 6))
    >>> masks.shape
    (4, 6, 1)
    """
    if drawing is None:
        raise MissingExtraError("dasklake.masks.from_polygons", "coco")
    height, width = _size(size)
    corners = [
        [numbers for polygon in mask if len(numbers := _corners(index, polygon)) >= 6]
        for index, mask in enumerate(polygons)
    ]
    # One call for all polygons: its fixed cost exceeds that of drawing one.
    flat = [numbers for mask in corners for numbers in mask]
    drawn = iter(drawing.frPyObjects(flat, height, width) if flat else ())
    counts = []
    for mask in corners:
        pieces = list(islice(drawn, len(mask)))
        if pieces:
            merged = pieces[0] if len(pieces) == 1 else drawing.merge(pieces)
            counts.append(merged["counts"])
        else:
            counts.append(compress_counts(np.array([height * width], np.int64)))
    return RunLengthMasks(height, width, tuple(counts))


def _size(size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (int(axis) for axis in size)
    except (TypeError, ValueError) as error:
        raise SampleError(
            f"size must be the height and width of an image, got {size!r}. Give two integers."
        ) from error
    if min(height, width) < 0:
        raise SampleError(f"size of an image must not be negative, got {size!r}. Fix it.")
    return height, width


def _counts(index: int, rle: Mapping[str, Any], height: int, width: int) -> bytes:
    size = rle.get("size", (height, width))
    if tuple(size) != (height, width):
        raise SampleError(
            f"mask {index}: size must be {(height, width)}, as of the image, got {size!r}. "
            "Fix the annotation."
        )
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = counts.encode()
    try:
        compressed = counts if isinstance(counts, bytes) else compress_counts(_as_array(counts))
        expand_counts(compressed, height * width)
    except SampleError as error:
        raise SampleError(f"mask {index}: {error.message}. Fix the annotation.") from error
    return compressed


def _as_array(counts: object) -> npt.NDArray[np.int64]:
    lengths = np.array(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise SampleError("counts must be bytes, a string or a list of run lengths")
    return lengths.astype(np.int64)


def _corners(index: int, polygon: Sequence[float]) -> list[float]:
    try:
        numbers = [float(number) for number in polygon]
    except (TypeError, ValueError) as error:
        raise SampleError(f"mask {index}: a polygon must be a list of numbers. Fix it.") from error
    if len(numbers) % 2:
        raise SampleError(f"mask {index}: a polygon must have an even count of numbers. Fix it.")
    if not np.isfinite(numbers).all():
        raise SampleError(f"mask {index}: the corners of a polygon must be finite. Fix it.")
    return numbers
