"""Test broken annotation files: each problem is named once with its record, and can be accepted."""

from __future__ import annotations

import copy
import json
import logging
import math
import re
from typing import Any, Literal

import numpy as np
import pytest

from dasklake.exceptions import InvalidInputError
from dasklake.sources import coco
from dasklake.sources.coco import CocoIndex

Document = dict[str, Any]
OnBroken = Literal["raise", "drop", "empty"]

SIZE = [8, 10]
PIXELS = 80
SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]
NAN, INF = math.nan, math.inf


def base() -> Document:
    """Make a valid file: three images, two annotations each; ids repeat in different images."""
    return {
        "images": [
            {"id": key, "file_name": f"{key}.jpg", "height": SIZE[0], "width": SIZE[1]}
            for key in (11, 12, 13)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 7,
                "bbox": [1, 1, 4, 4],
                "area": 16.25,
                "iscrowd": number - 1,
                "keypoints": [1, 1, 2, 0, 0, 0],
                "segmentation": SQUARE,
            }
            for image in (11, 12, 13)
            for number in (1, 2)
        ],
        "categories": [{"id": 7, "name": "car"}, {"id": 9, "name": "dog"}],
    }


#: Broken values of an annotation, and a part of the reason.
VALUES: list[tuple[str, Any, str]] = [
    *[
        ("bbox", box, "four finite numbers")
        for box in (
            *(None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1,2,3,4", {"x": 1}, 7),
            *([INF, INF, -INF, -INF], [NAN] * 4, [1, 2, 3, "4"], [1, 2, None, 4], [1, 2, True, 4]),
            *([1e300, 0, 1, 1], [10**400, 0, 1, 1], [[1, 2], [3, 4], [5, 6], [7, 8]]),
        )
    ],
    ("bbox", [5, 5, -1, 4], "must not be negative"),
    ("bbox", [5, 5, 1, -4], "must not be negative"),
    ("segmentation", None, "no segmentation"),
    ("segmentation", [], "no segmentation"),
    ("segmentation", [[]], "no segmentation"),
    ("segmentation", [[1, 2, 3, 4]], "no segmentation"),
    *[
        ("segmentation", polygons, reason)
        for polygons, reason in (
            ([[1, 2, 3, 4, 5, 6, 7]], "odd count of numbers, 7"),
            ([[1, 2, 3, 4, 5, "6"]], "list of numbers"),
            ([[1, 2, 3, 4, 5, None]], "list of numbers"),
            ([[1, 2, NAN, 4, 5, 6]], "not finite"),
            ([[1, 2, INF, 4, 5, 6]], "not finite"),
            ([[1, 2, 1e12, 4, 5, 6]], "too far away"),
            ([[1, 2, 10**400, 4, 5, 6]], "list of numbers"),
            ([[[1, 2], [3, 4], [5, 6]]], "list of numbers"),
            ([1, 2, 3, 4, 5, 6], "list of numbers"),
            ([{}, SQUARE[0]], "list of numbers"),
            ("polygon", "a list or an object"),
            (5, "a list or an object"),
        )
    ],
    *[
        ("segmentation", rle, reason)
        for rle, reason in (
            ({"size": SIZE[::-1], "counts": [PIXELS]}, r"of size \[8, 10\], got \[10, 8\]"),
            ({"counts": [PIXELS]}, "got None"),
            ({"size": SIZE}, "a string or a list"),
            ({"size": SIZE, "counts": [1, 2]}, "cover 80 pixels, got 3"),
            ({"size": SIZE, "counts": [81, -1]}, "a string or a list"),
            ({"size": SIZE, "counts": [80.0]}, "a string or a list"),
            ({"size": SIZE, "counts": "PPYo1"}, "run length"),
            ({"size": SIZE, "counts": "\u00fc"}, "a string or a list"),
            ([{"size": SIZE, "counts": [1]}], "cover 80 pixels, got 1"),
            ([{"size": SIZE, "counts": [PIXELS]}, {"size": SIZE}], "a string or a list"),
        )
    ],
    ("iscrowd", 2, "iscrowd must be 0 or 1"),
    ("iscrowd", "0", "iscrowd must be 0 or 1"),
    ("area", "12", "area must be a finite number"),
    ("area", NAN, "area must be a finite number"),
    ("area", -INF, "area must be a finite number"),
    ("keypoints", [1, 2], "three for each point"),
    ("keypoints", [1, 2, INF], "finite numbers"),
    ("keypoints", [1, 2, 3], "must be 0, 1 or 2, got 3"),
    ("keypoints", "1 2 2", "three for each point"),
]

#: Broken references, which no empty value can replace.
REFERENCES: list[tuple[str, Any, str]] = [
    ("id", None, "must be an integer or a string"),
    ("id", 1.5, "must be an integer or a string"),
    ("id", True, "must be an integer or a string"),
    ("id", [1], "must be an integer or a string"),
    ("id", "", "must be an integer or a string"),
    ("image_id", None, "does not list its image None"),
    ("image_id", 99, "does not list its image 99"),
    ("image_id", "11", "does not list its image '11'"),
    ("image_id", {}, r"does not list its image \{\}"),
    ("category_id", None, "does not list its category None"),
    ("category_id", 8, "does not list its category 8"),
    ("category_id", "7", "does not list its category '7'"),
    ("category_id", True, "does not list its category True"),
]

#: Broken values of an image.
IMAGES: list[tuple[str, Any, str]] = [
    ("id", None, "must be an integer or a string"),
    ("id", 1.0, "must be an integer or a string"),
    ("height", None, "positive integers, got None and 10"),
    ("height", -8, "positive integers, got -8 and 10"),
    ("width", 0, "positive integers, got 8 and 0"),
    ("width", "10", "positive integers, got 8 and '10'"),
    ("width", 10.0, "positive integers, got 8 and 10.0"),
    ("width", 2**40, "must have at most 2147483647 pixels"),
    ("file_name", None, "file_name must be a string"),
    ("file_name", "", "file_name must be a string"),
    ("file_name", 7, "file_name must be a string"),
    ("file_name", "\ud800.jpg", "file_name must be a string"),
]


def read(document: Document, **options: Any) -> CocoIndex:
    """Read a file as it comes from JSON, so that no two records share a value."""
    return CocoIndex.from_document(json.loads(json.dumps(document)), **options)


def keys(index: CocoIndex) -> list[tuple[Any, Any]]:
    """Return image and id of the annotations of an index."""
    images = np.repeat(index.image_ids, np.diff(index.starts))
    return list(zip(images.tolist(), index.annotation_ids.tolist(), strict=True))


def refused(document: Document, reason: str) -> InvalidInputError:
    """Return the error of a file with one broken record, which its message names once."""
    with pytest.raises(InvalidInputError) as raised:
        read(document)
    (problem,) = raised.value.problems
    assert str(raised.value).count(str(problem)) == 1
    assert re.search(reason, str(problem)), problem
    return raised.value


def follow(error: InvalidInputError, document: Document) -> CocoIndex:
    """Read a file again with the arguments that the message of its error proposes."""
    options = dict(re.findall(r"(on_\w+)='(\w+)'", str(error)))
    assert options
    return read(document, **options)


def test_valid_file() -> None:
    """The file that the tests break is valid."""
    index = read(base())
    assert keys(index) == [(image, number) for image in (11, 12, 13) for number in (1, 2)]
    assert index.problems == ()


@pytest.mark.parametrize(("field", "value", "reason"), VALUES)
def test_broken_value(field: str, value: Any, reason: str) -> None:
    """A broken value is named once; the annotation is left out, or gets an empty value."""
    document = base()
    document["annotations"][2][field] = value
    error = refused(document, f"annotation 1 of image 12: .*{reason}")
    rest = [key for key in keys(read(base())) if key != (12, 1)]
    dropped = read(document, on_broken="drop")
    assert keys(dropped) == rest
    assert [str(problem) for problem in dropped.problems] == list(map(str, error.problems))
    assert keys(follow(error, document)) in (rest, keys(read(base())))
    emptied = read(document, on_broken="empty")
    assert keys(emptied) == keys(read(base()))
    assert len(emptied.problems) == 1
    check_emptied(emptied, field)


def check_emptied(index: CocoIndex, field: str) -> None:
    """Check that only the broken value of the third annotation is empty."""
    assert index.boxes[2].tolist() == ([0, 0, 0, 0] if field == "bbox" else [1, 1, 4, 4])
    assert bool(index.outline(2)) == (field != "segmentation")
    assert index.area is not None
    assert math.isnan(index.area[2]) if field == "area" else index.area[2] == 16.25
    assert index.keypoints is not None
    assert index.keypoints[2].any() == (field != "keypoints")
    images = coco.sample(12, coco=index, images="s3://b/i")
    assert np.asarray(images["masks"]).any(axis=(0, 1)).tolist() == [field != "segmentation", True]


@pytest.mark.parametrize(("field", "value", "reason"), REFERENCES)
@pytest.mark.parametrize("on_broken", ["drop", "empty"])
def test_broken_reference(field: str, value: Any, reason: str, on_broken: OnBroken) -> None:
    """An annotation without a valid id, image or category is named once, and left out."""
    document = base()
    document["annotations"][2][field] = value
    error = refused(document, f"^(annotation .*|the annotation at position 2 .*){reason}")
    rest = [key for key in keys(read(base())) if key != (12, 1)]
    assert keys(read(document, on_broken=on_broken)) == rest
    assert keys(follow(error, document)) == rest


@pytest.mark.parametrize(("field", "value", "reason"), IMAGES)
@pytest.mark.parametrize("on_broken", ["drop", "empty"])
def test_broken_image(field: str, value: Any, reason: str, on_broken: OnBroken) -> None:
    """A broken image is named once, and left out with its annotations, which are counted."""
    document = base()
    document["images"][1][field] = value
    if field == "id":
        del document["annotations"][2:4]
    error = refused(document, f"image .*{reason}")
    index = read(document, on_broken=on_broken)
    assert index.image_ids.tolist() == [11, 13]
    assert keys(index) == [(11, 1), (11, 2), (13, 1), (13, 2)]
    assert index.problems[0].annotations == (0 if field == "id" else 2)
    assert follow(error, document).image_ids.tolist() == [11, 13]


@pytest.mark.parametrize("key", ["images", "annotations"])
@pytest.mark.parametrize("record", [None, 7, "text", [1, 2]])
def test_not_an_object(key: str, record: Any) -> None:
    """A record that is not an object is named by its position, and left out."""
    document = base()
    document[key].append(record)
    refused(document, f"the {key[:-1]} at position {len(document[key]) - 1}.*must be an object")
    assert keys(read(document, on_broken="drop")) == keys(read(base()))


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_different_records(key: str) -> None:
    """Different records of one id are named once, and all of them are left out."""
    document = base()
    document[key] += [{**document[key][0], "more": 1}, {**document[key][0], "more": 2}]
    error = refused(document, f"{key[:-1]} 1.*3 different records have its id")
    assert (11, 1) not in keys(read(document, on_broken="drop"))
    assert (11, 1) not in keys(follow(error, document))


def test_ids_that_are_equal_as_text() -> None:
    """Ids that would be stored as the same text are different records of one id."""
    document = base()
    document["annotations"][1]["id"] = "1"
    refused(document, "2 different records have its id")


@pytest.mark.parametrize("on_broken", ["raise", "drop", "empty"])
def test_categories_are_never_dropped(on_broken: OnBroken) -> None:
    """Broken categories must be fixed in the file; the message proposes nothing else."""
    document = base()
    document["categories"] += [{"id": 7, "name": "dog"}, {"id": None}, 5]
    with pytest.raises(InvalidInputError) as raised:
        read(document, on_broken=on_broken)
    text = str(raised.value)
    assert re.search("category 7: another category has the id 7; another .* name 'dog'", text)
    assert "the category at position 3: its id" in text
    assert "the category at position 4: it must be an object, got 5" in text
    assert text.endswith("Fix the file.")


def test_all_problems_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """One error names all problems of a file; 20 in its text, all in its attribute."""
    document = base()
    values = [*VALUES, *REFERENCES]
    for position, (field, value, _) in enumerate(values):
        annotation = {**copy.deepcopy(document["annotations"][0]), "id": 100 + position}
        document["annotations"].append({**annotation, field: value})
    document["images"][2]["height"] = 0
    with pytest.raises(InvalidInputError, match=rf"has {len(values) + 1} broken records") as raised:
        read(document)
    problems = raised.value.problems
    assert len(problems) == len(values) + 1
    lines = str(raised.value).splitlines()
    assert lines[1:21] == [f"  {problem}" for problem in problems[:20]]
    assert lines[21].startswith(f"  and {len(problems) - 20} more")
    for (field, _, reason), problem in zip(values, problems[1:], strict=True):
        assert field == "id" or problem.id == 100 + problem.position - 6
        assert re.search(reason, str(problem))
    with caplog.at_level(logging.WARNING):
        index = follow(raised.value, document)
    assert keys(index) == [(11, 1), (11, 2), (12, 1), (12, 2)]
    assert list(map(str, index.problems)) == list(map(str, problems))
    assert f"1 images (with 2 annotations) and {len(values)} other annotations" in caplog.text


def test_several_reasons_of_one_record() -> None:
    """A record with several reasons is named once, with all of them."""
    document = base()
    document["annotations"][0] |= {"bbox": [INF] * 4, "segmentation": [], "category_id": 3}
    error = refused(document, "annotation 1 of image 11: .*category 3; its bbox .*; it has no segm")
    assert str(error).count("\n  ") == 1


def test_unsegmented_and_infinite_boxes() -> None:
    """With on_unsegmented="empty", annotations with broken boxes are still broken."""
    document = base()
    document["annotations"][0] |= {"bbox": [INF] * 4, "segmentation": []}
    document["annotations"][3]["segmentation"] = []
    with pytest.raises(InvalidInputError, match="has 1 broken record:"):
        read(document, on_unsegmented="empty")
    index = read(document, on_unsegmented="empty", on_broken="drop")
    assert keys(index) == keys(read(base()))[1:]
    assert not index.outline(2)


def test_repeated_and_broken_records() -> None:
    """The message proposes all arguments that a file needs."""
    document = base()
    document["annotations"].append(document["annotations"][5])
    document["annotations"][0]["bbox"] = None
    with pytest.raises(
        InvalidInputError, match=r"on_broken='drop' .* and on_repeated='first'"
    ) as e:
        read(document)
    assert keys(follow(e.value, document)) == keys(read(base()))[1:]
    with pytest.raises(InvalidInputError, match=r"has 1 broken record:\n.*listed 2 times"):
        read(document, on_broken="drop")


def test_first_of_repeated_records() -> None:
    """on_repeated="first" keeps annotations of different images that share an id."""
    document = base()
    document["images"].append(document["images"][0])
    document["annotations"] += document["annotations"][:2]
    assert read(document, on_repeated="first").digest == read(base()).digest
