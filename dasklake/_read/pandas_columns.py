"""Columns of chunks as columns of pandas: every one of a numpy, extension or Arrow type.

Dask turns columns of Python objects into strings, so none is ever made here.

=====================================  ==========================================================
tensor                                 column
=====================================  ==========================================================
number or time, ``shape=()``           its numpy dtype; the nullable one where ``optional=True``,
                                       and in partitions in which values are missing
``class_label`` with names             ``category``
column of a table                      the dtype it had
fixed shape                            ``arrow.fixed_shape_tensor``
ragged, known rank                     nested lists
masks, pixels, or rank unknown         struct of the flat ``data`` and the ``shape``
``image``, ``audio``, … as files       the bytes of the file
``json``, ``list``                     the text of the JSON
``tag``                                a list of strings
``sequence[...]``, ``polygon``         a list of what the column of one item holds
link                                   the URL
=====================================  ==========================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.registry import codec_for
from dasklake._codecs.sequence import SequenceCodec
from dasklake._format.columns import ColumnBuilder, iterate_stored, view_numbers
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec

__all__ = ["NAN_STRING", "dtype_of", "series_of"]

#: A tensor's column and its column of shapes, in one chunk.
Part = tuple[pa.Array, pa.Array | None]

_NULLABLE = {
    "bool": "boolean",
    **{f"{u}int{w}": f"{'U' if u else ''}Int{w}" for u in ("", "u") for w in (8, 16, 32, 64)},
    "float32": "Float32",
    "float64": "Float64",
}
_UNITS = ("s", "ms", "us", "ns")

_TAGS = pd.ArrowDtype(pa.large_list(pa.large_string()))

#: Strings whose missing values are NaN. pandas before 2.3 has another name for them.
try:
    NAN_STRING = pd.StringDtype("pyarrow", na_value=np.nan)
except TypeError:
    NAN_STRING = pd.StringDtype("pyarrow_numpy")

#: Htypes of pixels, of which nested lists would be many times as large.
_MAPS = ("instance_label", "segment_mask")


def dtype_of(spec: TensorSpec) -> Any:
    """Return the pandas dtype that a tensor's column has in a frame."""
    dtype = spec.numpy_dtype
    if spec.linked or spec.sequence or spec.encoded or spec.kind.codec == "json":
        return _value_dtype(spec)
    if dtype is None:
        return _table_dtype(spec)
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR and spec.shape != ():
        return pd.ArrowDtype(storage.type)
    if spec.shape != ():
        return pd.ArrowDtype(_nested_type(spec))
    if spec.class_names or spec.discover:
        return pd.CategoricalDtype(list(spec.class_names))
    if spec.optional and dtype.name in _NULLABLE:
        return pd.api.types.pandas_dtype(_NULLABLE[dtype.name])
    return _unit(dtype)


def _value_dtype(spec: TensorSpec) -> Any:
    """Return the dtype of values that are neither numbers nor cells of a table."""
    if spec.sequence:
        return pd.ArrowDtype(pa.large_list(_items([], spec).type))
    if spec.encoded:
        return pd.ArrowDtype(pa.large_binary())
    return _TAGS if spec.kind.name == "tag" else pd.StringDtype("pyarrow")


def series_of(parts: Sequence[Part], spec: TensorSpec) -> pd.Series:
    """Return the column of a frame.

    Parameters
    ----------
    parts : sequence of (pyarrow.Array, pyarrow.Array or None)
        The tensor's columns in some consecutive chunks, at least one.
    spec : TensorSpec
        What the tensor holds.

    Returns
    -------
    pandas.Series
        Of the dtype of :func:`dtype_of`, or its nullable kin where values are missing.
    """
    wanted = dtype_of(spec)
    columns = [column for column, _ in parts]
    if spec.encoded:
        return _arrow_series(columns, wanted)
    if spec.kind.codec == "json" and not spec.sequence:
        return _documents(columns, wanted)
    if isinstance(wanted, pd.ArrowDtype) and storage_of(spec).layout is Layout.BLOB:
        make = _sequences if spec.sequence else _nested
        return _arrow_series([make(*part, spec) for part in parts], wanted)
    if spec.linked:
        columns = [pc.struct_field(column, "url") for column in columns]
    if spec.numpy_dtype is None or spec.linked:
        return _table_series(columns, wanted)
    if isinstance(wanted, pd.ArrowDtype):
        return _arrow_series(columns, wanted)
    return _scalars(parts, spec, wanted)


def _unit(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of a time that pandas knows: it has no days, minutes or years."""
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] not in _UNITS:
        return np.dtype(f"{dtype.kind}8[s]")
    return dtype


def _table_dtype(spec: TensorSpec) -> Any:
    """Return the dtype that a table's column had."""
    name = str(spec.dtype)
    if name == "string":
        return pd.StringDtype("pyarrow")
    if name == "str":
        return NAN_STRING
    if name == "string[pyarrow]":
        # pandas reads this name as a string type of its own; only Arrow's own type writes it.
        return pd.ArrowDtype(pa.string())
    try:
        found = pd.api.types.pandas_dtype(name)
    except (TypeError, ValueError, NotImplementedError):
        found = None
    if isinstance(found, pd.api.extensions.ExtensionDtype) and hasattr(found, "__from_arrow__"):
        return found
    return pd.ArrowDtype(spec.arrow_type)


def _table_series(columns: list[pa.Array], wanted: Any) -> pd.Series:
    chunked = pa.chunked_array(columns)
    if isinstance(wanted, pd.ArrowDtype):
        return _arrow_series(columns, wanted)
    return pd.Series(wanted.__from_arrow__(chunked))


def _arrow_series(columns: list[pa.Array], wanted: pd.ArrowDtype) -> pd.Series:
    kind = wanted.pyarrow_dtype
    chunked = pa.chunked_array([c if c.type == kind else c.cast(kind) for c in columns], type=kind)
    return pd.Series(pd.arrays.ArrowExtensionArray(chunked))


def _documents(columns: list[pa.Array], wanted: Any) -> pd.Series:
    """Return texts of JSON as they are, and tags as lists."""
    texts = [column.cast(pa.large_string()) for column in columns]
    if not isinstance(wanted, pd.ArrowDtype):
        return _table_series(texts, wanted)
    kind = wanted.pyarrow_dtype
    return _arrow_series(
        [pa.array([v and json.loads(v) for v in text.to_pylist()], kind) for text in texts], wanted
    )


def _items(stored: list[Any], spec: TensorSpec) -> pa.Array:
    """Return the items of lists as the column of their own spec has them."""
    builder = ColumnBuilder("item", spec.item)
    for each in stored:
        builder.append(each)
    columns = [column for _, column in builder.finish()]
    part = (columns[0], columns[1] if len(columns) > 1 else None)
    found = pa.array(series_of([part], spec.item), from_pandas=True)
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    if isinstance(found, pa.ExtensionArray):
        # Lists of tensors are more than most functions of Arrow know.
        found = found.storage
    return found.dictionary_decode() if pa.types.is_dictionary(found.type) else found


def _sequences(column: pa.Array, shapes: Any, spec: TensorSpec) -> pa.Array:
    """Return lists of any values, as lists of what the column of one item holds."""
    codec = cast("SequenceCodec", codec_for(spec))
    rows = [
        None if each is None else list(codec.items(each))
        for each in iterate_stored(column, shapes, spec)
    ]
    values = _items([item for row in rows if row is not None for item in row], spec)
    sizes = np.array([0 if row is None else len(row) for row in rows], np.int64)
    return _lists(values, sizes, np.array([row is None for row in rows], bool))


def _scalars(parts: Sequence[Part], spec: TensorSpec, wanted: Any) -> pd.Series:
    missing = np.concatenate([c.is_null().to_numpy(zero_copy_only=False) for c, _ in parts])
    numbers = np.concatenate([_numbers(column, shapes, spec) for column, shapes in parts])
    if isinstance(wanted, pd.CategoricalDtype):
        codes = np.where(missing, -1, numbers.astype(np.int64))
        return pd.Series(pd.Categorical.from_codes(codes, dtype=wanted))
    nullable = isinstance(wanted, pd.api.extensions.ExtensionDtype)
    if nullable or (missing.any() and numbers.dtype.kind in "biu"):
        name = numbers.dtype.name
        found = pd.array(numbers, dtype=_NULLABLE[name])
        found[missing] = pd.NA
        return pd.Series(found)
    if missing.any():
        numbers[missing] = "NaT" if numbers.dtype.kind in "mM" else np.nan
    return pd.Series(numbers.astype(wanted, copy=False))


def _numbers(column: pa.Array, shapes: pa.Array | None, spec: TensorSpec) -> npt.NDArray[Any]:
    """Return the scalars of a chunk, with anything in rows without a value."""
    dtype = np.dtype(str(spec.dtype))
    if storage_of(spec).layout is Layout.BLOB:
        codec = codec_for(spec)
        stored = iterate_stored(column, shapes, spec)
        return np.array([0 if each is None else codec.decode(each) for each in stored], dtype)
    numbers = view_numbers(column, spec)
    return numbers.view(dtype).reshape(len(column)).copy()


def _element(spec: TensorSpec) -> tuple[pa.DataType, np.dtype[Any]]:
    """Return Arrow's and numpy's type of the elements of nested lists."""
    dtype = _unit(np.dtype(str(spec.dtype)))
    if dtype.kind == "c":
        part = pa.from_numpy_dtype(np.dtype(f"f{dtype.itemsize // 2}"))
        return pa.list_(part, 2), dtype
    return pa.from_numpy_dtype(dtype), dtype


def _axes(spec: TensorSpec) -> tuple[int | None, ...] | None:
    """Return the axes of the nested lists; None where there is only flat data and a shape.

    Lists of lists have to have a known depth, and of pixels they would be many times as large. A
    class label of any rank is a list of labels.
    """
    if spec.kind.codec in ("mask", "image") or spec.kind.name in _MAPS:
        return None
    return (None,) if spec.shape is None and spec.kind.name == "class_label" else spec.shape


def _nested_type(spec: TensorSpec) -> pa.DataType:
    kind, _ = _element(spec)
    shape = _axes(spec)
    if shape is None:
        return pa.struct([("data", pa.large_list(kind)), ("shape", pa.list_(pa.int64()))])
    for axis in reversed(range(len(shape))):
        fixed = shape[axis] if axis else None
        kind = pa.list_(kind, fixed) if fixed else pa.large_list(kind)
    return kind


class _Ragged(NamedTuple):
    """Ragged arrays of a chunk: all numbers in a row, and the shape of each."""

    flat: npt.NDArray[Any]
    sizes: npt.NDArray[np.int64]
    shapes: pa.Array


def _ragged(column: pa.Array, shapes: Any, spec: TensorSpec) -> _Ragged:
    dtype = np.dtype(str(spec.dtype))
    if spec.compression is None and spec.kind.codec == "array":
        # Uncompressed samples lie one after the other, those without a value being empty.
        _, places, data = column.buffers()
        first = 8 * column.offset
        ends = np.frombuffer(places, np.int64, offset=first)[: len(column) + 1]
        count = int(ends[-1] - ends[0]) // dtype.itemsize if len(column) else 0
        at = int(ends[0]) if count else 0
        flat = np.frombuffer(data, dtype, count, at) if count else np.zeros(0, dtype)
        return _Ragged(flat, np.diff(ends) // dtype.itemsize, shapes)
    codec = codec_for(spec)
    stored = iterate_stored(column, shapes, spec)
    arrays: list[Any] = [None if each is None else codec.decode(each) for each in stored]
    pieces = [each.reshape(-1) for each in arrays if each is not None]
    sizes = np.array([0 if each is None else each.size for each in arrays], np.int64)
    return _Ragged(np.concatenate(pieces) if pieces else np.zeros(0, dtype), sizes, shapes)


def _nested(column: pa.Array, shapes: Any, spec: TensorSpec) -> pa.Array:
    """Return ragged arrays as lists in lists, built axis by axis from the inside."""
    kind, dtype = _element(spec)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    ragged = _ragged(column, shapes, spec)
    values = _elements(ragged.flat.astype(dtype, copy=False), kind)
    shape = _axes(spec)
    if shape is None:
        fields = list(_nested_type(spec))
        parts = [_lists(values, ragged.sizes), ragged.shapes.cast(fields[1].type)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=pa.array(missing))
    if len(shape) == 1:
        return _lists(values, ragged.sizes, missing)
    rank = len(shape)
    axes = ragged.shapes.flatten().to_numpy().reshape(len(column), rank)
    for axis in reversed(range(1, rank)):
        fixed = shape[axis]
        if fixed:
            values = pa.FixedSizeListArray.from_arrays(values, fixed)
        else:
            values = _lists(values, np.repeat(axes[:, axis], axes[:, :axis].prod(axis=1)))
    return _lists(values, axes[:, 0], missing)


def _elements(flat: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if flat.dtype.kind == "c":
        parts = pa.array(flat.view(f"f{flat.dtype.itemsize // 2}"))
        return pa.FixedSizeListArray.from_arrays(parts, 2)
    return pa.array(flat, kind)


def _lists(
    values: pa.Array, lengths: npt.NDArray[np.int64], missing: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    mask = pa.array(missing) if missing is not None and missing.any() else None
    return pa.LargeListArray.from_arrays(offsets, values, mask=mask)
