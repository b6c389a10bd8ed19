"""Test that permutations have each value once, and show no pattern."""

from __future__ import annotations

import numpy as np
import pytest

from dasklake._read.permutation import Permutation


@pytest.mark.parametrize("n", [0, 1, 7, 2**16, 2**16 + 1, 100_003])
def test_each_value_is_at_one_position(n: int) -> None:
    """A permutation has each value once, as a table and as a network."""
    values = Permutation(n, key=4)(np.arange(n, dtype=np.int64))
    assert np.array_equal(np.sort(values), np.arange(n))


def test_keys_give_different_permutations() -> None:
    """Two keys order the same values differently."""
    positions = np.arange(1000, dtype=np.int64)
    assert not np.array_equal(
        Permutation(1000, key=1)(positions), Permutation(1000, key=2)(positions)
    )


def test_digits_of_a_network_do_not_show_in_the_result() -> None:
    """Rows of a Feistel network are uniform in both digits, also at positions in steps of a digit."""
    n = 10**9
    permutation = Permutation(n, key=9)
    for step in (1, 31_622, 31_623, 2**15):
        rows = permutation(np.arange(20_000, dtype=np.int64) * step)
        for cells in (rows * 50 // n, rows % 50):
            counts = np.bincount(cells, minlength=50)
            assert ((counts - 400) ** 2 / 400).sum() < 49 + 6 * np.sqrt(2 * 49)
