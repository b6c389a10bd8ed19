"""Test the validation and the columns of the index of a COCO annotation file."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.base import tokenize

from dasklake.exceptions import InvalidInputError
from dasklake.sources.coco import CocoIndex
from examples.shapes import CATEGORIES

Document = dict[str, Any]


def test_order_of_the_file(document: Document) -> None:
    """Images, categories and the annotations of each image keep the order of the file."""
    index = CocoIndex.from_document(document)
    assert index.image_ids.tolist() == [image["id"] for image in document["images"]]
    assert index.class_names == tuple(CATEGORIES.values())
    for row, image in enumerate(document["images"]):
        annotation_ids = [
            annotation["id"]
            for annotation in document["annotations"]
            if annotation["image_id"] == image["id"]
        ]
        assert index.annotation_ids[slice(*index.starts[row : row + 2])].tolist() == annotation_ids


def test_labels_have_no_gaps(document: Document) -> None:
    """Category ids with gaps become indices into the list of class names."""
    index = CocoIndex.from_document(document)
    by_id = {annotation["id"]: annotation["category_id"] for annotation in document["annotations"]}
    for number, label in zip(index.annotation_ids.tolist(), index.labels.tolist(), strict=True):
        assert index.class_names[label] == CATEGORIES[by_id[number]]


def test_smaller_than_the_file(document: Document) -> None:
    """The index has less than half of the bytes of the file, and can be pickled."""
    index = CocoIndex.from_document(document)
    data = pickle.dumps(index, protocol=5)
    assert len(data) < len(json.dumps(document)) / 2
    back = pickle.loads(data)
    assert back.digest == index.digest
    assert np.array_equal(back.numbers, index.numbers)


def test_exact_corners(document: Document) -> None:
    """Corners equal the floats of the file exactly, with two digits or with sixteen."""
    for corner in (17.31, 17.123456789):
        image = document["images"][0]
        polygon = [corner, 2.07, 30.49, 5.93, 11.11, 40.0]
        only = {**document, "annotations": [_annotation(image["id"], [polygon])]}
        index = CocoIndex.from_document(only)
        assert index.outline(0).polygons[0].tolist() == polygon


def test_dask_name_follows_content(document: Document) -> None:
    """Equal files have equal Dask names, and different files different ones."""
    one, same = CocoIndex.from_document(document), CocoIndex.from_document(document)
    document["annotations"][0]["bbox"][0] += 1
    other = CocoIndex.from_document(document)
    assert tokenize(one) == tokenize(same) != tokenize(other)


def _annotation(image_id: int, segmentation: Any, **more: Any) -> Document:
    annotation = {"id": 1, "image_id": image_id, "category_id": 3, "bbox": [1, 2, 3, 4]}
    return {**annotation, "segmentation": segmentation, **more}


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_repeated_records(document: Document, key: str) -> None:
    """Equal records of one id are an error, or taken once with on_repeated="first"."""
    whole = CocoIndex.from_document(document)
    repeated = {**document, key: [*document[key], *document[key][2:5]]}
    with pytest.raises(InvalidInputError, match="on_repeated='first' to keep") as raised:
        CocoIndex.from_document(repeated)
    assert [problem.id for problem in raised.value.problems] == [
        record["id"] for record in document[key][2:5]
    ]
    for record in document[key][2:5]:
        line = rf"{key[:-1]} {record['id']}\b.*: it is listed 2 times"
        assert len(re.findall(line, str(raised.value))) == 1
    assert CocoIndex.from_document(repeated, on_repeated="first").digest == whole.digest


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_contradicting_records(document: Document, key: str) -> None:
    """Different records of one id are broken, also with on_repeated="first"."""
    other = {**document[key][0], "extra": 1}
    spoilt = {**document, key: [*document[key], other]}
    with pytest.raises(InvalidInputError, match=f"{other['id']}.*cannot be determined"):
        CocoIndex.from_document(spoilt, on_repeated="first")


@pytest.mark.parametrize("nothing", [None, [], [[]], [[1, 2, 3, 4]]])
def test_unsegmented(document: Document, nothing: Any) -> None:
    """Annotations that cover nothing are an error, or get an empty outline with "empty"."""
    image = document["images"][0]["id"]
    bare = {**document, "annotations": [_annotation(image, nothing)]}
    with pytest.raises(InvalidInputError, match=r"(?s)annotation 1 .*no segmentation.*'empty'"):
        CocoIndex.from_document(bare)
    outline = CocoIndex.from_document(bare, on_unsegmented="empty").outline(0)
    assert (outline.polygons, outline.counts) == ([], ())


def test_missing_segmentation_is_unsegmented(document: Document) -> None:
    """An annotation without the key counts as one without a segmentation."""
    for annotation in document["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(InvalidInputError, match=r"(?s)it has no segmentation\n.*more"):
        CocoIndex.from_document(document)


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], "odd count of numbers, 7"),
        ([[1, 2, 3, 4, 5, "6"]], "must be a list of numbers"),
        ([1, 2, 3, 4, 5, 6], "must be a list of numbers"),
        (
            [{"size": [240, 320], "counts": [76800]}, [1, 2, 3, 4, 5, 6]],
            "must be a list of numbers",
        ),
        ([[1, 2, 3, float("nan"), 5, 6]], "not finite"),
        ([[1, 2, 3, 1e30, 5, 6]], "not finite"),
        ("outline", "must be a list or an object"),
        ({"size": [1, 2], "counts": [2]}, r"got \[1, 2\]"),
        ({"counts": [2]}, "got None"),
        ({"size": [240, 320], "counts": [2, 3]}, "cover 76800 pixels, got 5"),
        ({"size": [240, 320], "counts": [-1, 3]}, "a string or a list"),
        ({"size": [240, 320], "counts": 7}, "a string or a list"),
        ({"size": [240, 320], "counts": "ü"}, "a string or a list"),
    ],
)
def test_bad_segmentation(document: Document, segmentation: Any, why: str) -> None:
    """An invalid segmentation is an error that names the annotation and the image."""
    image = next(candidate for candidate in document["images"] if candidate["height"] == 240)
    spoilt = {**document, "annotations": [_annotation(image["id"], segmentation)]}
    with pytest.raises(InvalidInputError, match=f"annotation 1 of image {image['id']}: .*{why}"):
        CocoIndex.from_document(spoilt)


def _set(key: str, position: int, name: str, value: Any) -> Callable[[Document], None]:
    def spoil(document: Document) -> None:
        document[key][position][name] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_set("annotations", 3, "image_id", -4), "annotation 5009 .*not list its image -4"),
        (_set("annotations", 3, "image_id", [1]), r"annotation 5009 .*not list its image \[1\]"),
        (_set("annotations", 3, "category_id", 1), "annotation 5009 .*not list its category 1"),
        (_set("annotations", 3, "bbox", [1, 2, 3]), "annotation 5009 .*four finite numbers"),
        (_set("annotations", 3, "bbox", [1, 2, 3, float("inf")]), "annotation 5009 .*four finite"),
        (_set("annotations", 3, "id", None), "annotation at position 3 .*a string, got None"),
        (_set("images", 1, "id", 1.0), "image 1.0: its id must be an integer or a string, got 1.0"),
        (_set("images", 1, "height", None), "positive integers, got None and"),
        (_set("images", 1, "width", 0), "positive integers, got .* and 0"),
        (_set("images", 1, "file_name", ""), "its file_name must be a string"),
        (_set("categories", 1, "id", 18), "category 18: another category has the id 18"),
        (_set("categories", 1, "name", "disk"), "another category has the name 'disk'"),
        (_set("categories", 1, "name", None), "its name must be a string, got None"),
        (lambda document: document.pop("images"), "must have a list of images"),
        (lambda document: document.update(annotations={}), "must have a list of annotations"),
        (lambda document: document.update(categories=[]), "must have categories"),
    ],
)
def test_bad_records(document: Document, spoil: Callable[[Document], None], why: str) -> None:
    """An inconsistent or incomplete file is an error that names the record."""
    spoil(document)
    with pytest.raises(InvalidInputError, match=why):
        CocoIndex.from_document(document)


@pytest.mark.parametrize("choice", ["on_broken", "on_repeated", "on_unsegmented"])
def test_unknown_choice(document: Document, choice: str) -> None:
    """A misspelt choice is an error that names the allowed ones."""
    options: Any = {choice: "sometimes"}
    with pytest.raises(InvalidInputError, match=f"{choice} must be one of .*'sometimes'"):
        CocoIndex.from_document(document, **options)


def test_real_keypoints_file(coco_dir: Path) -> None:
    """A real file with repeated images is an error, or each image is taken once."""
    document = json.loads((coco_dir / "person_keypoints_repeated_ids.json").read_bytes())
    with pytest.raises(
        InvalidInputError, match=r"(?s)331 broken .* 397133: it is listed .*311 more"
    ):
        CocoIndex.from_document(document)
    index = CocoIndex.from_document(document, on_repeated="first")
    assert (len(index), len(index.labels)) == (538, 2213)
