"""The columns that a filter compares: scalars, labels, and numbers that follow from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from dasklake._schema.arrow_layout import storage_of
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, VersionNotFoundError

__all__ = ["FilterColumn", "Part", "arrow_type", "class_index", "resolve_column", "resolve_group"]

#: What a filter compares of a tensor: its value; the index or the name of a class; the length of an
#: axis; the number of characters; or a bool, true if one of its items equals ``number``.
Part = Literal["value", "index", "name", "axis", "characters", "contains"]

#: Properties of a tensor, as in ``"boxes.n_objects"``.
_PROPERTY = re.compile(r"(.+)\.(?:(n_objects|height|width|length)|shape\[(-?\d+)\])", re.DOTALL)

#: Axis of the height of the values of a kind of codec or htype. The width follows it.
_HEIGHT = {"image": 0, "mask": 0, "instance_label": 0, "segment_mask": 0, "video": 1}

#: Units of times that Arrow compares, and coarser ones, which become seconds.
_UNITS = ("W", "D", "h", "m", "s", "ms", "us", "ns")


class FilterColumn(NamedTuple):
    """A value for each sample, which a filter compares.

    Attributes
    ----------
    tensor : str
        Name of the tensor.
    part : str
        What is compared of it.
    axis : int
        The axis of ``part="axis"``.
    item : int, float, str, bool or None
        The item of ``part="contains"``.
    """

    tensor: str
    part: Part = "value"
    axis: int = 0
    item: int | float | str | bool | None = None


def resolve_column(name: str, schema: Mapping[str, TensorSpec]) -> FilterColumn:
    """Return the column of a name in a filter: a tensor, or a property such as ``"x.n_objects"``.

    Raises
    ------
    VersionNotFoundError
        There is no tensor of this name.
    InvalidInputError
        The tensor does not have one value for each sample, or not the property.
    """
    if name in schema:
        return _scalar(name, schema[name])
    parsed = _PROPERTY.fullmatch(name)
    if parsed is None or parsed[1] not in schema:
        tensor = name if parsed is None else parsed[1]
        close = get_close_matches(tensor, schema, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise VersionNotFoundError(
            f"The tensor {tensor!r} does not exist.{hint} The tensors: "
            f"{', '.join(map(repr, schema)) or 'none'}."
        )
    tensor, spec = parsed[1], schema[parsed[1]]
    if parsed[2] == "length" and _is_text(spec):
        return FilterColumn(tensor, "characters")
    return FilterColumn(tensor, "axis", _axis(tensor, spec, parsed[2], parsed[3]))


def resolve_group(name: Any, schema: Mapping[str, TensorSpec]) -> FilterColumn:
    """Return the column whose equal values form a group. Classes are compared by name.

    Raises
    ------
    VersionNotFoundError
        There is no tensor of this name.
    InvalidInputError
        ``name`` is not a string, or the tensor does not have one value for each sample.
    """
    if not isinstance(name, str):
        raise InvalidInputError(f"by must be the name of a tensor, got {name!r}.")
    column = resolve_column(name, schema)
    return column._replace(part="name") if column.part == "index" else column


def _scalar(name: str, spec: TensorSpec) -> FilterColumn:
    if not _has_one_value(spec):
        count = " of objects" if spec.kind.count is not None or spec.sequence else ""
        number = f"the number{count}, ({name + '.n_objects'!r}, '>', 3)" if count else "an axis"
        raise InvalidInputError(
            f"Tensor {name!r} does not have one value for each sample that can be compared "
            f"(htype {spec.htype!r}, shape {spec.shape}). Compare {number}, "
            f"({name + '.shape[0]'!r}, '>', 3), or items: ({name!r}, 'contains', item)."
        )
    return FilterColumn(name, "value" if spec.class_names is None else "index")


def _has_one_value(spec: TensorSpec) -> bool:
    """Return whether every value is a scalar, or can be one because any shape is allowed."""
    if spec.sequence or spec.linked or spec.encoded or spec.kind.codec == "json":
        return False
    dtype = spec.numpy_dtype
    if spec.shape != () and (spec.shape is not None or dtype is None or spec.kind.codec != "array"):
        return False
    if dtype is None:
        kind = storage_of(spec).type
        return not (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))
    if dtype.kind in "mM":
        return np.datetime_data(dtype)[0] in _UNITS
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def _is_text(spec: TensorSpec) -> bool:
    if spec.sequence or spec.linked or spec.shape != () or spec.kind.codec == "json":
        return False
    kind = storage_of(spec).type
    return bool(pa.types.is_large_string(kind) or pa.types.is_string(kind))


def _axis(name: str, spec: TensorSpec, word: str | None, number: str | None) -> int:
    """Return the axis of a property.

    Raises
    ------
    InvalidInputError
        The tensor does not have the property.
    """
    if spec.linked and not spec.sequence and not spec.create_shape_tensor:
        raise InvalidInputError(
            f"The shapes of tensor {name!r} are not stored. Compare another tensor, or write links "
            "with create_shape_tensor=True."
        )
    axis: int | None = None
    rank = 1 if spec.sequence else None if spec.shape is None else len(spec.shape)
    if number is not None:
        axis = int(number)
    elif word == "n_objects":
        axis = 0 if spec.sequence else spec.kind.count
        axis = -1 if axis == -1 and rank is not None and rank < 3 and _is_mask(spec) else axis
    elif word == "length":
        axis = 0
    elif not spec.sequence:
        height = _HEIGHT.get(spec.kind.codec, _HEIGHT.get(spec.kind.name))
        axis = None if height is None else height + (word == "width")
    if axis is None or (rank is not None and not -rank <= axis < rank):
        prop = f"shape[{number}]" if word is None else word
        raise InvalidInputError(
            f"Tensor {name!r} (htype {spec.htype!r}, shape {spec.shape}) does not have {prop!r}. Use "
            f"an axis that it has, such as {name + '.shape[0]'!r}."
        )
    return axis


def _is_mask(spec: TensorSpec) -> bool:
    return spec.kind.codec == "mask"


def arrow_type(column: FilterColumn, spec: TensorSpec) -> pa.DataType:
    """Return the type of a column as it is compared."""
    if column.part in ("axis", "characters"):
        return pa.int64()
    if column.part == "contains":
        return pa.bool_()
    if column.part == "name":
        return pa.string()
    dtype = spec.numpy_dtype
    if dtype is None:
        return _comparable(storage_of(spec).type)
    if dtype.kind in "mM":
        unit, _ = np.datetime_data(dtype)
        fine = unit if unit in ("s", "ms", "us", "ns") else "s"
        return pa.timestamp(fine) if dtype.kind == "M" else pa.duration(fine)
    return _comparable(pa.bool_() if dtype.kind == "b" else pa.from_numpy_dtype(dtype))


def _comparable(kind: pa.DataType) -> pa.DataType:
    """Return the type to which a column is cast, without loss, because Arrow compares it."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal(kind):
        return pa.decimal256(kind.precision, kind.scale)
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def class_index(tensor: str, names: Sequence[str], value: object) -> int:
    """Return the index of a class given by its name or its index.

    Raises
    ------
    InvalidInputError
        There is no such class.
    """
    if isinstance(value, str):
        if value in names:
            return names.index(value)
        close = get_close_matches(value, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        classes = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
        raise InvalidInputError(
            f"Tensor {tensor!r} does not have the class {value!r}.{hint} Its classes: {classes}."
        )
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInputError(
            f"A class of tensor {tensor!r} must be a name or an index, got {value!r}."
        )
    if not 0 <= value < len(names):
        raise InvalidInputError(
            f"Tensor {tensor!r} has {len(names)} classes, so an index must be below that, got "
            f"{value!r}. Give a name of lake.schema[{tensor!r}].class_names."
        )
    return int(value)
