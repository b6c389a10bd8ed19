"""Make a data set in COCO's form from coloured shapes: the input of the demo and the tests.

It has the difficulties of real annotation files: objects of several polygons, crowds as run lengths,
compressed run lengths, images without annotations, one with 51 objects, a gray JPEG, ids with
gaps and out of order, annotations that are not grouped by image. The same count and seed give
the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from pycocotools.coco import COCO

CATEGORIES = {18: "disk", 3: "box", 44: "star", 7: "hourglass", 90: "dots"}
_COLOURS = {
    "disk": (222, 84, 72),
    "box": (66, 122, 196),
    "star": (240, 190, 60),
    "hourglass": (96, 170, 98),
    "dots": (160, 96, 178),
}
_SIZES = ((240, 320), (320, 240), (272, 272))
#: Images are drawn at this scale and then reduced, for smooth edges.
_FINE = 2

Point = tuple[float, float]


class ShapeSet(NamedTuple):
    """The annotation file, and the JPEG bytes of each image by file name."""

    document: dict[str, Any]
    images: dict[str, bytes]


class Truth(NamedTuple):
    """The annotations of one image, as pycocotools reads them."""

    names: list[str]
    boxes: np.ndarray
    masks: np.ndarray


def make_shapes(count: int, seed: int = 0) -> ShapeSet:
    """Make a data set of ``count`` images (at least 8)."""
    rng = np.random.default_rng(seed)
    ids = (9 + 7 * rng.permutation(count)).tolist()
    grain = rng.normal(0, 4, (max(map(max, _SIZES)) * _FINE,) * 2)
    images, annotations, files = [], [], {}
    for position, image_id in enumerate(ids):
        height, width = _SIZES[position % len(_SIZES)]
        name = f"{image_id:012d}.jpg"
        record = {"id": image_id, "file_name": name, "height": height, "width": width}
        number = {3: 51, 5: 0}.get(position, int(rng.integers(4, 9)))
        objects = _place_objects(rng, number, height, width)
        files[name] = _draw(objects, grain[: height * _FINE, : width * _FINE], gray=position == 7)
        images.append(record)
        annotations += [_annotation(shape, record, position) for shape in objects]
    order = rng.permutation(len(annotations)).tolist()
    document = {
        "images": images,
        "annotations": [{**annotations[i], "id": 5000 + 3 * n} for n, i in enumerate(order)],
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
    }
    return ShapeSet(document, files)


def truth(document: dict[str, Any]) -> dict[int, Truth]:
    """Read the expected content of a lake with pycocotools alone."""
    coco = COCO()
    coco.dataset = document
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    truths = {}
    for image_id, record in coco.imgs.items():
        annotations = coco.imgToAnns[image_id]
        masks = np.zeros((record["height"], record["width"], len(annotations)), bool)
        for index, annotation in enumerate(annotations):
            masks[:, :, index] = coco.annToMask(annotation)
        boxes = np.array([annotation["bbox"] for annotation in annotations], "float32").reshape(
            -1, 4
        )
        names = [coco.cats[annotation["category_id"]]["name"] for annotation in annotations]
        truths[image_id] = Truth(names, boxes, masks)
    return truths


class _Object(NamedTuple):
    category: int
    polygons: list[list[Point]]
    colour: tuple[int, ...]


def _place_objects(rng: np.random.Generator, number: int, height: int, width: int) -> list[_Object]:
    """Place objects that do not touch each other."""
    most = 11.0 if number > 20 else 44.0
    objects: list[_Object] = []
    discs: list[tuple[float, float, float]] = []
    while len(objects) < number:
        radius = rng.uniform(0.6, 1) * most
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if any(math.hypot(x - a, y - b) < radius + r + 2 for a, b, r in discs):
            most = max(6, most * 0.97)
            continue
        discs.append((x, y, radius))
        category = int(rng.choice(list(CATEGORIES)))
        shade = rng.uniform(0.8, 1.1)
        colour = tuple(min(255, int(c * shade)) for c in _COLOURS[CATEGORIES[category]])
        turn = rng.uniform(0, 2 * math.pi)
        objects.append(
            _Object(category, _outline(CATEGORIES[category], x, y, radius, turn), colour)
        )
    return objects


def _outline(name: str, x: float, y: float, radius: float, turn: float) -> list[list[Point]]:
    def around(
        steps: list[tuple[float, float]], far: float = 1.0, at: Point = (x, y)
    ) -> list[Point]:
        return [
            (
                round(at[0] + radius * far * r * math.cos(turn + a), 2),
                round(at[1] + radius * far * r * math.sin(turn + a), 2),
            )
            for a, r in steps
        ]

    ring = [(2 * math.pi * k / 40, 1.0) for k in range(40)]
    if name == "disk":
        return [around(ring)]
    if name == "box":
        return [around([(a, 1.0) for a in (0.5, math.pi - 0.5, math.pi + 0.5, -0.5)])]
    if name == "star":
        return [around([(math.pi * k / 5, 1.0 if k % 2 else 0.45) for k in range(10)])]
    if name == "hourglass":
        halves = ((0.06, -0.7, 0.7), (0.06, math.pi - 0.7, math.pi + 0.7))
        return [around([((a + b) / 2, tip), (a, 1.0), (b, 1.0)]) for tip, a, b in halves]
    centres = [around([(2 * math.pi * k / 6, 0.7)])[0] for k in range(6)]
    return [around(ring[::3], 0.24, at=centre) for centre in [*centres, (x, y)]]


def _draw(objects: list[_Object], grain: np.ndarray, *, gray: bool) -> bytes:
    """Draw the objects in front of a grainy wall."""
    height, width = grain.shape
    wall = np.linspace(230, 176, height)[:, None] + grain
    tinted = (wall[:, :, None] + np.array([-3, 0, 4])).clip(0, 255)
    picture = Image.fromarray(tinted.astype("uint8"))
    pen = ImageDraw.Draw(picture)
    for shape in objects:
        for polygon in shape.polygons:
            pen.polygon([(x * _FINE, y * _FINE) for x, y in polygon], fill=shape.colour)
    picture = picture.resize((width // _FINE, height // _FINE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    (picture.convert("L") if gray else picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _annotation(shape: _Object, image: dict[str, Any], position: int) -> dict[str, Any]:
    """Encode an object as COCO does: polygons, or run lengths for crowds and some stars."""
    height, width = image["height"], image["width"]
    corners = [corner for polygon in shape.polygons for corner in polygon]
    x_min, y_min = (min(axis) for axis in zip(*corners, strict=True))
    x_max, y_max = (max(axis) for axis in zip(*corners, strict=True))
    polygons = [[number for corner in polygon for number in corner] for polygon in shape.polygons]
    encoded = rle.merge(rle.frPyObjects(polygons, height, width))
    crowd = CATEGORIES[shape.category] == "dots"
    segmentation: Any = polygons
    if crowd:
        segmentation = {"size": [height, width], "counts": _runs(rle.decode(encoded))}
    elif CATEGORIES[shape.category] == "star" and position % 4 == 2:
        segmentation = {"size": [height, width], "counts": encoded["counts"].decode()}
    return {
        "image_id": image["id"],
        "category_id": shape.category,
        "bbox": [round(number, 2) for number in (x_min, y_min, x_max - x_min, y_max - y_min)],
        "area": int(rle.area(encoded)),
        "iscrowd": int(crowd),
        "segmentation": segmentation,
    }


def _runs(plane: np.ndarray) -> list[int]:
    """Return run lengths, down the columns, zeros first."""
    flat = plane.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return [int(run) for run in np.diff([0, *edges, len(flat)])]
