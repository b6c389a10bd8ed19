"""Write COCO data sets as lakes: images with the boxes, classes and masks of their annotations.

The client reads the annotation file once into a :class:`CocoIndex`. Each worker receives the index
once, as one node of the graph, and makes samples from image ids::

    annotations.json ──read_index──▶ CocoIndex ──delayed──▶ every worker
    image ids ──Bag──▶ sample(image_id, coco=index) ──to_lake──▶ lake

Masks are equal to those of pycocotools' ``annToMask``, for polygons, run lengths of crowds and
compressed run lengths. They are stored as run lengths and decoded to pixels when they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import dask.bag as db
from dask.delayed import delayed

from dasklake._api.write import WriteReport, to_lake
from dasklake._links.verify import fetch
from dasklake._media.image import image_format_and_shape
from dasklake._schema.run_lengths import RunLengthMasks, expand_counts
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Link
from dasklake._storage.urls import LOCAL, file_url, safe_url
from dasklake._storage.user_files import read_file
from dasklake._write.link_queue import size_problem
from dasklake.creds import Credentials, StorageOptions, current
from dasklake.exceptions import (
    InvalidInputError,
    MissingExtraError,
    SampleError,
)
from dasklake.sources._coco_index import CocoIndex, OnUnsegmented, Outline
from dasklake.sources._coco_records import OnRepeated

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise MissingExtraError("dasklake.sources.coco", "coco") from error

__all__ = ["CocoIndex", "image_reader", "ingest", "read_index", "sample", "schema"]

#: Number of images in a partition, for tasks of a few seconds.
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
        URL of the file for fsspec, such as
        ``"s3://bucket/annotations/instances_train2017.json"``.
    storage_options : mapping, callable or str, optional
        Options of fsspec; a string names a credentials key.
    on_repeated : {"error", "first"}, default "error"
        What to do if an image or annotation is listed more than once: raise an error, or keep the
        first record. Different records with one id are always an error.
    on_unsegmented : {"error", "empty"}, default "error"
        What to do with annotations without a segmentation: raise an error, or give them an empty
        mask.

    Returns
    -------
    CocoIndex
        Its images, annotations and categories.

    Raises
    ------
    InvalidInputError
        The file is not a COCO annotation file, or its records are inconsistent.
    StoreError
        The file at ``url`` cannot be read.

    Examples
    --------
    >>> index = read_index("s3://bucket/instances_val2017.json")  # doctest: +SKIP
    >>> index  # doctest: +SKIP
    <CocoIndex: 5000 images, 36781 annotations, 80 categories>
    """
    try:
        document = json.loads(read_file(url, storage_options))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{safe_url(url)} must be a COCO annotation file, but is not JSON ({error}). Check the URL."
        ) from error
    return CocoIndex.from_document(document, on_repeated=on_repeated, on_unsegmented=on_unsegmented)


def schema(
    index: CocoIndex,
    images: Literal["link", "bytes"] = "link",
    *,
    verify: bool | Literal["decode"] = True,
) -> Schema:
    """Return the schema of a lake of COCO samples.

    Parameters
    ----------
    index : CocoIndex
        Its categories become the class names, in the order of the file.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its JPEG or holds the JPEG's bytes, unchanged.
    verify : bool or "decode", default True
        Whether links and images are verified, as in :class:`dasklake.TensorSpec`.

    Returns
    -------
    Schema
        The tensors ``images``, ``categories``, ``boxes`` and ``masks``.

    Raises
    ------
    InvalidInputError
        ``images`` is neither "link" nor "bytes".
    """
    if images not in ("link", "bytes"):
        raise InvalidInputError(f"images must be 'link' or 'bytes', got {images!r}.")
    spec = (
        TensorSpec("link[image]", compression="jpeg", verify=verify)
        if images == "link"
        else TensorSpec("image", compression="jpeg", verify=verify)
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
    """Return a function that reads the bytes of an image, for ``sample(images=…)``.

    Parameters
    ----------
    url : str
        Folder of the images.
    storage_options : mapping, callable or str, optional
        Options of fsspec; a string names a credentials key.

    Returns
    -------
    callable
        Takes a file name, and returns the bytes of the file; can be pickled. A missing file, an
        invalid name, and every failure of a web host that is read without options raise LinkError,
        so that ``on_error="skip"`` skips them. A failure of a storage ends the run.
    """
    return _Images(file_url(url), storage_options)


class _Images:
    """The files of a folder, as a function."""

    def __init__(self, folder: str, storage_options: StorageOptions) -> None:
        self._folder = folder
        self._options = storage_options
        self._credentials: Credentials | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Images, (self._folder, self._options)

    def __call__(self, name: str) -> bytes:
        credentials = self._credentials
        if credentials is None or not credentials.fresh:
            credentials = self._credentials = current(self._options)
        url = _join(self._folder, name)
        return fetch(url, self._options, credentials=credentials).result()


def sample(
    image_id: int,
    *,
    coco: CocoIndex,
    images: str | Callable[[str], Any],
    creds_key: str | None = None,
) -> dict[str, Any]:
    """Return the sample of one image; the ``transform`` of the job.

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
        Name of the credentials for reading the links.

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
        ``image_id`` is not in the annotation file, a segmentation cannot be decoded, or the image
        does not have the annotated height and width.
    """
    row = coco.rows.get(image_id)
    if row is None:
        raise SampleError(
            f"the annotation file has no image {image_id!r}. Use the ids in its image_ids."
        )
    name = coco.file_names[row]
    annotations = slice(*coco.starts[row : row + 2].tolist())
    size: tuple[int, int] = tuple(coco.sizes[row].tolist())
    return {
        "images": _read(images, name, size)
        if callable(images)
        else Link(_join(images, name), creds_key, expected=size),
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
    """Write a COCO data set as a lake, with checkpoints.

    An interrupted call can be repeated: it continues after the last checkpoint.

    Parameters
    ----------
    annotations_url : str
        URL of the annotation file, such as ``instances_train2017.json``.
    images_url : str
        URL of the folder of the images.
    lake_url : str
        URL of the lake.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its JPEG or holds the JPEG's bytes, unchanged.
    verify : bool or "decode", default True
        Whether links and images are verified, as in :class:`dasklake.TensorSpec`.
    npartitions : int, optional
        Maximum number of partitions. The default is one for each 250 images.
    source_options : mapping, callable or str, optional
        Options of fsspec for reading the annotation file and the images. A string names a
        credentials key, which is stored with the links.
    index_options : dict, optional
        Further arguments of :func:`read_index`: ``on_repeated``, ``on_unsegmented``.
    **write
        Further arguments of :func:`dasklake.to_lake`, such as ``storage_options`` of the lake,
        ``run`` or ``on_error``. The defaults differ for ``mode``, which is "resume" here,
        ``checkpoint_every``, which is 25,000 samples, and ``input_id``, a digest of the annotations.

    Returns
    -------
    WriteReport
        Summary of the run: its version, numbers of samples and failures, and duration.

    Raises
    ------
    InvalidInputError
        The annotation file is inconsistent or incomplete; the message names the records.
    LakeError
        An error of :func:`dasklake.to_lake`.

    Examples
    --------
    >>> report = ingest(  # doctest: +SKIP
    ...     "s3://in/annotations/instances_train2017.json", "s3://in/train2017", "s3://out/coco"
    ... )
    """
    coco = read_index(annotations_url, storage_options=source_options, **(index_options or {}))
    if not len(coco):
        raise InvalidInputError(
            f"{annotations_url} must list images, but has no images. Pass another annotation file."
        )
    kwargs: dict[str, Any] = {"coco": delayed(coco, traverse=False)}
    if images == "link":
        kwargs["images"] = file_url(images_url)
        kwargs["creds_key"] = source_options if isinstance(source_options, str) else None
    else:
        kwargs["images"] = image_reader(images_url, source_options)
    ids = coco.image_ids.tolist()
    size = _IMAGES_A_PARTITION if npartitions is None else math.ceil(len(ids) / npartitions)
    bag = db.from_sequence(ids, partition_size=size)
    options: dict[str, Any] = {
        "mode": "resume",
        "checkpoint_every": 25_000,
        # A changed annotation file is another input, even if it lists the same images.
        "input_id": f"coco-{coco.digest}-{size}",
        **write,
    }
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
    """Return the URL of a file. An absolute path is not joined to a local folder."""
    protocol = folder.partition("://")[0]
    if protocol in LOCAL and name.startswith("/"):
        return f"{protocol}://{name}"
    if protocol in ("http", "https"):
        # They would begin a query or a fragment.
        name = name.replace("?", "%3F").replace("#", "%23")
    return f"{folder.removesuffix('/')}/{name}"


def _read(images: Callable[[str], Any], name: str, size: tuple[int, int]) -> Any:
    """Return an image, after checking its height and width if they are known."""
    image = images(name)
    shape = getattr(image, "shape", None)
    if isinstance(image, bytes):
        shape = (image_format_and_shape(image) or (None, None))[1]
    if isinstance(shape, tuple) and len(shape) in (2, 3) and shape[:2] != size:
        raise SampleError(f"the image {name!r} {size_problem(size, shape)}")
    return image


def _masks(coco: CocoIndex, row: int, annotations: slice) -> RunLengthMasks:
    height, width = coco.sizes[row].tolist()
    counts = []
    for annotation in range(annotations.start, annotations.stop):
        outline = coco.outline(annotation)
        try:
            counts.append(_encode(outline, height, width)["counts"])
            if outline.counts is not None:
                expand_counts(counts[-1], height * width)
        except (SampleError, ValueError) as error:
            raise SampleError(
                f"the run lengths of annotation {coco.annotation_ids[annotation]} of image "
                f"{coco.image_ids[row]} do not match its {height} x {width} pixels. Fix the file."
            ) from error
    return RunLengthMasks(height, width, tuple(counts))


def _encode(outline: Outline, height: int, width: int) -> dict[str, Any]:
    size, counts = [height, width], outline.counts
    if outline.polygons:
        encoded = rle.merge(rle.frPyObjects(outline.polygons, height, width))
    elif isinstance(counts, bytes):
        encoded = {"size": size, "counts": counts}
    else:
        counts = [height * width] if counts is None else counts
        encoded = rle.frPyObjects({"size": size, "counts": counts}, height, width)
    return cast("dict[str, Any]", encoded)
