"""Test samples of COCO images: equal to pycocotools, or an error that names the record."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, ObjectNotFoundError, SampleError
from dasklake.sources import coco
from examples.shapes import ShapeSet, truth


def test_equals_pycocotools(shapes: ShapeSet) -> None:
    """Classes, boxes and masks of every image equal those of pycocotools, in its order."""
    index = coco.CocoIndex.from_document(shapes.document)
    counts = []
    for image_id, want in truth(shapes.document).items():
        sample = coco.sample(image_id, coco=index, images="s3://bucket/images")
        assert [index.class_names[label] for label in sample["categories"]] == want.names
        assert sample["boxes"].dtype == np.float32
        assert np.array_equal(sample["boxes"], want.boxes)
        masks = np.asarray(sample["masks"])
        assert masks.dtype == bool
        assert masks.flags.c_contiguous
        assert np.array_equal(masks, want.masks)
        records = [r for r in shapes.document["annotations"] if r["image_id"] == image_id]
        assert sample["image_ids"] == image_id
        assert sample["annotation_ids"].tolist() == [record["id"] for record in records]
        assert sample["iscrowd"].tolist() == [record["iscrowd"] for record in records]
        assert sample["area"].tolist() == [record["area"] for record in records]
        counts.append(len(want.names))
    assert {0, 51} <= set(counts)


def test_special_cases_exist(shapes: ShapeSet) -> None:
    """The generated file has crowds, compressed run lengths, several polygons, unsorted ids."""
    outlines = [annotation["segmentation"] for annotation in shapes.document["annotations"]]
    kinds = {type(outline["counts"]) for outline in outlines if isinstance(outline, dict)}
    assert kinds == {list, str}
    assert any(isinstance(outline, list) and len(outline) == 2 for outline in outlines)
    ids = [image["id"] for image in shapes.document["images"]]
    assert ids != sorted(ids)
    assert any(annotation["iscrowd"] for annotation in shapes.document["annotations"])


def test_no_annotations(shapes: ShapeSet) -> None:
    """An image without annotations has empty values of the right ranks."""
    index = coco.CocoIndex.from_document(shapes.document)
    row = int(np.flatnonzero(np.diff(index.starts) == 0)[0])
    sample = coco.sample(index.image_ids[row].item(), coco=index, images="x")
    assert sample["categories"].shape == (0,)
    assert sample["boxes"].shape == (0, 4)
    assert sample["masks"].shape == (*index.sizes[row], 0)


def test_unsegmented_is_an_empty_plane(document: dict[str, Any]) -> None:
    """With on_unsegmented="empty" an annotation without segmentation keeps class, box and position."""
    document["annotations"][0]["segmentation"] = []
    changed = document["annotations"][0]
    index = coco.CocoIndex.from_document(document, on_unsegmented="empty")
    sample = coco.sample(changed["image_id"], coco=index, images="x")
    rows = slice(*index.starts[index.rows[changed["image_id"]] :][:2])
    position = index.annotation_ids[rows].tolist().index(changed["id"])
    assert sample["boxes"][position].tolist() == np.array(changed["bbox"], "float32").tolist()
    masks = np.asarray(sample["masks"])
    assert masks.any(axis=(0, 1)).tolist() == [plane != position for plane in range(masks.shape[2])]


def test_links(shapes: ShapeSet) -> None:
    """Links join folder and file, and name their credentials."""
    index = coco.CocoIndex.from_document(shapes.document)
    image = shapes.document["images"][0]
    sample = coco.sample(image["id"], coco=index, images="s3://b/images/", creds_key="source")
    assert sample["images"] == dasklake.link(f"s3://b/images/{image['file_name']}", "source")


def test_reader(shapes: ShapeSet, tmp_path: Path) -> None:
    """Bytes come unchanged from the folder; a missing file is a failure of its sample."""
    image = shapes.document["images"][0]
    (tmp_path / image["file_name"]).write_bytes(shapes.images[image["file_name"]])
    reader = pickle.loads(pickle.dumps(coco.image_reader(str(tmp_path))))
    index = coco.CocoIndex.from_document(shapes.document)
    sample = coco.sample(image["id"], coco=index, images=reader)
    assert sample["images"] == shapes.images[image["file_name"]]
    missing = shapes.document["images"][1]
    with pytest.raises(SampleError, match=missing["file_name"]):
        coco.sample(missing["id"], coco=index, images=reader)


def test_unknown_image(shapes: ShapeSet) -> None:
    """An unlisted image id is a failure of its sample."""
    index = coco.CocoIndex.from_document(shapes.document)
    with pytest.raises(SampleError, match="no image -1"):
        coco.sample(-1, coco=index, images="x")


def test_broken_run_lengths(document: dict[str, Any]) -> None:
    """Invalid compressed run lengths are an error that names annotation and image."""
    changed = document["annotations"][0]
    size = next(
        [image["height"], image["width"]]
        for image in document["images"]
        if image["id"] == changed["image_id"]
    )
    changed["segmentation"] = {"size": size, "counts": "PPYo1"}
    with pytest.raises(InvalidInputError, match=f"{changed['id']} of image {changed['image_id']}"):
        coco.CocoIndex.from_document(document)


def test_schema(shapes: ShapeSet) -> None:
    """The schema has the class names of the file, and links or bytes."""
    index = coco.CocoIndex.from_document(shapes.document)
    schema = coco.schema(index)
    assert list(schema) == [
        *("images", "categories", "boxes", "masks"),
        *("iscrowd", "area", "annotation_ids", "image_ids"),
    ]
    assert schema.same_length == (tuple(schema)[1:-1],)
    assert schema["categories"].class_names == index.class_names
    assert schema["boxes"].coords == "pixel-ltwh"
    assert schema["images"].htype == "link[image]"
    assert coco.schema(index, "bytes")["images"].htype == "image"
    unknown: Any = "pixels"
    with pytest.raises(InvalidInputError, match="'pixels'"):
        coco.schema(index, unknown)


def test_read_index(shapes: ShapeSet, tmp_path: Path) -> None:
    """The file is read from a URL; a missing or invalid JSON file is a clear error."""
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(shapes.document))
    index = coco.read_index(str(path))
    assert index.digest == coco.CocoIndex.from_document(shapes.document).digest
    path.write_text("{")
    with pytest.raises(InvalidInputError, match="not JSON"):
        coco.read_index(str(path))
    with pytest.raises(ObjectNotFoundError, match=r"other\.json"):
        coco.read_index(str(tmp_path / "other.json"))


def test_no_images(tmp_path: Path) -> None:
    """A file that lists no images is refused before anything is written."""
    path = tmp_path / "instances.json"
    categories = [{"id": 1, "name": "dog"}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    with pytest.raises(InvalidInputError, match="no images"):
        coco.ingest(str(path), "images", str(tmp_path / "lake"))
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("name", ["instances_68.json", "instances_571.json"])
def test_real_records(coco_dir: Path, name: str) -> None:
    """Ids, areas, crowds and masks of real files equal those of the file and of annToMask."""
    document = json.loads((coco_dir / name).read_bytes())
    index = coco.read_index(str(coco_dir / name))
    expected = truth(document)
    by_image: dict[int, list[Any]] = {image["id"]: [] for image in document["images"]}
    for record in document["annotations"]:
        by_image[record["image_id"]].append(record)
    for image_id, records in by_image.items():
        sample = coco.sample(image_id, coco=index, images="x")
        assert sample["annotation_ids"].tolist() == [record["id"] for record in records]
        assert sample["iscrowd"].tolist() == [record["iscrowd"] for record in records]
        assert sample["area"].tolist() == [record["area"] for record in records]
        assert np.array_equal(np.asarray(sample["masks"]), expected[image_id].masks)


@pytest.mark.parametrize("name", ["instances_68.json", "instances_571.json"])
def test_real_expectations(coco_dir: Path, name: str) -> None:
    """Real annotations have the independently computed sums and facts of each image."""
    expected = json.loads((coco_dir / "expectations.json").read_bytes())[name]
    index = coco.read_index(str(coco_dir / name))
    area = size = bare = 0
    for image_id in index.image_ids.tolist():
        sample = coco.sample(image_id, coco=index, images="x")
        masks = np.asarray(sample["masks"])
        area += int(masks.sum())
        size += masks.size
        bare += not len(sample["categories"])
        if (want := expected["images"].get(str(image_id))) is not None:
            names = [index.class_names[label] for label in sample["categories"]]
            digest = hashlib.sha256(masks.view("uint8").tobytes()).hexdigest()
            assert (names, digest) == (want["categories"], want["masks_sha256"])
    totals = expected["totals"]
    assert (area, size, bare) == (
        totals["mask_area"],
        totals["mask_bytes"],
        totals["images_without_annotations"],
    )
