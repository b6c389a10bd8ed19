"""Columns are built from samples or arrays, and read by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._format.columns import ColumnBuilder, iterate_stored, view_numbers
from dasklake._schema.values import Blob
from tests.support.samples import same

BLOB = TensorSpec(dtype="uint8", shape=(None,))


def _rows(builder: ColumnBuilder, spec: TensorSpec) -> list[Any]:
    (_, column), *shapes = builder.finish()
    codec = codec_for(spec)
    stored = iterate_stored(column, shapes[0][1] if shapes else None, spec)
    return [None if value is None else codec.decode(value) for value in stored]


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (TensorSpec(dtype="int64", shape=()), [1, None, 3]),
        (TensorSpec(dtype="bool", shape=()), [True, None, False] * 5),
        (TensorSpec(dtype="float16", shape=()), [None, 1.5]),
        (TensorSpec(dtype="datetime64[ns]", shape=()), [np.datetime64("NaT", "ns"), None]),
        (TensorSpec(dtype="complex64", shape=()), [1j, None]),
        (TensorSpec(dtype="float32", shape=(2, 2)), [np.ones((2, 2), "f4"), None]),
        (TensorSpec(dtype="bool", shape=(3,)), [None, np.array([True, False, True])]),
        (TensorSpec(dtype="int16"), [np.int16(1), None, np.ones((2, 2), "i2"), []]),
        (TensorSpec("bbox"), [None, np.zeros((0, 4), "f4"), np.ones((2, 4), "f4")]),
        (TensorSpec("text"), ["a", None, ""]),
        (TensorSpec("class_label", compression="lz4"), [np.ones(3, "u4"), None]),
        (TensorSpec(dtype="int64", shape=()), [None, None]),
        (TensorSpec("binary_mask"), [None]),
        (TensorSpec("text"), []),
        (TensorSpec("bbox"), []),
        (TensorSpec(dtype="float32", shape=(2,)), []),
    ],
)
def test_rows_come_back(spec: TensorSpec, values: list[Any]) -> None:
    """Appended values are read back, with None for a missing value."""
    codec, builder = codec_for(spec), ColumnBuilder("x", spec)
    for value in values:
        builder.append(None if value is None else codec.encode(value))
    assert builder.rows == len(values)
    decoded = _rows(builder, spec)
    assert len(decoded) == len(values)
    assert all(same(a, b) for a, b in zip(decoded, values, strict=True))
    assert (builder.rows, builder.nbytes) == (0, 0)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_arrays_and_samples_mix(shape: tuple[int, ...]) -> None:
    """Arrays and single samples keep the order in which they were added."""
    spec = TensorSpec(dtype="float32", shape=shape)
    codec, builder = codec_for(spec), ColumnBuilder("x", spec)
    values = np.arange(3 * int(np.prod(shape)), dtype="f4").reshape(3, *shape)
    column = codec.encode_column(values)
    assert column is not None
    builder.append(codec.encode(values[0]))
    builder.extend(column)
    builder.extend(column.slice(1, 1))
    builder.append(None)
    expected = [values[0], *values, values[1], None]
    assert all(same(a, b) for a, b in zip(_rows(builder, spec), expected, strict=True))


def test_appended_values_may_be_changed_afterwards() -> None:
    """A generator may fill the same array again for its next sample."""
    codec, builder = codec_for(BLOB), ColumnBuilder("x", BLOB)
    buffer = np.zeros(4, np.uint8)
    for value in range(3):
        buffer[:] = value
        builder.append(codec.encode(buffer))
    assert [row.tolist() for row in _rows(builder, BLOB)] == [[0] * 4, [1] * 4, [2] * 4]
    assert not builder.borrowed


def test_a_large_value_is_borrowed() -> None:
    """A large value is not copied, and the builder reports it as borrowed."""
    builder = ColumnBuilder("x", BLOB)
    large = np.zeros(64 * 2**20, np.uint8)
    builder.append(Blob(large.data, large.shape))
    assert builder.borrowed
    assert builder.nbytes >= large.nbytes
    (_, column), _ = builder.finish()
    assert column.buffers()[2].address == large.ctypes.data
    assert not builder.borrowed


def test_rows_are_the_readers_own() -> None:
    """Changing one sample changes neither another sample nor the chunk."""
    spec = TensorSpec(dtype="int64", shape=(2,))
    column = codec_for(spec).encode_column(np.zeros((2, 2), np.int64))
    assert column is not None
    first, second = iterate_stored(column, None, spec)
    first += 1
    assert second.tolist() == [0, 0]
    assert not view_numbers(column, spec).any()


def test_slices_of_columns_are_read_correctly() -> None:
    """A slice of a column has the rows of the slice."""
    spec = TensorSpec(dtype="bool", shape=())
    bits = np.arange(20) % 3 == 0
    column = pa.array(bits).slice(5, 9)
    assert view_numbers(column, spec).tolist() == bits[5:14].tolist()
