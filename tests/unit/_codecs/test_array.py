"""Codecs of numbers, times and labels: accepted values, refused values, and round trips."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake.exceptions import CorruptionError, SampleError

SCALAR = TensorSpec(dtype="uint8", shape=())
VECTOR = TensorSpec(dtype="float32", shape=(None,))
BOXES = TensorSpec("bbox")
NAMED = TensorSpec("class_label", class_names=("cat", "dog"))


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (SCALAR, 255, np.uint8(255)),
        (SCALAR, 2.0, np.uint8(2)),
        (SCALAR, True, np.uint8(1)),
        (SCALAR, np.int64(7), np.uint8(7)),
        (SCALAR, np.array(7, np.uint8), np.uint8(7)),
        (VECTOR, [1, 2], np.array([1, 2], "f4")),
        (VECTOR, [0.1], np.array([0.1], "f4")),
        (VECTOR, np.array([1], np.float16), np.array([1], "f4")),
        (VECTOR, np.array([1], ">f4"), np.array([1], "f4")),
        (VECTOR, [], np.zeros(0, np.float32)),
        (VECTOR, np.array([], np.int64), np.zeros(0, np.float32)),
        (VECTOR, np.array([1, 2], object), np.array([1, 2], "f4")),
        (BOXES, np.zeros(0), np.zeros((0, 4), np.float32)),
        (BOXES, [[1, 2, 3, 4]], np.array([[1, 2, 3, 4]], "f4")),
        (NAMED, "dog", np.uint32(1)),
        (NAMED, ["dog", "cat"], np.array([1, 0], "u4")),
        (NAMED, np.array(["dog"]), np.array([1], "u4")),
        (NAMED, np.array([]), np.zeros(0, np.uint32)),
        (TensorSpec(dtype="bool", shape=()), True, np.True_),
        (TensorSpec(dtype="bool", shape=(2,)), [True, False], np.array([True, False])),
        (TensorSpec(dtype="complex64", shape=()), 2j, np.complex64(2j)),
        (TensorSpec(dtype="complex128", shape=(1, 2)), [[1, 2j]], np.array([[1, 2j]])),
        (TensorSpec(dtype="float16"), 1.5, np.float16(1.5)),
        (TensorSpec(dtype="int64", shape=(None,), compression="zstd"), [1], np.array([1])),
        (TensorSpec(dtype="int64", shape=(2,), compression="lz4"), [1, 2], np.array([1, 2])),
        (TensorSpec(dtype="int64", shape=(0, 3)), np.zeros((0, 3)), np.zeros((0, 3), np.int64)),
        (
            TensorSpec(dtype="datetime64[ns]", shape=()),
            pd.Timestamp(5),
            np.datetime64(5, "ns"),
        ),
        (
            TensorSpec(dtype="datetime64[D]", shape=()),
            dt.date(2020, 1, 2),
            np.datetime64("2020-01-02"),
        ),
        (
            TensorSpec(dtype="timedelta64[us]", shape=(None,)),
            [dt.timedelta(seconds=1)],
            np.array([10**6], "m8[us]"),
        ),
    ],
)
def test_accepted_values_round_trip(spec: TensorSpec, value: Any, expected: Any) -> None:
    """A value that fits is decoded with the dtype and shape of the spec."""
    codec = codec_for(spec)
    decoded: Any = codec.decode(codec.encode(value))
    assert decoded.dtype == expected.dtype
    assert decoded.shape == expected.shape
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize(
    ("spec", "value", "parts"),
    [
        (SCALAR, 300, ["300", "uint8", "255"]),
        (SCALAR, -1, ["-1", "uint8"]),
        (SCALAR, 1.5, ["1.5", "uint8"]),
        (SCALAR, "a", ["str"]),
        (SCALAR, None, ["None"]),
        (SCALAR, [1], ["(1,)", "rank"]),
        (SCALAR, 2**70, [str(2**70)]),
        (SCALAR, np.float32(2), ["float32", "uint8"]),
        (VECTOR, np.zeros(2), ["float64", "float32", ".astype"]),
        (VECTOR, [1e300], ["1e+300", "float32"]),
        (VECTOR, [2**24 + 1], [str(2**24 + 1)]),
        (VECTOR, [[1], [2, 3]], ["one length"]),
        (VECTOR, [None], ["None"]),
        (VECTOR, [1j], ["1j"]),
        (VECTOR, np.zeros((2, 2), np.float32), ["(2, 2)", "rank 2", "rank 1"]),
        (VECTOR, np.ma.masked_array(np.array([1], "f4"), [True]), ["masked"]),
        (BOXES, np.zeros((2, 5), np.float32), ["last axis", "(2, 5)", "5", "4"]),
        (BOXES, np.zeros(4, np.float32), ["rank"]),
        (TensorSpec(dtype="int8", shape=(2, None)), np.zeros((3, 1), np.int8), ["axis 0", "3"]),
        (NAMED, 2, ["2", "0 to 1"]),
        (NAMED, [0, 5], ["5", "0 to 1"]),
        (NAMED, -1, ["-1"]),
        (NAMED, "bird", ["bird", "'cat'"]),
        (NAMED, ["cat", 1], ["text", "indices"]),
        (NAMED, np.zeros((1, 1), np.uint32), ["rank"]),
        (NAMED, np.array([0.0]), ["float64"]),
        (TensorSpec("class_label", discover=False), "cat", ["class_names"]),
        (TensorSpec("class_label"), ["cat", 1], ["text", "indices"]),
        (TensorSpec("class_label"), -1, ["-1"]),
        (TensorSpec(dtype="bool", shape=()), 1, ["bool"]),
        (TensorSpec(dtype="datetime64[ns]", shape=()), 5, ["datetime64"]),
        (TensorSpec(dtype="datetime64[ns]", shape=()), np.datetime64("9999"), ["9999"]),
        (TensorSpec(dtype="datetime64[s]", shape=()), pd.Timestamp("2020", tz="UTC"), ["zone"]),
        (TensorSpec(dtype="datetime64[s]", shape=()), dt.timedelta(1), ["timedelta"]),
        (TensorSpec(dtype="int64", shape=()), dt.date(2020, 1, 1), ["date"]),
        (TensorSpec("embedding", shape=(3,)), np.zeros(4, np.float32), ["4", "3"]),
    ],
)
def test_values_that_do_not_fit_are_refused(spec: TensorSpec, value: Any, parts: list[str]) -> None:
    """A value that does not fit raises an error that shows the value and the limits."""
    with pytest.raises(SampleError) as raised:
        codec_for(spec).encode(value)
    for part in parts:
        assert part in str(raised.value)


def test_nat_round_trips() -> None:
    """NaT is stored as a value, not as a missing value."""
    codec = codec_for(TensorSpec(dtype="datetime64[ns]", shape=()))
    decoded: Any = codec.decode(codec.encode(np.datetime64("NaT", "ns")))
    assert np.isnat(decoded)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_decompressed_arrays_are_writable(compression: str) -> None:
    """A decompressed array can be modified in place."""
    codec = codec_for(TensorSpec(dtype="int32", shape=(None,), compression=compression))
    decoded: Any = codec.decode(codec.encode(np.arange(1000, dtype=np.int32)))
    decoded += 1
    assert decoded[-1] == 1000


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (TensorSpec(dtype="int16", shape=()), np.arange(5, dtype=np.int64)),
        (TensorSpec(dtype="float64", shape=()), pd.Series([1.0, np.nan, 3.0])),
        (TensorSpec(dtype="bool", shape=()), np.array([True, False])),
        (TensorSpec(dtype="float32", shape=(2, 2)), np.ones((3, 2, 2), np.float16)),
        (TensorSpec(dtype="complex64", shape=()), np.array([1, 2j], np.complex64)),
        (TensorSpec(dtype="datetime64[ns]", shape=()), np.array(["2020", "NaT"], "M8[ns]")),
        (TensorSpec(dtype="bool", shape=(3,)), np.ones((2, 3), bool)),
        (TensorSpec("class_label", shape=(), class_names=("a", "b")), np.array([0, 1])),
    ],
)
def test_columns_are_encoded_at_once(spec: TensorSpec, values: Any) -> None:
    """A column of the right dtype takes the fast path, without nulls."""
    codec = codec_for(spec)
    column = codec.encode_column(values)
    assert column is not None
    assert column.type == codec.storage.type
    assert len(column) == len(values)
    assert column.null_count == 0


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (TensorSpec(dtype="uint8", shape=()), np.array([1, 300])),
        (TensorSpec(dtype="float32", shape=(2,)), np.ones((3, 4), np.float32)),
        (TensorSpec(dtype="float32", shape=(None,)), np.ones((3, 4), np.float32)),
        (TensorSpec(dtype="int64", shape=()), np.array([1, None], object)),
        (TensorSpec("class_label", shape=(), class_names=("a",)), np.array([0, 1])),
        (TensorSpec("class_label", shape=()), pd.Series(["a"], dtype="category")),
        (TensorSpec(dtype="int8", shape=()), pa.array([1], pa.int64())),
    ],
)
def test_a_column_with_a_value_that_does_not_fit_is_encoded_one_by_one(
    spec: TensorSpec, values: Any
) -> None:
    """The fast path returns None, so that the error can name the value."""
    assert codec_for(spec).encode_column(values) is None


def test_a_column_of_a_wrong_dtype_is_refused() -> None:
    """A column with a wrong dtype is refused at once, with a remedy."""
    with pytest.raises(SampleError, match=r"float32.*float64.*astype"):
        codec_for(TensorSpec(dtype="float32", shape=())).encode_column(np.zeros(3))


def test_categories_are_encoded_as_indices() -> None:
    """The codes of a categorical are translated to the order of class_names."""
    codec = codec_for(TensorSpec("class_label", shape=(), class_names=("b", "a")))
    column = codec.encode_column(pd.Series(["a", "b", None], dtype="category"))
    assert column is not None
    assert column.to_pylist() == [1, 0, None]


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        (TensorSpec(dtype="int64", shape=()), "i8"),
        (TensorSpec(dtype="int64", shape=(), compression="lz4"), "i8"),
        (TensorSpec("class_label", shape=()), "u4"),
        (TensorSpec("class_label"), "u4"),
    ],
    ids=str,
)
def test_masked_columns_are_refused(spec: TensorSpec, dtype: str) -> None:
    """A masked column is refused, as a masked value is. Masked elements are never stored."""
    with pytest.raises(SampleError, match="filled"):
        codec_for(spec).encode_column(np.ma.masked_equal(np.arange(3, dtype=dtype), 2))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("count", [1, 3, 5, 1_000])
def test_compressed_bytes_of_another_shape_are_refused(compression: str, count: int) -> None:
    """Fewer or more bytes than the shape needs raise an error, not uninitialized memory."""
    codec = codec_for(TensorSpec(dtype="uint8", shape=(None,), compression=compression))
    stored = codec.encode(np.arange(4, dtype="uint8"))
    with pytest.raises(CorruptionError, match=compression):
        codec.decode(stored._replace(shape=(count,)))


def test_a_number_of_numpy_is_no_time() -> None:
    """The error proposes a cast, which works."""
    codec = codec_for(TensorSpec(dtype="datetime64[us]", shape=()))
    with pytest.raises(SampleError, match=r"\.astype\('datetime64\[us\]'\)"):
        codec.encode(np.int64(3))
    assert codec.encode(np.int64(3).astype("datetime64[us]")) == 3
