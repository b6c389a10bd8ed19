"""Complete partitions on storage are committed by the next epoch, not computed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import dasklake

SCRIPT = """
import os, signal, sys
import dask.bag as db
import dasklake

url, executions, victim = sys.argv[1], sys.argv[2], int(sys.argv[3])

def sample(i):
    with open(executions, "a") as file:
        file.write(f"{i}\\n")
    if i == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"x": i}

db.from_sequence(range(50), npartitions=10).to_lake(
    url,
    schema={"x": dasklake.TensorSpec(dtype="int64", shape=())},
    transform=sample,
    mode="resume",
    run="job",
    checkpoint_every=None,
    options=dasklake.WriteOptions(scheduler="sync"),
)
"""


def test_finished_partitions_are_not_computed_again(tmp_path: Path) -> None:
    """A run killed before its first commit resumes with the partitions that it had written."""
    url, executions = str(tmp_path / "lake"), tmp_path / "executions"

    def run(victim: int) -> int:
        command = [sys.executable, "-c", SCRIPT, url, str(executions), str(victim)]
        return subprocess.run(command, env={**os.environ}, check=False).returncode

    assert run(37) == -signal.SIGKILL
    assert len(dasklake.open(url)) == 0
    assert run(-1) == 0
    lake = dasklake.open(url)
    assert [sample["x"] for sample in lake] == list(range(50))
    assert lake.is_complete
    computed = [int(line) for line in executions.read_text().split()]
    # Five items per partition; the one in flight was computed up to its third item.
    assert sorted(computed) == sorted([*range(50), 35, 36, 37])
