"""Measure the cost of checkpoints: CPU seconds of all processes with 25 of them, and with one.

The difference is small compared to the noise of a busy machine. A second measurement therefore uses
samples of negligible cost, where the checkpoints are nearly the whole cost.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import dask.bag as db

import dasklake
from tests.benchmarks.common import RECORDS, cluster, load, measure, scratch

PAIRS = 5
PARTITIONS = 150
CHECKPOINTS = 25


def main() -> None:
    """Print alternating pairs, the median of their ratios, and the cost of one commit."""
    source = load()
    tiny = db.from_sequence(range(RECORDS), npartitions=PARTITIONS)
    tiny_schema = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
    with cluster(), scratch() as folder:
        urls = (f"{folder}/lake-{number}" for number in itertools.count())

        def write(bag: Any, schema: Any, checkpoints: int) -> None:
            every = None if checkpoints == 1 else RECORDS // CHECKPOINTS
            report = dasklake.to_lake(bag, next(urls), schema=schema, checkpoint_every=every)
            # A late commit also covers the next one.
            assert (
                CHECKPOINTS // 2 < report.commits <= CHECKPOINTS
                or report.commits == checkpoints == 1
            )

        job = _pairs("COCO", partial(write, source.bag(PARTITIONS), source.schema))
        bare = _pairs("tiny samples", partial(write, tiny, tiny_schema))
    ratios = [many / one for one, many in job]
    print(f"COCO, median: {100 * (statistics.median(ratios) - 1):+.1f} % CPU (goal at most +3 %)")
    extra = statistics.median(many - one for one, many in bare)
    share = extra / statistics.median(one for one, _ in job)
    print(
        f"{CHECKPOINTS - 1} more commits of tiny samples cost {extra:.2f} CPU s: "
        f"{100 * share:.1f} % of the COCO job"
    )


def _pairs(label: str, write: Callable[[int], None]) -> list[tuple[float, float]]:
    write(CHECKPOINTS)
    pairs = []
    for pair in range(PAIRS):
        order = (1, CHECKPOINTS) if pair % 2 else (CHECKPOINTS, 1)
        cpu = {checkpoints: measure(partial(write, checkpoints)).cpu for checkpoints in order}
        pairs.append((cpu[1], cpu[CHECKPOINTS]))
        print(f"{label}: 1 commit {cpu[1]:6.2f} CPU s, {CHECKPOINTS} {cpu[CHECKPOINTS]:6.2f} CPU s")
    return pairs
