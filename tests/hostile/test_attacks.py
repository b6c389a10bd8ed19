"""Hostile lakes with valid checksums raise named errors, in bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, DEEP
from tests.hostile.outcomes import OUTCOMES

#: Limits for reading a hostile lake: additional memory and time.
MAX_MEGABYTES = 512
MAX_SECONDS = 60.0

#: Starting a process takes seconds, so by default all attacks share one.
SHARE = 4 if DEEP else len(ATTACKS)


@pytest.mark.parametrize("first", range(0, len(ATTACKS), SHARE))
def test_hostile_lakes(tmp_path: Path, first: int) -> None:
    """Every way to read a hostile lake has the expected outcome, within the limits."""
    names = list(ATTACKS)[first : first + SHARE]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.hostile.attacks", tmp_path, *names],
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS * len(names),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["name"] for report in reports] == names
    for report in reports:
        outcomes = report["outcomes"]
        assert outcomes == OUTCOMES[report["name"]].of(outcomes), report["name"]
        assert report["megabytes"] < MAX_MEGABYTES, report
        assert report["seconds"] < MAX_SECONDS, report


def test_outcomes() -> None:
    """Each attack has an expected outcome, and vice versa."""
    assert set(OUTCOMES) == set(ATTACKS)
