"""Scheduler, workers and client die at once; commits remain, and the job resumes."""

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

#: The third item of each partition from 10 on; both workers wait there after writing a chunk.
HELD = range(32, 60, 3)


@dataclass(frozen=True)
class Disaster:
    """A job whose processes were all killed during a run, and the restarted job.

    Attributes
    ----------
    died : float
        Time of the kill, by the monotonic clock.
    stage : Stage
        The stage of the restarted script.
    remains : Stage
        A copy of the storage at the time of the kill.
    cluster : Cluster
        The new cluster.
    job : Process
        The restarted script.
    """

    died: float
    stage: Stage
    remains: Stage
    cluster: Cluster
    job: Process


@pytest.fixture(scope="module")
def disaster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disaster]:
    """Kill a job after two checkpoints, and start it again at once."""
    folder = tmp_path_factory.mktemp("disaster")
    stage, remains = Stage(folder / "stage"), Stage(folder / "remains")
    stage.folder.mkdir()
    with contextlib.ExitStack() as stack:

        def start() -> Cluster:
            cluster = Cluster(folder / f"cluster-{time.monotonic_ns()}")
            stack.callback(cluster.close)
            cluster.add_worker()
            cluster.add_worker()
            return cluster

        cluster = start()
        # One sample per chunk; a chunk is written when the next sample is made.
        job = cluster.job(stage, pauses=HELD, chunk_size=1)
        stage.wait_for_checkpoints(2)
        held = stage.held(HELD, 2)
        assert set(held.values()) == {worker.pid for worker in cluster.workers}
        kill(job, *cluster.workers, cluster.scheduler)
        died = time.monotonic()
        shutil.copytree(stage.folder, remains.folder)
        stage.forget_executions()
        again = start()
        job = again.job(stage, chunk_size=1)
        assert time.monotonic() - died < 5
        yield Disaster(died, stage, remains, again, job)


def reset(stage: Stage, *options: str) -> list[str]:
    """Run ``dasklake reset`` and return the objects that it names."""
    result = cli_runner().invoke(cli, ["reset", stage.url, "--json", *options])
    assert result.exit_code == 0, result.output
    return list(json.loads(result.output)["objects"])


def undisturbed(folder: Path) -> dasklake.Lake:
    """Write the same input without failures."""
    url = str(folder / "undisturbed")
    bag = db.from_sequence(ITEMS, npartitions=20)
    options = dasklake.WriteOptions(scheduler="sync")
    arguments = {"folder": str(folder)}
    dasklake.to_lake(
        bag, url, schema=SCHEMA, transform=sample, transform_kwargs=arguments, options=options
    )
    return dasklake.open(url)


def test_last_checkpoint_is_complete(disaster: Disaster) -> None:
    """Exactly the samples that were committed before the kill are visible."""
    remains = disaster.remains
    lake, last = dasklake.open(remains.url), remains.checkpoints()[-1]
    assert not lake.is_complete
    assert len(remains.checkpoints()) >= 2
    assert len(lake) == last.totals.samples >= 18
    committed = [row["x"] for row in lake]
    check_content(lake, committed)
    assert {item: remains.executions()[item] for item in committed} == dict.fromkeys(committed, 1)


def test_the_same_script_resumes_the_run(disaster: Disaster, tmp_path: Path) -> None:
    """The restarted script resumes soon and writes only the missing samples."""
    stage, remains = disaster.stage, dasklake.open(disaster.remains.url)
    committed = {row["x"] for row in remains}
    # Partitions complete on storage, committed or not, are not computed again.
    complete = set(range(30))
    assert committed <= complete
    wait_until(stage.executions, "the job continues")
    # 15 s on an idle machine, mostly the start of a cluster; a busy machine needs longer.
    assert time.monotonic() - disaster.died < 60
    assert report_of(disaster.job)["samples"] == 60
    executions = stage.executions()
    assert set(executions.values()) == {1}
    assert set(ITEMS) - complete <= set(executions) <= set(ITEMS) - committed
    # Each of two workers may have been within a partition of three items.
    assert len(complete & set(executions)) <= 6
    after = dasklake.open(stage.url)
    assert after.is_complete
    progress = after.commit.progress
    assert progress is not None
    assert progress.percent == 100
    check_content(after, ITEMS)
    for row, expected in zip(after, undisturbed(tmp_path), strict=True):
        assert row.keys() == expected.keys()
        assert all(np.array_equal(row[name], expected[name]) for name in row)
    # The earlier version is unchanged.
    check_content(dasklake.open(stage.url, version=remains.version), sorted(committed))


def test_restarted_finished_job_does_nothing(disaster: Disaster) -> None:
    """A finished job does nothing when restarted; with another input it fails and changes nothing."""
    stage, cluster = disaster.stage, disaster.cluster
    wait_until(lambda: disaster.job.poll() is not None, "the job ends")
    stage.forget_executions()
    objects = stage.objects()
    same, other = cluster.job(stage), cluster.job(stage, backwards=True)
    report = report_of(same)
    assert (report["samples"], report["commits"]) == (60, 0)
    _, output = last_words(other)
    assert "PlanMismatchError" in output
    assert "input_id" in output
    assert not stage.executions()
    assert stage.objects() == objects


def test_reset_removes_unreferenced_objects(disaster: Disaster) -> None:
    """Reset lists and removes only unreferenced objects; the job can still resume."""
    stage = disaster.remains
    before = stage.objects()
    named = [row["x"] for row in dasklake.open(stage.url)]
    leftovers = set(reset(stage, "--dry-run"))
    assert stage.objects() == before
    held = {str(item // 3) for item in stage.held(HELD, 2)}
    assert {key.rpartition("/")[2].partition("-")[0] for key in leftovers} >= held
    assert set(reset(stage)) == leftovers
    after = stage.objects()
    assert before.keys() - after.keys() == leftovers
    # One commit is new: it closes the run of the killed processes.
    (new,) = after.keys() - before.keys()
    assert new.startswith("_lake/log/main/")
    check_content(dasklake.open(stage.url), named)

    stage.forget_executions()
    assert report_of(disaster.cluster.job(stage))["samples"] == 60
    assert stage.executions() == dict.fromkeys(set(ITEMS) - set(named), 1)
    check_content(dasklake.open(stage.url), ITEMS)
    assert reset(stage, "--dry-run") == []
