"""Convert columns of chunks to pandas columns of numpy, extension or Arrow types.

Columns of Python objects are avoided: Dask would convert them to strings.

=====================================  ==========================================================
tensor                                 column
=====================================  ==========================================================
number or time, ``shape=()``           its numpy dtype; the nullable one where ``optional=True``,
                                       and in partitions in which values are missing
``class_label`` with names             ``category``; a list of names if a sample may have several
column of a table                      its original dtype
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
import re
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

#: Strings whose missing values are NaN. pandas before 2.3 has another name for this dtype.
try:
    NAN_STRING = pd.StringDtype("pyarrow", na_value=np.nan)
except TypeError:
    NAN_STRING = pd.StringDtype("pyarrow_numpy")

#: Bytes of decoded arrays that are collected before they become an Arrow array.
_MAX_DECODED = 16 * 2**20

#: Htypes of pixels, for which nested lists would be many times as large.
_MAPS = ("instance_label", "segment_mask")


def dtype_of(spec: TensorSpec) -> Any:
    """Return the pandas dtype of a tensor in a frame."""
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
    if spec.class_names is not None:
        return pd.CategoricalDtype(list(spec.class_names), ordered=spec.ordered)
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
        Description of the tensor.

    Returns
    -------
    pandas.Series
        Column of the dtype of :func:`dtype_of`, or its nullable variant if values are missing.
    """
    dtype = dtype_of(spec)
    columns = [column for column, _ in parts]
    if spec.encoded:
        return _arrow_series(columns, dtype)
    if spec.kind.codec == "json" and not spec.sequence:
        return _documents(columns, dtype)
    if isinstance(dtype, pd.ArrowDtype) and storage_of(spec).layout is Layout.BLOB:
        make = _sequences if spec.sequence else _nested
        return _arrow_series([make(*part, spec) for part in parts], dtype)
    if spec.linked:
        columns = [pc.struct_field(column, "url") for column in columns]
    if spec.numpy_dtype is None or spec.linked:
        return _table_series(columns, dtype)
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_series(columns, dtype)
    return _scalars(parts, spec, dtype)


def scalar_part(part: Part, spec: TensorSpec) -> Part:
    """Return labels of any rank, which are all scalars, as a column of scalars.

    Raises
    ------
    ValueError
        A sample has a list.
    """
    column, shapes = part
    if shapes is not None and len(shapes.flatten()):
        raise ValueError("a sample has a list of labels")
    dtype = np.dtype(str(spec.dtype))
    codec = codec_for(spec)
    stored = list(iterate_stored(column, shapes, spec))
    values: list[Any] = [0 if value is None else codec.decode(value) for value in stored]
    if any(np.shape(value) for value in values):
        raise ValueError("a sample has a list of labels")
    missing = np.array([value is None for value in stored], bool)
    return pa.array(np.array(values, dtype), mask=missing), None


def _unit(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype that pandas supports: it does not have times in days, minutes or years."""
    if dtype.kind in "mM" and np.datetime_data(dtype)[0] not in _UNITS:
        return np.dtype(f"{dtype.kind}8[s]")
    return dtype


def _table_dtype(spec: TensorSpec) -> Any:
    """Return the original dtype of a column of a table."""
    name = str(spec.dtype)
    if name == "string":
        return pd.StringDtype("pyarrow")
    if name == "str":
        return NAN_STRING
    if name == "str[python]":
        return pd.StringDtype("python", na_value=np.nan)
    if name == "string[pyarrow]":
        # pandas reads this name as its own string type; only Arrow's type writes it.
        return pd.ArrowDtype(pa.string())
    if name.startswith("dictionary<"):
        return pd.ArrowDtype(_dictionary_type(name, spec.arrow_type))
    try:
        dtype = pd.api.types.pandas_dtype(name)
    except (TypeError, ValueError, NotImplementedError):
        dtype = None
    if isinstance(dtype, pd.api.extensions.ExtensionDtype) and hasattr(dtype, "__from_arrow__"):
        return dtype
    return pd.ArrowDtype(spec.arrow_type)


def _dictionary_type(name: str, values: Any) -> pa.DataType:
    """Return an Arrow dictionary by its name in the schema; chunks store plain values."""
    width = re.search(r"indices=(u?int(?:8|16|32|64)), ordered=0>\[pyarrow\]$", name)
    return pa.dictionary(getattr(pa, width[1])(), values) if width is not None else values


def _table_series(columns: list[pa.Array], dtype: Any) -> pd.Series:
    chunked = pa.chunked_array(columns)
    if isinstance(dtype, pd.ArrowDtype):
        return _arrow_series(columns, dtype)
    return pd.Series(dtype.__from_arrow__(chunked))


def _arrow_series(columns: list[pa.Array], dtype: pd.ArrowDtype) -> pd.Series:
    kind = dtype.pyarrow_dtype
    chunked = pa.chunked_array([_as_type(column, kind) for column in columns], type=kind)
    return pd.Series(pd.arrays.ArrowExtensionArray(chunked))


def _as_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type).dictionary_encode().cast(kind)
    return column.cast(kind)


def _documents(columns: list[pa.Array], dtype: Any) -> pd.Series:
    """Return JSON as text, and tags as lists."""
    texts = [column.cast(pa.large_string()) for column in columns]
    if not isinstance(dtype, pd.ArrowDtype):
        return _table_series(texts, dtype)
    kind = dtype.pyarrow_dtype
    return _arrow_series(
        [pa.array([v and json.loads(v) for v in text.to_pylist()], kind) for text in texts], dtype
    )


def _items(stored: list[Any], spec: TensorSpec) -> pa.Array:
    """Return the items of lists as a column of their spec."""
    builder = ColumnBuilder("item", spec.item)
    for item in stored:
        builder.append(item)
    columns = [column for _, column in builder.finish()]
    part = (columns[0], columns[1] if len(columns) > 1 else None)
    items = pa.array(series_of([part], spec.item), from_pandas=True)
    items = items.combine_chunks() if isinstance(items, pa.ChunkedArray) else items
    if isinstance(items, pa.ExtensionArray):
        # Most functions of Arrow do not support lists of tensors.
        items = items.storage
    return items.dictionary_decode() if pa.types.is_dictionary(items.type) else items


def _sequences(column: pa.Array, shapes: Any, spec: TensorSpec) -> pa.Array:
    """Return sequences as lists of the column values of their items."""
    codec = cast("SequenceCodec", codec_for(spec))
    rows = [
        None if stored is None else list(codec.items(stored))
        for stored in iterate_stored(column, shapes, spec)
    ]
    values = _items([item for row in rows if row is not None for item in row], spec)
    sizes = np.array([0 if row is None else len(row) for row in rows], np.int64)
    return _lists(values, sizes, np.array([row is None for row in rows], bool))


def _scalars(parts: Sequence[Part], spec: TensorSpec, dtype: Any) -> pd.Series:
    missing = np.concatenate([c.is_null().to_numpy(zero_copy_only=False) for c, _ in parts])
    numbers = np.concatenate([_numbers(column, shapes, spec) for column, shapes in parts])
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.where(missing, -1, numbers.astype(np.int64))
        return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype))
    is_extension = isinstance(dtype, pd.api.extensions.ExtensionDtype)
    if is_extension or (missing.any() and numbers.dtype.kind in "biu"):
        if numbers.dtype.kind == "f":
            # pd.array would take NaN for a missing value.
            numbers[missing] = np.nan
            return pd.Series(pd.arrays.FloatingArray(numbers, missing))
        name = numbers.dtype.name
        nullable = pd.array(numbers, dtype=_NULLABLE[name])
        nullable[missing] = pd.NA
        return pd.Series(nullable)
    if missing.any():
        numbers[missing] = "NaT" if numbers.dtype.kind in "mM" else np.nan
    return pd.Series(numbers.astype(dtype, copy=False))


def _numbers(column: pa.Array, shapes: pa.Array | None, spec: TensorSpec) -> npt.NDArray[Any]:
    """Return the scalars of a chunk; rows without a value are arbitrary."""
    dtype = np.dtype(str(spec.dtype))
    if storage_of(spec).layout is Layout.BLOB:
        codec = codec_for(spec)
        stored = iterate_stored(column, shapes, spec)
        return np.array([0 if value is None else codec.decode(value) for value in stored], dtype)
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
    """Return the axes of nested lists, or None for flat data with a shape.

    Nested lists need a known depth, and for pixels they would be many times as large. A class label
    of any rank is a list of labels.
    """
    if spec.kind.codec in ("mask", "image") or spec.kind.name in _MAPS:
        return None
    return (None,) if spec.shape is None and spec.kind.name == "class_label" else spec.shape


def _is_named(spec: TensorSpec) -> bool:
    """Return whether the values are lists of labels that have names."""
    return spec.kind.name == "class_label" and spec.class_names is not None


def _nested_type(spec: TensorSpec) -> pa.DataType:
    kind = pa.large_string() if _is_named(spec) else _element(spec)[0]
    shape = _axes(spec)
    if shape is None:
        return pa.struct([("data", pa.large_list(kind)), ("shape", pa.list_(pa.int64()))])
    for axis in reversed(range(len(shape))):
        fixed = shape[axis] if axis else None
        kind = pa.list_(kind, fixed) if fixed else pa.large_list(kind)
    return kind


class _Ragged(NamedTuple):
    """Ragged arrays of a chunk: the flat values, and the size of each array."""

    values: pa.Array
    sizes: npt.NDArray[np.int64]


def _ragged(column: pa.Array, shapes: Any, spec: TensorSpec) -> _Ragged:
    kind, target = _element(spec)
    dtype = np.dtype(str(spec.dtype))
    if spec.compression is None and spec.kind.codec == "array":
        # Uncompressed samples are contiguous; those without a value are empty.
        _, offsets, data = column.buffers()
        first = 8 * column.offset
        ends = np.frombuffer(offsets, np.int64, offset=first)[: len(column) + 1]
        count = int(ends[-1] - ends[0]) // dtype.itemsize if len(column) else 0
        at = int(ends[0]) if count else 0
        flat = np.frombuffer(data, dtype, count, at) if count else np.zeros(0, dtype)
        values = _elements(flat.astype(target, copy=False), kind)
        return _Ragged(values, np.diff(ends) // dtype.itemsize)
    codec = codec_for(spec)
    stored = iterate_stored(column, shapes, spec)
    # Masks take an eighth of their decoded size, so only some samples are decoded at a time.
    arrays: list[npt.NDArray[Any]] = []
    sizes, parts, size = [], [], 0
    for value in stored:
        array: Any = np.zeros(0, dtype) if value is None else codec.decode(value)
        sizes.append(array.size)
        arrays.append(array.reshape(-1).astype(target, copy=False))
        size += array.nbytes
        del array
        if size >= _MAX_DECODED:
            parts.append(_joined(arrays, kind))
            size = 0
    parts.append(_joined([*arrays, np.zeros(0, target)], kind))
    return _Ragged(pa.concat_arrays(parts), np.array(sizes, np.int64))


def _joined(arrays: list[npt.NDArray[Any]], kind: pa.DataType) -> pa.Array:
    """Return flat arrays as one Arrow array, and clear them."""
    flat = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    arrays.clear()
    return _elements(flat, kind)


def _nested(column: pa.Array, shapes: Any, spec: TensorSpec) -> pa.Array:
    """Return ragged arrays as nested lists, built from the innermost axis outwards."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    values, sizes = _ragged(column, shapes, spec)
    shape = _axes(spec)
    if _is_named(spec):
        values = pa.array(spec.class_names, pa.large_string()).take(values)
    if shape is None:
        fields = list(_nested_type(spec))
        parts = [_lists(values, sizes), shapes.cast(fields[1].type)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=pa.array(missing))
    if len(shape) == 1:
        return _lists(values, sizes, missing)
    rank = len(shape)
    axes = shapes.flatten().to_numpy().reshape(len(column), rank)
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
