"""Test casts to Arrow types: every value stays equal, or is refused with the cure."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import Schema, TensorSpec
from dasklake._codecs.arrow_cast import as_exact
from dasklake._codecs.arrow_column_cast import as_column
from dasklake._codecs.registry import codec_for
from dasklake._format.columns import ColumnBuilder, iterate_stored
from dasklake._schema.arrow_layout import python_values
from dasklake.exceptions import SampleError, SchemaError
from tests.support.samples import encode, opened

NAN = float("nan")
BERLIN = ZoneInfo("Europe/Berlin")
UTC = dt.UTC
NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=UTC)

#: Values of each type that stay equal.
KEPT: list[tuple[pa.DataType, Any]] = [
    (pa.bool_(), np.True_),
    (pa.int8(), -128),
    (pa.uint64(), 2**64 - 1),
    (pa.int64(), 3.0),
    (pa.float32(), 2**24),
    (pa.float64(), np.float32(0.1)),
    (pa.float16(), 1.5),
    (pa.float64(), float("inf")),
    (pa.decimal128(5, 2), Decimal("1.20")),
    (pa.decimal128(5, 2), 12),
    (pa.string(), "é"),
    (pa.binary(), b"\x00"),
    (pa.binary(2), b"ab"),
    (pa.date32(), dt.date(1, 1, 1)),
    (pa.time32("s"), dt.time(1, 2, 3)),
    (pa.time64("us"), dt.time(1, 2, 3, 4)),
    (pa.timestamp("us"), dt.datetime(2026, 1, 1, microsecond=3)),  # noqa: DTZ001 # without a zone
    (pa.timestamp("s", "Asia/Tokyo"), NEW_YEAR),
    (pa.timestamp("ns", "UTC"), pd.Timestamp("2026-01-01 00:00:00.000000001", tz="UTC")),
    (pa.duration("ns"), pd.Timedelta(1, "ns")),
    (pa.duration("s"), dt.timedelta(days=-1)),
    (pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3])),
    (pa.null(), None),
]

#: Values that Arrow would change silently, and words of the error.
REFUSED: list[tuple[pa.DataType, Any, str]] = [
    (pa.bool_(), 1, "bool"),
    (pa.int64(), True, "int64"),
    (pa.int8(), 128, "-128 to 127"),
    (pa.uint8(), -1, "0 to 255"),
    (pa.int64(), 1.5, "whole number"),
    (pa.int64(), NAN, "None for a missing value"),
    (pa.int64(), "1", "int64"),
    (pa.float64(), 2**53 + 1, "9007199254740992"),
    (pa.float32(), 2**24 + 1, "16777216"),
    (pa.float32(), 1e300, "does not fit"),
    (pa.float16(), 70000, "65504"),
    (pa.float32(), 1e-300, "it would become 0.0"),
    (pa.float32(), np.float64(0.1), "it would become"),
    (pa.float64(), "1.5", "double"),
    (pa.decimal128(5, 2), Decimal("1.234"), "quantize"),
    (pa.decimal128(5, 2), Decimal("NaN"), "decimal"),
    (pa.decimal128(5, 2), 1.5, "Decimal"),
    (pa.string(), 5, "str"),
    (pa.string(), b"x", "str"),
    (pa.string(), NAN, "None for a missing value"),
    (pa.binary(), "x", "encode"),
    (pa.binary(2), b"abc", "fixed_size_binary"),
    (pa.date32(), dt.datetime(2026, 1, 1, 5, tzinfo=UTC), "date"),
    (pa.date32(), 19000, "date32"),
    (pa.time32("s"), dt.time(1, 2, 3, 999), "finer unit"),
    (pa.time64("us"), dt.time(1, tzinfo=UTC), "time zone"),
    (pa.time64("us"), 5, "time64"),
    (pa.timestamp("s"), pd.Timestamp("2026-01-01 12:00:00.75"), "finer unit"),
    (pa.timestamp("us"), NEW_YEAR, "must not have a time zone"),
    (pa.timestamp("us", "UTC"), np.datetime64("2026-01-01"), "must have a time zone"),
    (pa.timestamp("us", "UTC"), 1704067200, "timestamp"),
    (pa.timestamp("ns"), np.datetime64("3000-01-01", "s"), "coarser unit"),
    (pa.timestamp("us"), "2026-01-01", "timestamp"),
    (pa.duration("ms"), dt.timedelta(microseconds=1), "finer unit"),
    (pa.duration("ms"), 5, "duration"),
    (pa.null(), 1, "null"),
]


def _back(kind: pa.DataType, value: Any) -> Any:
    """Return a value after it was stored in a chunk."""
    spec = TensorSpec(dtype=pd.ArrowDtype(kind))
    batch = opened(encode(Schema({"x": spec}), [{"x": value}])).batch
    (stored,) = iterate_stored(batch.column("x"), None, spec)
    return None if stored is None else codec_for(spec).decode(stored)


@pytest.mark.parametrize(("kind", "value"), KEPT, ids=str)
def test_values_stay_equal_alone_and_nested(kind: pa.DataType, value: Any) -> None:
    """A value is read back equal, also from lists, structs and maps."""
    assert _back(kind, value) == value
    assert _back(pa.list_(kind), [value, None]) == [value, None]
    assert _back(pa.struct([("a", kind)]), {"a": value}) == {"a": value}
    assert _back(pa.map_(pa.string(), kind), {"k": value}) == [("k", value)]
    assert _back(pa.list_(pa.struct([("a", pa.list_(kind))])), [{"a": [value]}]) == [{"a": [value]}]


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED, ids=str)
def test_values_that_would_change_are_refused(kind: pa.DataType, value: Any, words: str) -> None:
    """A value that Arrow would cut, move or replace is an error, also in lists, structs and maps."""
    with pytest.raises(SampleError, match=words):
        as_exact(value, kind)
    spec = TensorSpec(dtype=pd.ArrowDtype(pa.list_(kind)))
    for sample in ([value], (value,)):
        with pytest.raises(SampleError):
            codec_for(spec).encode(sample)
    with pytest.raises(SampleError):
        as_exact({"a": value}, pa.struct([("a", kind)]))
    with pytest.raises(SampleError):
        as_exact({"k": value}, pa.map_(pa.string(), kind))


@pytest.mark.parametrize("fold", [0, 1])
def test_times_that_occur_twice_stay_the_same_instant(fold: int) -> None:
    """A time in the hour that a clock repeats keeps its offset."""
    value = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=fold)
    back = _back(pa.list_(pa.timestamp("us", "Europe/Berlin")), [value])[0]
    # Python compares such times of different classes of zones as unequal.
    assert (back.timestamp(), back.utcoffset()) == (value.timestamp(), value.utcoffset())


def test_nan_stays_nan() -> None:
    """NaN is a number, and a missing value is none: both are kept, alone and nested."""
    for kind, value in (
        (pa.list_(pa.float64()), [NAN, None]),
        (pa.list_(pa.float32()), [NAN, None]),
    ):
        stored = _back(kind, value)
        assert np.isnan(stored[0])
        assert stored[1] is None
    assert np.isnan(_back(pa.struct([("a", pa.float64())]), {"a": NAN})["a"])
    assert np.isnan(_back(pa.float64(), NAN))
    assert _back(pa.float64(), pd.NA) is None


def test_narrow_floats_round_only_floats_of_python() -> None:
    """The user does not choose the dtype of a float of Python, but that of numpy's numbers."""
    assert _back(pa.list_(pa.float32()), [0.1]) == [float(np.float32(0.1))]
    assert _back(pa.list_(pa.float32()), np.array([0.5])) == [0.5]
    with pytest.raises(SampleError, match="it would become"):
        as_exact(np.array([0.1]), pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series([1.5, NAN]), pa.int64()),
        (pd.Series([0.1]), pa.float32()),
        (pd.Series([2**53 + 1]), pa.float64()),
        (pd.Series([True]), pa.int64()),
        (pd.Series([1]), pa.bool_()),
        (pa.array(["1"]), pa.int64()),
        (pa.array([1]), pa.string()),
        (pa.array([1]), pa.timestamp("us")),
        (pa.array([5], pa.timestamp("us")), pa.timestamp("us", "UTC")),
        (pa.array([5], pa.timestamp("us", "UTC")), pa.timestamp("us")),
        (pa.array([5], pa.timestamp("us", "UTC")), pa.timestamp("s", "UTC")),
        (pa.array([5], pa.timestamp("us")), pa.date32()),
        (pa.array([[1.5]]), pa.list_(pa.int64())),
        (pa.array([Decimal("1.25")]), pa.float64()),
        (pa.array([b"\xff"]), pa.string()),
    ],
    ids=str,
)
def test_columns_that_would_change_are_encoded_one_by_one(values: Any, kind: pa.DataType) -> None:
    """A cast of a whole column that could change a value leaves the decision to the single values."""
    assert as_column(values, kind) is None


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (pd.Series([1.0, 2.0]), pa.int64(), [1, 2]),
        (pd.Series([1, 2], dtype="uint8"), pa.float32(), [1.0, 2.0]),
        (pd.Series([1.0], dtype="float32"), pa.float64(), [1.0]),
        (pd.Series([1, None], dtype="Int64"), pa.int8(), [1, None]),
        (pa.array(["a"]), pa.large_string(), ["a"]),
        (pa.array(["a", None]).dictionary_encode(), pa.string(), ["a", None]),
        (pa.array([5], pa.timestamp("s")), pa.timestamp("us"), [dt.datetime(1970, 1, 1, 0, 0, 5)]),  # noqa: DTZ001 # without a zone
        (pa.nulls(2), pa.int64(), [None, None]),
        (pd.Series([b"a", b"b"], dtype=object), pa.binary(), [b"a", b"b"]),
    ],
    ids=str,
)
def test_columns_are_cast_within_their_family(
    values: Any, kind: pa.DataType, expected: list[Any]
) -> None:
    """A column of another width or unit is cast as a whole."""
    column = as_column(values, kind)
    assert column is not None
    assert (column.type, column.to_pylist()) == (kind, expected)


def test_times_in_nanoseconds_are_kept() -> None:
    """A time of day that Python cannot represent stays a scalar of Arrow."""
    column: pa.Array = pa.array([1, 2000, None], pa.time64("ns"))
    assert as_column(column, pa.time64("ns")).equals(column)  # type: ignore[union-attr] # never None
    values = python_values(column)
    assert values == [column[0], dt.time(microsecond=2), None]
    assert _back(pa.time64("ns"), values[0]) == column[0]
    with pytest.raises(SchemaError, match="microseconds"):
        TensorSpec(dtype=pa.list_(pa.time64("ns")))


def test_nan_of_a_float_column_is_not_null() -> None:
    """NaN in a column of numpy stays NaN in a nullable column."""
    column = as_column(pd.Series([NAN, 1.0]), pa.float64())
    assert column is not None
    assert column.null_count == 0


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 1e-300),
        ("complex64", 1e-300),
        ("float64", 2**53 + 1),
        ("float64", 2**63 - 1),
        ("float64", np.uint64(2**64 - 1)),
        ("float64", np.array(2**53 + 1)),
        ("float64", [2**53 + 1, 0.5]),
        ("float32", 2**24 + 1),
        ("float16", 2049),
        ("complex64", 2**24 + 1),
    ],
)
def test_numbers_that_a_float_does_not_hold_are_refused(dtype: str, value: Any) -> None:
    """Tensors of numpy types refuse integers beyond the digits of the float, and underflow, too."""
    with pytest.raises(SampleError, match="does not fit"):
        codec_for(TensorSpec(dtype=dtype)).encode(value)


@pytest.mark.parametrize(
    ("dtype", "value"), [("float64", 2**53), ("float64", 2**62), ("float32", 2**24)]
)
def test_integers_that_are_exact_as_floats_are_kept(dtype: str, value: int) -> None:
    """Integers with few digits are exact as floats of any size."""
    spec = TensorSpec(dtype=dtype, shape=())
    assert codec_for(spec).encode(value) == value


def test_large_binary_scalars_count_towards_the_size_of_a_chunk() -> None:
    """A chunk of Arrow values is flushed when it is full."""
    spec = TensorSpec(dtype="binary")
    builder = ColumnBuilder("x", spec)
    builder.append(codec_for(spec).encode(bytes(5000)))
    assert builder.nbytes >= 5000
