"""Tests that verify finds statistics that contradict the values of a chunk."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pyarrow as pa
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._format import object_keys
from dasklake._format.segment import segment_bytes, table_ref
from dasklake._log.log import Draft, Log
from dasklake._log.transactions import next_commit
from dasklake._model.commit import Kind

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="float64", shape=()),
        "text": TensorSpec("text"),
        "label": TensorSpec("class_label", shape=(), class_names=["a", "b", "c"]),
        "found": TensorSpec("class_label", shape=(), discover=True),
        "boxes": TensorSpec("bbox"),
        "image": TensorSpec("image.rgb", compression="png"),
    }
)


@pytest.fixture
def lake(tmp_path: Any) -> dasklake.Lake:
    """Write a lake of one chunk."""
    samples = [
        {
            "x": value,
            "text": text,
            "label": label,
            "found": label,
            "boxes": np.ones((count, 4), np.float32),
            "image": np.zeros((count + 1, 5, 3), np.uint8),
        }
        for value, text, label, count in [
            (1.5, "left", "a", 2),
            (float("nan"), "x" * 50, "b", 0),
            (-0.0, "right", "a", 3),
        ]
    ]
    bag = db.from_sequence(samples, npartitions=1)
    with dask.config.set(scheduler="sync"):
        dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, progress=False)
    return dasklake.open(tmp_path / "lake")


def change(lake: dasklake.Lake, text: str | dict[str, Any]) -> None:
    """Commit the same chunk with other statistics."""
    log = Log(lake._store)
    head = log.require_head()
    manifest = log.manifest(head, statistics=True)
    assert manifest.statistics is not None
    if isinstance(text, dict):
        text = json.dumps(json.loads(manifest.statistics[0].as_py()) | text)
    forged = replace(manifest, statistics=pa.array([text], pa.large_string()))

    def build(head: Any, _: Any, commit_id: str) -> Draft:
        data = segment_bytes(forged)
        ref = table_ref(commit_id, data, rows=1, samples=3, level=0)
        entry = {"run": next(iter(head.runs)), "epoch": 1}
        commit = next_commit(head, commit_id, Kind.DATA, "", entry=entry, segments=(ref,))
        return Draft(commit, [(object_keys.segment_key(commit_id), data)])

    log.publish(head, build)


def test_true_statistics_pass(lake: dasklake.Lake) -> None:
    """A lake as it was written has statistics of all its tensors, and none is wrong."""
    statistics = lake._reader.statistics().of(0, list(SCHEMA))
    assert set(statistics) == set(SCHEMA)
    assert lake.verify().ok
    assert lake.verify(quick=True).ok


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"x": {"nan": 1, "min": -1.0, "max": 1.5}}, "min must be -0.0, got -1.0"),
        ({"x": {"nan": 1, "min": 0.5, "max": 1.5}}, "min must be -0.0, got 0.5"),
        ({"x": {"nan": 2, "min": 0.0, "max": 1.5}}, "nan must be 1, got 2"),
        ({"x": {"nulls": 1, "nan": 1}}, "nulls must be 0, got 1"),
        ({"text": {"min": "m", "max": "z"}}, "min must be 'left', got 'm'"),
        ({"text": {"min": "left", "max": "x"}}, "max must be 'xxx"),
        ({"label": {"classes": "AQ=="}}, "the labels are {0: None, 1: None}, not {0: None}"),
        ({"label": {"classes": "Aw==", "counts": [1, 2]}}, "the labels are {0: 2, 1: 1}, not"),
        ({"label": {"classes": "?"}}, "the labels are"),
        ({"found": {"names": ["a"], "counts": [3]}}, "the labels are {'a': 2, 'b': 1}, not"),
        ({"boxes": {"objects": [0, 3, 6]}}, "objects must be"),
        ({"image": {"shape": [[1, 5, 3], [9, 5, 3]]}}, "shape must be"),
        ({"x": {"min": []}}, "are not valid"),
    ],
    ids=str,
)
def test_wrong_statistics_are_damage(lake: dasklake.Lake, entry: Any, problem: str) -> None:
    """A wrong entry is reported with the chunk, the tensor, and both values."""
    change(lake, entry)
    lake.refresh()
    report = lake.verify()
    [damage] = report.damaged
    assert damage.key.startswith("data/main/")
    assert damage.rows == (0, 3)
    assert "segment" in damage.problem
    assert problem in damage.problem
    assert [name in damage.problem for name in entry] or "not valid" in problem
    assert lake.verify(quick=True).ok


def test_wide_bounds_of_text_are_right(lake: dasklake.Lake) -> None:
    """Bounds of text need not be values, and missing entries are no damage."""
    change(lake, {"text": {"min": "a", "max": "z"}, "x": {"nan": 1}, "no tensor": {"min": 1}})
    assert lake.verify().ok
    change(lake, "{}")
    assert lake.verify().ok
