"""Compare ``to_lake`` of COCO with the same Bag that only counts its samples."""

from __future__ import annotations

import itertools
import statistics

import dasklake
from tests.benchmarks.common import RECORDS, WORKERS, cluster, count, load, measure, scratch

PAIRS = 5
# About 100 samples each, the lower end of what the how-to recommends.
PARTITIONS = 30


def main() -> None:
    """Print five alternating pairs, and the median of their ratios."""
    source = load()
    bag = source.bag(PARTITIONS)
    print(f"{RECORDS} {source.name} records, {PARTITIONS} partitions, {WORKERS} worker processes")
    ratios, work = [], []
    with cluster(), scratch() as folder:
        urls = (f"{folder}/lake-{number}" for number in itertools.count())

        def floor() -> None:
            counted = sum(bag.map_partitions(count).compute())
            assert counted == RECORDS

        def write() -> None:
            report = dasklake.to_lake(bag, next(urls), schema=source.schema)
            assert report.samples == RECORDS

        floor()
        for pair in range(PAIRS):
            # The order alternates between pairs, so that warm caches favour neither.
            order = (floor, write) if pair % 2 else (write, floor)
            costs = {action.__name__: measure(action) for action in order}
            ratios.append(costs["floor"].wall / costs["write"].wall)
            work.append(costs["floor"].cpu / costs["write"].cpu)
            print(
                f"floor {costs['floor'].wall:6.2f} s  to_lake {costs['write'].wall:6.2f} s  "
                f"throughput {ratios[-1]:.3f} of the floor; CPU {costs['floor'].cpu:6.2f} s, "
                f"{costs['write'].cpu:6.2f} s"
            )
    print(f"median throughput of to_lake: {statistics.median(ratios):.3f} of the floor (goal 0.90)")
    print(f"the same by CPU seconds, which other load disturbs less: {statistics.median(work):.3f}")
