"""Hostile lakes with right checksums: a named error each, in bounded memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS, DEEP
from tests.hostile.outcomes import OUTCOMES

#: What reading a hostile lake may cost beyond what reading a sound one does.
MOST_MEGABYTES = 512
MOST_SECONDS = 60.0

#: A process of its own takes seconds to start: by default all share one.
SHARE = 4 if DEEP else len(ATTACKS)


@pytest.mark.parametrize("first", range(0, len(ATTACKS), SHARE))
def test_hostile_lakes(tmp_path: Path, first: int) -> None:
    """Every way to read a hostile lake is refused, or not, as its attack has to end, and soon."""
    names = list(ATTACKS)[first : first + SHARE]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "tests.hostile.attacks", tmp_path, *names],
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS * len(names),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["name"] for report in reports] == names
    for report in reports:
        found = report["outcomes"]
        assert found == OUTCOMES[report["name"]].of(found), report["name"]
        assert report["megabytes"] < MOST_MEGABYTES, report
        assert report["seconds"] < MOST_SECONDS, report


def test_outcomes() -> None:
    """Each attack has an outcome that it must come to, and the other way round."""
    assert set(OUTCOMES) == set(ATTACKS)
