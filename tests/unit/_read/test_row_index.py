"""Test the numbers of the samples that an index selects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake._read.row_index import resolve_row, resolve_rows, resolve_selection
from dasklake.exceptions import InvalidInputError


@pytest.mark.parametrize(("item", "row"), [(0, 0), (-1, 4), (np.int64(3), 3), (np.uint8(2), 2)])
def test_an_index_may_count_from_the_end(item: Any, row: int) -> None:
    """Integers of Python and numpy are indices, and negative ones count from the end."""
    assert resolve_row(item, 5) == row


@pytest.mark.parametrize("item", [5, -6])
def test_an_index_beyond_the_samples_is_an_index_error(item: int) -> None:
    """Loops of Python rely on IndexError."""
    with pytest.raises(IndexError, match="out of range for 5 samples"):
        resolve_row(item, 5)


@pytest.mark.parametrize("item", [True, 1.0, "1", None])
def test_other_values_are_not_an_index(item: Any) -> None:
    """A bool, a float and a text are refused."""
    with pytest.raises(InvalidInputError, match="An index must be"):
        resolve_row(item, 5)


@pytest.mark.parametrize(
    ("item", "rows"),
    [
        (slice(1, None, 2), [1, 3]),
        ([3, -5], [3, 0]),
        (np.array([True, False, False, True, False]), [0, 3]),
        ([True, False, False, True, False], [0, 3]),
        ([], []),
    ],
)
def test_slices_lists_and_masks_select_samples(item: Any, rows: list[int]) -> None:
    """A slice, a list and a mask give the numbers of their samples."""
    assert list(resolve_rows(item, 5)) == rows


def test_a_mask_has_one_entry_for_each_sample() -> None:
    """A mask of another length is refused."""
    with pytest.raises(InvalidInputError, match=r"shape \(5,\), got \(2,\)"):
        resolve_rows(np.array([True, False]), 5)


def test_one_number_is_not_a_selection() -> None:
    """The message names the list that selects one sample."""
    with pytest.raises(InvalidInputError, match=r"Use \[3\] for one sample"):
        resolve_selection(3, 5)
