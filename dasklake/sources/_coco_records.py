"""The records of a COCO annotation file, checked: whatever is wrong is named by its id."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from dasklake.exceptions import InvalidInputError

__all__ = [
    "OnRepeated",
    "bad",
    "box_of",
    "categories_of",
    "few",
    "file_name_of",
    "grouped",
    "records_of",
    "size_of",
    "taken_once",
]

#: What to do with records that are in the file twice.
OnRepeated = Literal["error", "first"]


def records_of(document: Any, key: str) -> list[Mapping[str, Any]]:
    """Return one list of the file, each record with an id."""
    found = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
        raise InvalidInputError(
            f"The annotation file has no list of {key}. Pass a COCO file of instances, such as "
            "instances_train2017.json."
        )
    for each in found:
        if type(each.get("id")) is not int:
            raise InvalidInputError(
                f"A record of {key} has the id {each.get('id')!r}, which is no whole number. "
                "Mend the file."
            )
    return found


def taken_once(
    records: list[Mapping[str, Any]], what: str, on_repeated: OnRepeated
) -> list[Mapping[str, Any]]:
    """Take each id once, or refuse."""
    first: dict[int, Mapping[str, Any]] = {}
    for record in records:
        first.setdefault(record["id"], record)
    if len(first) == len(records):
        return records
    differ = {each["id"] for each in records if each != first[each["id"]]}
    if differ:
        raise InvalidInputError(
            f"Records of one {what} id that differ: {few(differ)}. Mend the file: which of them "
            "is meant cannot be told."
        )
    if on_repeated == "error":
        twice = [each for each, n in Counter(record["id"] for record in records).items() if n > 1]
        raise InvalidInputError(
            f"The {what} ids {few(twice)} are listed more than once, each time with the same "
            "record. Pass on_repeated='first' to take each once."
        )
    return list(first.values())


def categories_of(records: list[Mapping[str, Any]]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the place of each category id, and the names in the order of the file."""
    ids = [record["id"] for record in records]
    names = [record.get("name") for record in records]
    for what, values in (("id", ids), ("name", names)):
        twice = [each for each, n in Counter(values).items() if n > 1]
        if twice:
            raise InvalidInputError(f"Categories share the {what} {few(twice)}. Mend the file.")
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInputError("The file has no categories, or some without a name. Mend it.")
    return {each: place for place, each in enumerate(ids)}, tuple(map(str, names))


def grouped(
    annotations: list[Mapping[str, Any]], rows: Mapping[int, int], classes: Mapping[int, int]
) -> list[list[Mapping[str, Any]]]:
    """Return the annotations of each image, in the order of the file."""
    groups: list[list[Mapping[str, Any]]] = [[] for _ in rows]
    strays, unknown = [], []
    for annotation in annotations:
        image, category = annotation.get("image_id"), annotation.get("category_id")
        if type(image) is not int or image not in rows:
            strays.append(annotation["id"])
        elif type(category) is not int or category not in classes:
            unknown.append(annotation["id"])
        else:
            groups[rows[image]].append(annotation)
    for wrong, what in ((strays, "an image"), (unknown, "a category")):
        if wrong:
            raise InvalidInputError(
                f"Annotations of {what} that the file does not list: {few(wrong)}. Mend the "
                "file, or take them out of it."
            )
    return groups


def size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width."""
    height, width = image.get("height"), image.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width
    raise InvalidInputError(
        f"Image {image['id']} is {height!r} by {width!r} pixels. Mend the file: masks need it."
    )


def file_name_of(image: Mapping[str, Any]) -> str:
    """Return the name of an image's file."""
    name = image.get("file_name")
    if isinstance(name, str) and name:
        return name
    raise InvalidInputError(f"Image {image['id']} has no file_name. Mend the file.")


def box_of(annotation: Mapping[str, Any]) -> list[float]:
    """Return left, top, width and height."""
    box = annotation.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        numbers = [each for each in box if isinstance(each, int | float) and math.isfinite(each)]
        if len(numbers) == 4:
            return numbers
    raise bad(annotation, f"its bbox {box!r} is not four numbers")


def bad(annotation: Mapping[str, Any], why: str) -> InvalidInputError:
    """Say what is wrong with an annotation."""
    return InvalidInputError(
        f"Annotation {annotation['id']} of image {annotation['image_id']}: {why}. Mend the file."
    )


def few(values: Iterable[Any]) -> str:
    """Name the first few, count the rest."""
    found = list(values)
    shown = ", ".join(repr(each) for each in found[:5])
    return shown if len(found) <= 5 else f"{shown} and {len(found) - 5} more"
