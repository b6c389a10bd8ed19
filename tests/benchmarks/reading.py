"""Compare reading samples and whole lakes with one raw file per sample, both cached in memory."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path

import dask.bag as db
import numpy as np

import dasklake
from dasklake._api.write import WriteOptions
from tests.benchmarks.common import measure, scratch

SAMPLES, BYTES, PAIRS = 4_000, 50_000, 5


def make(number: int) -> np.ndarray:
    """Make the bytes of a sample."""
    return np.random.default_rng(number).integers(0, 256, BYTES, "uint8")


def main() -> None:
    """Print the ratios of alternating pairs."""
    bag = db.from_sequence(range(SAMPLES), npartitions=8)
    schema = {"x": dasklake.TensorSpec(dtype="uint8", shape=(BYTES,))}
    order = np.random.default_rng(0).integers(0, SAMPLES, SAMPLES).tolist()
    with scratch() as folder:
        url, raw = f"{folder}/lake", Path(folder) / "raw"
        raw.mkdir()

        def write_lake() -> None:
            options = WriteOptions(scheduler="sync")
            bag.to_lake(url, schema=schema, transform=make, mode="overwrite", options=options)

        def write_files() -> None:
            for number in range(SAMPLES):
                with (raw / str(number)).open("wb") as file:
                    file.write(make(number).data)
                    file.flush()
                    os.fsync(file.fileno())

        _compare("write, made durable", write_files, write_lake)
        tensor = dasklake.open(url)["x"]

        def random_lake() -> None:
            for number in order:
                tensor[number]

        def random_files() -> None:
            for number in order:
                np.frombuffer((raw / str(number)).read_bytes(), np.uint8)

        _compare("random samples", random_files, random_lake)

        def all_lake() -> None:
            for start in range(0, SAMPLES, 500):
                tensor[start : start + 500]

        def all_files() -> None:
            for number in range(SAMPLES):
                np.frombuffer((raw / str(number)).read_bytes(), np.uint8)

        _compare("all samples, 500 at once", all_files, all_lake)


def _compare(label: str, files: Callable[[], None], lake: Callable[[], None]) -> None:
    ratios, rates = [], []
    for pair in range(PAIRS):
        costs = {
            action: measure(action).wall
            for action in ((files, lake) if pair % 2 else (lake, files))
        }
        ratios.append(costs[files] / costs[lake])
        rates.append(SAMPLES / costs[lake])
    print(
        f"{label:26s}: {statistics.median(ratios):5.2f} times as fast as raw files, "
        f"{statistics.median(rates):8.0f} samples/s of {BYTES} bytes"
    )
