"""Test that an annotation file written from a lake is the one that it was made of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

import dasklake
from dasklake._api.write import WriteOptions
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.sources import coco
from dasklake.sources._coco_files import names_in_folder

SYNC = WriteOptions(scheduler="sync")


def _document() -> dict[str, Any]:
    square = [[1, 2, 11, 2, 11, 12, 1, 12]]
    crowd = {"size": [20, 30], "counts": [5, 3, 592]}
    common = {"keypoints": [1, 2, 2, 0, 0, 0], "num_keypoints": 1, "caption": "a “cat”"}
    return {
        "images": [
            {"id": key, "file_name": f"{key}.png", "height": 20, "width": 30} for key in (7, 3, 9)
        ],
        "annotations": [
            {
                "id": 10 + row,
                "image_id": image,
                "category_id": category,
                "bbox": [0.1, 2.34, 10, 10.5],
                "area": 99.55,
                "iscrowd": int(isinstance(shape, dict)),
                "segmentation": shape,
                **common,
            }
            for row, (image, category, shape) in enumerate(
                [(7, 18, square), (7, 4, crowd), (9, 4, square * 2)]
            )
        ],
        "categories": [
            {"id": 18, "name": "dog", "keypoints": ["nose", "tail"]},
            {"id": 4, "name": "cat", "keypoints": ["nose", "tail"]},
        ],
    }


def _round_trip(source: Path, folder: Path) -> tuple[COCO, COCO]:
    ids = {entry["name"]: entry["id"] for entry in json.loads(source.read_text())["categories"]}
    url = str(folder / "lake")
    coco.ingest(str(source), str(folder), url, verify=False, progress=False, options=SYNC)
    coco.export(dasklake.open(url), folder / "out.json", category_ids=ids)
    return COCO(source), COCO(folder / "out.json")


def _check_equal(before: COCO, after: COCO) -> None:
    assert set(before.imgs) == set(after.imgs)
    for key, image in before.imgs.items():
        for field in ("file_name", "height", "width"):
            assert after.imgs[key][field] == image[field]
    assert set(before.anns) == set(after.anns)
    for key, annotation in before.anns.items():
        other = after.anns[key]
        for field in annotation.keys() - {"segmentation"}:
            assert other[field] == annotation[field], field
        assert np.array_equal(before.annToMask(annotation), after.annToMask(other))


def test_ids_boxes_areas_crowds_keypoints_captions_and_masks_are_the_same(tmp_path: Path) -> None:
    """A file, ingested and exported, has the same records, and the same masks."""
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(_document()))
    _check_equal(*_round_trip(source, tmp_path))


def test_571_real_records_are_the_same(tmp_path: Path) -> None:
    """The records of real images, ingested and exported, are the same, and so are their masks."""
    folder = os.environ.get("DASKLAKE_COCO_DIR")
    if folder is None:
        pytest.skip("DASKLAKE_COCO_DIR is not set")
    before, after = _round_trip(Path(folder) / "instances_571.json", tmp_path)
    assert len(after.anns) == 4945
    _check_equal(before, after)


@pytest.mark.parametrize("coords", ["pixel-ltrb", "pixel-ccwh", "fractional-ltwh"])
def test_other_lakes_have_boxes_in_pixels_areas_and_numbers_as_ids(
    tmp_path: Path, coords: str
) -> None:
    """Boxes of any format become left, top, width, height; ids and areas are computed."""
    box = {"pixel-ltrb": [2, 4, 12, 8], "pixel-ccwh": [7, 6, 10, 4]}.get(
        coords, [2 / 64, 4 / 32, 10 / 64, 4 / 32]
    )
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("picture", "image", compression="png")
    lake.create_tensor("kind", "class_label", class_names=["a", "b"], shape=(None,))
    lake.create_tensor("frames", "bbox", coords=coords)
    pixels = np.zeros((32, 64, 3), np.uint8)
    values: dict[str, list[Any]] = {"picture": [pixels] * 2, "kind": [[1], []]}
    lake.extend({**values, "frames": [[box], []]})
    names = {"images": "picture", "categories": "kind", "boxes": "frames"}
    assert coco.export(lake, tmp_path / "out.json", tensors=names) == 1
    document = json.loads((tmp_path / "out.json").read_text())
    (annotation,) = document["annotations"]
    assert annotation["bbox"] == [2.0, 4.0, 10.0, 4.0]
    assert (annotation["id"], annotation["category_id"], annotation["area"]) == (1, 2, 40.0)
    assert [image["file_name"] for image in document["images"]] == ["1.png", "2.png"]
    coco.export(lake.select([1]), tmp_path / "view.json", tensors=names)
    assert json.loads((tmp_path / "view.json").read_text())["annotations"] == []


def test_wrong_calls_are_refused_before_a_file_is_written(tmp_path: Path) -> None:
    """Unknown names, missing ids, a folder and different lengths are errors that say what to do."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("kind", "class_label", class_names=["a"], shape=(None,))
    lake.create_tensor("masks", "binary_mask")
    lake.append({"kind": [0], "masks": np.ones((2, 2, 2), bool)})
    out = tmp_path / "out.json"
    names = {"categories": "kind"}
    with pytest.raises(InvalidInputError, match="must have the keys"):
        coco.export(lake, out, tensors={"labels": "kind"})
    with pytest.raises(InvalidInputError, match="must be one of 'kind', 'masks'"):
        coco.export(lake, out, tensors={"categories": "labels"})
    with pytest.raises(InvalidInputError, match="must have an id of each class"):
        coco.export(lake, out, tensors=names, category_ids={})
    with pytest.raises(InvalidInputError, match="must be that of a file"):
        coco.export(lake, f"{tmp_path}/")
    with pytest.raises(InvalidInputError, match="must name a folder and a file in it"):
        coco.export(lake, "memory://out.json", tensors=names)
    with pytest.raises(InvalidInputError, match="There are no annotations"):
        coco.export(lake.columns(["kind"]), out)
    with pytest.raises(
        SampleError, match="must have one entry for each, got 'kind': 1, 'masks': 2"
    ):
        coco.export(lake, out, tensors=names)
    assert not out.exists()


def test_linked_images_are_named_by_their_paths_in_a_common_folder(tmp_path: Path) -> None:
    """Images of one name in two folders stay apart, and are found again in the common folder."""
    document = _document()
    names = ["train/a.png", "val/a.png", "val/deep/b.png"]
    for image, name in zip(document["images"], names, strict=True):
        image["file_name"] = name
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(document))
    before, after = _round_trip(source, tmp_path)
    _check_equal(before, after)


@pytest.mark.parametrize(
    ("urls", "names"),
    [
        (["https://h/x/a%20%23.jpg?sig=secret", "https://h/x/b.jpg"], ["a #.jpg", "b.jpg"]),
        (["zip://a.jpg::s3://b/x.zip", "zip://d/a.jpg::s3://b/x.zip"], ["a.jpg", "d/a.jpg"]),
        (["s3://b/x?.jpg"], ["x?.jpg"]),
        (["s3://one/a.jpg", "s3://two/a.jpg"], ["s3://one/a.jpg", "s3://two/a.jpg"]),
        (["https://h/ab/a.jpg", "https://h/ac/a.jpg"], ["ab/a.jpg", "ac/a.jpg"]),
        (["https://u:p@h/a.jpg?sig=x", "/a.jpg"], ["https://h/a.jpg", "/a.jpg"]),
        ([], []),
    ],
)
def test_names_of_files_are_those_that_their_folder_has(urls: list[str], names: list[str]) -> None:
    """Names are not quoted, have no secrets, and two buckets or hosts are not one folder."""
    assert names_in_folder(urls) == names


def test_an_area_or_names_of_keypoints_are_as_in_the_file(tmp_path: Path) -> None:
    """A record without an area has none again, and categories have the names of their keypoints."""
    document = _document()
    del document["annotations"][1]["area"]
    source = tmp_path / "instances.json"
    source.write_text(json.dumps(document))
    before, after = _round_trip(source, tmp_path)
    _check_equal(before, after)
    assert "area" not in after.anns[11]
    assert after.cats == before.cats


def test_ids_that_would_make_an_ambiguous_file_are_refused(tmp_path: Path) -> None:
    """Two classes of one id, ids that are not integers, and an image twice are named errors."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("categories", "class_label", class_names=["a", "b"], shape=(None,))
    lake.create_tensor("masks", "binary_mask")
    lake.create_tensor("image_ids", dtype="int64", shape=())
    lake.append({"categories": [0], "masks": np.ones((2, 2, 1), bool), "image_ids": 5})
    out = tmp_path / "out.json"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"category_ids": {"a": 1, "b": 1}}, "an id of its own"),
        ({"category_ids": {"a": "1", "b": 2}}, r"category_ids\['a'\] must be an integer, got '1'"),
        ({"category_ids": [1, 2]}, "category_ids must map"),
        ({"tensors": ["masks"]}, "tensors must map"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InvalidInputError, match=message):
            coco.export(lake, out, **arguments)
    with pytest.raises(InvalidInputError, match="url must be that of a file, got 3"):
        lake.to_coco(3)  # type: ignore[arg-type] # on purpose
    with pytest.raises(SampleError, match=r"one image of each id, and 5 is repeated"):
        lake.select([0, 0]).to_coco(out)
    assert not out.exists()
