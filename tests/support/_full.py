"""A job whose disk fills up during a run: ``python -m tests.support._full FOLDER disk|limit``.

With ``disk`` the folder is mounted as a small file system, which needs the privilege to mount. With
``limit`` no file may exceed a size limit. The job writes, frees space, writes again and prints its
results as JSON.
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

#: Sizes in bytes: a sample, a large sample, and a file that takes up space.
SIZE, LARGE, BALLAST = 40_000, 250_000, 400_000

#: The item that is large if file sizes are limited, and the limit.
VICTIM, LIMIT = 16, 200_000


def sample(x: int, computed: list[int], *, limited: bool) -> dict[str, Any]:
    """Make a sample."""
    computed.append(x)
    size = LARGE if limited and x == VICTIM else SIZE
    return {"x": x, "bytes": np.random.default_rng(x).integers(0, 255, size, "uint8")}


def main(folder: Path, *, limited: bool) -> None:
    """Run the job."""
    computed: list[int] = []
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
            transform=lambda x: sample(x, computed, limited=limited),
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
    results: dict[str, Any] = {
        "message": message,
        "committed": [int(row["x"]) for row in dasklake.open(url)],
        "computed": list(computed),
        "half": [str(path) for path in folder.rglob("*.tmp")],
    }
    (folder / "ballast").unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    computed.clear()
    results["failures"] = write().failures
    results["again"] = list(computed)
    rows = list(dasklake.open(url))
    results["rows"] = [int(row["x"]) for row in rows]
    results["whole"] = all(
        np.array_equal(row["bytes"], sample(int(row["x"]), [], limited=limited)["bytes"])
        for row in rows
    )
    print(json.dumps(results))  # noqa: T201 # for the test


if __name__ == "__main__":
    main(Path(sys.argv[1]), limited=sys.argv[2] == "limit")
