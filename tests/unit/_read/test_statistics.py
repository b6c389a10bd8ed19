"""Tests of statistics in terms of a version: names, histories, and entries of untrusted lakes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dasklake._format.segment import build_manifest
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._model.statistics import TensorStatistics
from dasklake._model.tensor_history import TensorHistory
from dasklake._read.pruning import Condition, chunks_that_may_match
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.schema import Schema, TensorSpec

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="int64", shape=()),
        "w": TensorSpec(dtype="float64", shape=()),
        "text": TensorSpec("text"),
        "label": TensorSpec("class_label", shape=(), discover=True, class_names=["cat", "dog"]),
        "boxes": TensorSpec("bbox"),
        "image": TensorSpec("image.rgb", compression="png"),
    }
)


def version(*texts: str | None, **histories: TensorHistory) -> VersionStatistics:
    """Return the statistics of chunks of ten samples."""
    chunks = tuple(ChunkRef(n, 10, 1000, 100, 0, text) for n, text in enumerate(texts))
    receipt = Receipt("run", 1, 0, "ab" * 8, chunks, 0)
    return VersionStatistics(build_manifest("main/run", 0, [receipt]), SCHEMA, histories)


def test_names_of_the_chunk_become_indices_of_the_version() -> None:
    """Classes are in the order of the version, with their counts."""
    statistics = version('{"label":{"names":["dog","cat"],"counts":[7,3]}}')
    assert statistics.of(0, ["label"]) == {
        "label": TensorStatistics(10, classes=(0, 1), counts=(3, 7))
    }


def test_renamed_and_added_tensors() -> None:
    """Statistics are looked up by the name in the chunk; chunks before a tensor have no value."""
    text = '{"x":{"min":1,"max":2}}'
    history = TensorHistory(since=10, former=((20, "x"),))
    schema = Schema({"y": TensorSpec(dtype="int64", shape=()), "x": SCHEMA["x"]})
    manifest = build_manifest(
        "main/run",
        0,
        [
            Receipt(
                "run", 1, 0, "ab" * 8, tuple(ChunkRef(n, 10, 9, 9, 0, text) for n in range(3)), 0
            )
        ],
    )
    statistics = VersionStatistics(manifest, schema, {"y": history})
    assert statistics.of(0, ["y"]) == {"y": TensorStatistics(10, nulls=10)}
    assert statistics.of(1, ["y"]) == {"y": TensorStatistics(10, min=1, max=2)}
    assert statistics.of(2, ["y"]) == {}
    kept = chunks_that_may_match(statistics, [[Condition("y", "==", 1)]])
    assert kept.tolist() == [False, True, True]


ENTRIES: list[tuple[str, Any]] = [
    *(("x", {"min": bound, "max": 3}) for bound in ("1", 1.5, True, 4)),
    *(("x", {"nulls": 11}), ("x", {"nulls": 6, "nan": 6}), ("x", {"max": "inf"})),
    *(
        ("w", {"min": "1"}),
        ("w", {"max": "NaN"}),
        ("w", {"min": True}),
        ("w", {"min": 2, "max": 1}),
    ),
    *(("text", {"min": 1}), ("text", {"min": "b", "max": "a"})),
    *(("label", {"names": ["mouse"]}), ("label", {"names": ["cat", "cat"]})),
    *(("label", {"names": ["cat"], "counts": [1, 2]}), ("label", {"classes": "?"})),
    *(("label", {"classes": "Aw==", "counts": [1]}),),
    *(("boxes", {"objects": [2, 1, 3]}), ("boxes", {"min": 1, "max": 2})),
    *(("image", {"shape": [[2, 2], [1, 9]]}), ("image", {"shape": [[1], [1, 2]]})),
]


@pytest.mark.parametrize(("name", "entry"), ENTRIES, ids=map(str, range(len(ENTRIES))))
def test_impossible_entries_count_as_unknown(name: str, entry: Any) -> None:
    """An entry of another type, or that contradicts itself, is ignored; its chunk may match."""
    statistics = version(json.dumps({name: entry}))
    assert statistics.of(0, [name]) == {}
    for operator in ("==", "!=", "<", ">", "in", "not in", "is null", "is valid", "is nan"):
        value = [0] if operator.endswith("in") else 0
        kept = chunks_that_may_match(statistics, [[Condition(name, operator, value)]])
        assert kept.tolist() == [True], operator


def test_filters_are_validated() -> None:
    """An unknown operator or tensor is an error, also if no chunk exists."""
    with pytest.raises(ValueError, match="unknown operator '~'"):
        chunks_that_may_match(version(), [[Condition("x", "~", 1)]])
    with pytest.raises(KeyError):
        chunks_that_may_match(version(), [[Condition("y", "==", 1)]])
    assert chunks_that_may_match(version(), [[Condition("x", "=", 1)]]).tolist() == []


def test_values_of_other_types_keep_chunks() -> None:
    """A value that cannot be compared with the statistics keeps every chunk with values."""
    statistics = version(
        '{"x":{"min":1,"max":2},"text":{"min":"a","max":"b"}}', '{"x":{"nulls":10}}'
    )
    for name, value in [("x", "1"), ("x", 1j), ("text", 1), ("x", np.datetime64(1, "s"))]:
        kept = chunks_that_may_match(statistics, [[Condition(name, "==", value)]])
        assert kept[0]
    kept = chunks_that_may_match(statistics, [[Condition("x", "==", "1")]])
    assert kept.tolist() == [True, False]


def test_lengths_of_axes() -> None:
    """Conditions on axes and numbers of objects use the shapes; negative axes count from the end."""
    statistics = version(
        '{"image":{"shape":[[10,20,3],[30,20,3]]},"boxes":{"objects":[2,4,9]}}', "{}"
    )
    for part, operator, value, expected in [
        (0, ">", 30, False),
        (0, ">=", 30, True),
        (-2, "==", 20, True),
        (1, "!=", 20, False),
        (5, "==", 1, True),
    ]:
        kept = chunks_that_may_match(statistics, [[Condition("image", operator, value, part)]])
        assert kept.tolist() == [expected, True], (part, operator, value)
    kept = chunks_that_may_match(statistics, [[Condition("boxes", "in", [0, 5], "objects")]])
    assert kept.tolist() == [False, True]


def test_no_value_in_a_list_matches_samples_without_a_value() -> None:
    """None in a list keeps chunks with missing values, for values and for lengths."""
    statistics = version('{"x":{"nulls":10},"boxes":{"nulls":10}}', '{"x":{"min":1,"max":2}}')
    for name, part in (("x", "value"), ("boxes", "objects"), ("boxes", 0)):
        kept = chunks_that_may_match(statistics, [[Condition(name, "in", [None, 3], part)]])
        assert kept[0]
