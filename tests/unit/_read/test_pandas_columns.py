"""Frames: every column of a numpy, extension or Arrow type, never of objects."""

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
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


@pytest.mark.parametrize(
    ("spec", "values", "wanted"),
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
def test_scalars(spec: TensorSpec, values: list[Any], wanted: Any) -> None:
    """Scalars have the dtype of the tensor, nullable where it is optional."""
    found = _series(spec, values, values)
    assert found.dtype == dtype_of(spec) == pd.api.types.pandas_dtype(wanted)
    assert len(found) == 2 * len(values)
    assert found.isna().tolist() == [value is None for value in values] * 2
    kept = [value for value in values * 2 if value is not None]
    assert all(a == b for a, b in zip(found.dropna(), kept, strict=True))


def test_missing_integers_become_nullable() -> None:
    """Where a value is missing after all, the column is nullable instead of wrong."""
    found = _series(TensorSpec(dtype="int64", shape=()), [2**60 + 1], [None])
    assert str(found.dtype) == "Int64"
    assert found[0] == 2**60 + 1


def test_labels_become_categories() -> None:
    """A label with names is a category, no value included."""
    spec = TensorSpec("class_label", shape=(), class_names=("cat", "dog"))
    found = _series(spec, ["dog", None, 0])
    assert found.dtype == dtype_of(spec)
    assert found.tolist()[::2] == ["dog", "cat"]


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
    """Ragged arrays are lists in lists of Arrow, row for row."""
    found = _series(spec, values, values)
    assert found.dtype == dtype_of(spec)
    assert isinstance(found.dtype, pd.ArrowDtype)
    rows = [None if row is pd.NA else _plain(row) for row in found]
    wanted = [None if v is None else np.asarray(v, spec.dtype).tolist() for v in values]
    assert rows == wanted * 2


def test_complex_numbers_become_pairs() -> None:
    """Arrow has no complex numbers: they are pairs of floats."""
    found = _series(TensorSpec(dtype="complex64", shape=(None,)), [[1 + 2j]])
    assert _plain(found[0]) == [[1.0, 2.0]]


def test_masks_are_flat_with_a_shape() -> None:
    """A mask is its bools and its shape: lists of lists would outweigh it."""
    mask = np.random.default_rng(0).random((4, 5, 2)) > 0.5
    found = _series(TensorSpec("binary_mask"), [mask, None, np.zeros((2, 2, 0), bool)])
    assert found.dtype == dtype_of(TensorSpec("binary_mask"))
    back = np.array(found[0]["data"], bool).reshape(found[0]["shape"])
    assert np.array_equal(back, mask)
    assert found.isna().tolist() == [False, True, False]


def test_pictures_are_their_bytes() -> None:
    """A picture stays encoded."""
    spec = TensorSpec("image", compression="png")
    found = _series(spec, [np.zeros((2, 2, 3), np.uint8), None])
    assert found.dtype == dtype_of(spec) == pd.ArrowDtype(pa.large_binary())
    assert found[0].startswith(b"\x89PNG")


def test_tensors_of_one_shape_are_tensors() -> None:
    """Numbers of one shape keep Arrow's tensor type."""
    spec = TensorSpec(dtype="float32", shape=(2, 2))
    found = _series(spec, [np.ones((2, 2), "f4"), None])
    assert found.dtype == dtype_of(spec)
    assert found.dtype.pyarrow_dtype == pa.fixed_shape_tensor(pa.float32(), (2, 2))
