"""Statistics of the values in a chunk: measured from its columns, and their JSON in segments.

They only help to avoid reading a chunk. A chunk without them is read, and readers ignore statistics
that are not valid.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._format.class_names import read_class_names
from dasklake._format.columns import view_numbers, view_primitive
from dasklake._model.statistics import Bound, StoredStatistics
from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.measurable import bound_kind, has_values, is_label
from dasklake._schema.same_length import count_axis
from dasklake._schema.schema import TensorSpec

#: Bounds of text have at most this number of characters. Shorter ones are exact.
MAX_TEXT = 32

#: Most bytes of the statistics of a chunk, and of one tensor in it.
MAX_BYTES = 2048
_MAX_ENTRY = 1024

#: Classes from this index on are not listed.
_MAX_CLASSES = 4096

#: Classes from this index on are not counted, even if nothing is left out for its size.
_MAX_COUNTED = 2**20

#: Tensors whose statistics do not fit, until no further ones are measured.
_MAX_MISFITS = 8

#: Labels that are counted at once, so that their copies stay in the cache of the processor.
_BLOCK = 2**16

#: NaT, as times are stored.
_NAT = np.iinfo(np.int64).min

#: Errors from columns that do not match their spec. Only a foreign writer can cause them.
UNMEASURABLE = (pa.ArrowException, ValueError, TypeError, IndexError, AttributeError)

_Numbers = npt.NDArray[Any]


def encode_statistics(
    columns: Iterable[tuple[pa.Field, pa.Array]],
    specs: Mapping[str, TensorSpec],
    *,
    trusted: bool = True,
) -> str | None:
    """Return the JSON of the statistics of a chunk, or None if nothing was measured.

    Tensors whose statistics do not fit in ``MAX_BYTES`` are left out: scalars and labels come
    first, then tensors with objects.

    Parameters
    ----------
    columns : iterable of (pyarrow.Field, pyarrow.Array)
        The columns of the chunk.
    specs : mapping of str to TensorSpec
        The tensors, by their names in the chunk.
    trusted : bool, default True
        Whether the columns were just built here. Others are validated first.
    """
    arrays = {field.name: (field, array) for field, array in columns}
    space, misfits = MAX_BYTES - 1, 0
    entries = []
    for name in sorted(specs, key=lambda name: _rank(specs[name])):
        if name not in arrays:
            continue
        field, column = arrays[name]
        _, shapes = arrays.get(shape_column(name), (None, None))
        try:
            if not trusted:
                for array in filter(None, (column, shapes)):
                    array.validate(full=True)
            entry = measure(column, shapes, specs[name], read_class_names(field))
        except UNMEASURABLE:
            continue
        text = msgspec.json.encode(name) + b":" + msgspec.json.encode(entry)
        if len(text) < space:
            entries.append(text)
            space -= len(text) + 1
            continue
        misfits += 1
        if misfits == _MAX_MISFITS:
            break
    return f"{{{b','.join(entries).decode()}}}" if entries else None


def _rank(spec: TensorSpec) -> int:
    """Return the rank of a tensor among those whose statistics must fit."""
    if spec.shape == () or spec.kind.name == "class_label":
        return 0
    return 1 if count_axis(spec) is not None else 2


def decode_statistics(
    text: str | None, names: Iterable[str] | None, *, strict: bool = False
) -> dict[str, StoredStatistics]:
    """Decode the statistics of some tensors of a chunk, or of all if ``names`` is None.

    Parameters
    ----------
    text : str or None
        JSON of the statistics.
    names : iterable of str or None
        The tensors, by their names in the chunk.
    strict : bool, default False
        Whether entries that are not valid are an error. By default they are left out.

    Raises
    ------
    ValueError
        The text or an entry is not valid, and ``strict`` is True.
    """
    decoded: dict[str, StoredStatistics] = {}
    if text is None:
        return decoded
    try:
        entries = _ENTRIES.decode(text)
        for name in entries if names is None else names:
            if name in entries:
                try:
                    decoded[name] = _ENTRY.decode(entries[name])
                except _UNREADABLE:
                    if strict:
                        raise
    except _UNREADABLE as error:
        if strict:
            raise ValueError(str(error)) from error
    return decoded


_ENTRIES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRY = msgspec.json.Decoder(StoredStatistics)
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeError)


def measure(
    column: pa.Array,
    shapes: pa.Array | None,
    spec: TensorSpec,
    names: Sequence[str] | None = None,
    *,
    exact: bool = False,
) -> StoredStatistics:
    """Return the statistics of the values of a tensor.

    Parameters
    ----------
    column : pyarrow.Array
        Its column.
    shapes : pyarrow.Array or None
        Its column of shapes, for blobs.
    spec : TensorSpec
        Its description.
    names : sequence of str, optional
        The chunk's own class names. The numbers of labels are then positions among them.
    exact : bool, default False
        Whether nothing is cut or left out for its size.

    Raises
    ------
    ValueError, TypeError, IndexError, pyarrow.ArrowException
        The columns do not match the spec.
    """
    measured: dict[str, Any] = {"nulls": column.null_count}
    if len(column) > column.null_count and not spec.linked:
        layout = storage_of(spec).layout
        if is_label(spec) and has_values(spec):
            measured |= _labels(_flat_labels(column, spec), names, spec, exact=exact)
        elif layout is Layout.ARROW and bound_kind(spec) is not None:
            measured |= _bounds(column, exact=exact)
        if layout is Layout.BLOB and shapes is not None:
            measured |= _shape_statistics(column, shapes, spec)
    return StoredStatistics(**measured)


def presence(column: pa.Array) -> pa.Array:
    """Return a small column with the same missing values, without reading any value."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(np.zeros(len(column), bool), mask=missing)


def _bounds(column: pa.Array, *, exact: bool) -> dict[str, Any]:
    """Return the bounds of scalars, and the number of those that are NaN or NaT."""
    column = column.drop_null() if column.null_count else column
    kind, types = column.type, pa.types
    if types.is_boolean(kind):
        true = column.true_count
        return {"min": true == len(column), "max": true > 0}
    if types.is_integer(kind) or types.is_floating(kind):
        return _number_bounds(view_primitive(column, np.dtype(kind.to_pandas_dtype())))
    if types.is_temporal(kind) and not types.is_interval(kind):
        element = np.dtype(f"i{kind.bit_width // 8}")
        times = view_primitive(column, element)
        marked = types.is_timestamp(kind) or types.is_duration(kind)
        return _number_bounds(times, nat=marked)
    if types.is_string(kind) or types.is_large_string(kind):
        bounds = pc.min_max(column).as_py()
        return bounds if exact else _cut(bounds["min"], bounds["max"])
    if types.is_decimal(kind):
        return {key: str(value) for key, value in pc.min_max(column).as_py().items()}
    return {}


def _number_bounds(numbers: _Numbers, *, nat: bool = False) -> dict[str, Any]:
    least, most = numbers.min(), numbers.max()
    nan = 0
    if numbers.dtype.kind == "f" and np.isnan(least):
        valid = numbers[~np.isnan(numbers)]
    elif nat and least == _NAT:
        valid = numbers[numbers != _NAT]
    else:
        return {"min": _bound(least), "max": _bound(most)}
    nan = len(numbers) - len(valid)
    if not len(valid):
        return {"nan": nan}
    return {"nan": nan, "min": _bound(valid.min()), "max": _bound(valid.max())}


def _bound(number: Any) -> Bound:
    """Return a number as JSON has it."""
    value: int | float = number.item()
    if isinstance(value, float) and np.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _cut(least: str, most: str) -> dict[str, str | None]:
    """Return a short lower and a short upper bound of texts."""
    if len(most) <= MAX_TEXT:
        return {"min": least[:MAX_TEXT], "max": most}
    following = ord(most[MAX_TEXT - 1]) + 1
    if following == 0xD800:  # surrogates are not characters
        following = 0xE000
    above = most[: MAX_TEXT - 1] + chr(following) if following <= 0x10FFFF else None
    return {"min": least[:MAX_TEXT], "max": above}


def _flat_labels(column: pa.Array, spec: TensorSpec) -> _Numbers:
    """Return all labels of a column."""
    storage = storage_of(spec)
    if storage.layout is Layout.ARROW:
        return view_primitive(column.drop_null() if column.null_count else column, storage.element)
    if storage.layout is Layout.TENSOR:
        labels = view_numbers(column, spec)
        if column.null_count:
            labels = labels[column.is_valid().to_numpy(zero_copy_only=False)]
        return labels.reshape(-1)
    if column.offset:
        column = pa.concat_arrays([column])  # copies it to buffers that begin with it
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(column) + 1)
    width = np.dtype(storage.element).itemsize
    count = int(offsets[-1] - offsets[0]) // width
    return np.frombuffer(data, storage.element, count, int(offsets[0])) if count else np.zeros(0)


def _labels(
    labels: _Numbers, names: Sequence[str] | None, spec: TensorSpec, *, exact: bool
) -> dict[str, Any]:
    """Return the classes that occur, and their counts if these are short enough."""
    if not len(labels):
        return {"names": (), "counts": ()} if names is not None else {"classes": "", "counts": ()}
    least, most = int(labels.min()), int(labels.max())
    bounds = {"min": least, "max": most} if spec.shape == () and names is None else {}
    if names is not None and most >= len(names):
        raise IndexError(f"label {most} is not a position among {len(names)} names")
    if least < 0 or (names is None and most >= (_MAX_COUNTED if exact else _MAX_CLASSES)):
        return bounds
    counted = _count(labels, most + 1)
    present = np.flatnonzero(counted)
    counts = tuple(counted[present].tolist())
    if names is not None:
        classes: dict[str, Any] = {"names": tuple(names[i] for i in present.tolist())}
    else:
        bitmap = np.packbits(counted > 0, bitorder="little").tobytes()
        classes = {"classes": base64.b64encode(bitmap).decode()}
    for measured in ({**classes, "counts": counts}, classes):
        if exact or len(msgspec.json.encode(measured)) <= _MAX_ENTRY:
            return measured
    return bounds


def _count(labels: _Numbers, classes: int) -> npt.NDArray[np.int64]:
    counted = np.zeros(classes, np.int64)
    for begin in range(0, len(labels), _BLOCK):
        counted += np.bincount(labels[begin : begin + _BLOCK], minlength=classes)
    return counted


def _shape_statistics(column: pa.Array, shapes: pa.Array, spec: TensorSpec) -> dict[str, Any]:
    """Return the numbers of objects, and the least and largest shapes."""
    if column.null_count:
        shapes = shapes.filter(column.is_valid())
    axis = count_axis(spec)
    if not pa.types.is_fixed_size_list(shapes.type):
        if is_label(spec) and spec.shape is None and not pc.max(shapes.value_lengths()).as_py():
            # One label in each sample: readers take the labels as scalars.
            return {"shape": ((), ())}
        counts = None if axis is None else _counts_of_lists(shapes, axis)
        return {} if counts is None else {"objects": _summary(counts)}
    axes = shapes.flatten().to_numpy(zero_copy_only=False).reshape(len(shapes), -1)
    measured: dict[str, Any] = {}
    if axis is not None:
        measured["objects"] = _summary(axes[:, axis])
        axis %= axes.shape[1]
    if any(length is None for i, length in enumerate(spec.shape or ()) if i != axis):
        measured["shape"] = (tuple(axes.min(axis=0).tolist()), tuple(axes.max(axis=0).tolist()))
    return measured


def _counts_of_lists(shapes: pa.Array, axis: int) -> _Numbers | None:
    """Return one axis of shapes of any rank, or None if one lacks it."""
    ranks = shapes.value_lengths().to_numpy(zero_copy_only=False)
    if (ranks < 1).any():
        return None
    ends = np.cumsum(ranks)
    numbers = shapes.flatten().to_numpy(zero_copy_only=False)
    counts: _Numbers = numbers[ends - ranks if axis == 0 else ends - 1]
    return counts


def _summary(counts: _Numbers) -> tuple[int, int, int]:
    return int(counts.min()), int(counts.max()), int(counts.sum())


def indices_of(classes: str) -> list[int]:
    """Return the indices of the classes of a bitmap.

    Raises
    ------
    ValueError
        The text is not base64.
    """
    bitmap = np.frombuffer(base64.b64decode(classes, validate=True), np.uint8)
    indices: list[int] = np.flatnonzero(np.unpackbits(bitmap, bitorder="little")).tolist()
    return indices
