"""Statistics that the values of a tensor can have."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.same_length import count_axis
from dasklake._schema.spec import TensorSpec

#: Kinds of bounds. Times are integers in the unit of their dtype.
BoundKind = Literal["bool", "int", "float", "decimal", "text"]

#: Kinds of bounds by kinds of numpy's dtypes. Complex numbers have no order.
_NUMPY_KINDS: Mapping[str, BoundKind] = MappingProxyType(
    {"b": "bool", "i": "int", "u": "int", "m": "int", "M": "int", "f": "float"}
)


def bound_kind(spec: TensorSpec) -> BoundKind | None:
    """Return the kind of the bounds of a tensor's values, or None if it has none."""
    if spec.linked or spec.sequence or spec.encoded or spec.shape != ():
        return None
    if spec.kind.codec not in ("array", "text") or spec.compression is not None:
        return None
    if spec.numpy_dtype is not None:
        return _NUMPY_KINDS.get(spec.numpy_dtype.kind)
    kind, types = spec.arrow_type, pa.types
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind) or (types.is_temporal(kind) and not types.is_interval(kind)):
        return "int"
    if types.is_floating(kind):
        return "float"
    if types.is_decimal(kind):
        return "decimal"
    return "text" if types.is_string(kind) or types.is_large_string(kind) else None


def time_type(spec: TensorSpec) -> np.dtype[Any] | None:
    """Return the dtype of numpy for the stored times of a tensor, or None if it has no times."""
    if spec.numpy_dtype is not None:
        return spec.numpy_dtype if spec.numpy_dtype.kind in "mM" else None
    kind, types = spec.arrow_type, pa.types
    if kind is None or not types.is_temporal(kind) or types.is_interval(kind):
        return None
    if types.is_date(kind):
        return np.dtype("M8[D]" if types.is_date32(kind) else "M8[ms]")
    return np.dtype(f"{'M8' if types.is_timestamp(kind) else 'm8'}[{kind.unit}]")


def is_time(spec: TensorSpec) -> bool:
    """Return whether the scalars of a tensor are times, dates or durations."""
    return bound_kind(spec) == "int" and time_type(spec) is not None


def is_label(spec: TensorSpec) -> bool:
    """Return whether the values of a tensor are class labels, or lists of them."""
    return spec.kind.name == "class_label" and not (spec.linked or spec.sequence)


def has_objects(spec: TensorSpec) -> bool:
    """Return whether the values of a tensor have any number of objects."""
    return count_axis(spec) is not None and storage_of(spec).layout is Layout.BLOB


def has_values(spec: TensorSpec) -> bool:
    """Return whether the statistics of a tensor depend on its values, not only on their shapes."""
    return (is_label(spec) and spec.compression is None) or bound_kind(spec) is not None
