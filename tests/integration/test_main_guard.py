"""A script without a main guard is refused at once, and its workers empty nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dasklake
from tests.support.clusters import wait_until

BEGIN = """
import dasklake

@dasklake.compute
def fill(item, sample_out):
    sample_out.append({"x": item})
"""

JOB = """
lake = dasklake.empty("lake", overwrite=True)
lake.create_tensor("x", dtype="int64", shape=())
fill().eval(list(range(10)), lake, num_workers=1)
"""

OWN_CLUSTER = """
from distributed import Client
lake = dasklake.empty("lake", overwrite=True)
client = Client(n_workers=1, threads_per_worker=1, dashboard_address=":0")
"""


def run(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    script = folder / "script.py"
    script.write_text(text)
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def guarded(job: str) -> str:
    """Return the job under a main guard."""
    return 'if __name__ == "__main__":' + job.replace("\n", "\n    ")


def in_main(job: str) -> str:
    """Return the job in a function that a guard calls."""
    return (
        "def main():" + job.replace("\n", "\n    ") + '\nif __name__ == "__main__":\n    main()\n'
    )


def flat(job: str) -> str:
    """Return the job as it is."""
    return job


def unguarded_main(job: str) -> str:
    """Return the job in a function that is called without a guard."""
    return "def main():" + job.replace("\n", "\n    ") + "\nmain()\n"


BAG = """
import dask.bag
bag = dask.bag.from_sequence(range(10), npartitions=2).map(lambda x: {"x": x})
dasklake.to_lake(bag, "lake", schema={"x": "int64"}, mode="overwrite")
"""


def test_bag_without_a_guard_is_refused(tmp_path: Path) -> None:
    """Bags are computed in processes by default: the script is refused before they start."""
    result = run(tmp_path, BEGIN + flat(BAG))
    assert "of the script starts workers." in result.stderr.splitlines()[-1]
    assert result.stderr.count("Traceback") == 1
    assert not (tmp_path / "lake").exists()
    assert run(tmp_path, BEGIN + guarded(BAG)).returncode == 0


@pytest.mark.parametrize("form", [flat, unguarded_main])
def test_eval_without_a_guard_is_refused(tmp_path: Path, form: Callable[[str], str]) -> None:
    """The error names line and guard before workers start; the lake keeps the script's commits."""
    script = BEGIN + form(JOB)
    result = run(tmp_path, script)
    line = script.rstrip().count("\n") + 1
    assert f"Line {line} of the script starts workers." in result.stderr
    assert 'under `if __name__ == "__main__":`' in result.stderr.splitlines()[-1]
    assert dasklake.open(tmp_path / "lake").version == 1


@pytest.mark.parametrize("form", [guarded, in_main])
def test_eval_under_a_guard_runs(tmp_path: Path, form: Callable[[str], str]) -> None:
    """With the guard that the message asks for, the script works."""
    result = run(tmp_path, BEGIN + form(JOB))
    assert result.returncode == 0, result.stderr
    assert sorted(dasklake.open(tmp_path / "lake")["x"][:].tolist()) == list(range(10))


def test_workers_of_an_own_cluster_empty_nothing(tmp_path: Path) -> None:
    """A worker that imports the script cannot write; the error there names the guard."""
    script, errors = tmp_path / "script.py", tmp_path / "errors"
    script.write_text(BEGIN + OWN_CLUSTER)
    refusal = "A worker process must not write a lake while it starts."
    with errors.open("w") as file:
        command = [sys.executable, str(script)]
        process = subprocess.Popen(command, cwd=tmp_path, stderr=file, start_new_session=True)
    try:
        wait_until(lambda: refusal in errors.read_text(), "a worker is refused")
    finally:
        # Older releases of Dask start the worker again and again.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert dasklake.open(tmp_path / "lake").version == 0
