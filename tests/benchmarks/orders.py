"""Compare the two commit orders when the first partition is the slowest of all.

In completion order the first checkpoint needs any partitions. In input order it needs the slow one.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from typing import Any, NamedTuple

import dask.bag as db

import dasklake
from tests.benchmarks.common import WORKERS, cluster, scratch

PAIRS = 5
PARTITIONS, SAMPLES, CHECKPOINT = 60, 600, 100
#: Seconds of an ordinary sample, and of one of the first partition, which lasts most of the run.
SECONDS, SLOW = 0.008, 0.2


class Times(NamedTuple):
    """Seconds until the first checkpoint and until the end, and samples visible half-way."""

    first: float
    end: float
    half: int


def sleep(number: int) -> int:
    """Take the time of a sample; those of the first partition are slow."""
    time.sleep(SLOW if number < SAMPLES // PARTITIONS else SECONDS)
    return number


def main() -> None:
    """Print alternating pairs and the medians of both orders."""
    bag = db.from_sequence(range(SAMPLES), npartitions=PARTITIONS)
    times: dict[str, list[Times]] = {"completion": [], "input": []}
    with cluster(), scratch() as folder:
        urls = (f"{folder}/lake-{number}" for number in itertools.count())
        for pair in range(PAIRS + 1):
            for order in sorted(times, reverse=bool(pair % 2)):
                result = _write(bag, next(urls), order)
                if pair:  # the first pair starts the workers
                    times[order].append(result)
    print(f"{SAMPLES} samples, {WORKERS} workers, a checkpoint every {CHECKPOINT}")
    for order, results in times.items():
        first, end, half = (statistics.median(column) for column in zip(*results, strict=True))
        print(
            f"{order:10s}: first checkpoint after {first:5.2f} s, end after {end:5.2f} s, "
            f"{half:.0f} samples visible when half of the time was over"
        )


def _write(bag: Any, url: str, order: Any) -> Times:
    began = time.perf_counter()
    sizes: list[tuple[float, int]] = []
    ended = threading.Event()

    def observe() -> None:
        while not ended.wait(0.01):
            try:
                sizes.append((time.perf_counter() - began, len(dasklake.open(url))))
            except dasklake.exceptions.LakeNotFoundError:
                continue

    observer = threading.Thread(target=observe)
    observer.start()
    try:
        dasklake.to_lake(
            bag,
            url,
            schema={"x": dasklake.TensorSpec(dtype="int64", shape=())},
            transform=sleep,
            checkpoint_every=CHECKPOINT,
            options=dasklake.WriteOptions(commit_order=order),
        )
    finally:
        ended.set()
        observer.join()
    end = time.perf_counter() - began
    first = next((seconds for seconds, size in sizes if size), end)
    half = max((size for seconds, size in sizes if seconds <= end / 2), default=0)
    return Times(first, end, half)


if __name__ == "__main__":
    main()
