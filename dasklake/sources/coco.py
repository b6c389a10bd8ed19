"""COCO annotation files: boxes, classes and masks of each image, written as a lake.

The annotation file is read once, on the client, into a :class:`CocoIndex`; each worker gets it
once, as one node of the graph; a sample is made from an image id::

    annotations.json ──read_index──▶ CocoIndex ──delayed──▶ every worker
    image ids ──Bag──▶ sample(image_id, coco=index) ──to_lake──▶ lake

Masks are those of pycocotools' ``annToMask``, byte for byte: all polygons of an annotation, run
lengths of crowds, compressed run lengths. They are stored as run lengths and become pixels when
they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import dask.bag as db
from dask.delayed import delayed

from dasklake._api.write import WriteReport, to_lake
from dasklake._schema.run_lengths import RunLengthMasks, run_lengths
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import link
from dasklake._storage.store import ObjectStore, absolute_url
from dasklake.creds import StorageOptions
from dasklake.exceptions import (
    InvalidInputError,
    MissingExtraError,
    ObjectNotFoundError,
    SampleError,
)
from dasklake.sources._coco_index import CocoIndex, OnUnsegmented, Outline
from dasklake.sources._coco_records import OnRepeated

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise MissingExtraError("dasklake.sources.coco", "coco") from error

__all__ = ["CocoIndex", "image_reader", "ingest", "read_index", "sample", "schema"]

#: Tasks of some seconds: a few hundred images each.
_IMAGES_A_PARTITION = 250


def read_index(
    url: str,
    *,
    storage_options: StorageOptions = None,
    on_repeated: OnRepeated = "error",
    on_unsegmented: OnUnsegmented = "error",
) -> CocoIndex:
    """Read an annotation file.

    Parameters
    ----------
    url : str
        Where the file lies, as fsspec reads it, such as
        ``"s3://bucket/annotations/instances_train2017.json"``.
    storage_options : mapping, callable or str, optional
        For fsspec; a string names a credentials key.
    on_repeated : {"error", "first"}, default "error"
        What to do where the same image or annotation is listed more than once: refuse, or take
        it once, at its first place. Records of one id that differ are always refused.
    on_unsegmented : {"error", "empty"}, default "error"
        What to do with annotations without a segmentation: refuse, or give them a mask without
        a single pixel.

    Returns
    -------
    CocoIndex
        Its images, annotations and categories.

    Raises
    ------
    InvalidInputError
        The file is no COCO annotation file or contradicts itself; names the records.
    StoreError
        The file cannot be read.

    Examples
    --------
    >>> index = read_index("s3://bucket/instances_val2017.json")  # doctest: +SKIP
    >>> index  # doctest: +SKIP
    <CocoIndex: 5000 images, 36781 annotations, 80 categories>
    """
    parent, _, name = absolute_url(url).rpartition("/")
    data = ObjectStore(parent, storage_options, confined=False).get(name)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InvalidInputError(
            f"{name} is not JSON ({error}). Pass a COCO annotation file."
        ) from error
    return CocoIndex.from_document(document, on_repeated=on_repeated, on_unsegmented=on_unsegmented)


def schema(
    index: CocoIndex,
    images: Literal["link", "bytes"] = "link",
    *,
    verify: bool | Literal["decode"] = True,
) -> Schema:
    """Build the schema of a lake of COCO samples.

    Parameters
    ----------
    index : CocoIndex
        Its categories become the class names, in the order of the file.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its JPEG or holds the JPEG's bytes, unchanged.
    verify : bool or "decode", default True
        Whether links are looked at, as in :class:`dasklake.TensorSpec`.

    Returns
    -------
    Schema
        The tensors ``images``, ``categories``, ``boxes`` and ``masks``.

    Raises
    ------
    InvalidInputError
        ``images`` is neither.
    """
    if images not in ("link", "bytes"):
        raise InvalidInputError(f"images={images!r} is unknown. Use 'link' or 'bytes'.")
    spec = (
        TensorSpec("link[image]", compression="jpeg", verify=verify)
        if images == "link"
        else TensorSpec("image", compression="jpeg")
    )
    return Schema(
        {
            "images": spec,
            "categories": TensorSpec("class_label", shape=(None,), class_names=index.class_names),
            "boxes": TensorSpec("bbox", coords="pixel-ltwh"),
            "masks": TensorSpec("binary_mask", compression="rle"),
        },
        same_length=("categories", "boxes", "masks"),
    )


def image_reader(url: str, storage_options: StorageOptions = None) -> Callable[[str], bytes]:
    """Return what reads the bytes of an image; for ``sample(images=…)``.

    Parameters
    ----------
    url : str
        Folder of the images.
    storage_options : mapping, callable or str, optional
        For fsspec; a string names a credentials key.

    Returns
    -------
    callable
        From a file name to the file's bytes; can be pickled. A file that is not there is a
        SampleError, so that ``on_error="skip"`` goes past it; every other failure of the storage
        ends the run.
    """
    return _Images(ObjectStore(absolute_url(url), storage_options, confined=False))


class _Images:
    """The files of a folder, as a function."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __call__(self, name: str) -> bytes:
        try:
            return self._store.get(name)
        except ObjectNotFoundError as error:
            raise SampleError(f"{error} Mend the annotation file or the folder.") from error


def sample(
    image_id: int,
    *,
    coco: CocoIndex,
    images: str | Callable[[str], Any],
    creds_key: str | None = None,
) -> dict[str, Any]:
    """Make the sample of one image: the ``transform`` of the job.

    Parameters
    ----------
    image_id : int
        Id of the image in the annotation file.
    coco : CocoIndex
        The annotation file.
    images : str or callable
        Folder of the images, to link to; or a function that takes a file name and returns the
        image, such as :func:`image_reader`.
    creds_key : str, optional
        Name of the credentials the links are to be read with.

    Returns
    -------
    dict
        ``images``; ``categories`` uint32 of shape ``(n,)``; ``boxes`` float32 of shape
        ``(n, 4)``, left, top, width, height in pixels; ``masks`` as run lengths, of shape
        ``(height, width, n)``; annotations in the order of the file. An image without
        annotations has ``n = 0``.

    Raises
    ------
    SampleError
        The file has no such image, or a segmentation cannot be decoded.
    """
    row = coco.rows.get(image_id)
    if row is None:
        raise SampleError(
            f"the annotation file has no image {image_id!r}. Take the ids from its image_ids."
        )
    name = coco.file_names[row]
    annotations = slice(*coco.starts[row : row + 2].tolist())
    return {
        "images": images(name) if callable(images) else link(_join(images, name), creds_key),
        "categories": coco.labels[annotations],
        "boxes": coco.boxes[annotations],
        "masks": _masks(coco, row, annotations),
    }


def ingest(
    annotations_url: str,
    images_url: str,
    lake_url: str,
    *,
    images: Literal["link", "bytes"] = "link",
    verify: bool | Literal["decode"] = True,
    npartitions: int | None = None,
    source_options: StorageOptions = None,
    index_options: dict[str, Any] | None = None,
    **write: Any,
) -> WriteReport:
    """Write a COCO data set as a lake, with checkpoints; run again, it continues.

    Parameters
    ----------
    annotations_url : str
        The annotation file.
    images_url : str
        Folder of the images; links point into it, or their bytes are read from it.
    lake_url : str
        The lake.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its JPEG or holds the JPEG's bytes, unchanged.
    verify : bool or "decode", default True
        Whether links are looked at, as in :class:`dasklake.TensorSpec`.
    npartitions : int, optional
        Number of partitions, at most; left out, one for each 250 images.
    source_options : mapping, callable or str, optional
        For fsspec, to read the annotation file and the images. A string names a credentials
        key, which links keep.
    index_options : dict, optional
        Further arguments of :func:`read_index`: ``on_repeated``, ``on_unsegmented``.
    **write
        Further arguments of :func:`dasklake.to_lake`, such as ``storage_options`` of the lake,
        ``run`` or ``on_error``. Other than there, ``mode`` is "resume" and ``checkpoint_every``
        is 25,000 samples where they are left out.

    Returns
    -------
    WriteReport
        What was written.

    Raises
    ------
    InvalidInputError
        The annotation file contradicts itself or lacks something; names the records.
    LakeError
        As :func:`dasklake.to_lake`.

    Examples
    --------
    >>> report = ingest(  # doctest: +SKIP
    ...     "s3://in/annotations/instances_train2017.json", "s3://in/train2017", "s3://out/coco"
    ... )
    """
    coco = read_index(annotations_url, storage_options=source_options, **(index_options or {}))
    if not len(coco):
        raise InvalidInputError(f"{annotations_url} lists no images. Pass a file that does.")
    options: dict[str, Any] = {"mode": "resume", "checkpoint_every": 25_000, **write}
    kwargs: dict[str, Any] = {"coco": delayed(coco, traverse=False)}
    if images == "link":
        kwargs["images"] = absolute_url(images_url)
        kwargs["creds_key"] = source_options if isinstance(source_options, str) else None
    else:
        kwargs["images"] = image_reader(images_url, source_options)
    ids = coco.image_ids.tolist()
    size = _IMAGES_A_PARTITION if npartitions is None else math.ceil(len(ids) / npartitions)
    bag = db.from_sequence(ids, partition_size=size)
    report: WriteReport = to_lake(
        bag,
        lake_url,
        schema=schema(coco, images, verify=verify),
        transform=sample,
        transform_kwargs=kwargs,
        **options,
    )
    return report


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def _masks(coco: CocoIndex, row: int, annotations: slice) -> RunLengthMasks:
    height, width = coco.sizes[row].tolist()
    counts = []
    for each in range(annotations.start, annotations.stop):
        outline = coco.outline(each)
        try:
            counts.append(_encode(outline, height, width)["counts"])
            if outline.counts is not None:
                run_lengths(counts[-1], height * width)
        except (SampleError, ValueError) as error:
            raise SampleError(
                f"the run lengths of annotation {coco.annotation_ids[each]} of image "
                f"{coco.image_ids[row]} do not fit its {height} x {width} pixels. Mend the file."
            ) from error
    return RunLengthMasks(height, width, tuple(counts))


def _encode(outline: Outline, height: int, width: int) -> dict[str, Any]:
    size, counts = [height, width], outline.counts
    if outline.polygons:
        encoded = rle.merge(rle.frPyObjects(outline.polygons, height, width))
    elif isinstance(counts, bytes):
        encoded = {"size": size, "counts": counts}
    else:
        whole = [height * width] if counts is None else counts
        encoded = rle.frPyObjects({"size": size, "counts": whole}, height, width)
    return cast("dict[str, Any]", encoded)
