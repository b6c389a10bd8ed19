"""Test frames: every column has a numpy, extension or Arrow type, never object."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import Schema, TensorSpec
from dasklake._read.pandas_columns import NAN_STRING, dtype_of, series_of
from tests.support.samples import encode, opened

I4 = TensorSpec(dtype="int32", shape=(None, None))


def _series(spec: TensorSpec, *chunks: list[Any]) -> pd.Series:
    parts = []
    for values in chunks:
        batch = opened(encode(Schema({"a": spec}), [{"a": value} for value in values])).batch
        shapes = batch.column("a:shape") if "a:shape" in batch.schema.names else None
        parts.append((batch.column("a"), shapes))
    return series_of(parts, spec)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        (TensorSpec(dtype="int16", shape=()), [1, 2], "int16"),
        (TensorSpec(dtype="float32", shape=()), [1.5, None], "float32"),
        (TensorSpec(dtype="datetime64[D]", shape=()), [np.datetime64("2020"), None], "M8[s]"),
        (TensorSpec(dtype="complex64", shape=()), [1j, None], "complex64"),
        (TensorSpec(dtype="int64", shape=(), compression="lz4"), [1, 2], "int64"),
        (TensorSpec(dtype="int16", shape=(), optional=True), [1, None], "Int16"),
        (TensorSpec(dtype="bool", shape=(), optional=True), [True, None], "boolean"),
        (TensorSpec("text"), ["a", None], NAN_STRING),
        (TensorSpec(dtype="Int8"), [1, None], "Int8"),
        (TensorSpec("link[image]", compression="png"), ["s3://a", None], pd.StringDtype("pyarrow")),
    ],
)
def test_scalars_have_the_dtype_of_the_tensor(
    spec: TensorSpec, values: list[Any], expected: Any
) -> None:
    """Scalars have the dtype of the tensor, nullable if it is optional."""
    column = _series(spec, values, values)
    assert column.dtype == dtype_of(spec) == pd.api.types.pandas_dtype(expected)
    assert len(column) == 2 * len(values)
    assert column.isna().tolist() == [value is None for value in values] * 2
    present = [value for value in values * 2 if value is not None]
    assert all(a == b for a, b in zip(column.dropna(), present, strict=True))


def test_missing_integers_become_nullable() -> None:
    """If a value is unexpectedly missing, the column becomes nullable."""
    column = _series(TensorSpec(dtype="int64", shape=()), [2**60 + 1], [None])
    assert str(column.dtype) == "Int64"
    assert column[0] == 2**60 + 1


def test_labels_become_categories() -> None:
    """A label with names is a category, also with missing values."""
    spec = TensorSpec("class_label", shape=(), class_names=("cat", "dog"))
    column = _series(spec, ["dog", None, 0])
    assert column.dtype == dtype_of(spec)
    assert column.tolist()[::2] == ["dog", "cat"]


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (TensorSpec("bbox"), [[[1, 2, 3, 4]], None, [[5, 6, 7, 8], [9, 1, 2, 3]]]),
        (TensorSpec("class_label"), [[1, 2], [], None]),
        (I4, [[[1, 2], [3, 4]], [[5]], None, np.zeros((0, 3), "i4"), np.zeros((2, 0), "i4")]),
        (TensorSpec(dtype="int8", shape=(None, 2, None)), [np.ones((2, 2, 3), "i1")]),
        (TensorSpec(dtype="int8", shape=(0, 2)), [np.zeros((0, 2), "i1"), None]),
        (TensorSpec("embedding"), [np.ones(3, "f4"), None]),
        (TensorSpec(dtype="bool", shape=(None,)), [[True, False], None]),
    ],
)
def test_ragged_numbers_become_lists(spec: TensorSpec, values: list[Any]) -> None:
    """Ragged arrays become nested Arrow lists, row by row."""
    column = _series(spec, values, values)
    assert column.dtype == dtype_of(spec)
    assert isinstance(column.dtype, pd.ArrowDtype)
    rows = [None if row is pd.NA else _plain(row) for row in column]
    expected = [None if v is None else np.asarray(v, spec.dtype).tolist() for v in values]
    assert rows == expected * 2


def test_complex_numbers_become_pairs() -> None:
    """Complex numbers become pairs of floats, because Arrow has no complex type."""
    column = _series(TensorSpec(dtype="complex64", shape=(None,)), [[1 + 2j]])
    assert _plain(column[0]) == [[1.0, 2.0]]


def test_masks_are_flat_with_a_shape() -> None:
    """A mask becomes flat bools and a shape, because nested lists would be larger."""
    mask = np.random.default_rng(0).random((4, 5, 2)) > 0.5
    column = _series(TensorSpec("binary_mask"), [mask, None, np.zeros((2, 2, 0), bool)])
    assert column.dtype == dtype_of(TensorSpec("binary_mask"))
    back = np.array(column[0]["data"], bool).reshape(column[0]["shape"])
    assert np.array_equal(back, mask)
    assert column.isna().tolist() == [False, True, False]


def test_pictures_are_their_bytes() -> None:
    """A picture stays encoded."""
    spec = TensorSpec("image", compression="png")
    column = _series(spec, [np.zeros((2, 2, 3), np.uint8), None])
    assert column.dtype == dtype_of(spec) == pd.ArrowDtype(pa.large_binary())
    assert column[0].startswith(b"\x89PNG")


def test_tensors_of_one_shape_are_tensors() -> None:
    """Numbers of one shape keep Arrow's tensor type."""
    spec = TensorSpec(dtype="float32", shape=(2, 2))
    column = _series(spec, [np.ones((2, 2), "f4"), None])
    assert column.dtype == dtype_of(spec)
    assert column.dtype.pyarrow_dtype == pa.fixed_shape_tensor(pa.float32(), (2, 2))
