"""Write COCO annotations and pictures to a lake, as a user would.

The same call begins and resumes the run. Each sample that is made is recorded.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.bag as db
from dask.delayed import delayed
from distributed import Client

import dasklake
from dasklake.sources import coco
from tests.support._work import note

#: The run's name.
RUN = "shapes"

#: Exit message of a client that found no scheduler.
NO_CLUSTER = "no cluster"

#: Name of the annotation file, beside the pictures.
ANNOTATIONS = "instances.json"


def sample(image_id: int, *, coco_index: Any, images: Any, folder: str, pace: float) -> Any:
    """Make the sample of an image and record it, at a realistic pace."""
    note(folder, str(image_id))
    time.sleep(pace)
    return coco.sample(image_id, coco=coco_index, images=images)


def main(
    *,
    scheduler_file: str,
    url: str,
    storage_options: dict[str, Any] | None,
    source: str,
    folder: str,
    size: int,
    checkpoint_every: int,
    pace: float,
) -> None:
    """Write or resume the lake, and write the report to the folder."""
    index = coco.read_index(f"{source}/{ANNOTATIONS}")
    try:
        client = Client(scheduler_file=scheduler_file, timeout="60s")
    except OSError as error:
        # A failure of Dask: the lake is not involved yet.
        sys.exit(f"{NO_CLUSTER}: {error}")
    report = dasklake.to_lake(
        db.from_sequence(index.image_ids.tolist(), partition_size=size),
        url,
        schema=coco.schema(index, "bytes"),
        transform=sample,
        transform_kwargs={
            "coco_index": delayed(index, traverse=False),
            "images": coco.image_reader(source),
            "folder": folder,
            "pace": pace,
        },
        checkpoint_every=checkpoint_every,
        mode="resume",
        run=RUN,
        storage_options=storage_options,
        # One chunk for each sample.
        options=dasklake.WriteOptions(scheduler=client, chunk_size=1),
    )
    Path(folder, "report.json").write_text(json.dumps(asdict(report)))
