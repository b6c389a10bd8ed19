"""Columns of another dtype are appended with equal values, or refused with the sample and the cure."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dasklake
from dasklake.exceptions import TransformError

SYNC = dasklake.WriteOptions(scheduler="sync")


def _column(values: list[Any], kind: pa.DataType) -> pd.Series:
    # Not made by pandas, some releases of which drop NaN.
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values, kind, from_pandas=False)))


def _appended(first: pd.Series, second: pd.Series, url: str = "") -> list[Any]:
    """Append a column to a lake of another one, and return the appended values."""
    url = url or f"memory://{uuid4().hex}"
    for column, mode in ((first, "create"), (second, "append")):
        frame = dd.from_pandas(pd.DataFrame({"x": column}), npartitions=1)
        frame.to_lake(url, mode=mode, options=SYNC)
    values: list[Any] = dasklake.read_lake(url)["x"].compute(scheduler="sync").tolist()
    return values[len(first) :]


DAYS = pd.Series(pd.to_datetime(["2026-01-01"]).as_unit("s"))
LATE = pd.Series(pd.to_datetime(["2026-01-01 12:00:00.75"]))


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (DAYS, LATE, "datetime64"),
        (DAYS.dt.tz_localize("UTC"), LATE.dt.tz_localize("UTC"), "finer unit"),
        (LATE.dt.tz_localize("Asia/Tokyo"), LATE, "must have a time zone"),
        (pd.Series([1, 2], dtype="Int64"), pd.Series([1.0, np.nan]), "None for a missing value"),
        (pd.Series([1, 2], dtype="Int64"), pd.Series([1.5]), "whole number"),
        (pd.Series([1.5], dtype="float32"), pd.Series([0.1]), "float64"),
        (pd.Series([1.5], dtype="Float32"), pd.Series([0.1]), "it would become"),
        (pd.Series([1.5]), pd.Series([2**53 + 1]), "does not fit"),
        (pd.Series([1.5], dtype="Float64"), pd.Series([2**53 + 1]), "it would become"),
        (pd.Series([True], dtype="boolean"), pd.Series([1]), "bool"),
        (pd.Series(["a"]), pd.Series([1]), "string"),
        (
            _column([[1.5]], pa.list_(pa.float32())),
            _column([[1e300]], pa.list_(pa.float64())),
            "3.40282e",
        ),
        (_column([[1]], pa.list_(pa.int64())), _column([[1.5]], pa.list_(pa.float64())), "whole"),
    ],
)
def test_values_that_would_change_are_refused(
    first: pd.Series, second: pd.Series, words: str
) -> None:
    """A value that the tensor cannot hold is an error that names the tensor and the cure."""
    with pytest.raises(TransformError, match=words) as raised:
        _appended(first, second)
    assert "tensor 'x'" in str(raised.value)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            LATE.dt.tz_localize("UTC"),
            DAYS.dt.tz_localize("UTC"),
            [pd.Timestamp("2026-01-01", tz="UTC")],
        ),
        (pd.Series([1], dtype="Int64"), pd.Series([2.0, 3.0]), [2, 3]),
        (pd.Series([1.5], dtype="Float32"), pd.Series([0.5]), [0.5]),
        (pd.Series([1.5]), pd.Series([2**53]), [2.0**53]),
        (pd.Series([1.5]), pd.Series([0.5], dtype="float32"), [0.5]),
        (_column(["a"], pa.string()), _column(["b"], pa.dictionary(pa.int8(), pa.string())), ["b"]),
        (
            _column([[1.5]], pa.list_(pa.float32())),
            _column([[0.5]], pa.list_(pa.float64())),
            [[0.5]],
        ),
    ],
)
def test_equal_values_are_appended(
    first: pd.Series, second: pd.Series, expected: list[Any]
) -> None:
    """Values of another width or unit are appended if they stay equal."""
    assert [
        list(v) if hasattr(v, "__len__") and not isinstance(v, str) else v
        for v in _appended(first, second)
    ] == expected


def test_nan_in_nullable_and_nested_columns_stays_nan() -> None:
    """NaN is neither a missing value nor a number to drop."""
    url = f"memory://{uuid4().hex}"
    _appended(pd.Series([1.5], dtype="Float64"), pd.Series([np.nan, 2.0]), url)
    assert np.isnan(dasklake.open(url)[1]["x"])  # a frame shows it as NA, as pandas does
    lists = _appended(
        _column([[1.0]], pa.list_(pa.float64())),
        _column([[float("nan"), None]], pa.list_(pa.float64())),
    )
    assert np.isnan(lists[0][0])
    assert lists[0][1] is None
