"""A filter of a million samples opens only the chunks that may match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pyarrow.compute as pc
import pytest

import dasklake
from dasklake import Lake, TensorSpec
from dasklake._read import filter_values
from dasklake._read.origin import open_chunk

ROWS, CHUNKS, CLASSES = 1_000_000, 1_000, 100
NAMES = [f"c{i}" for i in range(CLASSES)]

#: Labels of which each chunk has one class, labels of which each chunk has many, and numbers.
SORTED = np.repeat(np.arange(CLASSES, dtype="u4"), ROWS // CLASSES)
MIXED = np.random.default_rng(0).integers(0, CLASSES, ROWS).astype("u4")
NUMBERS = np.arange(ROWS)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Write a million samples in a thousand chunks."""
    url: Path = tmp_path_factory.mktemp("pruning") / "lake"
    values = {"sorted": SORTED, "mixed": MIXED, "x": NUMBERS}
    arrays = {name: da.from_array(v, chunks=ROWS // CHUNKS) for name, v in values.items()}
    label = TensorSpec("class_label", shape=(), class_names=NAMES)
    dasklake.to_lake(
        arrays,
        url,
        schema={"sorted": label, "mixed": label, "x": "int64"},
        options=dasklake.WriteOptions(scheduler="threads"),
    )
    lake = dasklake.open(url)
    assert len(lake._reader.plan.locations()) == CHUNKS
    return lake


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list of the chunks that filters open."""
    chunks: list[Any] = []

    def count(origin: Any, location: Any) -> Any:
        chunks.append(location.key)
        return open_chunk(origin, location)

    monkeypatch.setattr(filter_values, "open_chunk", count)
    return chunks


F = pc.field
CASES: list[tuple[Any, Any, int]] = [
    ([("sorted", "==", "c7")], SORTED == 7, 10),
    (F("sorted") == "c7", SORTED == 7, 10),
    (F("sorted").isin(["c7", "c50"]), np.isin(SORTED, [7, 50]), 20),
    (
        [("sorted", "in", ["c7", "c50"]), ("x", ">", 505_000)],
        (SORTED == 50) & (NUMBERS > 505_000),
        5,
    ),
    ([[("sorted", "==", "c0")], [("x", ">=", 999_000)]], (SORTED == 0) | (NUMBERS >= 999_000), 11),
    ([("sorted", "==", "c7"), ("mixed", "==", "c3")], (SORTED == 7) & (MIXED == 3), 10),
    ([("x", "==", -1)], NUMBERS == -1, 0),
    ([("mixed", "==", "c7")], MIXED == 7, CHUNKS),
]


@pytest.mark.parametrize(
    ("filters", "expected", "chunks"), CASES, ids=lambda value: str(value)[:60]
)
def test_only_chunks_that_may_match_are_opened(
    lake: Lake, opened: list[Any], filters: Any, expected: Any, chunks: int
) -> None:
    """``where`` opens the chunks that statistics do not exclude, and gives the brute-force answer."""
    rows = lake.where(filters).rows
    assert len(opened) == chunks
    np.testing.assert_array_equal(rows, np.flatnonzero(expected))


def test_tasks_skip_chunks_by_their_statistics(lake: Lake, opened: list[Any]) -> None:
    """Tasks of a filtered frame do not open chunks that cannot match."""
    expected = int(NUMBERS[SORTED == 7].sum())
    frame = lake.to_dask_dataframe()
    filtered = lake.to_dask_dataframe(["x"], filters=[("sorted", "==", "c7")])
    with dask.config.set(scheduler="threads"):
        assert frame[frame["sorted"] == "c7"]["x"].sum().compute() == expected
        assert len(opened) == 10
        assert filtered["x"].sum().compute() == expected
        assert len(opened) == 20
