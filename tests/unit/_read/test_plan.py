"""Test read plans: rows to chunks, chunks to groups."""

from __future__ import annotations

import numpy as np
import pytest

from dasklake._format.segment import build_manifest
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._read.plan import ReadPlan


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
    """Chunks are grouped up to the block size, in order; none is omitted or split."""
    plan = _plan(1, 0, 2, 3, 4)
    firsts = [[location.first for location in group] for group in plan.groups(250)]
    assert firsts == [[0, 1], [3, 6]]
    assert [len(group) for group in plan.groups()] == [1, 1, 1, 1]
    assert [len(group) for group in plan.groups(1)] == [1, 1, 1, 1]
    assert _plan(0, 0).groups() == []


def test_locations_have_all_data_of_the_reference() -> None:
    """A location has the key, the first row and the data of the chunk reference."""
    location = _plan(2, 3).location(1)
    assert location == (f"data/main/r/1-1-{1:016x}-0.arrow", 2, 3, 100, 10, 0)
    assert not any(isinstance(value, np.generic) for value in location)
