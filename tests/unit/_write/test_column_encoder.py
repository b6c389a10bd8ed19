"""Test that columns are encoded as a whole exactly as value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import Schema, TensorSpec
from dasklake._codecs.transfer import encode_value
from dasklake._format.columns import ColumnBuilder
from dasklake._write.column_encoder import ColumnEncoder
from dasklake._write.column_specs import column_spec
from dasklake._write.encoder import Encoder
from dasklake.exceptions import SampleError
from tests.support.dtypes import COLUMNS, REFUSED

KEPT = [name for name in COLUMNS if name not in REFUSED]


def column_of(encoded: Any, spec: TensorSpec) -> pa.Array:
    """Return encoded values as the column of a chunk."""
    builder = ColumnBuilder("x", spec)
    if isinstance(encoded, pa.Array):
        assert encoded.type == builder.finish()[0][1].type
        builder.extend(encoded)
    else:
        for value in encoded:
            builder.append(value)
    return builder.finish()[0][1]


def as_columns(values: Any, spec: TensorSpec) -> pa.Array | None:
    """Encode a column as a whole."""
    encoder = ColumnEncoder(Encoder(Schema({"x": spec})))
    columns, rows = encoder.columns({"x": values}, 0)
    encoded = encoder.encode(columns, rows)
    return None if encoded is None else column_of(encoded["x"], spec)


def one_by_one(values: Any, spec: TensorSpec) -> pa.Array:
    """Encode the values of a column one by one."""
    encoder = ColumnEncoder(Encoder(Schema({"x": spec})))
    columns, rows = encoder.columns({"x": values}, 0)
    return column_of([sample["x"] for sample in encoder.samples(columns, rows)], spec)


def shown(column: pa.Array) -> list[str]:
    """Return the values of a column as texts, in which NaN equals NaN."""
    if pa.types.is_timestamp(column.type):  # NaT is a number that Python cannot show
        return [str(column.type), *map(str, column.cast(pa.int64()))]
    return [str(column.type), *map(str, column)]


@pytest.mark.parametrize("name", KEPT)
def test_columns_of_pandas_are_encoded_like_their_values(name: str) -> None:
    """A column of each dtype is encoded at once as it is value by value."""
    series = pd.Series(COLUMNS[name]())
    spec = Schema({"x": column_spec(series)})["x"]
    whole = as_columns(series, spec)
    assert whole is not None
    assert shown(whole) == shown(one_by_one(series, spec))


NUMBERS: dict[str, Any] = {
    "ints": [1, 2, -3],
    "ints with None": [1, None, 3],
    "large ints": [2**63 - 1, 2**53 + 1, 0],
    "ints beyond 64 bits": [2**64, 1, 2],
    "floats": [0.5, 1.0, 2.0],
    "floats beyond float32": [1e300, 1.0, 2.0],
    "ints and floats": [1, 0.5, 2],
    "bools": [True, False, True],
    "bools and ints": [True, 2, 3],
    "small numpy ints": [np.int8(1), np.int8(2), np.int8(3)],
    "mixed numpy ints": [np.int8(1), np.int64(300), np.int64(3)],
    "texts": ["a", "b", "a"],
    "texts with None": ["a", None, "b"],
    "texts with NaN": ["a", float("nan"), "b"],
    "unknown texts": ["a", "z", "b"],
    "bytes": [b"a", b"b", b""],
    "dicts": [{"a": 1}, {}, None],
    "array of ints": np.arange(3),
    "array of small ints": np.arange(3, dtype="uint8"),
    "array of floats": np.array([0.5, 1.5, np.nan]),
    "array of texts": np.array(["a", "b", "a"]),
    "array of bools": np.array([True, False, True]),
    "array of objects": np.array([1, None, 2], dtype=object),
    "array of vectors": np.arange(6.0).reshape(3, 2),
    "list of vectors": [np.arange(2.0)] * 3,
    "array of times": np.array(["2026-01-01", "NaT", "2026-01-02"], "datetime64[us]"),
    "column of Arrow": pa.array([1, None, 2]),
    "chunked column of Arrow": pa.chunked_array([["a"], ["b", None]]),
    "index of pandas": pd.Index([1, 2, 3]),
    "tuple": (1, 2, 3),
    "range": range(3),
}

SPECS = {
    "int64": TensorSpec(dtype="int64", shape=()),
    "uint8": TensorSpec(dtype="uint8", shape=()),
    "float32": TensorSpec(dtype="float32", shape=()),
    "float64": TensorSpec(dtype="float64", shape=()),
    "bool": TensorSpec(dtype="bool", shape=()),
    "Int64": TensorSpec(dtype="Int64", shape=()),
    "binary": TensorSpec(dtype="binary"),
    "vector": TensorSpec(dtype="float64", shape=(2,)),
    "times": TensorSpec(dtype="datetime64[us]", shape=()),
    "text": TensorSpec("text"),
    "json": TensorSpec("json"),
    "label": TensorSpec("class_label", shape=(), class_names=["a", "b"]),
    "any label": TensorSpec("class_label", class_names=["a", "b"]),
    "any found label": TensorSpec("class_label", discover=True),
    "found label": TensorSpec("class_label", shape=(), discover=True),
}


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("values", NUMBERS)
def test_columns_are_encoded_like_their_values(values: str, kind: str) -> None:
    """A column is encoded as a whole only if each value is valid, and then to the same bytes."""
    column, spec = NUMBERS[values], SPECS[kind]
    try:
        expected = one_by_one(column, spec)
    except SampleError:
        assert as_columns(column, spec) is None
        return
    whole = as_columns(column, spec)
    assert whole is None or shown(whole) == shown(expected)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("ints", "int64"),
        ("floats", "float32"),
        ("array of vectors", "vector"),
        ("texts with None", "text"),
        ("array of texts", "label"),
        ("texts", "label"),
        ("texts", "found label"),
        ("texts", "any label"),
        ("texts", "any found label"),
        ("dicts", "json"),
        ("ints with None", "int64"),
    ],
)
def test_columns_of_tables_are_encoded_as_a_whole(values: str, kind: str) -> None:
    """Numbers, texts and labels of tables do not take the slow way."""
    assert as_columns(NUMBERS[values], SPECS[kind]) is not None


def test_memory_of_a_result_may_be_used_again() -> None:
    """Encoded columns do not change with the arrays that a transform returned."""
    spec = SPECS["int64"]
    encoder = ColumnEncoder(Encoder(Schema({"x": spec})))
    buffer = np.arange(3)
    for column in (buffer, pd.Series(buffer, copy=False)):
        encoded = encoder.encode({"x": column}, 3)
        assert encoded is not None
        buffer += 100
        assert column_of(encoded["x"], spec).to_pylist() == [n - 100 for n in buffer]


@pytest.mark.parametrize("kind", ["int64", "Int64", "text"])
def test_masked_arrays_are_refused(kind: str) -> None:
    """A mask would be lost, so the error names the tensor and the cure."""
    masked: Any = np.ma.masked_array([1, 2, 3], [False, True, False])
    with pytest.raises(SampleError, match=r"'x': .* masked array.*filled"):
        as_columns(masked, SPECS[kind])
    with pytest.raises(SampleError, match="masked array"):
        Encoder(Schema({"x": SPECS[kind]})).encode_block({"x": masked})


def test_a_missing_column_has_the_rows_of_the_others() -> None:
    """None and absent optional tensors have no value in each row; at least as many as were given."""
    encoder = ColumnEncoder(Encoder(Schema({"x": SPECS["int64"], "y": SPECS["text"]})))
    columns, rows = encoder.columns({"x": [1, 2], "y": None}, 5)
    assert encoder.samples(columns, rows)[1]["y"] is None
    assert encoder.columns({"x": None, "y": None}, 5)[1] == 5


def test_values_are_those_of_the_codec() -> None:
    """A column that is encoded value by value has what the codec makes of each."""
    codec = Encoder(Schema({"x": SPECS["Int64"]})).codecs["x"]
    column = as_columns([1, None, 2**62], SPECS["Int64"])
    assert column is not None
    assert column[2].equals(encode_value(2**62, codec))
