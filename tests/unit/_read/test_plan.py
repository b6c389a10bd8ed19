"""Test read plans: rows to chunks, chunks to groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake._format.segment import build_manifest
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._read.plan import ReadPlan, split_and_join


def _plan(*rows: int, size: int = 100) -> ReadPlan:
    receipts = [
        Receipt("r", 1, i, f"{i:016x}", (ChunkRef(0, n, size, 10, 0),), n)
        for i, n in enumerate(rows)
    ]
    return ReadPlan(build_manifest("main/r", 0, receipts))


@pytest.mark.parametrize("rows", [(), (0,), (3,), (0, 2, 0, 0, 5, 1, 0)])
def test_every_row_has_its_location(rows: tuple[int, ...]) -> None:
    """Rows are numbered across the chunks in order; empty chunks have no rows."""
    plan = _plan(*rows)
    expected = [(chunk, row) for chunk, n in enumerate(rows) for row in range(n)]
    assert len(plan) == len(expected)
    assert [plan.locate(i) for i in range(len(plan))] == expected


def test_groups_keep_order_and_size() -> None:
    """Chunks are joined up to the block size, in order; none is omitted."""
    locations = _plan(1, 0, 2, 3, 4).locations()
    assert [location.first for location in locations] == [0, 1, 3, 6]
    joined = split_and_join(locations, [100] * 4, 250, join=True)
    assert [[location.first for location in group] for group in joined] == [[0, 1], [3, 6]]
    assert [*map(len, split_and_join(locations, [100] * 4, 250, join=False))] == [1, 1, 1, 1]
    assert _plan(0, 0).locations() == []
    assert split_and_join([], [], 250, join=True) == []


@pytest.mark.parametrize("join", [True, False])
@pytest.mark.parametrize("sizes", [[5, 70, 10], [np.array([5]), 70, np.array([1, 1, 90, 1])]])
def test_large_chunks_are_split(sizes: list[Any], *, join: bool) -> None:
    """Every row is in one part, in order, and only a single row is larger than the block size."""
    locations = _plan(1, 7, 4).locations()
    groups = split_and_join(locations, sizes, 20, join=join)
    assert [row for group in groups for part in group for row in part.span] == list(range(12))
    rows = np.concatenate(
        [
            np.full(count, size / count) if isinstance(size, int) else size
            for size, count in zip(sizes, (1, 7, 4), strict=True)
        ]
    )
    for group in groups:
        span = [row for part in group for row in part.span]
        assert len(span) == 1 or rows[span].sum() <= 20
    assert len(groups) < 12


def test_locations_have_all_data_of_the_reference() -> None:
    """A location has the key, the first row and the data of the chunk reference."""
    location = _plan(2, 3).location(1)
    assert location == (f"data/main/r/1-1-{1:016x}-0.arrow", 2, 3, 100, 10, 0, 0, -1)
    assert not any(isinstance(value, np.generic) for value in location)
