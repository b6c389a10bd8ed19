"""A job with text labels in its own process: ``python -m tests.support._labels ARGUMENTS``.

It may kill itself during the run, so that the same job can be resumed.
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

#: The number of samples and the number of label names.
SAMPLES, NAMES = 10_000, 500

GIVEN = ("name 7", "never seen")


def labels(samples: int = SAMPLES, names: int = NAMES) -> list[str]:
    """Return the labels of all samples: every name, in random order."""
    choice = random.Random(4)  # noqa: S311 # the same in every process
    names_of_samples = [f"name {i % names}" for i in range(samples)]
    choice.shuffle(names_of_samples)
    return names_of_samples


def schema() -> dict[str, dasklake.TensorSpec]:
    """Return the schema of the job, which declares two names of a tensor, and none of another."""
    return {
        "label": dasklake.TensorSpec("class_label", shape=(), class_names=GIVEN, discover=True),
        "more": dasklake.TensorSpec("class_label"),
    }


def sample(name: str, stop: str | None = None) -> dict[str, Any]:
    """Return a sample; kill the process if ``stop`` is a folder with enough checkpoints."""
    if stop is not None and len(list(Path(stop).glob("lake/_lake/log/main/*/*.json"))) > 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"label": name, "more": [name, "all"][: len(name) % 3]}


def write(url: str, stop: str | None = None, **options: Any) -> Any:
    """Write or resume the lake."""
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
