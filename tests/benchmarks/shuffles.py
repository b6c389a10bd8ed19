"""Measure how well orders mix a lake that is sorted by its label."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._read.order import Order

SAMPLES, CLASSES, BATCH = 1_000_000, 100, 256

#: Block and window; None is the default. The first is a full permutation.
ORDERS = [(1, None), (16, None), (64, None), (256, None), (1024, None), (1024, 4), (4096, 1)]


class Quality(NamedTuple):
    """Measures of one epoch.

    Attributes
    ----------
    correlation : float
        Rank correlation of position and row: 0 is random, 1 is not shuffled.
    run : float
        Mean length of runs of equal labels.
    longest : int
        Longest run.
    classes : float
        Mean number of classes in a batch.
    near : float
        Share of neighbours in the order that are at most 16 rows apart.
    """

    correlation: float
    run: float
    longest: int
    classes: float
    near: float


def measure(rows: npt.NDArray[np.int64], classes: int = CLASSES) -> Quality:
    """Return the quality of an order of a lake with equally many samples of each class."""
    n = len(rows)
    labels = rows * classes // n
    ends = np.flatnonzero(np.diff(labels, append=-1))
    runs = np.diff(ends, prepend=-1)
    batches = labels[: n // BATCH * BATCH].reshape(-1, BATCH)
    return Quality(
        correlation=float(np.corrcoef(np.arange(n), rows)[0, 1]),
        run=float(runs.mean()),
        longest=int(runs.max()),
        classes=float(np.mean([len(np.unique(batch)) for batch in batches])),
        near=float((np.abs(np.diff(rows)) <= 16).mean()),
    )


def main() -> None:
    """Print a table of the orders."""
    print("| block | window | samples mixed | correlation | mean run | longest | classes | near |")
    print("|---|---|---|---|---|---|---|---|")
    for block, window in ORDERS:
        order = Order(SAMPLES, seed=1, block=block, window=window)
        q = measure(order.rows(0, SAMPLES))
        mixed = SAMPLES if block == 1 else block * order.window
        print(
            f"| {block} | {order.window if block > 1 else '-'} | {mixed:,} | {q.correlation:+.4f} "
            f"| {q.run:.3f} | {q.longest} | {q.classes:.1f} | {q.near:.5f} |"
        )


if __name__ == "__main__":
    main()
