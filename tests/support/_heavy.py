"""A pipeline with a large argument, and a client process that evaluates it.

``python -m tests.support._heavy SCHEDULER_FILE URL FOLDER BYTES``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from distributed import Client

import dasklake
from tests.support._work import note, pause

ITEMS, PAUSES = 50, (0, 25)


class Heavy:
    """Bytes that record their length and each process that receives them."""

    def __init__(self, data: bytes, journal: str) -> None:
        self.data, self.journal = data, journal

    def __reduce__(self) -> tuple[Any, ...]:
        return arrive, (self.data, self.journal)


def arrive(data: bytes, journal: str) -> Heavy:
    """Append the process and the length to the journal."""
    with Path(journal).open("a") as file:
        file.write(f"{os.getpid()} {len(data)}\n")
    return Heavy(data, journal)


@dasklake.compute
def weigh(sample_in: int, sample_out: dasklake.SampleOut, heavy: Heavy, folder: str) -> None:
    """Use the argument; wait for the test at selected items."""
    note(folder, str(sample_in))
    if sample_in in PAUSES:
        pause(folder, str(sample_in))
    sample_out.append({"x": sample_in, "size": len(heavy.data)})


def main(scheduler_file: str, url: str, folder: str, size: str) -> None:
    """Write the lake with ten checkpoints."""
    heavy = Heavy(bytes(int(size)), f"{folder}/journal")
    with Client(scheduler_file=scheduler_file, timeout="60s"):
        weigh(heavy, folder=folder).eval(
            range(ITEMS), dasklake.open(url), checkpoint_interval=ITEMS // 10, run="job"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
