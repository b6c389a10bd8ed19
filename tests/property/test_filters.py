"""Filters select the samples that a comparison of the values selects, one by one."""

from __future__ import annotations

import datetime as dt
import math
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import dask.bag as db
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._read.filters import parse_filters

CLASSES = ("cat", "dog", "eel", "fox")
SCHEMA = Schema(
    {
        "i": TensorSpec(dtype="int16", shape=()),
        "u": TensorSpec(dtype="uint64", shape=()),
        "f": TensorSpec(dtype="float64", shape=()),
        "h": TensorSpec(dtype="float16", shape=()),
        "any": TensorSpec(dtype="int32"),
        "packed": TensorSpec(dtype="int32", shape=(), compression="lz4"),
        "flag": TensorSpec(dtype="bool", shape=()),
        "label": TensorSpec("class_label", shape=(), class_names=list(CLASSES)),
        "open": TensorSpec("class_label", class_names=list(CLASSES)),
        "labels": TensorSpec("class_label", shape=(None,), class_names=list(CLASSES)),
        "zipped": TensorSpec(
            "class_label", shape=(None,), class_names=list(CLASSES), compression="zstd"
        ),
        "boxes": TensorSpec("bbox"),
        "mask": TensorSpec("binary_mask"),
        "text": TensorSpec("text"),
        "tags": TensorSpec("tag"),
        "when": TensorSpec(dtype="datetime64[us]", shape=()),
        "day": TensorSpec(dtype="datetime64[D]", shape=()),
        "money": TensorSpec(dtype=pa.decimal128(38, 2), shape=()),
        "fixed": TensorSpec(dtype="int8", shape=(2, 3)),
    }
)
ROWS = 240
CHUNK = 12


def _make(i: int) -> dict[str, Any]:
    """Return the plain values of a sample; some are missing, and many are equal."""
    random = np.random.default_rng(i)

    def pick(*values: Any) -> Any:
        # Some chunks have few different values, so that their statistics exclude others.
        narrow = i // CHUNK % 3 and len(values) > 2
        some = np.random.default_rng([i // CHUNK, len(values)]).permutation(len(values))[:2]
        return values[int(random.choice(some) if narrow else random.integers(len(values)))]

    def several() -> list[int]:
        return random.integers(0, 4, pick(0, 1, 2, 3)).tolist()  # type: ignore[no-any-return] # numpy

    sample = {
        "i": pick(-3, -2, 0, 1, 2, 32767),
        "u": pick(0, 1, 2, 2**63 + 5, 2**64 - 1),
        "f": pick(-0.0, 0.5, 1.0, math.nan, math.inf, -math.inf),
        "h": pick(0.0, 0.5, 1.5, math.nan),
        "any": pick(0, 1, 2),
        "packed": pick(0, 1, 2),
        "flag": bool(pick(0, 1)),
        "label": pick(0, 1, 2, 3),
        "open": pick(0, 1, 2, 3),
        "labels": several(),
        "zipped": several(),
        "boxes": int(random.integers(0, 4)),
        "mask": int(random.integers(0, 4)),
        "text": pick("", "a", "ä", "b", "ab"),
        "tags": [pick("x", "y", "z") for _ in range(int(random.integers(0, 3)))],
        "when": dt.datetime(2024, 1, pick(1, 2, 3)),  # noqa: DTZ001 # without a zone
        "day": dt.datetime(2024, 1, pick(1, 2, 3)),  # noqa: DTZ001 # without a zone
        "money": pick(Decimal("-1.50"), Decimal("0.00"), Decimal("12.25")),
        "fixed": 0,
    }
    return {
        name: None if random.random() < 0.3 * (i // CHUNK % 4) else value
        for name, value in sample.items()
    }


VALUES = [_make(i) for i in range(ROWS)]


def _stored(sample: dict[str, Any]) -> dict[str, Any]:
    """Return the values as they are written."""
    shapes: dict[str, Callable[[Any], Any]] = {
        "labels": lambda v: np.array(v, "u4"),
        "zipped": lambda v: np.array(v, "u4"),
        "boxes": lambda v: np.zeros((v, 4), "f4"),
        "mask": lambda v: np.zeros((5, 7, v), bool),
        "fixed": lambda _: np.zeros((2, 3), "i1"),
        "when": lambda v: np.datetime64(v, "us"),
        "day": lambda v: np.datetime64(v, "D"),
    }
    plain = {name: value for name, value in sample.items() if value is not None}
    written = {name: shapes.get(name, lambda v: v)(value) for name, value in plain.items()}
    for name in ("i", "u", "f", "h", "any", "packed", "label", "open"):
        if name in written:
            written[name] = np.asarray(written[name], SCHEMA[name].numpy_dtype)
    return {name: written.get(name) for name in sample}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: Any) -> Lake:
    """Write the samples as chunks with statistics, in a finished and an appended run."""
    url = tmp_path_factory.mktemp("filters") / "lake"
    samples = [_stored(sample) for sample in VALUES]
    options = dasklake.WriteOptions(scheduler="sync")
    first, second = (
        db.from_sequence(part, partition_size=CHUNK)
        for part in (samples[: ROWS // 2], samples[ROWS // 2 :])
    )
    dasklake.to_lake(first, url, schema=SCHEMA, options=options)
    dasklake.to_lake(second, url, schema=SCHEMA, mode="append", options=options)
    lake = dasklake.open(url)
    assert len(lake._reader.plan.locations()) == ROWS // CHUNK
    return lake


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _equal_or_nan(a: Any, b: Any) -> bool:
    both = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
    return both or bool(a is b if a is None or b is None else a == b)


def _true(value: Any, op: str, other: Any) -> bool:
    """Return whether a term is true of a value, as the documentation says."""
    if op in COMPARE:
        return not _missing(value) and COMPARE[op](value, other)
    if op == "!=":
        return _missing(value) or value != other
    if op in ("in", "not in"):
        found = any(_equal_or_nan(value, v) for v in other)
        return found if op == "in" else _missing(value) or not found
    if op == "contains":
        return value is not None and other in value
    return _missing(value) == (op == "is")


def _column(name: str) -> list[Any]:
    """Return what a name in a filter stands for, in each sample."""
    tensor, _, prop = name.partition(".")
    values = [sample[tensor] for sample in VALUES]
    measures: dict[str, Callable[[Any], Any]] = {
        "": lambda v: v,
        "n_objects": lambda v: v if isinstance(v, int) else len(v),
        "length": lambda v: v if isinstance(v, int) else len(v),
        "height": lambda _: 5,
        "width": lambda _: 7,
        "shape[-1]": lambda v: {"boxes": 4, "mask": v, "fixed": 3}[tensor],
        "shape[0]": lambda v: {"boxes": v, "mask": 5, "fixed": 2}[tensor],
    }
    return [None if value is None else measures[prop](value) for value in values]


NUMBERS = [-40_000, -3, 0, 1, 2, 3, 4, 5, 7, 2**63 + 5, 2**64 - 1, 2**70]
OPERANDS: dict[str, list[Any]] = {
    "i": [*NUMBERS, 1.0, 0.5, math.inf],
    "u": [*NUMBERS, 1.0, 0.5, -0.5, math.inf, -math.inf, math.nan],
    "f": [-1, 0, 1, 0.5, math.inf, -math.inf, math.nan],
    "h": [0, 0.5, 1.5, math.nan],
    "any": NUMBERS,
    "packed": NUMBERS,
    "flag": [True, False],
    "label": [0, 1, 3],
    "open": [0, 1, 3],
    "text": ["", "a", "ä", "zz"],
    "when": [dt.datetime(2024, 1, d) for d in (1, 2, 9)],  # noqa: DTZ001 # without a zone
    "day": [dt.datetime(2024, 1, d) for d in (1, 2, 9)],  # noqa: DTZ001 # without a zone
    "money": [Decimal("-1.5"), Decimal("12.255"), Decimal(0), 0, 12.25],
    **dict.fromkeys(
        (
            *(
                "boxes.n_objects",
                "boxes.shape[0]",
                "boxes.shape[-1]",
                "mask.n_objects",
                "mask.height",
            ),
            *("mask.width", "labels.n_objects", "zipped.n_objects", "labels.length", "text.length"),
            *("fixed.shape[0]", "fixed.shape[-1]", "tags.n_objects"),
        ),
        NUMBERS,
    ),
}
CONTAINED: dict[str, list[Any]] = {
    "labels": [0, 1, 2, 3],
    "zipped": [0, 1, 2, 3],
    "tags": ["x", "y", "q"],
}


@st.composite
def terms(draw: Any) -> tuple[str, str, Any]:
    """Return any valid term."""
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from(sorted(CONTAINED)))
        return name, "contains", draw(st.sampled_from(CONTAINED[name]))
    name = draw(st.sampled_from(sorted(OPERANDS)))
    op = draw(st.sampled_from([*COMPARE, "!=", "in", "not in", "is", "is not"]))
    operands = OPERANDS[name]
    if op in ("is", "is not"):
        return name, op, None
    if op in ("in", "not in"):
        # The members of a list must be of the tensor's type.
        fitting = [v for v in operands if _fits(name, v)]
        return name, op, draw(st.lists(st.sampled_from([*fitting, None]), max_size=3))
    return name, op, draw(st.sampled_from(operands))


def _fits(name: str, value: Any) -> bool:
    if name == "money":
        return isinstance(value, Decimal) and value == value.quantize(Decimal("0.01"))
    if name in ("f", "h", "flag", "text", "when", "day"):
        return True
    return isinstance(value, int)


@given(st.lists(st.lists(terms(), min_size=1, max_size=3), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_filters_equal_brute_force(lake: Lake, filters: list[list[tuple[str, str, Any]]]) -> None:
    """Lists of terms select what the terms say of each value, with nulls, NaN and empty lists."""
    columns = {name: _column(name) for terms in filters for name, _, _ in terms}
    expected = [
        row
        for row in range(ROWS)
        if any(all(_true(columns[name][row], op, v) for name, op, v in terms) for terms in filters)
    ]
    assert lake.where(filters).rows.tolist() == expected
    flat = filters[0]
    some = lake.select(slice(None, None, -3))
    numbers = range(ROWS)[::-3]
    columns = {name: _column(name) for name, _, _ in flat}
    chosen = [r for r in numbers if all(_true(columns[name][r], op, v) for name, op, v in flat)]
    assert some.where(flat).rows.tolist() == chosen


TYPES: dict[str, Any] = {
    "i": pa.int16(),
    "f": pa.float64(),
    "label": pa.string(),
    "open": pa.int64(),
    "text": pa.string(),
    "when": pa.timestamp("us"),
    "boxes.n_objects": pa.int64(),
}


def _table() -> pa.Table:
    columns = {name: _column(name) for name in TYPES}
    columns["label"] = [None if v is None else CLASSES[v] for v in columns["label"]]
    arrays = {name: pa.array(columns[name], kind) for name, kind in TYPES.items()}
    return pa.table({**arrays, "row": range(ROWS)})


TABLE = _table()
F = pc.field
EXPRESSIONS = [
    F("i") > 0,
    F("i") != 0,
    ~(F("f") < 1),
    F("f") == F("f"),
    F("f").is_null(nan_is_null=True) | (F("open") + 1 > F("boxes.n_objects")),
    F("label") == "cat",
    F("label").isin(["dog", "eel"]) & (F("open") == 2),
    (F("label") != "cat") | (F("open") > 1),
    pc.match_substring(F("text"), "a"),
    pc.utf8_length(F("text")) == 1,
    F("when") >= dt.datetime(2024, 1, 2),  # noqa: DTZ001 # without a zone
    F("boxes.n_objects").is_valid(),
    ~F("label").isin(["cat"]),
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_expressions_equal_those_of_tables(lake: Lake, expression: pc.Expression) -> None:
    """An expression selects the rows that it selects of a table with the same values."""
    expected = sorted(TABLE.filter(expression)["row"].to_pylist())
    assert 0 < len(expected) < ROWS
    assert lake.where(expression).rows.tolist() == expected


def test_chunks_are_skipped_by_their_statistics(lake: Lake) -> None:
    """Statistics exclude chunks, so that the tests above would fail if they excluded too many."""
    chunks = ROWS // CHUNK
    filters: list[Any] = [
        [("i", "==", 1)],
        [("flag", "is", None)],
        [("text", "==", "ab")],
        [("label", "==", "eel"), ("boxes.n_objects", "==", 2)],
        [[("when", ">", dt.datetime(2024, 1, 2))], [("u", "==", 2**64 - 1)]],  # noqa: DTZ001 # tensors have no zones
        F("label") == "fox",
    ]
    for condition in filters:
        mask = lake._reader.chunks_to_read(parse_filters(condition, SCHEMA))
        assert 0 < mask.sum() < chunks, condition
