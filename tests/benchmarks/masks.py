"""Compare masks as run lengths with dense arrays, on one worker in sequence."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import dask.bag as db
from dask.delayed import delayed

import dasklake
from dasklake import masks
from tests.benchmarks.common import RECORDS, Input, dense, load, measure, scratch

PAIRS = 5
PARTITIONS = 6


def sparse(number: int, source: Input) -> dict[str, Any]:
    """Make the sample of ``dense`` without decoding its masks to pixels."""
    coco = source.coco
    image = coco.loadImgs(source.ids[number % len(source.ids)])[0]
    size = image["height"], image["width"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    outlines = [annotation["segmentation"] for annotation in annotations]
    if any(isinstance(annotation, dict) for annotation in outlines):
        value = masks.from_rle([coco.annToRLE(annotation) for annotation in annotations], size)
    else:
        value = masks.from_polygons(outlines, size)
    return {"masks": value}


def pixels(number: int, source: Input) -> dict[str, Any]:
    """Make the masks of a sample as a dense array."""
    return {"masks": dense(number, source)["masks"]}


def main() -> None:
    """Print alternating pairs, and the median of their ratios."""
    source = load()
    shared = delayed(source, traverse=False)
    items = db.from_sequence(range(RECORDS), npartitions=PARTITIONS)
    print(f"{RECORDS} {source.name} records, {PARTITIONS} partitions, in this process")
    ratios = []
    with scratch() as folder:
        urls = (f"{folder}/lake-{number}" for number in itertools.count())

        def write(make: Any, compression: str | None) -> None:
            dasklake.to_lake(
                items.map(make, source=shared),
                next(urls),
                schema={"masks": dasklake.TensorSpec("binary_mask", compression=compression)},
                options=dasklake.WriteOptions(scheduler="sync"),
            )

        write(sparse, "rle")
        for _ in range(PAIRS):
            slow = measure(lambda: write(pixels, "packbits-zstd"))
            fast = measure(lambda: write(sparse, "rle"))
            ratios.append(slow.wall / fast.wall)
            print(
                f"dense {RECORDS / slow.wall:7.0f} samples/s  run lengths "
                f"{RECORDS / fast.wall:7.0f} samples/s  ratio {ratios[-1]:.1f}"
            )
    print(f"median ratio: {statistics.median(ratios):.1f} (goal at least 10)")
