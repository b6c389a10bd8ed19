"""Scheduler, workers and client die at once; what is committed is there, and the job goes on."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake._api.cli import cli
from tests.support._work import SCHEMA, sample
from tests.support.cli import cli_runner
from tests.support.clusters import (
    Cluster,
    Process,
    Stage,
    check_content,
    kill,
    last_words,
    report_of,
    wait_until,
)

ITEMS = range(60)

#: The third items of all partitions from 10 on: both workers wait at one, with a chunk written.
HELD = range(32, 60, 3)


@dataclass(frozen=True)
class Disaster:
    """A job whose processes were killed in mid-run, all of them, and what was started then.

    Attributes
    ----------
    died : float
        When, by the monotonic clock.
    stage : Stage
        Where the same script goes on already.
    left : Stage
        A copy of what the dead left.
    cluster : Cluster
        A new one.
    job : Process
        The script that goes on.
    """

    died: float
    stage: Stage
    left: Stage
    cluster: Cluster
    job: Process


@pytest.fixture(scope="module")
def disaster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disaster]:
    """Kill a job after two checkpoints, and start it again at once."""
    folder = tmp_path_factory.mktemp("disaster")
    stage, left = Stage(folder / "stage"), Stage(folder / "left")
    stage.folder.mkdir()
    with contextlib.ExitStack() as stack:

        def start() -> Cluster:
            cluster = Cluster(folder / f"cluster-{time.monotonic_ns()}")
            stack.callback(cluster.close)
            cluster.add_worker()
            cluster.add_worker()
            return cluster

        cluster = start()
        # Chunks so small that each sample is one; it is written when the next one is made.
        job = cluster.job(stage, pauses=HELD, chunk_size=1)
        stage.wait_for_checkpoints(2)
        held = stage.held(HELD, 2)
        assert set(held.values()) == {worker.pid for worker in cluster.workers}
        kill(job, *cluster.workers, cluster.scheduler)
        died = time.monotonic()
        shutil.copytree(stage.folder, left.folder)
        stage.forget_executions()
        again = start()
        job = again.job(stage, chunk_size=1)
        assert time.monotonic() - died < 5
        yield Disaster(died, stage, left, again, job)


def reset(stage: Stage, *options: str) -> list[str]:
    """Call ``dasklake reset``; the objects that it names."""
    result = cli_runner().invoke(cli, ["reset", stage.url, "--json", *options])
    assert result.exit_code == 0, result.output
    return list(json.loads(result.output)["objects"])


def undisturbed(folder: Path) -> dasklake.Lake:
    """Write the same input without any disturbance."""
    url = str(folder / "undisturbed")
    bag = db.from_sequence(ITEMS, npartitions=20)
    options = dasklake.WriteOptions(scheduler="sync")
    arguments = {"folder": str(folder)}
    dasklake.to_lake(
        bag, url, schema=SCHEMA, transform=sample, transform_kwargs=arguments, options=options
    )
    return dasklake.open(url)


def test_last_checkpoint_is_whole(disaster: Disaster) -> None:
    """What was committed when all died is seen, each sample of it, and nothing else."""
    left = disaster.left
    lake, last = dasklake.open(left.url), left.checkpoints()[-1]
    assert not lake.is_complete
    assert len(left.checkpoints()) >= 2
    assert len(lake) == last.totals.samples >= 18
    committed = [row["x"] for row in lake]
    check_content(lake, committed)
    assert {item: left.executions()[item] for item in committed} == dict.fromkeys(committed, 1)


def test_the_same_script_goes_on(disaster: Disaster, tmp_path: Path) -> None:
    """The script, started again at once, goes on soon, writes what is missing, and no more."""
    stage, left = disaster.stage, dasklake.open(disaster.left.url)
    committed = {row["x"] for row in left}
    # Whatever was complete on storage is not made again, committed or not: all but the last few.
    complete = set(range(30))
    assert committed <= complete
    wait_until(stage.executions, "the job goes on")
    # 15 s on an idle machine, most of them the start of a cluster; this one may be busy.
    assert time.monotonic() - disaster.died < 60
    assert report_of(disaster.job)["samples"] == 60
    executions = stage.executions()
    assert set(executions.values()) == {1}
    assert set(ITEMS) - complete <= set(executions) <= set(ITEMS) - committed
    # Two workers may each have been in the middle of one partition of three items.
    assert len(complete & set(executions)) <= 6
    after = dasklake.open(stage.url)
    assert after.is_complete
    progress = after.commit.progress
    assert progress is not None
    assert progress.percent == 100
    check_content(after, ITEMS)
    for mine, theirs in zip(after, undisturbed(tmp_path), strict=True):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    # The version that was seen before is as it was.
    check_content(dasklake.open(stage.url, version=left.version), sorted(committed))


def test_finished_job_started_again(disaster: Disaster) -> None:
    """A finished job, started again, does nothing; with another input it refuses, and does nothing."""
    stage, cluster = disaster.stage, disaster.cluster
    wait_until(lambda: disaster.job.poll() is not None, "the job ends")
    stage.forget_executions()
    objects = stage.objects()
    same, other = cluster.job(stage), cluster.job(stage, backwards=True)
    report = report_of(same)
    assert (report["samples"], report["commits"]) == (60, 0)
    _, words = last_words(other)
    assert "PlanMismatchError" in words
    assert "input_id" in words
    assert not stage.executions()
    assert stage.objects() == objects


def test_reset_removes_what_was_left(disaster: Disaster) -> None:
    """Reset lists and removes what no version names, nothing else; the job can still go on."""
    stage = disaster.left
    before = stage.objects()
    named = [row["x"] for row in dasklake.open(stage.url)]
    left = set(reset(stage, "--dry-run"))
    assert stage.objects() == before
    held = {str(item // 3) for item in stage.held(HELD, 2)}
    assert {key.rpartition("/")[2].partition("-")[0] for key in left} >= held
    assert set(reset(stage)) == left
    after = stage.objects()
    assert before.keys() - after.keys() == left
    # One commit is new: the one that closes what the dead had begun.
    (new,) = after.keys() - before.keys()
    assert new.startswith("_lake/log/main/")
    check_content(dasklake.open(stage.url), named)

    stage.forget_executions()
    assert report_of(disaster.cluster.job(stage))["samples"] == 60
    assert stage.executions() == dict.fromkeys(set(ITEMS) - set(named), 1)
    check_content(dasklake.open(stage.url), ITEMS)
    assert reset(stage, "--dry-run") == []
