"""Masks from run lengths and polygons, as annotation files store them.

Both are values of a ``binary_mask`` tensor. With ``compression="rle"`` they are stored as they are,
at the speed of annotations; a tensor of another compression makes pixels of them on the way in. On
the way out masks are always pixels, the same that pycocotools' ``annToMask`` makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._schema.run_lengths import RunLengthMasks, packed, run_lengths
from dasklake.exceptions import MissingExtraError, SampleError

try:
    from pycocotools import mask as drawing
except ImportError:  # run lengths need no library
    drawing = None

__all__ = ["RunLengthMasks", "from_polygons", "from_rle"]


def from_rle(rles: Iterable[Mapping[str, Any]], size: tuple[int, int]) -> RunLengthMasks:
    """Make the masks of one sample from COCO's run lengths.

    Parameters
    ----------
    rles : iterable of mapping
        One for each mask, with ``"counts"``: bytes or str in COCO's compressed form, or a list of
        run lengths; and, where it has one, the ``"size"`` of the image.
    size : tuple of (int, int)
        Height and width of the image, in pixels.

    Returns
    -------
    RunLengthMasks
        The value to put into a sample.

    Raises
    ------
    SampleError
        Run lengths are damaged, or belong to an image of another size.

    Examples
    --------
    >>> masks = from_rle([{"size": [2, 3], "counts": [1, 2, 3]}], size=(2, 3))
    >>> masks.shape
    (2, 3, 1)
    """
    height, width = _size(size)
    found = [_counts(place, each, height, width) for place, each in enumerate(rles)]
    return RunLengthMasks(height, width, tuple(found))


def from_polygons(
    polygons: Iterable[Sequence[Sequence[float]]], size: tuple[int, int]
) -> RunLengthMasks:
    """Make the masks of one sample from polygons.

    Parameters
    ----------
    polygons : iterable of sequence of sequence of float
        One for each mask: its polygons, each ``x, y, x, y, …`` in pixels. Polygons of fewer than
        three corners cover nothing.
    size : tuple of (int, int)
        Height and width of the image, in pixels.

    Returns
    -------
    RunLengthMasks
        The value to put into a sample.

    Raises
    ------
    MissingExtraError
        pycocotools, which draws polygons, is not installed.
    SampleError
        A polygon is not a list of pairs of numbers.

    Examples
    --------
    >>> masks = from_polygons([[[0, 0, 2, 0, 2, 2, 0, 2]]], size=(4, 6))
    >>> masks.shape
    (4, 6, 1)
    """
    if drawing is None:
        raise MissingExtraError("dasklake.masks.from_polygons", "coco")
    height, width = _size(size)
    parts = [[_corners(place, each) for each in mask] for place, mask in enumerate(polygons)]
    parts = [[each for each in mask if len(each) >= 6] for mask in parts]
    corners = [each for mask in parts for each in mask]
    drawn = iter(drawing.frPyObjects(corners, height, width) if corners else ())
    found = []
    for mask in parts:
        pieces = [next(drawn) for _ in mask]
        if not pieces:
            found.append(packed(np.array([height * width], np.int64)))
        else:
            whole = pieces[0] if len(pieces) == 1 else drawing.merge(pieces)
            found.append(whole["counts"])
    return RunLengthMasks(height, width, tuple(found))


def _size(size: Sequence[int]) -> tuple[int, int]:
    try:
        height, width = (int(axis) for axis in size)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{size!r} must be the height and width of an image") from error
    if min(height, width) < 0:
        raise SampleError(f"an image cannot be of size {size!r}")
    return height, width


def _counts(place: int, rle: Mapping[str, Any], height: int, width: int) -> bytes:
    given = rle.get("size", (height, width))
    if tuple(given) != (height, width):
        raise SampleError(f"mask {place} is of size {given!r}, the image of {(height, width)}")
    counts = rle.get("counts")
    if isinstance(counts, str):
        counts = counts.encode()
    try:
        found = counts if isinstance(counts, bytes) else packed(_listed(counts))
        run_lengths(found, height * width)
    except SampleError as error:
        raise SampleError(f"mask {place}: {error.message}") from error
    return found


def _listed(counts: object) -> npt.NDArray[np.int64]:
    lengths = np.array(counts)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise SampleError("its run lengths are neither a string nor a list of counts")
    return lengths.astype(np.int64)


def _corners(place: int, polygon: Sequence[float]) -> list[float]:
    try:
        numbers = [float(number) for number in polygon]
    except (TypeError, ValueError) as error:
        raise SampleError(f"mask {place}: a polygon must be a list of numbers") from error
    if len(numbers) % 2:
        raise SampleError(f"mask {place}: a polygon must have an even count of numbers")
    if not np.isfinite(numbers).all():
        raise SampleError(f"mask {place}: the corners of a polygon must be finite")
    return numbers
