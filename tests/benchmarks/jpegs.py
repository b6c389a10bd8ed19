"""Compare writing encoded JPEGs with writing the same bytes as one plain file per partition."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

import dask.bag as db
import numpy as np
from PIL import Image

import dasklake
from dasklake._api.write import WriteOptions
from tests.benchmarks.common import Cost, measure, scratch

#: Number of pictures, of partitions, and of pairs of measurements.
PICTURES, PARTITIONS, PAIRS = 2_000, 8, 5
SCHEDULER = "threads"


def pictures() -> tuple[list[bytes], str]:
    """Return the bytes of real pictures if available, otherwise of generated ones."""
    folder = os.environ.get("DASKLAKE_COCO_DIR")
    if folder is not None:
        return [file.read_bytes() for file in sorted(Path(folder, "images").glob("*.jpg"))], "real"
    images = []
    for number in range(50):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), "uint8")
        sink = io.BytesIO()
        Image.fromarray(noise).resize((640, 480)).save(sink, "jpeg", quality=95)
        images.append(sink.getvalue())
    return images, "generated"


def write_file(items: Iterable[int], data: list[bytes], folder: str) -> list[int]:
    """Write the pictures of a partition as one file, and flush it to disk."""
    numbers = list(items)
    with Path(folder, str(numbers[0])).open("wb") as file:
        file.writelines(data[number % len(data)] for number in numbers)
        file.flush()
        os.fsync(file.fileno())
    return [len(numbers)]


def main() -> None:
    """Print the ratios of alternating pairs, and whether the bytes are equal."""
    data, name = pictures()
    size = sum(len(data[number % len(data)]) for number in range(PICTURES))
    bag = db.from_sequence(range(PICTURES), npartitions=PARTITIONS)
    schema = {"image": dasklake.TensorSpec("image", compression="jpeg")}
    options = WriteOptions(scheduler=SCHEDULER)
    ratios: list[float] = []
    rates: list[float] = []
    cpu: list[float] = []

    def lake(folder: str) -> None:
        dasklake.to_lake(
            bag,
            folder,
            schema=schema,
            transform=lambda number: {"image": data[number % len(data)]},
            options=options,
            progress=False,
        )

    def files(folder: str) -> None:
        bag.map_partitions(write_file, data=data, folder=folder).compute(scheduler=SCHEDULER)

    def once(action: Callable[[str], None]) -> Cost:
        # Each measurement writes new files to an empty disk, so that earlier cached data slow none down.
        with scratch() as folder:
            return measure(lambda: action(folder))

    actions: tuple[Callable[[str], None], ...] = (files, lake)
    for action in actions:
        once(action)
    for pair in range(PAIRS):
        order = actions if pair % 2 else actions[::-1]
        costs = {action: once(action) for action in order}
        ratios.append(costs[files].wall / costs[lake].wall)
        rates.append(size / costs[lake].wall)
        cpu.append(costs[lake].cpu - costs[files].cpu)
    print(
        f"{PICTURES} {name} JPEGs, {size / 1e6:.0f} MB, {PARTITIONS} partitions: "
        f"{statistics.median(ratios):.2f} times as fast as plain files "
        f"({', '.join(f'{ratio:.2f}' for ratio in ratios)}), "
        f"{statistics.median(rates) / 1e6:.0f} MB/s, {statistics.median(cpu):.2f} s more CPU"
    )
    with scratch() as folder:
        lake(folder)
        tensor = dasklake.open(folder)["image"]
        same = all(tensor.bytes(n) == data[n % len(data)] for n in range(PICTURES))
    print(f"bytes {'identical' if same else 'DIFFERENT'}")
