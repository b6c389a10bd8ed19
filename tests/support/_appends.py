"""One of several concurrent writers: ``python -m tests.support._appends URL WRITER COUNT FOLDER``.

Storage options are passed as JSON in an environment variable.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import dask.bag as db

import dasklake
from tests.support._work import PATIENCE, SCHEMA, content


def main(url: str, writer: str, count: str, folder: str) -> None:
    """Wait for the test's start signal, then append ``count`` times."""
    number, times = int(writer), int(count)
    options = dasklake.WriteOptions(scheduler="sync")
    Path(folder, f"{writer}.ready").touch()
    deadline = time.monotonic() + PATIENCE
    while not Path(folder, "go").exists():
        assert time.monotonic() < deadline  # runs in a test's own process
        time.sleep(0.001)
    for i in range(times):
        bag = db.from_sequence([content(number * times + i)], npartitions=1)
        dasklake.to_lake(
            bag,
            url,
            schema=SCHEMA,
            mode="append",
            run=f"writer-{number}-{i}",
            checkpoint_every=1,
            storage_options=json.loads(os.environ.get("DASKLAKE_TEST_STORAGE", "null")),
            options=options,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
