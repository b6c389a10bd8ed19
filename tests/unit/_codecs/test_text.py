"""Codecs of strings and Arrow types."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake.exceptions import SampleError

TEXT = TensorSpec("text")
MONEY = TensorSpec(dtype=pa.decimal128(10, 2))
PERSON = TensorSpec(dtype=pa.struct([("name", pa.string())]))


@pytest.mark.parametrize("value", ["", "ä\n\U0001f600", np.str_("x")])
def test_strings_round_trip(value: str) -> None:
    """Every valid string is decoded unchanged."""
    codec = codec_for(TEXT)
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("value", [b"x", 1, "\ud800"])
def test_invalid_text_is_refused(value: Any) -> None:
    """Bytes, numbers and invalid strings are refused with a printable message."""
    with pytest.raises(SampleError) as raised:
        codec_for(TEXT).encode(value)
    str(raised.value).encode()


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype=object),
        np.array(["a", None], object),
        pa.array(["a", None]),
        pa.chunked_array([["a"], [None]]),
        pd.Series(["a", None], dtype="category"),
    ],
)
def test_columns_of_strings_are_encoded_at_once(values: Any) -> None:
    """Strings of every library are encoded as one column; missing strings become null."""
    column = codec_for(TEXT).encode_column(values)
    assert column is not None
    assert column.type == pa.large_string()
    assert column.to_pylist() == ["a", None]


@pytest.mark.parametrize(
    "values",
    [np.array([b"a"], object), np.array([1, "a"], object), np.array([["a"]]), pa.array([1])],
)
def test_columns_with_other_values_are_encoded_one_by_one(values: Any) -> None:
    """A column with other values is encoded one by one, so that the error names the value."""
    assert codec_for(TEXT).encode_column(values) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.decimal128(10, 2), decimal.Decimal("1.50")),
        (pa.time64("us"), dt.time(1, 2)),
        (pa.list_(pa.int64()), [1, 2]),
        (pa.struct([("a", pa.int64())]), {"a": 1}),
        (pa.binary(), b"x"),
        (pa.timestamp("us", "UTC"), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_arrow_values_round_trip(kind: Any, value: Any) -> None:
    """A value of an Arrow type is stored unchanged."""
    codec = codec_for(TensorSpec(dtype=kind))
    assert codec.encode(value).as_py() == value
    column = codec.encode_column(pa.array([value, None], kind))
    assert column is not None
    assert column.to_pylist() == [value, None]


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (MONEY, "x"),
        (MONEY, decimal.Decimal("1.555")),
        (PERSON, {"name": "a", "age": 1}),
        (PERSON, 5),
        (TensorSpec(dtype="Int8"), 300),
        (TensorSpec(dtype="Int8"), 1.5),
        (TensorSpec(dtype=pa.list_(pa.int8())), [1.5]),
    ],
)
def test_values_that_do_not_fit_an_arrow_type_are_refused(spec: TensorSpec, value: Any) -> None:
    """A value of another type, or one that would lose digits or fields, is refused."""
    with pytest.raises(SampleError):
        codec_for(spec).encode(value)


def test_an_arrow_column_with_other_values_is_encoded_one_by_one() -> None:
    """A column that Arrow cannot convert is encoded one by one."""
    assert codec_for(MONEY).encode_column(pd.Series(["x"], dtype=object)) is None
