"""Validate the records of a COCO annotation file, and collect all their problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from dasklake._codecs.compression import shorten
from dasklake._schema.printable import safe_repr
from dasklake.exceptions import InvalidInputError

#: What to do with records that are listed more than once.
OnRepeated = Literal["error", "first"]

#: What to do with broken records.
OnBroken = Literal["raise", "drop", "empty"]

#: Lists of an annotation file.
Kind = Literal["image", "annotation", "category"]

#: Remedies of a problem: fix the file, or an argument of ``read_index``.
Remedy = Literal["fix", "on_broken", "on_repeated", "on_unsegmented"]

Record = Mapping[str, Any]

#: Most problems in the text of an error.
_NAMED = 20

#: Most pixels of an image: pycocotools counts them with 32 bits.
_MOST_PIXELS = 2**31 - 1

#: Largest number in a box: boxes are stored as float32.
_LARGEST = 3e38

#: Visibility of a keypoint: not labelled, hidden, visible.
_VISIBILITY = (0, 1, 2)

_T = TypeVar("_T")
_U = TypeVar("_U")


@dataclass(frozen=True, slots=True)
class CocoProblem:
    """A broken record of an annotation file.

    Attributes
    ----------
    kind : {"image", "annotation", "category"}
        List that holds the record.
    id : object
        Id of the record as the file has it, or None.
    image_id : object
        Id of the annotation's image as the file has it; None for other records.
    reasons : tuple of str
        Descriptions of what is wrong.
    position : int
        Position of the record in its list, from 0.
    remedies : tuple of {"fix", "on_broken", "on_repeated", "on_unsegmented"}
        Arguments of :func:`~dasklake.sources.coco.read_index` that accept the record; "fix" if
        the file must be fixed.
    annotations : int
        Number of annotations of a broken image; they are left out with it.
    """

    kind: Kind
    id: object
    image_id: object
    reasons: tuple[str, ...]
    position: int
    remedies: tuple[Remedy, ...] = ("on_broken",)
    annotations: int = 0

    def __str__(self) -> str:
        named = f"{self.kind} {show(self.id)}"
        if self.id is None:
            named = f"the {self.kind} at position {self.position}"
        if self.kind == "annotation":
            named = f"{named} of image {show(self.image_id)}"
        if self.annotations:
            named = f"{named} (with {self.annotations} annotations)"
        return f"{named}: {'; '.join(self.reasons)}"


class Reasons(list[str]):
    """Collect what is wrong with one record."""

    def is_object(self, record: Any) -> bool:
        """Return whether a record is a JSON object; if not, add the reason."""
        if not isinstance(record, Mapping):
            self.append(f"it must be an object, got {show(record)}")
        return not self

    def get(self, read: Callable[[Record], _T], record: Record, otherwise: _U) -> _T | _U:
        """Return a value of a record, or add the reason why it is invalid and return ``otherwise``."""
        try:
            return read(record)
        except BrokenError as error:
            self.append(str(error))
            return otherwise


def show(value: object) -> str:
    """Return the repr of a value, shortened for a message."""
    return shorten(safe_repr(value))


class BrokenError(Exception):
    """A value of a record is invalid; the text says why. It never leaves this package."""


def records_of(document: Any, key: str) -> list[Any]:
    """Return one list of the file."""
    records = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(records, list):
        raise InvalidInputError(
            f"The annotation file must have a list of {key}. Pass a COCO file of instances, such as "
            "instances_train2017.json."
        )
    return records


def is_text(value: object) -> bool:
    """Return whether a value is a string that UTF-8 can encode, and not empty."""
    if not isinstance(value, str) or not value:
        return False
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_id(value: object) -> bool:
    """Return whether a value is an integer or a string."""
    return type(value) is int or is_text(value)


def id_of(record: Record) -> int | str:
    """Return the id of a record."""
    value: Any = record.get("id")
    if is_id(value):
        return cast("int | str", value)
    raise BrokenError(f"its id must be an integer or a string, got {show(value)}")


def size_of(image: Record) -> tuple[int, int]:
    """Return the height and width of an image."""
    height, width = image.get("height"), image.get("width")
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        if height * width <= _MOST_PIXELS:
            return height, width
        raise BrokenError(f"it must have at most {_MOST_PIXELS} pixels, got {height} x {width}")
    raise BrokenError(
        f"its height and width must be positive integers, got {show(height)} and {show(width)}"
    )


def file_name_of(image: Record) -> str:
    """Return the name of an image's file, or else the URL of the image."""
    for key in ("file_name", "coco_url"):
        if is_text(name := image.get(key)):
            return str(name)
    raise BrokenError(
        f"its file_name must be a string that is not empty, got {show(image.get('file_name'))}"
    )


def category_name_of(category: Record) -> str:
    """Return the name of a category."""
    if is_text(name := category.get("name")):
        return str(name)
    raise BrokenError(f"its name must be a string, got {show(category.get('name'))}")


def box_of(annotation: Record) -> tuple[float, ...]:
    """Return the left, top, width and height of an annotation."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(n, _LARGEST) for n in box):
        raise BrokenError(f"its bbox must be four finite numbers, got {show(box)}")
    if box[2] < 0 or box[3] < 0:
        raise BrokenError(f"the width and height of its bbox must not be negative, got {box[2:]}")
    return tuple(box)


def is_finite(value: object, limit: float = math.inf) -> bool:
    """Return whether a value is a number, neither infinite nor NaN, of at most a magnitude."""
    if type(value) is int:
        # Larger integers are not numbers of float64.
        return abs(value) <= min(limit, 1e308)
    return type(value) is float and math.isfinite(value) and abs(value) <= limit


def crowd_of(annotation: Record) -> int:
    """Return 1 for a crowd, and 0 for a single object or if the file does not say."""
    value = annotation.get("iscrowd")
    if value is None or value in (0, 1):
        return int(value or 0)
    raise BrokenError(f"its iscrowd must be 0 or 1, got {show(value)}")


def area_of(annotation: Record) -> float:
    """Return the area of an object in pixels, or NaN if the file does not say."""
    value = annotation.get("area")
    if value is None:
        return math.nan
    if is_finite(value) and float(value) == value:
        return float(value)
    raise BrokenError(f"its area must be a finite number, got {show(value)}")


def keypoints_of(annotation: Record) -> Sequence[float]:
    """Return x, y and visibility of each keypoint; nothing if the annotation has none."""
    values = annotation.get("keypoints")
    if values is None:
        return ()
    if not isinstance(values, list) or len(values) % 3 or not all(map(is_finite, values)):
        raise BrokenError(
            "its keypoints must be a list of finite numbers, three for each point, got "
            f"{show(values)}"
        )
    if wrong := [value for value in values[2::3] if value not in _VISIBILITY]:
        raise BrokenError(f"the visibility of its keypoints must be 0, 1 or 2, got {wrong[0]!r}")
    return values


def caption_of(annotation: Record) -> str:
    """Return the caption of an annotation; empty if it has none."""
    value = annotation.get("caption")
    if value is None or value == "":
        return ""
    if is_text(value):
        return str(value)
    raise BrokenError(f"its caption must be a string, got {show(value)}")


def problem_of(
    kind: Kind,
    record: Any,
    position: int,
    reasons: Iterable[str],
    remedies: Iterable[Remedy] = (),
) -> CocoProblem:
    """Return the problem of a record."""
    fields = record if isinstance(record, Mapping) else {}
    image_id = fields.get("image_id") if kind == "annotation" else None
    return CocoProblem(
        kind,
        fields.get("id"),
        image_id,
        tuple(reasons),
        position,
        tuple(remedies) or ("on_broken",),
    )


def index_error(problems: Sequence[CocoProblem]) -> InvalidInputError:
    """Return the error that names the problems of a file, each once, and the remedies."""
    lines = [f"\n  {problem}" for problem in problems[:_NAMED]]
    if len(problems) > _NAMED:
        lines.append(
            f"\n  and {len(problems) - _NAMED} more, in the attribute problems of this error"
        )
    needed = {remedy for problem in problems for remedy in problem.remedies}
    options = []
    if "on_broken" in needed:
        options.append("on_broken='drop' to leave these records out")
    elif "on_unsegmented" in needed:
        options.append("on_unsegmented='empty' to give annotations empty masks")
    if "on_repeated" in needed:
        options.append("on_repeated='first' to keep the first of equal records")
    remedy = "Fix the file"
    if options and "fix" not in needed:
        remedy += f", or pass {' and '.join(options)} (coco.ingest takes them in index_options)"
    count = "1 broken record" if len(problems) == 1 else f"{len(problems)} broken records"
    error = InvalidInputError(f"The annotation file has {count}:{''.join(lines)}\n{remedy}.")
    error.problems = tuple(problems)
    return error
