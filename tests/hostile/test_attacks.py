"""Hostile lakes with right checksums: a named error each, in bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, DEEP

#: What reading a hostile lake may cost beyond what reading a sound one does.
MOST_MEGABYTES = 512
MOST_SECONDS = 60.0

#: A process of its own takes seconds to start: by default all share one.
SHARE = 4 if DEEP else len(ATTACKS)


@pytest.mark.parametrize("first", range(0, len(ATTACKS), SHARE))
def test_hostile_lakes(tmp_path: Path, first: int) -> None:
    """Every way to read a hostile lake ends in an error of dasklake, or in values, and soon."""
    names = list(ATTACKS)[first : first + SHARE]
    found = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.hostile.attacks", tmp_path, *names],
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS * len(names),
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    reports = [json.loads(line) for line in found.stdout.splitlines()]
    assert [report["name"] for report in reports] == names
    for report in reports:
        foreign = {way: what for way, what in report["outcomes"].items() if "FOREIGN" in what}
        assert not foreign, report["name"]
        assert report["megabytes"] < MOST_MEGABYTES, report
        assert report["seconds"] < MOST_SECONDS, report
