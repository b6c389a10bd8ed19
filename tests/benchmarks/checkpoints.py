"""What checkpoints cost: CPU seconds of all processes with 25 of them, and with one."""

from __future__ import annotations

import itertools
import statistics
from functools import partial

import dasklake
from tests.benchmarks.common import RECORDS, cluster, load, measure, scratch

PAIRS = 5
PARTITIONS = 150
CHECKPOINTS = 25


def main() -> None:
    """Print pairs that took turns, and the median of their ratios."""
    source = load()
    bag = source.bag(PARTITIONS)
    ratios = []
    with cluster(), scratch() as folder:
        urls = (f"{folder}/lake-{number}" for number in itertools.count())

        commits: dict[int, int] = {}

        def write(wanted: int) -> None:
            every = None if wanted == 1 else RECORDS // CHECKPOINTS
            report = dasklake.to_lake(bag, next(urls), schema=source.schema, checkpoint_every=every)
            commits[wanted] = report.commits

        write(1)
        for pair in range(PAIRS):
            order = (1, CHECKPOINTS) if pair % 2 else (CHECKPOINTS, 1)
            cpu = {wanted: measure(partial(write, wanted)).cpu for wanted in order}
            ratios.append(cpu[CHECKPOINTS] / cpu[1])
            print(
                f"{commits[1]:2d} commits {cpu[1]:6.2f} CPU s  {commits[CHECKPOINTS]:2d} commits "
                f"{cpu[CHECKPOINTS]:6.2f} CPU s  ratio {ratios[-1]:.3f}"
            )
    print(f"median: {100 * (statistics.median(ratios) - 1):+.1f} % CPU (goal at most +3 %)")
