"""Test the order of an epoch: exact, stable, and statistically like a random permutation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dasklake._read.order import Order, class_weights, default_block
from dasklake.exceptions import InvalidInputError
from tests.benchmarks.shuffles import measure

#: Small enough for a table, and large enough for a Feistel network.
SIZES = [0, 1, 2, 3, 10, 1000, 2**16 + 1]

#: The last block is short, alone, whole, or the only one; the last window as well.
BLOCKS = [(2, 1), (3, 2), (7, 5), (64, 1), (64, 64), (2000, 3)]


@pytest.mark.parametrize("n", SIZES)
def test_a_full_shuffle_has_each_row_once(n: int) -> None:
    """Each row is at exactly one position, at any size."""
    assert np.array_equal(np.sort(Order(n, seed=3).rows(0, n)), np.arange(n))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("block", "window"), BLOCKS)
def test_a_block_shuffle_has_each_row_once(n: int, block: int, window: int) -> None:
    """Each row is at exactly one position, wherever the short block lies."""
    for epoch in range(4 if n <= 1000 else 1):
        order = Order(n, epoch=epoch, block=block, window=window)
        assert np.array_equal(np.sort(order.rows(0, n)), np.arange(n))


@pytest.mark.parametrize("block", [1, 7])
@pytest.mark.parametrize("n", [10, 1000, 2**16 + 1])
def test_a_row_does_not_depend_on_the_other_positions_of_a_call(n: int, block: int) -> None:
    """Positions in any order, and alone, have the same rows as in one long call."""
    rows = Order(n, block=block, window=3).rows(0, n)
    positions = np.random.default_rng(0).integers(0, n, 500)
    other = Order(n, block=block, window=3)
    assert np.array_equal(other.at(positions), rows[positions])
    assert [int(other.rows(p, p + 1)[0]) for p in positions[:20].tolist()] == rows[
        positions[:20]
    ].tolist()


def test_windows_hold_whole_blocks() -> None:
    """The rows of a window are those of ``window`` blocks, so that each block is read once."""
    block, window, n = 8, 4, 1000
    order = Order(n, seed=1, block=block, window=window)
    rows = order.rows(0, n)
    blocks_before: set[int] = set()
    position = 0
    while position < n:
        size = block * window
        # One window has the short block; the last window has the remaining ones.
        for shorter in (0, -n % block):
            blocks = np.unique(rows[position : position + size - shorter] // block)
            whole = sum(min(block, n - b * block) for b in blocks.tolist())
            if whole == len(rows[position : position + size - shorter]):
                break
        assert not blocks_before & set(blocks.tolist())
        blocks_before |= set(blocks.tolist())
        position += whole
    assert len(blocks_before) == -(-n // block)


def test_orders_are_the_same_in_every_release_and_on_every_platform() -> None:
    """Positions of states that were saved by earlier releases stay valid."""
    assert Order(12, seed=5, epoch=2).rows(0, 12).tolist() == GOLDEN["table"]
    assert (
        Order(10**9, seed=5, epoch=2).rows(123_456_789, 123_456_793).tolist() == GOLDEN["feistel"]
    )
    order = Order(1003, seed=5, epoch=2, block=10, window=3)
    assert order.rows(500, 510).tolist() == GOLDEN["blocks"]
    weighted = Order(6, seed=5, epoch=2, weights=[0.5, 0, 3, 1, 1, 2])
    assert weighted.rows(0, 6).tolist() == GOLDEN["weighted"]


GOLDEN: dict[str, list[int]] = {
    "table": [6, 5, 11, 1, 10, 0, 3, 2, 7, 9, 4, 8],
    "feistel": [825583066, 813042200, 862171043, 768309913],
    "blocks": [818, 864, 197, 860, 861, 816, 198, 194, 810, 199],
    "weighted": [5, 2, 0, 3, 2, 4],
}


@pytest.mark.parametrize("n", [10**9, 2**63 - 1])
def test_huge_orders_are_computed_at_once(n: int) -> None:
    """A position of a huge epoch costs no more than one of a small epoch, in time and memory."""
    rows = Order(n).rows(n - 1000, n)
    assert len(np.unique(rows)) == 1000
    assert rows.min() >= 0
    assert rows.max() < n


def test_seeds_and_epochs_have_different_orders() -> None:
    """Orders of other seeds and epochs share about as many positions as random ones: one."""
    orders = [
        Order(1000, seed=seed, epoch=epoch, block=block).rows(0, 1000)
        for seed, epoch, block in itertools.product([-1, 0, 1, 2**62], [0, 1, 2], [1, 10])
    ]
    same = [int((a == b).sum()) for a, b in itertools.combinations(orders, 2)]
    assert max(same) < 12
    assert 0.8 < np.mean(same) < 1.2


@pytest.mark.parametrize("n", [2**14, 2**18 + 5])
def test_a_full_shuffle_looks_random(n: int) -> None:
    """Rows neither follow the positions nor their neighbours, and differences have no preference."""
    correlations, neighbours, ascents, fixed, chi_squares = [], [], [], [], []
    for seed in range(12):
        rows = Order(n, seed=seed).rows(0, n)
        positions = np.arange(n)
        correlations.append(np.corrcoef(positions, rows)[0, 1])
        neighbours.append(np.corrcoef(rows[:-1], rows[1:])[0, 1])
        ascents.append((np.diff(rows) > 0).mean())
        fixed.append(int((rows == positions).sum()))
        # Differences of neighbours modulo n are uniform.
        counts = np.bincount((np.diff(rows) % n) * 64 // n, minlength=64)
        chi_squares.append(((counts - n / 64) ** 2 / (n / 64)).sum())
    # Five standard deviations of a random permutation.
    bound = 5 / np.sqrt(n)
    assert np.abs(correlations).max() < bound
    assert np.abs(neighbours).max() < bound
    assert np.abs(np.array(ascents) - 0.5).max() < 5 * np.sqrt(1 / 12 / n)
    assert max(fixed) < 8
    assert min(chi_squares) > 20
    assert max(chi_squares) < 63 + 5 * np.sqrt(2 * 63)


def test_every_permutation_of_a_few_rows_is_equally_likely() -> None:
    """All 120 orders of 5 rows occur, none more often than chance allows."""
    seeds = 12_000
    seen = [tuple(Order(5, seed=seed).rows(0, 5).tolist()) for seed in range(seeds)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 120
    chi_square = ((counts - seeds / 120) ** 2 / (seeds / 120)).sum()
    assert chi_square < 119 + 5 * np.sqrt(2 * 119)


@pytest.mark.parametrize("block", [1, 16, 64, 1024])
def test_default_windows_mix_a_sorted_lake(block: int) -> None:
    """A lake sorted by label is mixed: no long runs, and many classes in each batch."""
    quality = measure(Order(200_000, seed=2, block=block).rows(0, 200_000), classes=100)
    # Five standard deviations of a random permutation of the blocks.
    assert abs(quality.correlation) < 5 / np.sqrt(200_000 / block)
    assert quality.run < 1.05
    assert quality.longest < 12
    assert quality.classes > 40


def test_few_blocks_do_not_mix_a_sorted_lake() -> None:
    """The measures find a shuffle inside of single blocks, which leaves a batch one class."""
    quality = measure(Order(200_000, block=1000, window=1).rows(0, 200_000), classes=100)
    assert quality.longest > 500
    assert quality.classes < 5


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("block", [1, 16])
def test_weights_are_exact_counts(block: int, *, shuffle: bool) -> None:
    """Each row is read as often as its weight says, rounded up or down, and never with weight 0."""
    weights = np.random.default_rng(4).exponential(size=1000)
    weights[::7] = 0
    for epoch in range(3):
        order = Order(1000, shuffle=shuffle, epoch=epoch, block=block, weights=weights)
        counts = np.bincount(order.rows(0, 1000), minlength=1000)
        exact = 1000 * weights / weights.sum()
        assert (np.floor(exact) <= counts).all()
        assert (counts <= np.ceil(exact)).all()


def test_equal_weights_read_each_row_once() -> None:
    """Equal weights, also those that are not exact in binary, change nothing."""
    for weight in (1.0, 0.1, 3e-300, 7e200):
        rows = Order(999, weights=np.full(999, weight)).rows(0, 999)
        assert np.array_equal(np.sort(rows), np.arange(999))


def test_rows_with_small_weights_take_turns() -> None:
    """Over the epochs, each of many rows with a small weight is read."""
    weights = np.r_[np.full(50, 1.0), np.full(50, 0.2)]
    read = {r for epoch in range(40) for r in Order(100, epoch=epoch, weights=weights).rows(0, 100)}
    assert read == set(range(100))


def test_class_weights_balance_classes() -> None:
    """Each class has the same number of samples in an epoch, up to rounding."""
    labels = np.repeat(["a", "b", "c"], [900, 90, 10])
    rows = Order(1000, seed=2, weights=class_weights(labels)).rows(0, 1000)
    counts = np.unique(labels[rows], return_counts=True)[1]
    assert np.abs(counts - 1000 / 3).max() < 1


def test_rows_without_shuffle_are_positions() -> None:
    """Without shuffling, the order is that of the samples."""
    assert Order(5, shuffle=False, block=2).rows(1, 5).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("block", "window"), [(1, 4096), (16, 256), (63, 66), (64, 64), (1024, 64)]
)
def test_default_windows_mix_4096_samples_and_64_blocks(block: int, window: int) -> None:
    """The default window is the smallest that mixes enough samples and blocks."""
    assert Order(10, block=block).window == window


@pytest.mark.parametrize(
    ("nbytes", "block"), [(0, 1024), (8, 1024), (64_000, 16), (2**20, 1), (2**30, 1)]
)
def test_default_blocks_make_one_good_request(nbytes: float, block: int) -> None:
    """A block has about 1 MiB, at least one sample and at most 1,024."""
    assert default_block(nbytes) == block


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must be an integer of at least 0, got -1"),
        ({"n": 2.5}, "n must be"),
        ({"n": True}, "n must be"),
        ({"seed": "x"}, "seed must be an integer, got 'x'"),
        ({"seed": 2**63}, "seed must be"),
        ({"epoch": -1}, "epoch must be"),
        ({"block": 0}, "block must be an integer of at least 1, got 0"),
        ({"window": 0}, "window must be"),
        ({"weights": [1, 2]}, r"each of the 3 samples, got the shape \(2,\)"),
        ({"weights": [1, -2, 0]}, r"weight of sample 1 is -2\.0"),
        ({"weights": [1, np.nan, 0]}, "weight of sample 1 is nan"),
        ({"weights": [0, 0, 0]}, "sum of weights must be positive"),
        ({"weights": [1e308, 1e308, 1e308]}, "sum of weights must be positive and finite"),
        ({"weights": ["a", 1, 2]}, "weights must be numbers"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Each argument is checked when the order is made."""
    with pytest.raises(InvalidInputError, match=message):
        Order(**{"n": 3, **arguments})


@pytest.mark.parametrize("position", [-1, 3])
def test_positions_out_of_range_are_refused(position: int) -> None:
    """A position beyond the epoch is an error, not another row."""
    with pytest.raises(IndexError, match="3 positions"):
        Order(3).at(np.array([position]))


def test_labels_of_a_balanced_order_have_one_axis() -> None:
    """Labels of several axes are refused."""
    with pytest.raises(InvalidInputError, match="one axis"):
        class_weights([[1, 2]])
