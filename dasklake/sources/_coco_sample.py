"""The sample of one image of a COCO data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from dasklake._codecs.file import bytes_of
from dasklake._media.image import open_image, quick_shape
from dasklake._media.sniff import format_of
from dasklake._schema.run_lengths import RunLengthMasks
from dasklake._schema.values import Link
from dasklake._write.link_queue import size_problem
from dasklake.exceptions import MissingExtraError, SampleError
from dasklake.sources._coco_files import ImageFolder
from dasklake.sources._coco_index import CocoIndex
from dasklake.sources._coco_outlines import Outline
from dasklake.sources._coco_records import show

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise MissingExtraError("dasklake.sources.coco", "coco") from error


def sample(
    image_id: int | str,
    *,
    coco: CocoIndex,
    images: str | ImageFolder | Callable[[str], Any],
    creds_key: str | None = None,
    allowed_urls: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the sample of one image; the ``transform`` of the job.

    Parameters
    ----------
    image_id : int or str
        Id of the image in the annotation file.
    coco : CocoIndex
        The annotation file.
    images : str or callable
        Folder of the images, to link to; or a function that takes a file name and returns the
        image, such as :func:`image_reader`.
    creds_key : str, optional
        Name of the credentials for reading the links.
    allowed_urls : sequence of str, optional
        URLs of further folders that file names may lead to, as in :func:`ingest`.

    Returns
    -------
    dict
        The tensors of :func:`schema`, annotations in the order of the file: ``images`` and
        ``image_ids``; ``annotation_ids``, ``categories`` (uint32), ``iscrowd`` (uint8) and ``area``
        (float64) of shape ``(n,)``; ``boxes`` float32 of shape ``(n, 4)``, left, top, width,
        height in pixels; ``masks`` as run lengths, of shape ``(height, width, n)``; ``keypoints`` of
        shape ``(3 k, n)``; ``captions``, a list. An image without annotations has ``n = 0``.

    Raises
    ------
    SampleError
        ``image_id`` is not in the annotation file, its file name is not valid, or the size of the
        image is not the one in the annotation file.
    """
    row = coco.rows.get(image_id)
    if row is None:
        raise SampleError(
            f"the annotation file has no image {image_id!r}. Use the ids in its image_ids."
        )
    image: Any
    if callable(images):
        image = _sized(images(coco.file_names[row]), coco, row)
    else:
        folder = images if isinstance(images, ImageFolder) else ImageFolder(images, allowed_urls)
        image = _link(folder, creds_key, coco, row)
    annotations = slice(*coco.starts[row : row + 2].tolist())
    ids = coco.annotation_ids[annotations]
    values: dict[str, Any] = {
        "images": image,
        "image_ids": image_id if coco.image_ids.dtype == np.int64 else str(image_id),
        "annotation_ids": ids if ids.dtype == np.int64 else list(map(str, ids)),
    }
    if coco.class_names:
        values["categories"] = coco.labels[annotations]
        values["boxes"] = coco.boxes[annotations]
        values["masks"] = _masks(coco, row, annotations)
        values["iscrowd"] = coco.iscrowd[annotations]
    if coco.area is not None:
        values["area"] = coco.area[annotations]
    if coco.keypoints is not None:
        values["keypoints"] = coco.keypoints[annotations].T
    if coco.captions is not None:
        values["captions"] = coco.captions[annotations]
    return values


def _link(folder: ImageFolder, creds_key: str | None, coco: CocoIndex, row: int) -> Link:
    address = folder.locate(coco.file_names[row])
    key = creds_key if folder.has_credentials_of(address) else None
    height, width = coco.sizes[row].tolist()
    return Link(address.url, key, expected=(height, width))


def _sized(image: Any, coco: CocoIndex, row: int) -> Any:
    """Return an image, whose size must be the one in the annotation file."""
    data = bytes_of(image)
    if data is not None:
        image, size = data, (quick_shape(format_of(data), data) or ())[:2]
        if not size:
            opened = open_image(data)
            size = (opened.height, opened.width)
    elif hasattr(image, "getbands"):
        size = (image.height, image.width)
    else:
        size = tuple(np.shape(image)[:2])
        if len(size) < 2:
            return image  # not an image
    height, width = coco.sizes[row].tolist()
    if size != (height, width):
        name = f"image {coco.image_ids[row]} ({show(coco.file_names[row])})"
        raise SampleError(f"{name} {size_problem((height, width), size)}", tensor="images")
    return image


def _masks(coco: CocoIndex, row: int, annotations: slice) -> RunLengthMasks:
    height, width = coco.sizes[row].tolist()
    outlines = map(coco.outline, range(annotations.start, annotations.stop))
    return RunLengthMasks(
        height, width, tuple(_encode(outline, height, width)["counts"] for outline in outlines)
    )


def _encode(outline: Outline, height: int, width: int) -> dict[str, Any]:
    size = [height, width]
    if outline.polygons:
        encoded = rle.merge(rle.frPyObjects(outline.polygons, height, width))
    else:
        parts = [
            {"size": size, "counts": counts}
            if isinstance(counts, bytes)
            else rle.frPyObjects({"size": size, "counts": counts}, height, width)
            for counts in outline.counts or ([height * width],)
        ]
        encoded = parts[0] if len(parts) == 1 else rle.merge(parts)
    return cast("dict[str, Any]", encoded)
