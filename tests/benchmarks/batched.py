"""Compare the write of a table without a transform, with a batched one, and row by row."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd

import dasklake
from tests.benchmarks.common import measure, scratch

ROWS, PAIRS = 400_000, 7

#: Rows of the comparison with a transform of single rows, which would take long with all of them.
FEW = 10_000

#: Largest allowed ratio of a batched write to one without a transform.
GOAL = 3.0


def table(rows: int) -> pd.DataFrame:
    """Make a table of twelve columns: numbers, texts, a flag and times."""
    random = np.random.default_rng(0)
    names = np.char.add("name ", random.integers(0, 10_000, rows).astype(str))
    return pd.DataFrame(
        {f"float_{i}": random.random(rows) for i in range(6)}
        | {f"int_{i}": random.integers(0, 1000, rows) for i in range(3)}
        | {
            "name": pd.Series(names, dtype="string[pyarrow]"),
            "flag": random.random(rows) < 0.5,
            "time": pd.date_range("2020-01-01", periods=rows, freq="s"),
        }
    )


def scaled(block: Any) -> dict[str, Any]:
    """Change some columns of a block, or of a row."""
    return {
        **block,
        "float_0": block["float_0"] * 2 + block["float_1"],
        "int_0": block["int_0"] + 1,
    }


def main() -> None:
    """Print the ratio to a write without a transform, and the speed of both kinds of transforms."""
    frame = dd.from_pandas(table(ROWS), npartitions=8)
    few = dd.from_pandas(table(FEW), npartitions=2)
    with scratch() as folder:

        def write(rows: Any = frame, **arguments: Any) -> Callable[[], None]:
            options = dasklake.WriteOptions(scheduler="sync")
            return lambda: rows.to_lake(
                f"{folder}/lake", mode="overwrite", options=options, progress=False, **arguments
            )

        plain, batched = write(), write(transform=scaled, batched=True)
        plain()
        ratios, rates = [], []
        for pair in range(PAIRS):
            order = (plain, batched) if pair % 2 else (batched, plain)
            costs = {action: measure(action).wall for action in order}
            ratios.append(costs[batched] / costs[plain])
            rates.append(ROWS / costs[batched])
        single = FEW / measure(write(few, transform=scaled)).wall
    rate = statistics.median(rates)
    print(
        f"{ROWS} rows of 12 columns, batched: {statistics.median(ratios):.2f} times as long as without "
        f"a transform ({min(ratios):.2f} to {max(ratios):.2f}, goal {GOAL:.0f}), {rate:.0f} rows/s; "
        f"row by row {single:.0f} rows/s, {rate / single:.0f} times slower"
    )
