"""Write samples of a lake as an annotation file of COCO."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dasklake._api.view import ReadMethods
from dasklake._codecs.mask import run_lengths_of
from dasklake._codecs.sample import Sample, StoredValue, raw_value
from dasklake._schema.run_lengths import RunLengthMasks, expand_counts, from_pixels
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake._storage.store import ObjectStore
from dasklake._storage.urls import file_url
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError, SampleError
from dasklake.sources._coco_files import names_in_folder

#: The tensors of :func:`dasklake.sources.coco.schema`, which are the default.
ROLES = (
    *("images", "image_ids", "annotation_ids", "categories", "boxes", "masks", "iscrowd"),
    *("area", "keypoints", "captions"),
)

#: Tensors with one entry for each annotation.
_OBJECTS = ROLES[2:]


class CocoWriter:
    """Turns samples into records of an annotation file.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors of the samples.
    tensors : mapping of str to str
        Names of tensors by their roles.
    category_ids : mapping of str to int, optional
        Ids of the categories, by name.
    """

    def __init__(
        self,
        schema: Mapping[str, TensorSpec],
        tensors: Mapping[str, str] | None,
        category_ids: Mapping[str, int] | None,
    ) -> None:
        self.names = _names_of(schema, tensors)
        self._specs = {role: schema[name] for role, name in self.names.items()}
        self.categories = self._categories(category_ids)
        self._next_id = 1
        self._image_ids: set[int | str] = set()

    def _categories(self, category_ids: Mapping[str, int] | None) -> list[dict[str, Any]]:
        """Return the records of the categories, in the order of the classes."""
        spec = self._specs.get("categories")
        classes = [] if spec is None else list(spec.class_names or ())
        if spec is not None and not classes:
            raise InvalidInputError(
                f"Tensor {self.names['categories']!r} must have class names. Give tensors= with the "
                "name of a class_label tensor for 'categories'."
            )
        if not isinstance(category_ids, Mapping | None):
            raise InvalidInputError(
                f"category_ids must map names of classes to ids, got {category_ids!r}."
            )
        if category_ids is None:
            ids = list(range(1, len(classes) + 1))
        else:
            missing = [name for name in classes if name not in category_ids]
            if missing:
                raise InvalidInputError(
                    f"category_ids must have an id of each class, and has none of {missing[0]!r}."
                )
            ids = [_category_id(name, category_ids[name]) for name in classes]
            if len(set(ids)) < len(ids):
                raise InvalidInputError(
                    f"category_ids must give each class an id of its own, got {ids}. Change the "
                    "repeated ones."
                )
        names = [{"id": i, "name": name} for i, name in zip(ids, classes, strict=True)]
        points = self._specs["keypoints"].keypoints if "keypoints" in self._specs else None
        return [{**name, "keypoints": list(points)} for name in names] if points else names

    def records(self, sample: Sample, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the record of an image, and those of its annotations.

        Parameters
        ----------
        sample : Sample
            The sample.
        number : int
            Its position, from which the image gets an id if the samples have none.

        Raises
        ------
        SampleError
            Tensors of annotations have different lengths, or a value is missing.
        """
        columns = {role: _value(sample, name) for role, name in self.names.items()}
        missing = [role for role, value in columns.items() if value is None and role != "images"]
        if missing:
            name = self.names[missing[0]]
            condition = (
                (f"{name}.n_objects", ">=", 0) if missing[0] in _OBJECTS else (name, "is not", None)
            )
            raise SampleError(
                f"an annotation file needs a value. Leave such samples out with where([{condition}]).",
                tensor=name,
                sample=str(number),
            )
        masks = self._masks(columns)
        image = self._image(columns, masks, number)
        objects = {role: columns[role] for role in _OBJECTS if role in columns}
        if masks is not None:
            objects["masks"] = masks.counts
        if "keypoints" in objects:
            objects["keypoints"] = np.asarray(objects["keypoints"]).T
        lengths = {role: len(values) for role, values in objects.items()}
        if len(set(lengths.values())) > 1:
            named = ", ".join(f"{self.names[role]!r}: {count}" for role, count in lengths.items())
            raise SampleError(
                f"tensors of annotations must have one entry for each, got {named}",
                sample=str(number),
            )
        if "boxes" in objects:
            size = image["height"], image["width"]
            objects["boxes"] = _left_top_size(objects["boxes"], self._specs["boxes"], size)
        count = next(iter(lengths.values()), 0)
        return image, [self._annotation(objects, row, image) for row in range(count)]

    def _image(
        self, columns: Mapping[str, Any], masks: RunLengthMasks | None, number: int
    ) -> dict[str, Any]:
        identity = columns.get("image_ids", number + 1)
        identity = identity if isinstance(identity, str) else int(identity)
        if identity in self._image_ids:
            raise SampleError(
                f"an annotation file has one image of each id, and {identity!r} is repeated. Select "
                "each sample once.",
                sample=str(number),
            )
        self._image_ids.add(identity)
        value = columns.get("images")
        url = getattr(value, "url", None)
        if masks is not None:
            height, width = masks.height, masks.width
        elif value is None or not hasattr(value, "shape"):
            raise SampleError(
                "an annotation file needs the sizes of images: a tensor of images or masks",
                sample=str(number),
            )
        else:
            height, width = value.shape[:2]
        size = {"height": int(height), "width": int(width)}
        # The names of all links are known at the end only, when their folder is.
        name = {"url": url} if url else {"file_name": f"{identity}.{self._extension}"}
        return {"id": identity, **name, **size}

    @property
    def _extension(self) -> str:
        spec = self._specs.get("images")
        form = (spec.compression if spec is not None else None) or "jpeg"
        return {"jpeg": "jpg", "tiff": "tif"}.get(form, form)

    def _masks(self, columns: Mapping[str, Any]) -> RunLengthMasks | None:
        value = columns.get("masks")
        if isinstance(value, Blob):
            return run_lengths_of(value)
        return None if value is None else from_pixels(np.asarray(value, bool))

    def _annotation(
        self, objects: Mapping[str, Any], row: int, image: Mapping[str, Any]
    ) -> dict[str, Any]:
        size = [image["height"], image["width"]]
        record: dict[str, Any] = {"id": self._next_id, "image_id": image["id"]}
        self._next_id += 1
        if "annotation_ids" in objects:
            identity = objects["annotation_ids"][row]
            record["id"] = identity if isinstance(identity, str) else int(identity)
        if "categories" in objects:
            record["category_id"] = self.categories[int(objects["categories"][row])]["id"]
        if "boxes" in objects:
            record["bbox"] = objects["boxes"][row]
        if "masks" in objects:
            counts = objects["masks"][row]
            record["segmentation"] = {"size": size, "counts": counts.decode("ascii")}
        if "area" in objects:
            # NaN stands for a record without an area, and JSON has no NaN.
            if not np.isnan(objects["area"][row]):
                record["area"] = _number(objects["area"][row])
        elif "masks" in objects:
            lengths = expand_counts(objects["masks"][row], size[0] * size[1])
            record["area"] = int(lengths[1::2].sum())
        elif "boxes" in objects:
            record["area"] = record["bbox"][2] * record["bbox"][3]
        if "category_id" in record:
            record["iscrowd"] = int(objects["iscrowd"][row]) if "iscrowd" in objects else 0
        if "keypoints" in objects:
            points = objects["keypoints"][row]
            record["keypoints"] = [_number(value) for value in points]
            record["num_keypoints"] = int((points[2::3] > 0).sum())
        if "captions" in objects:
            record["caption"] = objects["captions"][row]
        return record


def write_coco(samples: ReadMethods, writer: CocoWriter, url: str, options: StorageOptions) -> int:
    """Write samples as an annotation file, which appears whole or not at all.

    Returns
    -------
    int
        Number of annotations.

    Raises
    ------
    InvalidInputError
        ``url`` has no folder.
    """
    # A file takes far less memory than the records as objects.
    folder, _, name = file_url(url).rpartition("/")
    if folder.endswith(":/"):
        raise InvalidInputError(f"url must name a folder and a file in it, got {url!r}.")
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
        count = _write(samples.columns(list(dict.fromkeys(writer.names.values()))), writer, file)
        file.flush()
        ObjectStore(folder, options).put(name, Path(file.name).read_bytes())
    return count


def _write(samples: ReadMethods, writer: CocoWriter, file: IO[str]) -> int:
    images: list[dict[str, Any]] = []
    count = 0
    file.write('{"annotations": [')
    for number, sample in enumerate(samples):
        image, annotations = writer.records(sample, number)  # type: ignore[arg-type] # as read
        images.append(image)
        for annotation in annotations:
            file.write((",\n" if count else "\n") + json.dumps(annotation))
            count += 1
    linked = [image for image in images if "url" in image]
    names = names_in_folder([image.pop("url") for image in linked])
    for image, name in zip(linked, names, strict=True):
        image["file_name"] = name
    file.write('\n],\n"images": [\n' + ",\n".join(map(json.dumps, images)))
    file.write('\n],\n"categories": ')
    file.write(json.dumps(writer.categories) + "}\n")
    return count


def _names_of(
    schema: Mapping[str, TensorSpec], tensors: Mapping[str, str] | None
) -> dict[str, str]:
    if not isinstance(tensors, Mapping | None):
        raise InvalidInputError(f"tensors must map roles to names of tensors, got {tensors!r}.")
    given = dict(tensors or {})
    for role, name in given.items():
        if role not in ROLES:
            raise InvalidInputError(f"tensors must have the keys {', '.join(ROLES)}, got {role!r}.")
        if name not in schema:
            raise InvalidInputError(
                f"tensors[{role!r}] must be one of {', '.join(map(repr, schema))}, got {name!r}."
            )
    names = {role: given.get(role, role) for role in ROLES}
    names = {role: name for role, name in names.items() if name in schema}
    if not any(role in names for role in ("boxes", "masks", "keypoints", "captions")):
        raise InvalidInputError(
            "There are no annotations: the tensors must have boxes, masks, keypoints or captions. "
            "Name them, such as tensors={'boxes': 'my_boxes', 'categories': 'my_labels'}."
        )
    return names


def _category_id(name: str, value: object) -> int:
    """Return the id of a category as a Python integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInputError(
            f"category_ids[{name!r}] must be an integer, got {value!r}. Give the id of the category."
        )
    return int(value)


def _value(sample: Sample, name: str) -> Any:
    """Return a value; masks that are stored as run lengths stay so."""
    value = raw_value(sample, name)
    if isinstance(value, StoredValue):
        spec = value.spec
        is_runs = spec.kind.codec == "mask" and spec.compression == "rle"
        return value.stored if is_runs else value.get()
    return value


def _left_top_size(
    boxes: npt.NDArray[Any], spec: TensorSpec, size: Sequence[int]
) -> list[list[float]]:
    """Return boxes as left, top, width and height in pixels."""
    unit, _, mode = (spec.coords or "pixel-ltwh").partition("-")
    values = np.asarray(boxes).reshape(-1, 4)
    if unit == "fractional":
        values = values.astype(np.float64) * [size[1], size[0], size[1], size[0]]
    if mode == "ltrb":
        values = np.concatenate([values[:, :2], values[:, 2:] - values[:, :2]], axis=1)
    elif mode == "ccwh":
        values = np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, 2:]], axis=1)
    return [[_number(value) for value in box] for box in values]


def _number(value: Any) -> float | int:
    """Return a number with the fewest digits that are read as the same number of its dtype."""
    if isinstance(value, np.floating):
        return float(str(value))
    return int(value)
