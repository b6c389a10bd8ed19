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
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

import dask.bag as db
import numpy as np
from dask.delayed import delayed

from dasklake._api.view import ReadMethods
from dasklake._api.write import WriteReport, to_lake
from dasklake._media.sniff import format_of
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.compressed_files import decompressed
from dasklake._storage.urls import safe_url
from dasklake._storage.user_files import read_file
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.sources._coco_export import CocoWriter, write_coco
from dasklake.sources._coco_files import ImageFolder, ImageReader, formats_of
from dasklake.sources._coco_index import CocoIndex
from dasklake.sources._coco_reader import OnUnsegmented
from dasklake.sources._coco_records import CocoProblem, OnBroken, OnRepeated
from dasklake.sources._coco_sample import sample

__all__ = [
    "CocoIndex",
    "CocoProblem",
    "export",
    "image_reader",
    "ingest",
    "read_index",
    "sample",
    "schema",
]

#: Number of images in a partition, for tasks of a few seconds.
_IMAGES_A_PARTITION = 250

#: Number of images to try to read, if file names have no extensions.
_FIRST_IMAGES = 10


def read_index(
    url: str,
    *,
    storage_options: StorageOptions = None,
    on_broken: OnBroken = "raise",
    on_repeated: OnRepeated = "error",
    on_unsegmented: OnUnsegmented = "error",
) -> CocoIndex:
    """Read an annotation file.

    Parameters
    ----------
    url : str
        URL of the file for fsspec, such as
        ``"s3://bucket/annotations/instances_train2017.json"``. A file whose name ends with the
        extension of a compression, such as ``.json.gz``, is decompressed.
    storage_options : mapping, callable or str, optional
        Options of fsspec; a string names a credentials key.
    on_broken : {"raise", "drop", "empty"}, default "raise"
        What to do with broken records: raise one error that names them all; leave out broken
        annotations, and broken images with their annotations; or keep broken annotations with an
        empty value in place of each invalid one (a mask without pixels, a box of zeros, the area
        NaN). Annotations without a valid id, image or category are left out in both cases. The
        records are listed in ``problems`` of the index, and a warning with their number is logged.
    on_repeated : {"error", "first"}, default "error"
        What to do if an image, or an annotation of an image, is listed more than once with equal
        records: raise an error, or keep the first record. Different records with one id are
        broken. Annotations of different images may share an id.
    on_unsegmented : {"error", "empty"}, default "error"
        What to do with annotations without a segmentation: treat them as broken, or give them an
        empty mask.

    Returns
    -------
    CocoIndex
        Its images, annotations and categories.

    Raises
    ------
    InvalidInputError
        The file is not a COCO annotation file, or has broken records. The message names the
        first 20 with their ids, and ``problems`` of the error holds them all.
    StoreError
        The file at ``url`` cannot be read.

    Examples
    --------
    >>> index = read_index("s3://bucket/instances_val2017.json")  # doctest: +SKIP
    >>> index  # doctest: +SKIP
    <CocoIndex: 5000 images, 36781 annotations, 80 categories>
    """
    name = safe_url(os.fspath(url))
    data = decompressed(name.partition("::")[0], read_file(url, storage_options))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"{name} must be a COCO annotation file, but is not JSON ({error}). Check the URL."
        ) from error
    return CocoIndex.from_document(
        document, on_broken=on_broken, on_repeated=on_repeated, on_unsegmented=on_unsegmented
    )


def schema(
    index: CocoIndex,
    images: Literal["link", "bytes"] = "link",
    *,
    verify: bool | Literal["decode"] = True,
    compression: str | None = None,
) -> Schema:
    """Return the schema of a lake of COCO samples.

    Parameters
    ----------
    index : CocoIndex
        Its categories become the class names, in the order of the file.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its image file or holds the bytes of the file.
    verify : bool or "decode", default True
        Whether links and images are verified, as in :class:`dasklake.TensorSpec`.
    compression : str, optional
        Format of stored images, such as "png"; files of other formats are converted. By default
        the format that the file names have, and files are stored unchanged.

    Returns
    -------
    Schema
        The tensors ``images``; ``categories``, ``boxes``, ``masks`` and ``iscrowd`` of objects;
        ``area``, ``keypoints`` and ``captions``, if the file has them; ``annotation_ids`` and
        ``image_ids``.

    Raises
    ------
    InvalidInputError
        ``images`` is neither "link" nor "bytes", or the file names have several formats.
    """
    formats = _formats(index)
    return _schema(index, _image_spec(images, formats, verify=verify, compression=compression))


def _schema(index: CocoIndex, image_spec: TensorSpec) -> Schema:
    images, objects = {"images": image_spec}, {}
    if index.class_names:
        objects = {
            "categories": TensorSpec("class_label", shape=(None,), class_names=index.class_names),
            "boxes": TensorSpec("bbox", coords="pixel-ltwh"),
            "masks": TensorSpec("binary_mask", compression="rle"),
            "iscrowd": TensorSpec(dtype="uint8", shape=(None,)),
        }
    if index.area is not None:
        objects["area"] = TensorSpec(dtype="float64", shape=(None,))
    if index.keypoints is not None:
        names = index.keypoint_names
        objects["keypoints"] = TensorSpec(
            "keypoints_coco",
            dtype=index.keypoints.dtype.name,
            keypoints=names if 3 * len(names) == index.keypoints.shape[1] else None,
        )
    if index.captions is not None:
        objects["captions"] = TensorSpec("sequence[text]")
    are_numbers = index.annotation_ids.dtype == np.int64
    objects["annotation_ids"] = (
        TensorSpec(dtype="int64", shape=(None,)) if are_numbers else TensorSpec("sequence[text]")
    )
    are_numbers = index.image_ids.dtype == np.int64
    image_ids = TensorSpec(dtype="int64", shape=()) if are_numbers else TensorSpec("text")
    return Schema({**images, **objects, "image_ids": image_ids}, same_length=tuple(objects))


def _formats(index: CocoIndex) -> list[str]:
    """Return the image formats that the file names have."""
    return sorted(name for name in formats_of(index.file_names) if name is not None)


def _image_spec(
    images: str,
    formats: list[str],
    *,
    verify: bool | Literal["decode"],
    compression: str | None,
) -> TensorSpec:
    if images not in ("link", "bytes"):
        raise InvalidInputError(f"images must be 'link' or 'bytes', got {images!r}.")
    single = formats[0] if len(formats) == 1 else "jpeg"
    if images == "link":
        return TensorSpec("link[image]", compression=compression or single, verify=verify)
    if compression is not None:
        return TensorSpec("image", compression=compression, reencode=True, verify=verify)
    if len(formats) > 1:
        raise InvalidInputError(
            f"images to store unchanged must have one format, got {', '.join(formats)}. Pass "
            "compression='png' to convert the others without loss, or images='link'."
        )
    return TensorSpec("image", compression=single, verify=verify)


def image_reader(
    url: str, storage_options: StorageOptions = None, *, allowed_urls: Sequence[str] = ()
) -> Callable[[str], bytes]:
    """Return a function that reads the bytes of an image, for ``sample(images=…)``.

    Parameters
    ----------
    url : str
        Folder of the images.
    storage_options : mapping, callable or str, optional
        Options of fsspec; a string names a credentials key. They are only used for the storage of
        the folder.
    allowed_urls : sequence of str, optional
        URLs of further folders that file names may lead to, as in :func:`ingest`.

    Returns
    -------
    callable
        Takes a file name, and returns the bytes of the file; can be pickled. A missing file, an
        invalid name, and every failure of a web host that is read without options raise SampleError,
        so that ``on_error="skip"`` skips them. A failure of a storage ends the run.
    """
    return ImageReader(ImageFolder(url, allowed_urls), storage_options)


def ingest(  # noqa: PLR0913 # one call for the whole job
    annotations_url: str,
    images_url: str,
    lake_url: str,
    *,
    images: Literal["link", "bytes"] = "link",
    verify: bool | Literal["decode"] = True,
    compression: str | None = None,
    allowed_urls: Sequence[str] = (),
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
        URL of the folder of the images. A ``file_name`` is a path in it. Absolute paths and URLs are
        failures of their images, unless they lead to files in this folder or in ``allowed_urls``.
    lake_url : str
        URL of the lake.
    images : {"link", "bytes"}, default "link"
        Whether a sample links to its image file or holds the bytes of the file.
    verify : bool or "decode", default True
        Whether links and images are verified, as in :class:`dasklake.TensorSpec`.
    compression : str, optional
        Format of stored images, such as "png"; files of other formats are converted. By default
        the format that the files have, and they are stored unchanged.
    allowed_urls : sequence of str, optional
        URLs of further folders that file names may lead to, such as
        ``["http://images.cocodataset.org"]``. They are read with the credentials of ``images_url``
        only if they are on the same storage.
    npartitions : int, optional
        Maximum number of partitions. The default is one for each 250 images.
    source_options : mapping, callable or str, optional
        Options of fsspec for reading the annotation file and the images. A string names a
        credentials key, which is stored with the links.
    index_options : dict, optional
        Further arguments of :func:`read_index`: ``on_broken``, ``on_repeated``,
        ``on_unsegmented``.
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
    coco = replace(coco, problems=())  # workers do not need them
    folder = ImageFolder(images_url, allowed_urls)
    formats = _formats(coco)
    kwargs: dict[str, Any] = {"coco": delayed(coco, traverse=False), "images": folder}
    if images == "link":
        kwargs["creds_key"] = source_options if isinstance(source_options, str) else None
    else:
        reader = ImageReader(folder, source_options)
        formats = formats or _first_format(coco, reader)
        is_unchanged = compression is None and len(formats) == 1
        kwargs["images"] = reader.of_format(formats[0]) if is_unchanged else reader
    image_spec = _image_spec(images, formats, verify=verify, compression=compression)
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
        schema=_schema(coco, image_spec),
        transform=sample,
        transform_kwargs=kwargs,
        **options,
    )
    return report


def export(
    samples: ReadMethods,
    url: str | os.PathLike[str],
    *,
    tensors: Mapping[str, str] | None = None,
    category_ids: Mapping[str, int] | None = None,
    storage_options: StorageOptions = None,
) -> int:
    """Write samples of a lake as an annotation file.

    The file has an image for each sample. It appears whole or not at all. Masks are compressed run
    lengths, also those that came from polygons, because a lake stores run lengths. The names of linked
    images are their paths in the deepest folder that has all of them. Other images are named after
    their ids. Licences and other fields that a lake does not store are left out.

    Parameters
    ----------
    samples : Lake or View
        The samples, in order.
    url : str or path
        The annotation file. An existing file is replaced.
    tensors : mapping of str to str, optional
        Names of the tensors, by those that :func:`schema` gives them: ``images``, ``image_ids``,
        ``annotation_ids``, ``categories``, ``boxes``, ``masks``, ``iscrowd``, ``area``,
        ``keypoints`` and ``captions``. By default, the same names. Tensors that do not exist are left
        out. Without ids, images and annotations are numbered from 1; without areas, they are those
        of the masks or the boxes.
    category_ids : mapping of str to int, optional
        Id of each category, by its name. By default, the classes are numbered from 1: a lake has the
        names of classes, but not the ids that they had in another annotation file.
    storage_options : mapping, callable or str, optional
        Options of fsspec for ``url``.

    Returns
    -------
    int
        Number of annotations.

    Raises
    ------
    InvalidInputError
        The samples have no annotations, an argument is invalid, or ``url`` is not that of a file.
    SampleError
        A sample lacks a value, its tensors have different numbers of annotations, or an image id is
        repeated.
    StoreError
        The storage failed.

    References
    ----------
    .. [1] The data format of COCO, https://cocodataset.org/#format-data.

    Examples
    --------
    >>> import json
    >>> import dasklake
    >>> from dasklake.sources import coco
    >>> lake = dasklake.empty("memory://export")
    >>> lake.create_tensor("labels", "class_label", class_names=["cat"], shape=(None,))
    >>> lake.create_tensor("masks", "binary_mask", compression="rle")
    >>> lake.append({"labels": [0], "masks": [[[True], [False]]]})
    >>> coco.export(lake, "memory://export/annotations.json", tensors={"categories": "labels"})
    1
    """
    text: Any = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(text, str) or not text or text.endswith("/"):
        raise InvalidInputError(f"url must be that of a file, got {text!r}.")
    samples.flush()
    writer = CocoWriter(samples.schema, tensors, category_ids)
    return write_coco(samples, writer, text, storage_options)


def _first_format(index: CocoIndex, reader: ImageReader) -> list[str]:
    """Return the format of the first image that can be read, if file names have no extensions."""
    for name in index.file_names[:_FIRST_IMAGES]:
        with suppress(SampleError):
            return [format_ for format_ in [format_of(reader(name))] if format_ is not None]
    return []
