"""Several processes append to one lake concurrently, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import dasklake
from dasklake._log.log import Log
from dasklake._maintenance.verify import verify
from dasklake._storage.store import ObjectStore
from tests.support._work import PATIENCE, content
from tests.support.clusters import start, wait_until
from tests.support.s3 import S3Bucket

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Number of writers and appends per writer on a local disk, number of trials, and the same on S3.
LOCAL, TRIALS = (4, 50), 3 if DEEP else 1
REMOTE = (8, 25) if DEEP else (3, 5)


def append(folder: Path, url: str, writers: int, times: int) -> None:
    """Start processes that append from the same moment on."""
    command = ["-m", "tests.support._appends", url]
    started = [
        start([*command, str(n), str(times), str(folder)], output=subprocess.PIPE)
        for n in range(writers)
    ]
    try:
        for n in range(writers):
            wait_until((folder / f"{n}.ready").exists, f"writer {n} is ready")
        (folder / "go").touch()
        for writer in started:
            said, _ = writer.communicate(timeout=8 * PATIENCE)
            assert writer.returncode == 0, said
    finally:
        for writer in started:
            writer.kill()
            writer.communicate()


def check(url: str, options: dict[str, Any] | None, writers: int, times: int) -> None:
    """Check that every append is complete, occurs once, and is in its writer's order."""
    lake = dasklake.open(url, storage_options=options)
    assert lake.is_complete
    data = [commit for commit in lake.log() if commit.progress is not None]
    assert len(data) == writers * times
    assert len({commit.id for commit in data}) == len(data)
    rows = list(lake)
    assert len(rows) == writers * times
    assert {row["x"] for row in rows} == set(range(writers * times))
    assert all(row["name"] == content(row["x"])["name"] for row in rows)
    for n in range(writers):
        values = [int(row["x"]) for row in rows if row["x"] // times == n]
        assert values == sorted(values)
    store = ObjectStore(url, options)
    assert verify(store, Log(store)).ok


@pytest.mark.parametrize("trial", range(TRIALS))
def test_no_append_is_lost(tmp_path: Path, trial: int) -> None:
    """All 200 appends of 4 processes are visible, each complete and once."""
    url = str(tmp_path / "lake")
    append(tmp_path, url, *LOCAL)
    check(url, None, *LOCAL)


def test_no_append_is_lost_on_s3(
    tmp_path: Path, s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a storage with conditional writes, every append is visible, complete and once."""
    monkeypatch.setenv("DASKLAKE_TEST_STORAGE", json.dumps(s3_bucket.options))
    url = f"{s3_bucket.url}/lake"
    append(tmp_path, url, *REMOTE)
    check(url, s3_bucket.options, *REMOTE)
