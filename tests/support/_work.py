"""The tests' work on workers: recorded transforms, and phases that wait for the test.

Worker processes import this module, so it must not import pytest.
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

#: Seconds after which a phase that was not released fails the test.
PATIENCE = 90.0


def note(folder: str, line: str) -> None:
    """Append a line to the record of executions; atomic across processes."""
    descriptor = os.open(f"{folder}/executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def pause(folder: str, phase: str) -> None:
    """Report that a phase is reached, then wait for the test."""
    reached = Path(folder, f"{phase}.reached")
    Path(folder, f"{phase}.{os.getpid()}").write_text(str(os.getpid()))
    Path(folder, f"{phase}.{os.getpid()}").replace(reached)
    deadline = time.monotonic() + PATIENCE
    while not Path(folder, f"{phase}.go").exists():
        if time.monotonic() > deadline:
            raise AssertionError(f"phase {phase!r} was not released in time")
        time.sleep(0.01)


def content(x: int) -> dict[str, Any]:
    """Return the sample of an item."""
    return {"x": x, "square": np.full((x % 4, 2), x, "float32"), "name": f"sample {x}"}


def sample(x: int, folder: str, pauses: Sequence[int] = ()) -> dict[str, Any]:
    """Record and make the sample of an item; pause at selected items."""
    note(folder, str(x))
    if x in pauses:
        pause(folder, str(x))
    return content(x)
