"""A job whose disk is full in mid-run: ``python -m tests.support._full FOLDER disk|limit``.

With ``disk`` the folder gets a small disk of its own, which is to be allowed; with ``limit`` no file
may be longer than a limit. Writes, makes room, writes again, and prints how it went, as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np

import dasklake
from dasklake.exceptions import StorageFullError

ITEMS = 30

#: Bytes of a sample, of a large one, and of what is in the way.
SIZE, LARGE, BALLAST = 40_000, 250_000, 400_000

#: The item that is large where there is a limit, and the limit.
VICTIM, LIMIT = 16, 200_000


def sample(x: int, made: list[int], *, limited: bool) -> dict[str, Any]:
    """Make a sample."""
    made.append(x)
    size = LARGE if limited and x == VICTIM else SIZE
    return {"x": x, "bytes": np.random.default_rng(x).integers(0, 255, size, "uint8")}


def main(folder: Path, *, limited: bool) -> None:
    """Run the job."""
    made: list[int] = []
    url = str(folder / "lake")
    no_limit = (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    def write() -> Any:
        return dasklake.to_lake(
            db.from_sequence(range(ITEMS), npartitions=ITEMS // 3),
            url,
            schema={
                "x": dasklake.TensorSpec(dtype="int64", shape=()),
                "bytes": dasklake.TensorSpec(dtype="uint8", shape=(None,)),
            },
            transform=lambda x: sample(x, made, limited=limited),
            mode="resume",
            run="job",
            checkpoint_every=6,
            options=dasklake.WriteOptions(scheduler="sync"),
        )

    if not limited:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", folder], check=True)
    (folder / "ballast").write_bytes(bytes(BALLAST))
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, no_limit[1]))
    message = ""
    try:
        write()
    except StorageFullError as error:
        message = str(error)
    told: dict[str, Any] = {
        "message": message,
        "kept": [int(row["x"]) for row in dasklake.open(url)],
        "made": list(made),
        "half": [str(path) for path in folder.rglob("*.tmp")],
    }
    (folder / "ballast").unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    made.clear()
    told["failures"] = write().failures
    told["again"] = list(made)
    rows = list(dasklake.open(url))
    told["rows"] = [int(row["x"]) for row in rows]
    told["whole"] = all(
        np.array_equal(row["bytes"], sample(int(row["x"]), [], limited=limited)["bytes"])
        for row in rows
    )
    print(json.dumps(told))  # noqa: T201 # for the test


if __name__ == "__main__":
    main(Path(sys.argv[1]), limited=sys.argv[2] == "limit")
