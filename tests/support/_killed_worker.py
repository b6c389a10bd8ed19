"""Kill a loader's worker a few times, and print the open files after each: run as a script.

PyTorch reports the death of a worker from a signal handler, at any line of the main thread, so that
the test runs in a process of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

import dasklake


def same(batch: Any) -> Any:
    """Return a batch unchanged."""
    return batch


def kill_a_worker(data: Any, size: int | None, method: str) -> str:
    """Return the error of a loader whose worker is killed after the first batch."""
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=size,
        collate_fn=same,
        num_workers=2 if method == "fork" else 1,
        multiprocessing_context=method,
        timeout=60,
        prefetch_factor=1,
    )
    try:
        batches: Any = iter(loader)
        next(batches)
        os.kill(batches._workers[0].pid, signal.SIGKILL)
        for _ in batches:
            time.sleep(0.01)
    except (RuntimeError, OSError, EOFError) as error:
        # A worker may die while it sends a tensor: its socket breaks, ends or is gone.
        return f"{type(error).__name__} {error}"
    return "no error"


def main(url: str, kind: str, method: str) -> None:
    """Kill workers, forked or spawned, of a loader of one kind of data set."""
    lake = dasklake.open(url)
    for _ in range(4 if method == "fork" else 3):  # a spawned process imports everything again
        data, size = (lake.torch(batch_size=1), None) if kind == "iterable" else (lake, 1)
        message = kill_a_worker(data, size, method)
        del data
        gc.collect()
        sys.stdout.write(f"{len(list(Path('/proc/self/fd').iterdir()))} {message}\n")
    loader: DataLoader[Any] = DataLoader(
        lake.torch(batch_size=7), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    sys.stdout.write(f"{sum(len(batch['x']) for batch in loader)} samples\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
