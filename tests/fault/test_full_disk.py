"""A disk that fills up during a run: accurate message, complete checkpoints, and a later resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import ROOT


def run_job(folder: Path, how: str, before: Sequence[str] = ()) -> dict[str, Any]:
    """Run the job and return its results."""
    command = [*before, sys.executable, "-m", "tests.support._full", str(folder), how]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(results: dict[str, Any]) -> None:
    """Check the message, the committed work, the resume, and that no partial file remains."""
    committed = results["committed"]
    assert "the storage is full" in results["message"]
    assert f"Last checkpoint: {len(committed)} samples committed" in results["message"]
    assert "mode='resume', run='job'" in results["message"]
    assert committed == list(range(len(committed)))
    assert len(committed) % 3 == 0
    assert len(committed) < 30
    # A write that fails for lack of space is not retried, and ends the run.
    computed = results["computed"]
    assert computed == list(range(len(computed)))
    assert len(committed) < len(computed) <= 30
    assert results["half"] == []
    # Partitions that were written and not committed are recovered.
    again = results["again"]
    assert again == list(range(30 - len(again), 30))
    assert len(committed) <= 30 - len(again) <= len(computed)
    assert (results["rows"], results["whole"], results["failures"]) == (list(range(30)), True, 0)


def test_file_size_limit_ends_the_run_and_allows_a_resume(tmp_path: Path) -> None:
    """A file above the size limit ends the run at once; with a higher limit the run resumes."""
    results = run_job(tmp_path, "limit")
    check(results)
    assert len(results["committed"]) == 15
    assert len(results["computed"]) <= 18


def test_full_disk_ends_the_run_and_allows_a_resume(tmp_path: Path) -> None:
    """A full disk ends the run at once; with free space the run resumes."""
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*space, "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed")
    check(run_job(tmp_path, "disk", space))
