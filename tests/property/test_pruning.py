"""Statistics never hide a matching sample, whatever the values, the operator and the missing values."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from dasklake._codecs.registry import codec_for
from dasklake._format.columns import ColumnBuilder
from dasklake._format.segment import build_manifest
from dasklake._format.statistics import encode_statistics
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._read.pruning import Condition, chunks_that_may_match
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.schema import Schema, TensorSpec

NAMES = [f"class {i}" for i in range(12)]

#: Tensors, each with strategies of its values and of the values of filters.
floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf, 0.1, 2.0**53])
numbers = st.integers(-4, 4) | st.integers(-(2**63), 2**63 - 1)
letters = st.text("ab\ud7ff\U0010ffff", max_size=3)
texts = letters | st.builds(lambda a, b: "a" * 31 + a + b, letters, letters)
days = st.integers(-3, 3).map(lambda day: np.datetime64(day, "D").astype("M8[s]"))
times = days | st.just(np.datetime64("NaT", "s"))
cents = st.integers(-300, 300).map(lambda n: Decimal(n) / 100)
labels = st.integers(0, len(NAMES) - 1)

TENSORS: dict[str, tuple[TensorSpec, st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {
    "int64": (TensorSpec(dtype="int64", shape=()), numbers, numbers | floats),
    "uint8": (TensorSpec(dtype="uint8", shape=()), st.integers(0, 255), numbers | floats),
    "float64": (TensorSpec(dtype="float64", shape=()), floats, floats | numbers),
    "float32": (TensorSpec(dtype="float32", shape=()), floats, floats | st.floats() | numbers),
    "Float32": (TensorSpec(dtype="Float32"), floats, floats | st.floats()),
    "bool": (TensorSpec(dtype="bool", shape=()), st.booleans(), st.booleans()),
    "boolean": (TensorSpec(dtype="boolean"), st.booleans(), st.booleans()),
    "Int64": (TensorSpec(dtype="Int64"), numbers, numbers | floats),
    "text": (TensorSpec("text"), texts, texts),
    "string": (TensorSpec(dtype="string"), texts, texts),
    "times": (TensorSpec(dtype="datetime64[s]", shape=()), times, times),
    "stamps": (
        TensorSpec(dtype=pa.timestamp("us", "UTC")),
        st.datetimes(timezones=st.just(dt.UTC)),
        st.datetimes(timezones=st.just(dt.UTC)),
    ),
    "dates": (TensorSpec(dtype=pd.ArrowDtype(pa.date32())), st.dates(), st.dates()),
    "cents": (TensorSpec(dtype=pa.decimal128(5, 2)), cents, cents | st.integers(-3, 3)),
    "label": (TensorSpec("class_label", shape=(), class_names=NAMES), labels, labels),
    "index": (
        TensorSpec("class_label", shape=()),
        labels | st.integers(0, 2**32 - 1),
        labels | st.integers(0, 2**32 - 1),
    ),
    "found": (
        TensorSpec("class_label", shape=(), discover=True, class_names=NAMES),
        labels.map(NAMES.__getitem__),
        labels,
    ),
}

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: any(a == value for value in b),
    "not in": lambda a, b: all(a != value for value in b),
}
parts: st.SearchStrategy[str | int] = st.sampled_from(["value", "objects", 0])
FUNCTIONS = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def statistics_of(
    schema: Schema, chunks: Sequence[Sequence[Any]], name: str, *, known: Sequence[bool]
) -> tuple[VersionStatistics, list[pa.Array]]:
    """Encode values in chunks, some without statistics; return the statistics and the columns."""
    codec = codec_for(schema[name])
    refs, columns = [], []
    for number, values in enumerate(chunks):
        builder = ColumnBuilder(name, schema[name])
        for value in values:
            builder.append(None if value is None else codec.encode(value))
        parts = builder.finish()
        text = encode_statistics(parts, schema) if known[number] else None
        refs.append(ChunkRef(number, len(values), 1000, 100, 0, text))
        columns.append(parts[0][1])
    receipt = Receipt("run", 1, 0, "ab" * 8, tuple(refs), 0)
    return VersionStatistics(build_manifest("main/run", 0, [receipt]), schema, {}), columns


@st.composite
def filters(draw: st.DrawFn, value: st.SearchStrategy[Any]) -> Condition:
    """Draw a condition on the tensor ``x``."""
    operator = draw(st.sampled_from([*OPERATORS, "is null", "is valid", "is nan"]))
    if operator.startswith("is "):
        return Condition("x", operator)
    if operator in ("in", "not in"):
        return Condition("x", operator, draw(st.lists(value, max_size=3)))
    return Condition("x", operator, draw(value))


def matches(condition: Condition, value: Any) -> bool:
    """Compare a value as Python does."""
    if condition.operator == "is null":
        return value is None
    if condition.operator == "is valid":
        return value is not None
    nan = value is not None and bool(value != value)  # noqa: PLR0124 # NaN
    if condition.operator == "is nan":
        return nan
    return value is not None and bool(OPERATORS[condition.operator](value, condition.value))


def matches_in_arrow(condition: Condition, column: pa.Array) -> bool:
    """Compare a column as Arrow does; False if Arrow cannot compare the types."""
    try:
        if condition.operator in FUNCTIONS:
            found = FUNCTIONS[condition.operator](column, pa.scalar(condition.value))
        elif condition.operator in ("in", "not in"):
            found = pc.is_in(column, value_set=pa.array(condition.value, column.type))
            found = pc.invert(found) if condition.operator == "not in" else found
        else:
            return False
    except (pa.ArrowException, OverflowError, TypeError):
        return False
    return bool(pc.any(found).as_py())


def as_stored(value: Any, spec: TensorSpec) -> Any:
    """Return a value as a filter sees it: labels as indices, numbers with their precision."""
    if spec.discover:
        return NAMES.index(value)
    return np.float32(value).item() if spec.dtype in ("float32", "Float32") else value


@given(st.data())
def test_no_matching_chunk_is_left_out(data: st.DataObject) -> None:
    """A chunk with a sample that matches, in Python or in Arrow, is kept."""
    spec, value, wanted = TENSORS[data.draw(st.sampled_from(sorted(TENSORS)))]
    schema = Schema({"x": spec})
    chunks = data.draw(st.lists(st.lists(value | st.none(), max_size=5), min_size=1, max_size=4))
    condition = data.draw(filters(wanted))
    known = data.draw(st.lists(st.integers(0, 9).map(bool), min_size=4, max_size=4))
    statistics, columns = statistics_of(schema, chunks, "x", known=known)
    kept = chunks_that_may_match(statistics, [[condition]])
    for chunk, given_values, column in zip(kept.tolist(), chunks, columns, strict=True):
        values = [None if value is None else as_stored(value, spec) for value in given_values]
        expected = any(matches(condition, value) for value in values)
        if not spec.discover:
            expected = expected or matches_in_arrow(condition, column)
        assert chunk or not expected, (values, condition)


@given(st.data())
def test_lists_and_lengths_are_pruned_safely(data: st.DataObject) -> None:
    """Conditions on labels in lists, numbers of objects and axes keep all matching chunks."""
    rank = data.draw(st.booleans())
    spec = TensorSpec("class_label", shape=(None,) if rank else None, class_names=NAMES)
    chunks = data.draw(
        st.lists(
            st.lists(st.none() | st.lists(labels, max_size=4), max_size=4), min_size=1, max_size=3
        )
    )
    statistics, _ = statistics_of(Schema({"x": spec}), chunks, "x", known=[True] * 3)
    condition = data.draw(filters(labels))
    part = data.draw(parts)
    kept = chunks_that_may_match(statistics, [[condition._replace(part=part)]])
    for chunk, values in zip(kept.tolist(), chunks, strict=True):
        for value in values:
            if part == "value" and value is not None and not condition.operator.startswith("is"):
                expected = any(matches(condition, label) for label in value)
            elif condition.operator.startswith("is"):
                expected = matches(condition, None if value is None else 0)
            else:
                expected = matches(condition, None if value is None else len(value))
            assert chunk or not expected, (values, condition, part)


@given(st.data())
def test_alternatives_and_their_conditions_are_combined(data: st.DataObject) -> None:
    """A chunk is kept if one alternative may hold; an alternative if all of its conditions may."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=())})
    small = st.integers(0, 5)
    chunks = data.draw(st.lists(st.lists(small, max_size=4), min_size=1, max_size=4))
    alternatives = data.draw(st.lists(st.lists(filters(small), max_size=3), max_size=3))
    statistics, _ = statistics_of(schema, chunks, "x", known=[True] * 4)
    kept = chunks_that_may_match(statistics, alternatives)
    single = [
        [chunks_that_may_match(statistics, [[condition]]) for condition in conditions]
        for conditions in alternatives
    ]
    for number, values in enumerate(chunks):
        expected = bool(values) and any(all(m[number] for m in masks) for masks in single)
        assert kept[number] == expected
        assert kept[number] or not any(
            all(matches(condition, value) for condition in conditions)
            for value in values
            for conditions in alternatives
        )


def test_statistics_exclude_chunks() -> None:
    """Chunks of other values are left out, for every kind of value."""
    day = dt.date(2026, 11, 28)
    cases: list[tuple[TensorSpec, Any, Any]] = [
        (TensorSpec(dtype="int64", shape=()), 3, 4),
        (TensorSpec(dtype="float32", shape=()), 0.5, 0.75),
        (TensorSpec(dtype="bool", shape=()), True, False),
        (TensorSpec("text"), "left", "right"),
        (TensorSpec("text"), "x" * 40, "x" * 31 + "y"),
        (TensorSpec(dtype="datetime64[s]", shape=()), np.datetime64(0, "s"), np.datetime64(9, "s")),
        (TensorSpec(dtype=pd.ArrowDtype(pa.date32())), day, day + dt.timedelta(1)),
        (TensorSpec(dtype=pa.decimal128(5, 2)), Decimal("1.25"), Decimal("1.50")),
        (TensorSpec("class_label", shape=(), class_names=NAMES), 3, 4),
        (TensorSpec("class_label", shape=()), 70_000, 70_001),
    ]
    for spec, value, other in cases:
        schema = Schema({"x": spec})
        statistics, _ = statistics_of(schema, [[value], [other], [None]], "x", known=[True] * 3)
        for operator, wanted in [("==", value), ("in", [value])]:
            kept = chunks_that_may_match(statistics, [[Condition("x", operator, wanted)]])
            assert kept.tolist() == [True, False, False], spec
        kept = chunks_that_may_match(statistics, [[Condition("x", "is valid")]])
        assert kept.tolist() == [True, True, False]
        kept = chunks_that_may_match(statistics, [[Condition("x", "is null")]])
        assert kept.tolist() == [False, False, True]
