"""Store a COCO annotation file as columns: validated once, and small to send to workers.

The file of COCO's training set is 450 MB of JSON, and several GB as Python objects. Here one array
holds the corners of all polygons, in hundredths of a pixel if this is exact. Annotations are grouped
by image::

    image row  ──starts──▶  annotation rows  ──parts──▶  polygons  ──corners──▶  numbers
                                             ──rles───▶  run lengths
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dasklake._schema.run_lengths import expand_counts
from dasklake.exceptions import InvalidInputError, MissingExtraError, SampleError
from dasklake.sources._coco_records import (
    OnRepeated,
    bad,
    box_of,
    categories_of,
    few,
    file_name_of,
    grouped,
    records_of,
    size_of,
    taken_once,
)

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise MissingExtraError("dasklake.sources.coco", "coco") from error

#: What to do with annotations that have no segmentation.
OnUnsegmented = Literal["error", "empty"]

#: Largest coordinate: rasterising uses 32-bit integers, five to a pixel.
_FARTHEST = 1e7


@dataclass(frozen=True, slots=True)
class Outline:
    """The segmentation of one annotation.

    Attributes
    ----------
    polygons : list of numpy.ndarray
        ``x, y, x, y, …`` in pixels, float64; empty where ``counts`` is set.
    counts : bytes, list of int or None
        Run lengths, compressed (bytes) or not (list).
    """

    polygons: list[NDArray[np.float64]]
    counts: bytes | list[int] | None = None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CocoIndex:
    """The images, annotations and categories of a COCO annotation file, as columns.

    Created by :func:`dasklake.sources.coco.read_index` or :meth:`from_document`; small to pickle.

    Attributes
    ----------
    class_names : tuple of str
        Names of the categories in the order of the file; a label is an index into it.
    image_ids : numpy.ndarray
        Ids of the images in the order of the file, int64, shape ``(images,)``.
    file_names : list of str
        Names of their files.
    sizes : numpy.ndarray
        Their height and width in pixels, int32, shape ``(images, 2)``.
    starts : numpy.ndarray
        First annotation row of each image, followed by the end, int64, shape ``(images + 1,)``.
    annotation_ids : numpy.ndarray
        Ids of the annotations, grouped by image, int64, shape ``(annotations,)``.
    labels : numpy.ndarray
        Indices of their categories in ``class_names``, uint32, shape ``(annotations,)``.
    boxes : numpy.ndarray
        Left, top, width, height in pixels, float32, shape ``(annotations, 4)``.
    parts, corners, numbers, scale, rles
        Their segmentations; see :meth:`outline`.
    rows : dict
        Row of each image, by id.
    digest : str
        Digest of the content, for Dask's names.

    Examples
    --------
    >>> index = CocoIndex.from_document({
    ...     "images": [{"id": 9, "file_name": "9.jpg", "height": 4, "width": 6}],
    ...     "annotations": [],
    ...     "categories": [{"id": 18, "name": "dog"}],
    ... })
    >>> index
    <CocoIndex: 1 images, 0 annotations, 1 categories>
    """

    class_names: tuple[str, ...]
    image_ids: NDArray[np.int64]
    file_names: list[str]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    labels: NDArray[np.uint32]
    boxes: NDArray[np.float32]
    parts: NDArray[np.int64]
    corners: NDArray[np.int64]
    numbers: NDArray[Any]
    scale: float
    rles: dict[int, bytes | list[int]]
    rows: dict[int, int]
    digest: str

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return (
            f"<CocoIndex: {len(self)} images, {len(self.labels)} annotations, "
            f"{len(self.class_names)} categories>"
        )

    def __dask_tokenize__(self) -> tuple[str, str]:
        return ("CocoIndex", self.digest)

    def outline(self, row: int) -> Outline:
        """Return the segmentation of one annotation.

        Parameters
        ----------
        row : int
            Row of the annotation.

        Returns
        -------
        Outline
            Polygons or run lengths; neither if the annotation has no segmentation.
        """
        if row in self.rles:
            return Outline([], self.rles[row])
        ends = self.corners[self.parts[row] : self.parts[row + 1] + 1].tolist()
        numbers = self.numbers[ends[0] : ends[-1]] / self.scale
        return Outline([numbers[a - ends[0] : b - ends[0]] for a, b in pairwise(ends)])

    @classmethod
    def from_document(
        cls,
        document: Mapping[str, Any],
        *,
        on_repeated: OnRepeated = "error",
        on_unsegmented: OnUnsegmented = "error",
    ) -> CocoIndex:
        """Return the index of a parsed annotation file.

        Parameters
        ----------
        document : mapping
            The content of the file, with the lists ``images``, ``annotations`` and ``categories``.
        on_repeated : {"error", "first"}, default "error"
            What to do if an image or annotation is listed more than once: raise an error, or keep
            the first record. Different records with one id are always an error.
        on_unsegmented : {"error", "empty"}, default "error"
            What to do with annotations without a segmentation: raise an error, or give them an
            empty mask.

        Returns
        -------
        CocoIndex
            The index.

        Raises
        ------
        InvalidInputError
            ``document`` is inconsistent or incomplete; the message names the records.
        """
        for name, value, allowed in (
            ("on_repeated", on_repeated, ("error", "first")),
            ("on_unsegmented", on_unsegmented, ("error", "empty")),
        ):
            if value not in allowed:
                raise InvalidInputError(f"{name} must be one of {allowed}, got {value!r}.")
        classes, class_names = categories_of(records_of(document, "categories"))
        images = taken_once(records_of(document, "images"), "image", on_repeated)
        annotations = taken_once(records_of(document, "annotations"), "annotation", on_repeated)
        rows = {image["id"]: row for row, image in enumerate(images)}
        groups = grouped(annotations, rows, classes)
        ordered = [annotation for group in groups for annotation in group]
        outlines = _Outlines(on_unsegmented)
        owners = [image for image, group in zip(images, groups, strict=True) for _ in group]
        sizes = [size_of(image) for image in images]
        for annotation, owner in zip(ordered, owners, strict=True):
            outlines.add(annotation, size_of(owner))
        columns = {
            "class_names": class_names,
            "image_ids": np.array([image["id"] for image in images], np.int64),
            "file_names": [file_name_of(image) for image in images],
            "sizes": np.array(sizes, np.int32).reshape(-1, 2),
            "starts": np.cumsum([0, *map(len, groups)], dtype=np.int64),
            "annotation_ids": np.array([record["id"] for record in ordered], np.int64),
            "labels": np.array([classes[record["category_id"]] for record in ordered], np.uint32),
            "boxes": np.array([box_of(record) for record in ordered], np.float32).reshape(-1, 4),
            **outlines.columns(),
        }
        return cls(**columns, rows=rows, digest=_digest(columns))


class _Outlines:
    """Collect the segmentations of annotations, row by row."""

    def __init__(self, on_unsegmented: OnUnsegmented) -> None:
        self.on_unsegmented = on_unsegmented
        self.parts = array("q", [0])
        self.corners = array("q", [0])
        self.numbers = array("d")
        self.rles: dict[int, bytes | list[int]] = {}
        self.bare: list[int] = []

    def add(self, annotation: Mapping[str, Any], size: tuple[int, int]) -> None:
        """Add the segmentation of the next annotation."""
        segmentation = annotation.get("segmentation")
        before = len(self.corners)
        if isinstance(segmentation, Mapping):
            self.rles[len(self.parts) - 1] = _counts(annotation, segmentation, size)
        elif isinstance(segmentation, list) and _are_run_lengths(segmentation):
            counts = [_counts(annotation, part, size) for part in segmentation]
            self.rles[len(self.parts) - 1] = _union(annotation, counts, size)
        elif isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
            for polygon in segmentation:
                self._polygon(annotation, polygon)
        elif segmentation is not None:
            raise bad(annotation, f"its segmentation is a {type(segmentation).__name__}")
        if len(self.parts) - 1 not in self.rles and len(self.corners) == before:
            self.bare.append(annotation["id"])
        self.parts.append(len(self.corners) - 1)

    def _polygon(self, annotation: Mapping[str, Any], polygon: Any) -> None:
        try:
            numbers = array("d", polygon)
        except (TypeError, OverflowError) as error:
            raise bad(annotation, "a polygon of it is not a list of numbers") from error
        if len(numbers) % 2:
            raise bad(annotation, f"a polygon of it has an odd count of numbers, {len(numbers)}")
        if not all(-_FARTHEST < number < _FARTHEST for number in numbers):
            raise bad(annotation, "a polygon of it has a corner that is not finite or too far away")
        # Fewer than three corners cover no area, and rasterising reads four numbers as a box.
        if len(numbers) >= 6:
            self.numbers.extend(numbers)
            self.corners.append(len(self.numbers))

    def columns(self) -> dict[str, Any]:
        """Return the columns of all segmentations."""
        if self.bare and self.on_unsegmented == "error":
            raise InvalidInputError(
                f"Annotations without a segmentation: {few(self.bare)}. Pass "
                "on_unsegmented='empty' to give them empty masks, or remove them from the file."
            )
        numbers = np.frombuffer(self.numbers, np.float64)
        hundredths = np.rint(numbers * 100)
        exact = bool((hundredths / 100 == numbers).all())
        return {
            "parts": np.frombuffer(self.parts, np.int64),
            "corners": np.frombuffer(self.corners, np.int64),
            "numbers": hundredths.astype(np.int32) if exact else numbers,
            "scale": 100.0 if exact else 1.0,
            "rles": self.rles,
        }


def _counts(
    annotation: Mapping[str, Any], segmentation: Mapping[str, Any], size: tuple[int, int]
) -> bytes | list[int]:
    counts, rle_size = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(rle_size, Sequence) or tuple(rle_size) != size:
        raise bad(annotation, f"its run lengths must be of size {size}, got {rle_size!r}")
    if isinstance(counts, bytes):
        return counts
    if isinstance(counts, str) and counts.isascii():
        return counts.encode()
    if isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        if sum(counts) != math.prod(size):
            raise bad(
                annotation,
                f"its run lengths must cover {math.prod(size)} pixels, got {sum(counts)}",
            )
        return counts
    raise bad(annotation, "its run lengths must be a string or a list of counts")


def _are_run_lengths(segmentation: list[Any]) -> bool:
    """Return whether a segmentation is a list of run lengths, as ``annToMask`` takes it."""
    return bool(segmentation) and all(isinstance(part, Mapping) for part in segmentation)


def _union(
    annotation: Mapping[str, Any], parts: list[bytes | list[int]], size: tuple[int, int]
) -> bytes:
    """Return the run lengths of the union of some masks."""
    try:
        for counts in parts:
            if isinstance(counts, bytes):
                expand_counts(counts, math.prod(size))
        encoded = [
            {"size": size, "counts": counts}
            if isinstance(counts, bytes)
            else rle.frPyObjects({"size": size, "counts": counts}, *size)
            for counts in parts
        ]
        return bytes(rle.merge(encoded)["counts"])
    except (SampleError, ValueError) as error:
        raise bad(annotation, "its run lengths do not match its size") from error


def _digest(columns: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, column in columns.items():
        content = column.tobytes() if isinstance(column, np.ndarray) else repr(column).encode()
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]
