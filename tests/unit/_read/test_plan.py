"""Plans: rows to chunks, chunks to groups."""

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
def test_every_row_has_its_place(rows: tuple[int, ...]) -> None:
    """Rows are numbered through the chunks in order; chunks without rows hold none."""
    plan = _plan(*rows)
    wanted = [(chunk, row) for chunk, n in enumerate(rows) for row in range(n)]
    assert len(plan) == len(wanted)
    assert [plan.locate(i) for i in range(len(plan))] == wanted


def test_groups_keep_order_and_size() -> None:
    """Chunks are joined up to the block size, in order, and none is left out or split."""
    plan = _plan(1, 0, 2, 3, 4)
    firsts = [[place.first for place in group] for group in plan.groups(250)]
    assert firsts == [[0, 1], [3, 6]]
    assert [len(group) for group in plan.groups()] == [1, 1, 1, 1]
    assert [len(group) for group in plan.groups(1)] == [1, 1, 1, 1]
    assert _plan(0, 0).groups() == []


def test_locations_say_all_that_a_reader_needs() -> None:
    """A location holds key, first row, and what the reference says of the object."""
    location = _plan(2, 3).location(1)
    assert location == (f"data/main/r/1-1-{1:016x}-0.arrow", 2, 3, 100, 10, 0)
    assert not any(isinstance(value, np.generic) for value in location)
