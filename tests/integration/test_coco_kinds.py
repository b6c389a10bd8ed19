"""Whole jobs of COCO files of all kinds: sizes, names, formats, ids, keypoints and captions."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import dasklake
from dasklake._api.write import WriteOptions
from dasklake.exceptions import InvalidInputError, LakeError, TransformError
from dasklake.sources import coco
from examples.shapes import ShapeSet

HEIGHT, WIDTH = 40, 60
Images = Literal["link", "bytes"]
Document = dict[str, Any]


def picture(format_: str = "PNG", size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    """Make a picture of noise."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format_)
    return buffer.getvalue()


def document(*names: str, **values: Any) -> Document:
    """Make an annotation file: an image for each name, and a square in each image."""
    return {
        "images": [
            {"id": key, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for key, name in enumerate(names, 1)
        ],
        "annotations": [
            {
                "id": 100 + key,
                "image_id": key,
                "category_id": 1,
                "bbox": [1, 2, 10, 10],
                "area": 99.5,
                "iscrowd": 0,
                "segmentation": [[1, 2, 11, 2, 11, 12, 1, 12]],
                **values,
            }
            for key in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "car"}],
    }


def ingest(folder: Path, content: Document, **options: Any) -> dasklake.Lake:
    """Write a lake from the images of a folder."""
    (folder / "ann.json").write_text(json.dumps(content))
    url = str(folder / "lake")
    options = {"options": WriteOptions(scheduler="sync"), **options}
    coco.ingest(str(folder / "ann.json"), str(folder), url, **options)
    return dasklake.open(url)


@pytest.mark.parametrize("images", ["bytes", "link"])
@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_other_sizes_are_failures(tmp_path: Path, images: Images, suffix: str) -> None:
    """A picture of another size than its record is a skippable failure that names both sizes."""
    (tmp_path / f"right.{suffix}").write_bytes(picture(suffix))
    (tmp_path / f"turned.{suffix}").write_bytes(picture(suffix, (WIDTH, HEIGHT)))
    content = document(f"right.{suffix}", f"turned.{suffix}")
    with pytest.raises(TransformError, match=r"40 x 60 pixels, got 60 x 40") as raised:
        ingest(tmp_path, content, images=images)
    assert f"turned.{suffix}" in str(raised.value)
    assert "input data on the item: 2" in str(raised.value)
    lake = ingest(tmp_path, content, images=images, on_error="skip", max_failures=None)
    assert len(lake) == 1
    assert lake.failures()["item"].tolist() == ["2"]
    assert lake[0]["images"].shape[:2] == lake[0]["masks"].shape[:2] == (HEIGHT, WIDTH)


def give(image: Any, _: str) -> Any:
    """Return an image for any name."""
    return image


def test_sizes_of_decoded_images(tmp_path: Path) -> None:
    """Sizes of pixels and Pillow images are checked, too."""
    index = coco.CocoIndex.from_document(document("a.png"))
    good: list[Any] = [np.zeros((HEIGHT, WIDTH, 3), "u1"), Image.new("L", (WIDTH, HEIGHT))]
    (tmp_path / "a.png").write_bytes(picture())
    good += [tmp_path / "a.png", dasklake.read(tmp_path / "a.png")]
    for image in good:
        assert coco.sample(1, coco=index, images=partial(give, image))
    for bad in (np.zeros((WIDTH, HEIGHT, 3), "u1"), Image.new("L", (HEIGHT, WIDTH))):
        with pytest.raises(LakeError, match="must have 40 x 60"):
            coco.sample(1, coco=index, images=partial(give, bad))


@pytest.mark.parametrize("images", ["bytes", "link"])
def test_odd_names(tmp_path: Path, images: Images) -> None:
    """Names that lead to files in the folder work; others are failures of their images."""
    good = ["a.png", "sub/b#?.png", "c%20d.png", "e::f.png", str(tmp_path / "a.png")]
    good += [f"file://{tmp_path}/a.png", "./a.png", "sub/../a.png", f"../{tmp_path.name}/a.png"]
    bad = ["/etc/passwd", "../x.png", "file:///etc/passwd", "http://127.0.0.1:9/x.png", "sub"]
    bad += ["n" * 300, "a\0.png", "missing.png", "simplecache::file:///etc/passwd"]
    (tmp_path / "sub").mkdir()
    for name in good[:4]:
        (tmp_path / name).write_bytes(picture())
    content = document(*good, *bad)
    lake = ingest(tmp_path, content, images=images, on_error="skip", max_failures=None)
    assert lake["image_ids"][:].tolist() == list(range(1, len(good) + 1))
    assert len(lake.failures()) == len(bad)
    assert lake["images"].bytes(3) if images == "bytes" else lake["images"][3].shape


def test_address_of_the_original_image(tmp_path: Path) -> None:
    """An image without a file name has its coco_url, which must be allowed."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes(picture())
    content = document("a.png")
    url = f"file://{tmp_path}/other/a.png"
    content["images"][0] |= {"file_name": None, "coco_url": url}
    images = tmp_path / "images"
    images.mkdir()
    with pytest.raises(TransformError, match="allowed_urls"):
        ingest(images, content, images="bytes")
    allowed = [str(tmp_path / "other")]
    lake = ingest(images, content, images="bytes", allowed_urls=allowed)
    assert lake["images"].bytes(0) == picture()


@pytest.mark.parametrize("format_", ["png", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("has_extension", [True, False])
def test_formats(tmp_path: Path, format_: str, *, has_extension: bool) -> None:
    """Files of any single format are stored unchanged, also without extensions."""
    name = f"a.{format_}" if has_extension else "a"
    (tmp_path / name).write_bytes(picture(format_))
    lake = ingest(tmp_path, document(name), images="bytes")
    assert lake.schema["images"].compression == format_
    assert lake["images"].bytes(0) == picture(format_)


def test_several_formats(tmp_path: Path) -> None:
    """Several formats are refused before anything is written; compression= converts them."""
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "b.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "c.png").write_bytes(picture("JPEG"))
    content = document("a.png", "b.jpg")
    with pytest.raises(InvalidInputError, match=r"got jpeg, png.*compression='png'"):
        ingest(tmp_path, content, images="bytes")
    assert not (tmp_path / "lake").exists()
    with pytest.raises(TransformError, match=r"'c\.png' must be png.*compression='png'"):
        ingest(tmp_path, document("a.png", "c.png"), images="bytes")
    content = document("a.png", "b.jpg", "c.png")
    (tmp_path / "all").mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        (tmp_path / name).rename(tmp_path / "all" / name)
    lake = ingest(tmp_path / "all", content, images="bytes", compression="png")
    assert lake["images"].bytes(0) == picture()
    decoded = np.asarray(Image.open(io.BytesIO(picture("JPEG"))))
    assert np.array_equal(lake["images"][1], decoded)
    assert np.array_equal(lake["images"][2], decoded)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([5, -(2**63)], [5, -(2**63)]),
        ([5, 2**63], ["5", str(2**63)]),
        ([2**70, "a-1"], [str(2**70), "a-1"]),
    ],
)
def test_ids(tmp_path: Path, ids: list[Any], expected: list[Any]) -> None:
    """Ids are stored as numbers if all of them fit into int64, and otherwise as text."""
    (tmp_path / "a.png").write_bytes(picture())
    content = document("a.png", "a.png")
    for image, annotation, key in zip(content["images"], content["annotations"], ids, strict=True):
        image["id"] = annotation["image_id"] = annotation["id"] = key
    content["images"].append({**content["images"][0], "id": 77})
    lake = ingest(tmp_path, content)
    assert [lake[row]["image_ids"] for row in range(2)] == expected
    assert [list(lake[row]["annotation_ids"]) for row in range(3)] == [[x] for x in expected] + [[]]


def test_run_lengths_in_a_list(tmp_path: Path) -> None:
    """Run lengths in a list equal those of pycocotools, also several of them."""
    (tmp_path / "a.png").write_bytes(picture())
    first = {"size": [HEIGHT, WIDTH], "counts": [42, 10, HEIGHT * WIDTH - 52]}
    second = {"size": [HEIGHT, WIDTH], "counts": [0, 50, HEIGHT * WIDTH - 50]}
    for parts in ([first], [first, second]):
        content = document("a.png", segmentation=parts)
        truth = COCO()
        truth.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
        index = coco.CocoIndex.from_document(content)
        masks = np.asarray(coco.sample(1, coco=index, images="s3://b/i")["masks"])
        assert np.array_equal(masks[:, :, 0], truth.annToMask(content["annotations"][0]))


@pytest.mark.parametrize(
    ("extension", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_compressed_files(
    tmp_path: Path, extension: str, compress: Callable[[bytes], bytes]
) -> None:
    """Compressed annotation files are read; damaged ones are a clear error."""
    content = document("a.png")
    data = compress(json.dumps(content).encode())
    path = tmp_path / f"ann.json{extension}"
    path.write_bytes(data)
    assert coco.read_index(str(path)).digest == coco.CocoIndex.from_document(content).digest
    for damaged in (data[:-20], b"\1\2\3", data[:30] + b"xxxx" + data[34:]):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=f"ann.json{extension}"):
            coco.read_index(str(path))


def test_keypoints(tmp_path: Path) -> None:
    """Keypoints are columns of objects; annotations without them have keypoints of zeros."""
    (tmp_path / "a.png").write_bytes(picture())
    content = document("a.png", "a.png", keypoints=[1, 2, 2, 30, 20, 1])
    content["annotations"].append({**content["annotations"][0], "id": 7})
    del content["annotations"][2]["keypoints"]
    content["categories"][0]["keypoints"] = ["nose", "tail"]
    lake = ingest(tmp_path, content)
    assert lake.schema["keypoints"].keypoints == ("nose", "tail")
    assert lake[0]["keypoints"].T.tolist() == [[1, 2, 2, 30, 20, 1], [0] * 6]
    assert lake[0]["keypoints"].dtype == np.int32
    content["annotations"][0]["keypoints"][0] = 1.25
    index = coco.CocoIndex.from_document(content)
    assert coco.sample(1, coco=index, images="x")["keypoints"][0, 0] == 1.25
    assert coco.schema(index)["keypoints"].dtype == "float64"


def test_captions(tmp_path: Path) -> None:
    """A file of captions has no categories, boxes and masks."""
    (tmp_path / "a.png").write_bytes(picture())
    content = document("a.png", "a.png")
    content["annotations"] = [
        {"id": 3, "image_id": 1, "caption": "A dog."},
        {"id": 4, "image_id": 1, "caption": "Ein Hündchen."},
    ]
    without = {key: content[key] for key in ("images", "annotations")}
    for file in (without, {**without, "categories": []}, content):
        index = coco.CocoIndex.from_document(file)
        tensors = ["images", "captions", "annotation_ids", "image_ids"]
        assert list(coco.schema(index)) == tensors
    lake = ingest(tmp_path, content)
    assert list(lake[0]["captions"]) == ["A dog.", "Ein Hündchen."]
    assert list(lake[1]["captions"]) == []
    assert lake[0]["annotation_ids"].tolist() == [3, 4]
    content["annotations"][0]["caption"] = None
    with pytest.raises(InvalidInputError, match="annotation 3 of image 1: it has no caption"):
        coco.CocoIndex.from_document(content)


def test_broken_records_are_left_out_of_the_lake(tmp_path: Path) -> None:
    """The message of ingest proposes an argument that works."""
    (tmp_path / "a.png").write_bytes(picture())
    content = document("a.png", "a.png")
    content["annotations"][0]["bbox"] = [float("inf")] * 4
    with pytest.raises(InvalidInputError, match=r"on_broken='drop' .*index_options"):
        ingest(tmp_path, content)
    lake = ingest(tmp_path, content, index_options={"on_broken": "drop"})
    assert [ids.tolist() for ids in lake["annotation_ids"][:]] == [[], [102]]


def test_lake_is_enough_for_evaluation(shapes: ShapeSet, tmp_path: Path) -> None:
    """COCOeval gives the same results with the annotations of the file and those of the lake."""
    (tmp_path / "ann.json").write_text(json.dumps(shapes.document))
    url = str(tmp_path / "lake")
    options = WriteOptions(scheduler="sync")
    coco.ingest(str(tmp_path / "ann.json"), "s3://b/i", url, verify=False, options=options)
    lake = dasklake.open(url)
    names = lake.schema["categories"].class_names
    ids = {category["name"]: category["id"] for category in shapes.document["categories"]}
    rebuilt = []
    for row in range(len(lake)):
        image = lake[row]
        rebuilt += [
            {
                "id": int(image["annotation_ids"][n]),
                "image_id": int(image["image_ids"]),
                "category_id": ids[names[image["categories"][n]]],
                "bbox": image["boxes"][n].tolist(),
                "area": float(image["area"][n]),
                "iscrowd": int(image["iscrowd"][n]),
            }
            for n in range(len(image["categories"]))
        ]
    fields = list(rebuilt[0])
    by_id = {record["id"]: record for record in shapes.document["annotations"]}
    assert len(rebuilt) == len(by_id)
    for record in rebuilt:
        want = by_id[record["id"]]
        assert {**record, "bbox": None} == {**{name: want[name] for name in fields}, "bbox": None}
    assert evaluation(shapes.document["annotations"], shapes) == evaluation(rebuilt, shapes)


def evaluation(annotations: list[Document], shapes: ShapeSet) -> list[float]:
    """Return COCOeval's results for detections that are half of the annotations."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**shapes.document, "annotations": [dict(a) for a in annotations]}
        truth.createIndex()
        detections = [
            {
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "bbox": record["bbox"],
                "score": 0.5,
            }
            for record in shapes.document["annotations"][::2]
        ]
        evaluated = COCOeval(truth, truth.loadRes(detections), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return [round(float(value), 6) for value in evaluated.stats]
