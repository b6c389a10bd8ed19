"""Calls of ``to_lake`` from begin to report, as seen in the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import dask.bag as db
import pytest

import dasklake

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


def write(path: Path, mode: Literal["create", "resume"]) -> dasklake.WriteReport:
    """Write two samples in two partitions, with a checkpoint after each."""
    bag = db.from_sequence([{"x": 1}, {"x": 2}], npartitions=2)
    return dasklake.to_lake(
        bag,
        path / "lake",
        schema=SCHEMA,
        mode=mode,
        run="job",
        checkpoint_every=1,
        storage_options={"auto_mkdir": True},
        options=dasklake.WriteOptions(scheduler="sync"),
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the INFO lines of the run package."""
    return [r.message for r in caplog.records if r.name.startswith("dasklake._run.")]


def test_log_of_a_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A write logs its begin, checkpoints and end, and no storage options."""
    caplog.set_level(logging.INFO, "dasklake")
    report = write(tmp_path, "create")
    assert lines(caplog)[0] == "Run 'job' begun, version 1, 2 partitions"
    assert lines(caplog)[-1] == (
        f"Run 'job' ended: finished, version {report.version}, 2 of 2 partitions, 2 samples, "
        "0 failures"
    )
    checkpoints = [line for line in lines(caplog) if "checkpoint" in line]
    assert len(checkpoints) == report.commits
    assert "auto_mkdir" not in caplog.text


def test_log_of_a_finished_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A resume of a finished run logs that it has nothing to do."""
    report = write(tmp_path, "create")
    caplog.clear()
    caplog.set_level(logging.INFO, "dasklake")
    assert write(tmp_path, "resume").version == report.version
    assert lines(caplog) == [f"Run 'job' is already finished, version {report.version}"]


def test_log_of_a_delayed_write(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A computed Delayed logs its begin and its end."""
    caplog.set_level(logging.INFO, "dasklake")
    bag = db.from_sequence([{"x": 1}, {"x": 2}], npartitions=2)
    delayed = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, run="job", compute=False)
    assert lines(caplog) == []
    delayed.compute(scheduler="sync")
    assert lines(caplog) == [
        "Run 'job' begun, version 1, 2 partitions",
        "Run 'job' ended: finished, version 2, 2 samples, 0 failures",
    ]
