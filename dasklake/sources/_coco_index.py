"""Store a COCO annotation file as columns: validated once, and small to send to workers.

The file of COCO's training set is 450 MB of JSON, and several GB as Python objects. Here one array
holds the corners of all polygons, in hundredths of a pixel if this is exact. Annotations are grouped
by image::

    image row  ──starts──▶  annotation rows  ──parts──▶  polygons  ──corners──▶  numbers
                                             ──rles───▶  run lengths
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasklake.exceptions import InvalidInputError
from dasklake.sources._coco_outlines import Counts, Outline, Outlines
from dasklake.sources._coco_reader import DocumentReader, OnUnsegmented, ReadOptions
from dasklake.sources._coco_records import CocoProblem, OnBroken, OnRepeated


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CocoIndex:
    """The images, annotations and categories of a COCO annotation file, as columns.

    Created by :func:`dasklake.sources.coco.read_index` or :meth:`from_document`; small to pickle.

    Attributes
    ----------
    class_names : tuple of str
        Names of the categories in the order of the file; a label is an index into it. Empty for a
        file of captions.
    keypoint_names : tuple of str
        Names of the keypoints, if all categories with keypoints have the same ones.
    image_ids : numpy.ndarray
        Ids of the images in the order of the file, shape ``(images,)``. int64, or objects if one
        of them is text or does not fit.
    file_names : list of str
        Names of their files; the ``coco_url`` of images without one.
    sizes : numpy.ndarray
        Their height and width in pixels, int32, shape ``(images, 2)``.
    starts : numpy.ndarray
        First annotation row of each image, followed by the end, int64, shape ``(images + 1,)``.
    annotation_ids : numpy.ndarray
        Ids of the annotations, grouped by image, shape ``(annotations,)``. int64, or objects if
        one of them is text or does not fit.
    labels : numpy.ndarray
        Indices of their categories in ``class_names``, uint32, shape ``(annotations,)``.
    boxes : numpy.ndarray
        Left, top, width, height in pixels, float32, shape ``(annotations, 4)``.
    iscrowd : numpy.ndarray
        1 for crowds, and 0 for single objects, uint8, shape ``(annotations,)``.
    area : numpy.ndarray or None
        Areas in pixels as the file has them, float64, NaN for annotations without one, shape
        ``(annotations,)``; None if the file has no areas.
    keypoints : numpy.ndarray or None
        x, y and visibility of each keypoint, int32 or float64, shape ``(annotations, 3 k)``; zeros
        for annotations without keypoints. None if the file has no keypoints.
    captions : list of str or None
        Captions of the annotations; None if the file has no captions.
    parts, corners, numbers, scale, rles
        Their segmentations; see :meth:`outline`.
    rows : dict
        Row of each image, by id.
    digest : str
        Digest of the content, for Dask's names.
    problems : tuple of CocoProblem
        Broken records that were left out or emptied.

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
    keypoint_names: tuple[str, ...]
    image_ids: NDArray[Any]
    file_names: list[str]
    sizes: NDArray[np.int32]
    starts: NDArray[np.int64]
    annotation_ids: NDArray[Any]
    labels: NDArray[np.uint32]
    boxes: NDArray[np.float32]
    iscrowd: NDArray[np.uint8]
    area: NDArray[np.float64] | None
    keypoints: NDArray[Any] | None
    captions: list[str] | None
    parts: NDArray[np.int64]
    corners: NDArray[np.int64]
    numbers: NDArray[Any]
    scale: float
    rles: dict[int, tuple[Counts, ...]]
    rows: dict[int | str, int]
    digest: str
    problems: tuple[CocoProblem, ...] = ()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        return (
            f"<CocoIndex: {len(self)} images, {len(self.annotation_ids)} annotations, "
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
        on_broken: OnBroken = "raise",
        on_repeated: OnRepeated = "error",
        on_unsegmented: OnUnsegmented = "error",
    ) -> CocoIndex:
        """Return the index of a parsed annotation file.

        Parameters
        ----------
        document : mapping
            The content of the file, with the lists ``images``, ``annotations`` and ``categories``.
        on_broken : {"raise", "drop", "empty"}, default "raise"
            What to do with broken records, as in :func:`dasklake.sources.coco.read_index`.
        on_repeated : {"error", "first"}, default "error"
            What to do if an image, or an annotation of an image, is listed more than once with
            equal records: raise an error, or keep the first record.
        on_unsegmented : {"error", "empty"}, default "error"
            What to do with annotations without a segmentation: treat them as broken, or give them
            an empty mask.

        Returns
        -------
        CocoIndex
            The index.

        Raises
        ------
        InvalidInputError
            ``document`` has broken records. The message names them, and ``problems`` of the error
            holds them all.
        """
        for name, value, allowed in (
            ("on_broken", on_broken, ("raise", "drop", "empty")),
            ("on_repeated", on_repeated, ("error", "first")),
            ("on_unsegmented", on_unsegmented, ("error", "empty")),
        ):
            if value not in allowed:
                raise InvalidInputError(f"{name} must be one of {allowed}, got {value!r}.")
        reader = DocumentReader(document, ReadOptions(on_broken, on_repeated, on_unsegmented))
        reader.read()
        outlines = Outlines()
        for annotation in reader.annotations:
            outlines.add(annotation.outline)
        columns = {**_image_columns(reader), **_annotation_columns(reader), **outlines.columns()}
        rows = {image.id: row for row, image in enumerate(reader.images)}
        problems = tuple(reader.problems)
        return cls(**columns, rows=rows, digest=_digest(columns), problems=problems)


def _image_columns(reader: DocumentReader) -> dict[str, Any]:
    images = reader.images
    counts = [len(image.annotations) for image in images]
    return {
        "class_names": reader.class_names,
        "keypoint_names": reader.keypoint_names,
        "image_ids": _id_column([image.id for image in images]),
        "file_names": [image.file_name for image in images],
        "sizes": np.array([image.size for image in images], np.int32).reshape(-1, 2),
        "starts": np.cumsum([0, *counts], dtype=np.int64),
    }


def _annotation_columns(reader: DocumentReader) -> dict[str, Any]:
    ordered = reader.annotations
    objects = ordered if reader.class_names else []
    areas = np.array([annotation.area for annotation in objects], np.float64)
    return {
        "annotation_ids": _id_column([annotation.id for annotation in ordered]),
        "labels": np.array([annotation.label for annotation in objects], np.uint32),
        "boxes": np.array([annotation.box for annotation in objects], np.float32).reshape(-1, 4),
        "iscrowd": np.array([annotation.crowd for annotation in objects], np.uint8),
        "area": None if np.isnan(areas).all() else areas,
        "keypoints": _keypoint_column([annotation.keypoints for annotation in objects]),
        "captions": [annotation.caption for annotation in ordered] if reader.has_captions else None,
    }


def _id_column(ids: list[int | str]) -> NDArray[Any]:
    """Return ids as int64, or as objects if one of them is text or too large."""
    if all(type(key) is int and -(2**63) <= key < 2**63 for key in ids):
        return np.array(ids, np.int64)
    column = np.empty(len(ids), object)
    column[:] = ids
    return column


def _keypoint_column(keypoints: list[Any]) -> NDArray[Any] | None:
    """Return the keypoints of each annotation as a row; shorter ones end with zeros."""
    width = max(map(len, keypoints), default=0)
    if not width:
        return None
    column = np.zeros((len(keypoints), width), np.float64)
    for row, values in enumerate(keypoints):
        column[row, : len(values)] = values
    fits = (column == np.rint(column)).all() and (np.abs(column) < 2**31).all()
    return column.astype(np.int32) if fits else column


def _digest(columns: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, column in columns.items():
        is_buffer = isinstance(column, np.ndarray) and column.dtype != object
        content = column.tobytes() if is_buffer else repr(_plain(column)).encode()
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def _plain(column: Any) -> Any:
    return column.tolist() if isinstance(column, np.ndarray) else column
