"""Shared parts of the benchmarks: the COCO job, a cluster, a stopwatch."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.bag as db
import numpy as np
import psutil  # type: ignore[import-untyped] # its stubs are a package of their own
from dask.delayed import delayed
from distributed import Client, LocalCluster
from pycocotools.coco import COCO

import dasklake
from examples.shapes import make_shapes

#: Number of worker processes of the cluster.
WORKERS = 2

#: Number of input records, which repeat those of the file.
RECORDS = int(os.environ.get("DASKLAKE_BENCH_RECORDS", "3000"))


class Cost(NamedTuple):
    """Wall-clock seconds, and CPU seconds of this process and its descendants."""

    wall: float
    cpu: float


class Input(NamedTuple):
    """The annotation file as loaded by pycocotools, and its image ids."""

    coco: COCO
    ids: list[int]
    name: str

    @property
    def schema(self) -> dict[str, dasklake.TensorSpec]:
        """Schema of the documented job."""
        names = tuple(category["name"] for category in self.coco.dataset["categories"])
        return {
            "images": dasklake.TensorSpec("link[image]", compression="jpeg", verify=False),
            "categories": dasklake.TensorSpec("class_label", class_names=names),
            "boxes": dasklake.TensorSpec("bbox", coords="pixel-ltwh"),
            "masks": dasklake.TensorSpec("binary_mask"),
        }

    def bag(self, npartitions: int) -> Any:
        """Return the samples as a Bag: the input repeated with new numbers."""
        source = delayed(self, traverse=False)
        return db.from_sequence(range(RECORDS), npartitions=npartitions).map(dense, source=source)


def load() -> Input:
    """Load the real annotations if available, otherwise generated ones."""
    coco = COCO()
    folder = os.environ.get("DASKLAKE_COCO_DIR")
    with contextlib.redirect_stdout(io.StringIO()):
        if folder is None:
            coco.dataset = make_shapes(300).document
            coco.createIndex()
        else:
            coco = COCO(Path(folder) / "instances_571.json")
    return Input(coco, list(coco.imgs), "generated" if folder is None else "real")


def dense(sample_number: int, source: Input) -> dict[str, Any]:
    """Make a sample as in handwritten code: a dense array, filled mask by mask."""
    coco = source.coco
    image = coco.loadImgs(source.ids[sample_number % len(source.ids)])[0]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    indices = {category["id"]: index for index, category in enumerate(coco.dataset["categories"])}
    masks = np.zeros((image["height"], image["width"], len(annotations)), bool)
    for number, annotation in enumerate(annotations):
        masks[:, :, number] = coco.annToMask(annotation)
    boxes = np.array([record["bbox"] for record in annotations], "float32").reshape(-1, 4)
    labels = np.array([indices[record["category_id"]] for record in annotations], "uint32")
    return {
        "images": dasklake.link(f"s3://images/{sample_number:012d}.jpg"),
        "categories": labels,
        "boxes": boxes,
        "masks": masks,
    }


def count(partition: Any) -> list[int]:
    """Make every sample of a partition and keep none: the lower bound of any write."""
    return [sum(1 for _ in partition)]


@contextlib.contextmanager
def cluster() -> Iterator[Client]:
    """Run worker processes with one thread each."""
    with (
        scratch() as folder,
        dask.config.set({"temporary-directory": folder}),
        LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as workers,
        Client(workers) as client,
    ):
        yield client


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """Make a temporary folder on the disk of the working directory, not in memory."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("DASKLAKE_BENCH_DIR", "."))
    try:
        yield str(Path(folder).resolve())
    finally:
        shutil.rmtree(folder)


def measure(action: Callable[[], object]) -> Cost:
    """Run an action and return its cost."""
    cpu, began = _cpu(), time.perf_counter()
    action()
    return Cost(time.perf_counter() - began, _cpu() - cpu)


def _cpu() -> float:
    own = psutil.Process()
    times = [process.cpu_times() for process in [own, *own.children(recursive=True)]]
    return float(sum(time.user + time.system for time in times))
