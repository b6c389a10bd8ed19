"""Test the encoding of samples, one by one and in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dasklake._schema.schema import Schema, TensorSpec
from dasklake._write.encoder import Encoder, blocks_of
from dasklake.exceptions import SampleError


def _columns() -> dict[str, Any]:
    return {
        "category": pd.Categorical(["a", None, "b"]),
        "nullable": pd.array([1, None, 3], dtype="Int64"),
        "moment": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
        "span": pd.to_timedelta(["1h", None, "2h"]),
        "zone": pd.to_datetime(["2026-01-01", None, "2026-01-03"]).tz_localize("UTC"),
        "string": pd.array(["a", None, "b"], dtype="string"),
        "object": pd.Series(["a", np.nan, "b"], dtype=object),
        "float": np.array([1.0, np.nan, 2.0]),
    }


def _spec(column: pd.Series) -> TensorSpec:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return TensorSpec("class_label", class_names=["a", "b"], shape=())
    if column.dtype == np.dtype(object):
        return TensorSpec("text")
    return TensorSpec(dtype=column.dtype, shape=())


@pytest.mark.parametrize("name", _columns())
def test_rows_and_blocks_agree_on_missing_values(name: str) -> None:
    """A missing value is None by row and by block; NaN in a float column is a value in both."""
    frame = pd.DataFrame({name: _columns()[name]})
    encoder = Encoder(Schema({name: _spec(frame[name])}))
    (block,) = blocks_of("dataframe", (name,), (frame,))
    columns = encoder.encode_block(block.columns or {})
    assert columns is not None
    rows = [encoder.encode(row)[name] for row in block.items()]
    expected = [False, name != "float", False]
    assert [value is None for value in rows] == expected
    assert [not value.is_valid for value in columns[name]] == expected


def test_an_invalid_row_does_not_affect_others() -> None:
    """If a block cannot be encoded as a whole, only its invalid rows are errors."""
    frame = pd.DataFrame(
        {"n": pd.array([1, 300, None], dtype="Int64"), "c": pd.Categorical(["a", "a", None])}
    )
    schema = {"n": TensorSpec(dtype="uint8", shape=()), "c": _spec(frame["c"])}
    encoder = Encoder(Schema(schema))
    (block,) = blocks_of("dataframe", ("n", "c"), (frame,))
    good = 0
    for position, row in enumerate(block.items()):
        if position == 1:
            with pytest.raises(SampleError, match="300"):
                encoder.encode(row)
        else:
            encoder.encode(row)
            good += 1
    assert good == 2


def test_a_transform_that_returns_none_is_an_error() -> None:
    """None from a transform is an error; without a transform it is a missing value."""
    encoder = Encoder(Schema({"x": TensorSpec(dtype="int64", shape=())}))
    assert encoder.encode(None) == {"x": None}
    assert encoder.encode(3, transformed=True) == {"x": 3}
    with pytest.raises(SampleError, match="transform returned None"):
        encoder.encode(None, transformed=True)
