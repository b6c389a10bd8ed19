"""A worker or the client dies during a run, and the run continues."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import distributed.scheduler
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake.exceptions import TransformError
from tests.support._work import PATIENCE, SCHEMA, content
from tests.support.clusters import (
    Stage,
    StartCluster,
    check_content,
    kill,
    report_of,
    wait_until,
    wait_until_reported,
)

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ITEMS = range(60)


def test_run_survives_the_death_of_a_worker(start_cluster: StartCluster, stage: Stage) -> None:
    """A run whose worker is killed finishes without help, and repeats only work in flight.

    Even while its client is frozen, from the moment that the scheduler has the run.
    """
    cluster = start_cluster()
    with Client(cluster.address, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        client.run(content, 0)  # the first task must not have to import anything
        job = cluster.job(stage, pauses=[0, 31])
        stage.reached(0)
        job.send_signal(signal.SIGSTOP)
        stage.let_go(0)
        victim = cluster.worker(stage.reached(31))
        wait_until_reported(client, stage)
    kill(victim)
    stage.let_go(31)
    wait_until(lambda: dasklake.open(stage.url).is_complete, "the run ends")
    job.send_signal(signal.SIGCONT)
    report = report_of(job)
    assert (report["samples"], report["partitions"]) == (60, 20)
    check_content(dasklake.open(stage.url), ITEMS)
    executions = stage.executions()
    assert set(executions) == set(ITEMS)
    # Three items to a partition; the one that waited was the second of its own.
    assert {item for item, times in executions.items() if times > 1} == {30, 31}


def test_run_survives_the_death_of_its_client(start_cluster: StartCluster, stage: Stage) -> None:
    """A run whose client is killed right after the start finishes without it."""
    cluster = start_cluster()
    job = cluster.job(stage, pauses=[0])
    assert stage.reached(0) in {worker.pid for worker in cluster.workers}
    kill(job)
    stage.let_go(0)
    stage.wait_for_checkpoints(1)
    wait_until(lambda: dasklake.open(stage.url).is_complete, "the run ends")
    check_content(dasklake.open(stage.url), ITEMS)
    assert stage.executions() == dict.fromkeys(ITEMS, 1)


def test_run_survives_a_client_that_dies_at_once(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client killed while the scheduler receives its graph leaves a run that continues."""
    arrived, go = threading.Event(), threading.Event()
    materialize = distributed.scheduler._materialize_graph

    def slowly(*args: Any, **kwargs: Any) -> Any:
        arrived.set()
        assert go.wait(PATIENCE)
        return materialize(*args, **kwargs)

    monkeypatch.setattr(distributed.scheduler, "_materialize_graph", slowly)
    file = tmp_path / "scheduler.json"
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        file.write_text(json.dumps(cluster.scheduler.identity()))
        job = stage.job(str(file))
        assert arrived.wait(PATIENCE)
        kill(job)
        go.set()
        stage.wait_for_checkpoints(1)
        wait_until(lambda: dasklake.open(stage.url).is_complete, "the run ends")
    job.communicate()
    check_content(dasklake.open(stage.url), ITEMS)
    assert stage.executions() == dict.fromkeys(ITEMS, 1)


def deadly(x: int) -> dict[str, Any]:
    """Make a sample; item 31 kills the worker."""
    if x == 31:
        # A worker reports a completed task some milliseconds later. A death before that takes the
        # report along, and then Dask suspects both tasks.
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return content(x)


@pytest.mark.parametrize("coordinator", ["scheduler", "client"])
def test_sample_that_kills_every_worker_ends_the_run(tmp_path: Path, coordinator: Any) -> None:
    """A sample that kills every worker ends the run, is not skipped, and its partition is named."""
    with (
        dask.config.set(
            {"distributed.scheduler.allowed-failures": 1, "temporary-directory": str(tmp_path)}
        ),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        options = dasklake.WriteOptions(scheduler=client)
        with pytest.raises(TransformError, match=r"KilledWorker.*workers died") as caught:
            dasklake.to_lake(
                db.from_sequence(ITEMS, npartitions=20),
                tmp_path / "lake",
                schema=SCHEMA,
                transform=deadly,
                on_error="skip",
                max_failures=None,
                coordinator=coordinator,
                options=options,
            )
    assert (caught.value.partition, caught.value.position) == (10, None)
    assert "never skipped" in str(caught.value)
    committed = [row["x"] for row in dasklake.open(tmp_path / "lake")]
    assert len(committed) == caught.value.samples_processed
    # Which others the dying workers took along is chance.
    check_content(dasklake.open(tmp_path / "lake"), sorted(set(committed) - {30, 31, 32}))
