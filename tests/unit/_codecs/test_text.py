"""Strings and Arrow's own types."""

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
def test_strings_come_back(value: str) -> None:
    """Any valid string comes back as it was."""
    codec = codec_for(TEXT)
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("value", [b"x", 1, "\ud800"])
def test_what_is_no_text_is_refused(value: Any) -> None:
    """Bytes, numbers and broken strings are refused, and the message can be printed."""
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
def test_columns_of_strings(values: Any) -> None:
    """Strings of any make become one column, missing ones no value."""
    column = codec_for(TEXT).encode_column(values)
    assert column is not None
    assert column.type == pa.large_string()
    assert column.to_pylist() == ["a", None]


@pytest.mark.parametrize(
    "values",
    [np.array([b"a"], object), np.array([1, "a"], object), np.array([["a"]]), pa.array([1])],
)
def test_columns_of_other_things_go_one_by_one(values: Any) -> None:
    """What is not all strings is left to the slow way, which names the value."""
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
def test_arrow_values_are_taken(kind: Any, value: Any) -> None:
    """A value of one of Arrow's types is kept as it is."""
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
def test_arrow_misfits_are_refused(spec: TensorSpec, value: Any) -> None:
    """What is not of the type, and what would lose digits or fields, is refused."""
    with pytest.raises(SampleError):
        codec_for(spec).encode(value)


def test_an_arrow_column_of_other_things_goes_one_by_one() -> None:
    """A column that Arrow cannot convert is left to the slow way."""
    assert codec_for(MONEY).encode_column(pd.Series(["x"], dtype=object)) is None
