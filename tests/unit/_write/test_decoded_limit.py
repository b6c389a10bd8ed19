"""Test that chunks are bounded by their decoded size, when they are written and compacted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake import TensorSpec, WriteOptions
from dasklake._codecs.decoded_size import DECODED_RATIO
from dasklake.masks import from_polygons

#: Decoded bytes of one sample.
DECODED = 200 * 200


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def _mask(_: int) -> dict[str, Any]:
    return {"x": from_polygons([[[0, 0, 9, 0, 9, 9, 0, 9]]], (200, 200))}


def _zeros(_: int) -> dict[str, Any]:
    return {"x": np.zeros((200, 200), np.uint8)}


def _list(_: int) -> dict[str, Any]:
    return {"x": [np.zeros((200, 100), np.uint8), np.zeros((100, 200), np.uint8)]}


def _picture(_: int) -> dict[str, Any]:
    return {"x": np.zeros((200, 200, 1), np.uint8)}


def _row(_: int) -> dict[str, Any]:
    return {"x": np.zeros(1000, np.uint8)}


CASES = {
    "rle": (TensorSpec("binary_mask", compression="rle"), _mask),
    "zstd": (TensorSpec("generic", dtype="uint8", shape=(None, None), compression="zstd"), _zeros),
    "fixed": (TensorSpec("generic", dtype="uint8", shape=(200, 200), compression="lz4"), _zeros),
    "list": (
        TensorSpec("sequence[generic]", dtype="uint8", shape=(None, None), compression="zstd"),
        _list,
    ),
    "png": (TensorSpec("image.gray", compression="png"), _picture),
}


@pytest.mark.parametrize("case", CASES)
def test_chunks_are_bounded_once_decoded(case: str, tmp_path: Path) -> None:
    """A chunk of few bytes that decodes to many is cut, and a compaction does not undo that."""
    spec, make = CASES[case]
    size = 10 * DECODED // DECODED_RATIO
    options = WriteOptions(chunk_size=size)
    bag = db.from_sequence(range(60), npartitions=2).map(make)
    bag.to_lake(tmp_path / "lake", schema={"x": spec}, options=options, progress=False)
    lake = dasklake.open(tmp_path / "lake")
    rows = [location.rows for location in lake._reader.plan.locations()]
    assert sum(rows) == 60
    assert max(rows) <= 10
    assert len(rows) >= 6
    lake.compact(chunk_size=2 * size)
    rows = [location.rows for location in lake._reader.plan.locations()]
    assert sum(rows) == 60
    assert 10 < max(rows) <= 20
    lake.compact()
    assert len(lake._reader.plan.locations()) == 1


def test_values_that_do_not_expand_are_not_bounded(tmp_path: Path) -> None:
    """Only the stored bytes count for values that are as large in memory."""
    options = WriteOptions(chunk_size="1 MiB")
    schema = {"x": TensorSpec(dtype="uint8", shape=(None,))}
    bag = db.from_sequence(range(500), npartitions=1).map(_row)
    bag.to_lake(tmp_path / "lake", schema=schema, options=options, progress=False)
    assert len(dasklake.open(tmp_path / "lake")._reader.plan.locations()) == 1
