"""Several processes append to one lake at the same time, and nothing is lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

from click.testing import CliRunner

import dasklake
from dasklake.cli import cli
from tests.support._work import PATIENCE, content
from tests.support.clusters import start, wait_until

WRITERS, TIMES = 4, 50


def test_no_append_is_lost(tmp_path: Path) -> None:
    """Of 4 processes with 50 appends each, all 200 are visible, each whole and once."""
    url = str(tmp_path / "lake")
    command = ["-m", "tests.support._appends", url]
    writers = [
        start([*command, str(n), str(TIMES), str(tmp_path)], output=subprocess.PIPE)
        for n in range(WRITERS)
    ]
    try:
        for n in range(WRITERS):
            wait_until((tmp_path / f"{n}.ready").exists, f"writer {n} is ready")
        (tmp_path / "go").touch()
        for writer in writers:
            said, _ = writer.communicate(timeout=PATIENCE)
            assert writer.returncode == 0, said
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    lake = dasklake.open(url)
    assert lake.is_complete
    data = [commit for commit in lake.log() if commit.progress is not None]
    assert len(data) == WRITERS * TIMES
    assert len({commit.id for commit in data}) == len(data)
    rows = {row["x"]: row for row in lake}
    assert len(lake) == len(rows) == WRITERS * TIMES
    assert all(rows[x]["name"] == content(x)["name"] for x in range(WRITERS * TIMES))
    # Each writer's own appends are in its own order.
    for n in range(WRITERS):
        mine = [x for x in map(int, lake["x"].numpy()) if x // TIMES == n]
        assert mine == sorted(mine)
    result = CliRunner().invoke(cli, ["verify", url])
    assert result.exit_code == 0, result.output
