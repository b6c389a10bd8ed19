"""A disk that is full in mid-run: a true message, whole checkpoints, and a resume once there is room."""

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


def told(folder: Path, how: str, before: Sequence[str] = ()) -> dict[str, Any]:
    """Run the job; what it says."""
    command = [*before, sys.executable, "-m", "tests.support._full", str(folder), how]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def check(found: dict[str, Any]) -> None:
    """Check the message, the work that was kept, how it went on, and that nothing half is left."""
    kept = found["kept"]
    assert "the storage is full" in found["message"]
    assert f"Last checkpoint: {len(kept)} samples committed" in found["message"]
    assert "mode='resume', run='job'" in found["message"]
    assert kept == list(range(len(kept)))
    assert 15 <= len(kept) < 30
    # What there is no room for is not tried again.
    made = found["made"]
    assert made == list(range(len(made)))
    assert len(made) <= len(kept) + 3
    assert found["half"] == []
    assert found["again"] == list(range(len(kept), 30))
    assert (found["rows"], found["whole"], found["failures"]) == (list(range(30)), True, 0)


def test_limit_of_a_file(tmp_path: Path) -> None:
    """What is too large for the file system ends the run once; with more room it goes on."""
    check(told(tmp_path, "limit"))


def test_full_disk(tmp_path: Path) -> None:
    """A disk without room ends the run once; with some room again it goes on."""
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*space, "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not allowed")
    check(told(tmp_path, "disk", space))
