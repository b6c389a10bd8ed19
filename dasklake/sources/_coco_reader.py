"""Read the records of a COCO annotation file: the valid ones, and the problems of the others."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from dasklake.exceptions import InvalidInputError
from dasklake.sources._coco_outlines import Outline, outline_of
from dasklake.sources._coco_records import (
    CocoProblem,
    OnBroken,
    OnRepeated,
    Reasons,
    Record,
    Remedy,
    area_of,
    box_of,
    caption_of,
    category_name_of,
    crowd_of,
    file_name_of,
    id_of,
    index_error,
    is_id,
    is_text,
    keypoints_of,
    problem_of,
    records_of,
    show,
    size_of,
)

#: What to do with annotations that have no segmentation.
OnUnsegmented = Literal["error", "empty"]

_LOGGER = logging.getLogger(__name__)

_NO_BOX = (0.0, 0.0, 0.0, 0.0)
_NO_OUTLINE = Outline([])


class ReadOptions(NamedTuple):
    """Options of :func:`dasklake.sources.coco.read_index`."""

    on_broken: OnBroken
    on_repeated: OnRepeated
    on_unsegmented: OnUnsegmented


@dataclass(slots=True)
class ValidAnnotation:
    """The values of an annotation that the index keeps."""

    id: int | str
    label: int
    box: tuple[float, ...] = _NO_BOX
    outline: Outline = _NO_OUTLINE
    crowd: int = 0
    area: float = math.nan
    keypoints: Sequence[float] = ()
    caption: str = ""


@dataclass(slots=True)
class ValidImage:
    """The values of an image that the index keeps, and its annotations."""

    id: int | str
    size: tuple[int, int]
    file_name: str
    annotations: list[ValidAnnotation] = field(default_factory=list)


class DocumentReader:
    """Read a parsed annotation file, and collect all its problems.

    Attributes
    ----------
    has_captions : bool
        Whether annotations have captions.
    class_names, keypoint_names : tuple of str
        Names of the categories, and of the keypoints that all of them share.
    images : list of ValidImage
        The images in the order of the file.
    annotations : list of ValidAnnotation
        The annotations, grouped by image.
    problems : list of CocoProblem
        The broken records.
    """

    def __init__(self, document: Any, options: ReadOptions) -> None:
        self._options = options
        self._images = records_of(document, "images")
        self._annotations = records_of(document, "annotations")
        self.has_captions = any(
            isinstance(record, Mapping) and "caption" in record for record in self._annotations
        )
        of_captions = self.has_captions and not _names_a_category(self._annotations)
        self._categories = [] if of_captions else records_of(document, "categories")
        if not self._categories and not of_captions:
            raise InvalidInputError(
                "The file must have categories, each with a name. Fix the file."
            )
        self._classes: dict[Any, int] = {}
        self._valid: dict[Any, ValidImage] = {}
        # Annotations of each broken image.
        self._left_out: Counter[Any] = Counter()
        self.class_names: tuple[str, ...] = ()
        self.keypoint_names: tuple[str, ...] = ()
        self.images: list[ValidImage] = []
        self.annotations: list[ValidAnnotation] = []
        self.problems: list[CocoProblem] = []

    def read(self) -> None:
        """Read all records.

        Raises
        ------
        InvalidInputError
            The file has broken records that the options do not accept.
        """
        self._read_categories()
        image_problems = self._read_images()
        annotation_problems = self._read_annotations()
        for problem in image_problems:
            count = self._left_out[problem.id] if is_id(problem.id) else 0
            self.problems.append(replace(problem, annotations=count))
        self.problems += annotation_problems
        self.images = list(self._valid.values())
        self.annotations = [one for image in self.images for one in image.annotations]
        refused = [
            problem
            for problem in self.problems
            if self._options.on_broken == "raise"
            or not {"fix", "on_repeated"}.isdisjoint(problem.remedies)
        ]
        if refused:
            raise index_error(refused)
        if self.problems:
            self._log()

    def _log(self) -> None:
        kinds = Counter(problem.kind for problem in self.problems)
        _LOGGER.warning(
            "The annotation file has broken records, which were %s: %d images (with %d annotations) "
            "and %d other annotations. They are listed in the attribute problems of the index.",
            "left out" if self._options.on_broken == "drop" else "left out or emptied",
            kinds["image"],
            sum(problem.annotations for problem in self.problems),
            kinds["annotation"],
        )

    def _read_categories(self) -> None:
        names: dict[str, int] = {}
        for position, record in enumerate(self._categories):
            reasons = Reasons()
            if reasons.is_object(record):
                key = reasons.get(id_of, record, None)
                name = reasons.get(category_name_of, record, "")
                if key is not None and key in self._classes:
                    reasons.append(f"another category has the id {show(key)}")
                if name in names:
                    reasons.append(f"another category has the name {show(name)}")
                self._classes.setdefault(key, position)
                names.setdefault(name, position)
            if reasons:
                self.problems.append(problem_of("category", record, position, reasons, ["fix"]))
        self.class_names = tuple(names)
        points = {_keypoint_names(record) for record in self._categories} - {()}
        self.keypoint_names = points.pop() if len(points) == 1 else ()

    def _read_images(self) -> list[CocoProblem]:
        problems = []
        for group in _grouped(self._images, lambda record: _text(record.get("id"))):
            position, record = group[0]
            reasons, remedies = Reasons(), list[Remedy]()
            if reasons.is_object(record):
                key = reasons.get(id_of, record, "")
                size = reasons.get(size_of, record, (0, 0))
                name = reasons.get(file_name_of, record, "")
                reasons += _conflict(group)
                if reasons:
                    remedies.append("on_broken")
                    ids = [other.get("id") for _, other in group]
                    self._left_out.update({other: 0 for other in ids if is_id(other)})
                else:
                    self._valid[key] = ValidImage(key, size, name)
                if repeated := self._repeated(group):
                    reasons.append(repeated)
                    remedies.append("on_repeated")
            if reasons:
                problems.append(problem_of("image", record, position, reasons, remedies))
        return problems

    def _read_annotations(self) -> list[CocoProblem]:
        problems = []
        for group in _grouped(self._annotations, _annotation_key):
            position, record = group[0]
            reasons, remedies = Reasons(), list[Remedy]()
            if reasons.is_object(record):
                image_id = record.get("image_id")
                if is_id(image_id) and image_id in self._left_out:
                    self._left_out[image_id] += len(group)
                    continue
                image = self._valid.get(image_id) if is_id(image_id) else None
                remedies += self._add_annotation(record, image, reasons, _conflict(group))
                if repeated := self._repeated(group):
                    reasons.append(repeated)
                    remedies.append("on_repeated")
            if reasons:
                problems.append(problem_of("annotation", record, position, reasons, remedies))
        return problems

    def _add_annotation(
        self,
        record: Record,
        image: ValidImage | None,
        reasons: Reasons,
        conflict: Sequence[str],
    ) -> list[Remedy]:
        """Add an annotation to its image if it is valid or accepted, and return the remedies."""
        key = reasons.get(id_of, record, "")
        if image is None:
            reasons.append(f"the file does not list its image {show(record.get('image_id'))}")
        label = self._label(record, reasons)
        reasons += conflict
        # These reasons cannot be removed by an empty value.
        keep = not reasons
        annotation = ValidAnnotation(key, label)
        if self.class_names:
            bare = self._read_object(record, image, annotation, reasons)
        else:
            bare = False
            if record.get("caption") is None:
                reasons.append("it has no caption")
        annotation.caption = reasons.get(caption_of, record, "")
        if image is not None and keep and (not reasons or self._options.on_broken == "empty"):
            image.annotations.append(annotation)
        if not reasons:
            return []
        return ["on_unsegmented" if bare and len(reasons) == 1 else "on_broken"]

    def _label(self, record: Record, reasons: Reasons) -> int:
        if not self.class_names:
            return 0
        category = record.get("category_id")
        if is_id(category) and category in self._classes:
            return self._classes[category]
        reasons.append(f"the file does not list its category {show(category)}")
        return 0

    def _read_object(
        self,
        record: Record,
        image: ValidImage | None,
        annotation: ValidAnnotation,
        reasons: Reasons,
    ) -> bool:
        """Read the values of an object, and return whether only its segmentation is missing."""
        annotation.box = reasons.get(box_of, record, _NO_BOX)
        annotation.crowd = reasons.get(crowd_of, record, 0)
        annotation.area = reasons.get(area_of, record, math.nan)
        annotation.keypoints = reasons.get(keypoints_of, record, ())
        if image is None:
            return False
        size, before = image.size, len(reasons)
        annotation.outline = reasons.get(lambda r: outline_of(r, size), record, _NO_OUTLINE)
        if annotation.outline or len(reasons) > before or self._options.on_unsegmented == "empty":
            return False
        reasons.append("it has no segmentation")
        return len(reasons) == 1

    def _repeated(self, group: list[tuple[int, Any]]) -> str | None:
        """Return the reason of a record that is listed more than once with equal records."""
        if len(group) == 1 or self._options.on_repeated == "first" or _conflict(group):
            return None
        return f"it is listed {len(group)} times, with equal records"


def _grouped(
    records: Sequence[Any], key_of: Callable[[Record], Any]
) -> Iterator[list[tuple[int, Any]]]:
    """Yield the records with their positions; those of one key together, at the first of them."""
    groups: dict[Any, list[tuple[int, Any]]] = {}
    for position, record in enumerate(records):
        key = key_of(record) if isinstance(record, Mapping) else None
        # A record without a valid key is a group of its own.
        groups.setdefault((None, position) if key is None else key, []).append((position, record))
    yield from groups.values()


def _text(key: Any) -> str | None:
    """Return an id as text, as which ids of several types are stored, or None if it is invalid."""
    return str(key) if is_id(key) else None


def _annotation_key(record: Record) -> tuple[Any, str] | None:
    image, key = record.get("image_id"), _text(record.get("id"))
    return (image, key) if is_id(image) and key is not None else None


def _conflict(group: list[tuple[int, Any]]) -> list[str]:
    first = group[0][1]
    if all(record == first for _, record in group[1:]):
        return []
    return [f"{len(group)} different records have its id: the correct one cannot be determined"]


def _names_a_category(records: list[Any]) -> bool:
    return any(isinstance(r, Mapping) and r.get("category_id") is not None for r in records)


def _keypoint_names(category: Any) -> tuple[str, ...]:
    names = category.get("keypoints") if isinstance(category, Mapping) else None
    valid = isinstance(names, list) and all(map(is_text, names)) and len({*names}) == len(names)
    return tuple(names) if valid and names else ()
