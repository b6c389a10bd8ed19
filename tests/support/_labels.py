"""A job whose labels are text, as a process of its own: ``python -m tests.support._labels ARGUMENTS``.

It may kill itself in the middle, so that the same job can be resumed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import dask.bag as db

import dasklake

#: Of the labels: how many samples, how many names.
SAMPLES, NAMES = 10_000, 500

GIVEN = ("name 7", "never seen")


def labels(samples: int = SAMPLES, names: int = NAMES) -> list[str]:
    """Return the labels of all samples: every name, in random order."""
    choice = random.Random(4)  # noqa: S311 # the same in every process
    found = [f"name {i % names}" for i in range(samples)]
    choice.shuffle(found)
    return found


def schema() -> dict[str, dasklake.TensorSpec]:
    """Return what the job writes: it has been told two of the names."""
    return {
        "label": dasklake.TensorSpec("class_label", shape=(), class_names=GIVEN, discover=True),
        "more": dasklake.TensorSpec("class_label", discover=True),
    }


def sample(name: str, stop: str | None = None) -> dict[str, Any]:
    """Return a sample; where ``stop`` is a folder with checkpoints enough, die."""
    if stop is not None and len(list(Path(stop).glob("lake/_lake/log/main/*/*.json"))) > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"label": name, "more": [name, "all"][: len(name) % 3]}


def write(url: str, stop: str | None = None, **options: Any) -> Any:
    """Write the lake, or go on with it."""
    return dasklake.to_lake(
        db.from_sequence(labels(), npartitions=16),
        url,
        schema=schema(),
        transform=sample,
        transform_kwargs={"stop": stop},
        mode="resume",
        run="job",
        checkpoint_every=1_000,
        progress=False,
        options=dasklake.WriteOptions(**options),
    )


if __name__ == "__main__":
    write(**json.loads(sys.argv[1]))
