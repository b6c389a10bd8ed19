"""Validate the records of a COCO annotation file; errors name the ids of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from dasklake._schema.printable import shorten_middle
from dasklake.exceptions import InvalidInputError

#: Largest number that float32 has.
_LARGEST = 3.4e38

#: What to do with records that are listed more than once.
OnRepeated = Literal["error", "first"]


def records_of(document: Any, key: str) -> list[Mapping[str, Any]]:
    """Return one list of the file, in which each record has an id."""
    records = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(records, list) or not all(isinstance(r, Mapping) for r in records):
        raise InvalidInputError(
            f"The annotation file must have a list of {key}. Pass a COCO file of instances, such as "
            "instances_train2017.json."
        )
    for record in records:
        if type(record.get("id")) is not int:
            raise InvalidInputError(
                f"The id of a record of {key} must be an integer, got {record.get('id')!r}. "
                "Fix the file."
            )
        if abs(record["id"]) >= 2**63:
            raise InvalidInputError(
                f"The id of a record of {key} must have at most 64 bits, got {record['id']}. Fix the "
                "file."
            )
    return records


def taken_once(
    records: list[Mapping[str, Any]], kind: str, on_repeated: OnRepeated
) -> list[Mapping[str, Any]]:
    """Return each record once, or raise an error for repeated ids."""
    first: dict[int, Mapping[str, Any]] = {}
    for record in records:
        first.setdefault(record["id"], record)
    if len(first) == len(records):
        return records
    differ = {record["id"] for record in records if record != first[record["id"]]}
    if differ:
        raise InvalidInputError(
            f"Records of one {kind} id must be equal, but differ for {few(differ)}. Fix the file: "
            "the correct record cannot be determined."
        )
    if on_repeated == "error":
        twice = [key for key, n in Counter(record["id"] for record in records).items() if n > 1]
        raise InvalidInputError(
            f"The {kind} ids {few(twice)} are listed more than once, each time with the same "
            "record. Pass on_repeated='first' to keep the first of them."
        )
    return list(first.values())


def categories_of(records: list[Mapping[str, Any]]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return the index of each category id, and the names in the order of the file."""
    ids = [record["id"] for record in records]
    names = [record.get("name") for record in records]
    for field, values in (("id", ids), ("name", names)):
        twice = [value for value, n in Counter(values).items() if n > 1]
        if twice:
            raise InvalidInputError(f"Categories share the {field} {few(twice)}. Fix the file.")
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidInputError("The file must have categories, each with a name. Fix the file.")
    return {key: index for index, key in enumerate(ids)}, tuple(map(str, names))


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
    for invalid, target in ((strays, "an image"), (unknown, "a category")):
        if invalid:
            raise InvalidInputError(
                f"Annotations of {target} that the file does not list: {few(invalid)}. Fix the "
                "file, or remove them."
            )
    return groups


def size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width of an image."""
    height, width = image.get("height"), image.get("width")
    if type(height) is int and type(width) is int and 0 < height < 2**31 and 0 < width < 2**31:
        return height, width
    raise InvalidInputError(
        f"Image {image['id']} is {height!r} by {width!r} pixels. Fix the file: masks need the size."
    )


def file_name_of(image: Mapping[str, Any]) -> str:
    """Return the name of an image's file."""
    name = image.get("file_name")
    if isinstance(name, str) and name:
        return name
    raise InvalidInputError(f"Image {image['id']} has no file_name. Fix the file.")


def box_of(annotation: Mapping[str, Any]) -> list[float]:
    """Return the left, top, width and height of an annotation."""
    box = annotation.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        numbers = [n for n in box if isinstance(n, int | float) and abs(n) < _LARGEST]
        if len(numbers) == 4:
            return numbers
    raise bad(
        annotation, f"its bbox must be four numbers of float32, got {shorten_middle(repr(box), 80)}"
    )


def bad(annotation: Mapping[str, Any], why: str) -> InvalidInputError:
    """Return the error for an invalid annotation."""
    return InvalidInputError(
        f"Annotation {annotation['id']} of image {annotation['image_id']}: {why}. Fix the file."
    )


def few(values: Iterable[Any]) -> str:
    """Return a text with the first values and the number of the rest."""
    values = list(values)
    text = ", ".join(map(repr, values[:5]))
    return text if len(values) <= 5 else f"{text} and {len(values) - 5} more"
