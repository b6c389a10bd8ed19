"""A client process: ``python -m tests.support._job ARGUMENTS``, with the arguments as JSON.

Writes items as a lake on a running cluster and prints the report. The same script starts and
resumes a run.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import dask.bag as db
from distributed import Client

import dasklake
from tests.support._work import SCHEMA, sample


def main(  # the arguments of the job
    *,
    scheduler_file: str,
    url: str,
    folder: str,
    items: int,
    partitions: int,
    checkpoint_every: int,
    pauses: list[int],
    backwards: bool,
    options: dict[str, Any],
) -> None:
    """Write the lake."""
    numbers = list(range(items))
    bag = db.from_sequence(numbers[::-1] if backwards else numbers, npartitions=partitions)
    with Client(scheduler_file=scheduler_file, timeout="60s"):
        report = dasklake.to_lake(
            bag,
            url,
            schema=SCHEMA,
            transform=sample,
            transform_kwargs={"folder": folder, "pauses": pauses},
            checkpoint_every=checkpoint_every,
            mode="resume",
            run="job",
            options=dasklake.WriteOptions(**options),
        )
    print(json.dumps(asdict(report)), flush=True)  # noqa: T201 # for the test


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
