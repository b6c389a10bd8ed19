"""What the tests' workers do: samples whose making is noted, and phases that wait for the test.

Imported by worker processes, so nothing of pytest is here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasklake import TensorSpec
from dasklake._schema.schema import Schema

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="int64", shape=()),
        "square": TensorSpec(dtype="float32", shape=(None, 2)),
        "name": TensorSpec("text"),
    }
)

#: Seconds after which a test that nobody lets go on has failed.
PATIENCE = 90.0


def note(folder: str, line: str) -> None:
    """Append a line to the record of executions, whole even beside other processes."""
    descriptor = os.open(f"{folder}/executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def pause(folder: str, phase: str) -> None:
    """Say that a phase is reached, then wait for the test."""
    reached = Path(folder, f"{phase}.reached")
    Path(folder, f"{phase}.{os.getpid()}").write_text(str(os.getpid()))
    Path(folder, f"{phase}.{os.getpid()}").replace(reached)
    deadline = time.monotonic() + PATIENCE
    while not Path(folder, f"{phase}.go").exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"nobody let phase {phase!r} go on")
        time.sleep(0.01)


def content(x: int) -> dict[str, Any]:
    """Return the sample of an item."""
    return {"x": x, "square": np.full((x % 4, 2), x, "float32"), "name": f"sample {x}"}


def sample(x: int, folder: str, pauses: Sequence[int] = ()) -> dict[str, Any]:
    """Make the sample of an item; noted, and with a phase at some of them."""
    note(folder, str(x))
    if x in pauses:
        pause(folder, str(x))
    return content(x)
