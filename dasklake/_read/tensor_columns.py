"""Choose which columns of a frame hold stored values, and make them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import pyarrow as pa

from dasklake._links.limits import LinkLimits
from dasklake._read.stored_column import Part, with_key_names
from dasklake._read.tensor_array import TensorArray
from dasklake._read.tensor_dtype import TensorDtype
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec

__all__ = ["is_inexact", "names_of_stored", "tensor_column"]


def names_of_stored(schema: Mapping[str, TensorSpec], names: Iterable[str]) -> tuple[str, ...]:
    """Return the tensors whose columns hold stored values by default.

    These are the tensors for whose values pandas and Arrow have no type: files, masks, arrays with
    more axes or of one shape, documents, lists of items, and links. Numbers, text, labels, lists of
    numbers or words, and columns of tables have types of pandas and Arrow.
    """
    return tuple(sorted({name for name in names if _has_no_type(schema[name])}))


def _has_no_type(spec: TensorSpec) -> bool:
    if spec.linked or spec.sequence or spec.encoded:
        return True
    if spec.kind.codec == "json":
        return spec.kind.name != "tag"
    if spec.numpy_dtype is None or spec.shape == ():
        return False
    rank = 1 if spec.kind.name == "class_label" else None if spec.shape is None else len(spec.shape)
    return rank != 1 or spec.fixed


def is_inexact(spec: TensorSpec) -> bool:
    """Return whether the types of pandas and Arrow lose how the values of a tensor are stored."""
    storage = storage_of(spec)
    if storage.layout is not Layout.ARROW or spec.linked:
        return True
    text = pa.types.is_large_string(storage.type) or pa.types.is_string(storage.type)
    return storage.element is None and not text


def tensor_column(
    parts: Sequence[Part],
    spec: TensorSpec,
    keys: Mapping[str, str],
    limits: LinkLimits | None,
) -> pd.Series | None:
    """Return a column of stored values, or None if a column of pandas is exact.

    Parameters
    ----------
    parts : sequence of (pyarrow.Array, pyarrow.Array or None)
        The tensor's columns in some chunks.
    spec : TensorSpec
        Description of the tensor.
    keys : mapping of str to str
        New names of renamed credentials keys.
    limits : LinkLimits or None
        Limits for reading the targets of links.
    """
    if not is_inexact(spec) and not _has_ambiguous_gaps(parts, spec):
        return None
    if keys and "link[" in spec.htype:
        parts = [with_key_names(part, spec, keys) for part in parts]
    return pd.Series(TensorArray(tuple(parts), TensorDtype(spec), limits), copy=False)


def _has_ambiguous_gaps(parts: Sequence[Part], spec: TensorSpec) -> bool:
    """Return whether pandas could confuse a missing value with NaN or NaT, which are values."""
    dtype = spec.numpy_dtype
    if dtype is None or dtype.kind not in "fcmM":
        return False
    # pandas has one NaT, for values and for gaps; its floats have NaN as a value.
    return dtype.kind in "mM" or any(column.null_count for column, _ in parts)
