"""Collect the segmentations of a COCO annotation file as columns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklake._schema.run_lengths import expand_counts
from dasklake.exceptions import SampleError
from dasklake.sources._coco_records import BrokenError, show

#: Largest coordinate: rasterising uses 32-bit integers, five to a pixel.
_FARTHEST = 1e7

Counts = bytes | list[int]


@dataclass(frozen=True, slots=True)
class Outline:
    """The segmentation of one annotation; neither part is set if it has none.

    Attributes
    ----------
    polygons : list of numpy.ndarray
        ``x, y, x, y, …`` in pixels, float64.
    counts : tuple of (bytes or list of int)
        Run lengths of masks that form the segmentation together, compressed (bytes) or not (list).
    """

    polygons: list[NDArray[np.float64]]
    counts: tuple[Counts, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.polygons or self.counts)


def outline_of(annotation: Mapping[str, Any], size: tuple[int, int]) -> Outline:
    """Return the segmentation of an annotation of an image of a size.

    Raises
    ------
    BrokenError
        The segmentation is invalid.
    """
    segmentation = annotation.get("segmentation")
    if segmentation is None:
        return Outline([])
    if isinstance(segmentation, Mapping):
        return Outline([], (_counts(segmentation, size),))
    if not isinstance(segmentation, list):
        raise BrokenError(f"its segmentation must be a list or an object, got {show(segmentation)}")
    if segmentation and all(isinstance(part, Mapping) for part in segmentation):
        return Outline([], tuple(_counts(part, size) for part in segmentation))
    polygons = [_polygon(polygon) for polygon in segmentation]
    # Fewer than three corners cover no area, and rasterising reads four numbers as a box.
    return Outline([polygon for polygon in polygons if len(polygon) >= 6])


def _polygon(polygon: Any) -> NDArray[np.float64]:
    try:
        numbers = np.array(array("d", polygon if isinstance(polygon, Sequence) else ""))
    except (TypeError, OverflowError):
        raise BrokenError("a polygon of it must be a list of numbers") from None
    if len(numbers) % 2:
        raise BrokenError(f"a polygon of it has an odd count of numbers, {len(numbers)}")
    if not (np.abs(numbers) < _FARTHEST).all():
        raise BrokenError("a polygon of it has a corner that is not finite or too far away")
    return numbers


def _counts(segmentation: Mapping[str, Any], size: tuple[int, int]) -> Counts:
    counts, rle_size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(rle_size, Sequence) or tuple(rle_size) != size:
        raise BrokenError(f"its run lengths must be of size {list(size)}, got {show(rle_size)}")
    pixels = math.prod(size)
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode()
    if isinstance(counts, bytes):
        try:
            expand_counts(counts, pixels)
        except (SampleError, ValueError) as error:
            raise BrokenError(f"its {error}") from None
        return counts
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        if sum(counts) != pixels:
            raise BrokenError(f"its run lengths must cover {pixels} pixels, got {sum(counts)}")
        return counts
    raise BrokenError("its run lengths must be a string or a list of counts")


class Outlines:
    """Collect outlines as columns, row by row."""

    def __init__(self) -> None:
        self._parts = array("q", [0])
        self._corners = array("q", [0])
        self._numbers = array("d")
        self._rles: dict[int, tuple[Counts, ...]] = {}

    def add(self, outline: Outline) -> None:
        """Add the outline of the next annotation."""
        if outline.counts:
            self._rles[len(self._parts) - 1] = outline.counts
        for polygon in outline.polygons:
            self._numbers.frombytes(polygon.tobytes())
            self._corners.append(len(self._numbers))
        self._parts.append(len(self._corners) - 1)

    def columns(self) -> dict[str, Any]:
        """Return the columns of all outlines."""
        numbers = np.frombuffer(self._numbers, np.float64)
        hundredths = np.rint(numbers * 100)
        exact = bool((hundredths / 100 == numbers).all())
        return {
            "parts": np.frombuffer(self._parts, np.int64),
            "corners": np.frombuffer(self._corners, np.int64),
            "numbers": hundredths.astype(np.int32) if exact else numbers,
            "scale": 100.0 if exact else 1.0,
            "rles": self._rles,
        }
