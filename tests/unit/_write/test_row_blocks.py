"""Test the blocks of rows that a batched transform gets, and their sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dasklake._write.block_size import MOST_BYTES, MOST_ROWS, BlockSize, bytes_of_columns
from dasklake._write.row_blocks import RowBlock, array_of, row_blocks_of
from dasklake.exceptions import SampleError

FRAME = pd.DataFrame({"x": range(7), "y": list("abcdefg")}, index=pd.Index(range(10, 17), name="k"))


def blocks(kind: str, *parts: Any, size: int = 3, index: tuple[str, ...] = ()) -> list[RowBlock]:
    """Return the blocks of a partition."""
    names = ("a", "b")[: len(parts)]
    return list(row_blocks_of(kind, names, parts, index, BlockSize(size)))


def test_blocks_have_the_size_except_the_last() -> None:
    """All rows are in the blocks, in their order."""
    assert [b.count for b in blocks("dataframe", FRAME)] == [3, 3, 1]
    assert [b.count for b in blocks("bag", iter(range(7)))] == [3, 3, 1]
    assert [b.count for b in blocks("array", np.arange(6))] == [3, 3]
    assert blocks("dataframe", FRAME.iloc[:0]) == blocks("bag", []) == []
    xs = [block.columns()["x"].tolist() for block in blocks("dataframe", FRAME)]
    assert xs == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_block_can_be_changed_and_passed_again() -> None:
    """Frames and arrays are copies: the partition keeps its values, and so do smaller blocks."""
    data = np.arange(6)
    frame = FRAME[["x"]].copy()
    for kind, part in (("dataframe", frame), ("array", data)):
        (block,) = blocks(kind, part, size=10)
        columns = block.columns()
        whole = columns.loc if kind == "dataframe" else columns
        whole[:] = -1
        again = block.part(2, 4).columns()
        assert np.ravel(again["x"] if kind == "dataframe" else again).tolist() == [2, 3]
    assert frame["x"].equals(FRAME["x"])
    assert data.tolist() == list(range(6))


def test_levels_of_the_index_are_columns() -> None:
    """A level that has a tensor is a column of the block and of its items."""
    block = blocks("dataframe", FRAME, index=("k",))[1]
    assert block.columns()["k"].tolist() == [13, 14, 15]
    assert block.columns().index.tolist() == [0, 1, 2]
    assert block.part(1, 2).item() == {"x": 4, "y": "e", "k": 14}


def test_arrays_of_different_lengths_are_refused() -> None:
    """Aligned arrays have one length in a partition."""
    with pytest.raises(SampleError, match="different lengths"):
        blocks("arrays", np.arange(3), np.arange(4))


def test_mappings_become_columns_with_all_names() -> None:
    """A name that some mappings do not have is None in them; names are in their first order."""
    (block,) = blocks("bag", [{"b": 1}, {"a": 2, "b": 3}])
    columns = block.columns()
    assert list(columns) == ["b", "a"]
    assert columns["b"].tolist() == [1, 3]
    assert columns["a"].tolist() == [None, 2]
    columns["c"] = columns["b"] * 2
    assert {**columns}["c"].tolist() == [2, 6]


def test_items_before_an_error_are_in_a_block() -> None:
    """An error of an iterator comes after the items before it."""

    def broken() -> Any:
        yield from range(4)
        raise OSError("end")

    items = row_blocks_of("bag", (), (broken(),), (), BlockSize(3))
    assert [next(items).count, next(items).count] == [3, 1]
    with pytest.raises(OSError, match="end"):
        next(items)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([0.5, 2.0], "float64"),
        ([True, False], "bool"),
        ([np.float32(1), np.float32(2)], "float32"),
        ([1, 0.5], "object"),
        ([1, None], "object"),
        ([2**64, 1], "object"),
        (["a", "b"], "object"),
        ([[1], [2]], "object"),
        ([np.zeros(2), np.zeros(2)], "object"),
        ([np.timedelta64(1, "s"), np.timedelta64(2, "m")], "object"),
        ([], "object"),
    ],
)
def test_only_numbers_of_one_type_become_numbers(values: Any, dtype: str) -> None:
    """All other values stay the objects that they are, so that no value changes."""
    array = array_of(values)
    assert (str(array.dtype), array.shape) == (dtype, (len(values),))
    assert all(a is b for a, b in zip(array, values, strict=True)) or dtype != "object"


def test_blocks_grow_up_to_a_number_of_rows_and_bytes() -> None:
    """Small rows have long blocks, large rows short ones, and a given size stays."""
    size = BlockSize(None)
    rows = []
    for _ in range(5):
        rows.append(size.rows)
        size.adapt(size.rows, 100 * size.rows)
    assert rows == [10, 100, 1000, MOST_ROWS, MOST_ROWS]
    size.adapt(10, 10 * MOST_BYTES)
    assert size.rows == 1
    fixed = BlockSize(64)
    fixed.adapt(64, 64 * MOST_BYTES)
    assert fixed.rows == 64


def test_bytes_of_columns_count_what_they_hold() -> None:
    """The values of lists and objects count, not the references to them."""
    image = np.zeros((100, 100), "uint8")
    for column in (
        [image] * 5,
        array_of([image] * 5),
        np.stack([image] * 5),
        pd.Series([image] * 5),
    ):
        assert 50_000 <= bytes_of_columns({"x": column}) < 60_000
    assert bytes_of_columns(pd.DataFrame({"a": np.zeros(10), "b": ["x" * 1000] * 10})) > 10_000
    assert bytes_of_columns({"x": [{"a": ["x" * 1000]}]}) > 1000
    assert bytes_of_columns({"x": None}) < 100
