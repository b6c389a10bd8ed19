"""Runs that are ended from outside: Ctrl-C, a restart, a closed or killed scheduler."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from subprocess import DEVNULL
from typing import Any

import dask.bag as db
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake.exceptions import RunAbortedError, RunActiveError, RunLostError
from tests.support._work import PATIENCE, SCHEMA, sample
from tests.support.clusters import (
    Cluster,
    Stage,
    StartCluster,
    check_content,
    kill,
    last_words,
    report_of,
    residue,
    start,
    tasks_of,
    wait_until,
    wait_until_reported,
)

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ITEMS = range(60)

#: The second items of all partitions from 10 on: both workers wait at one.
HELD = range(31, 60, 3)

#: What is complete by then.
BEFORE = range(30)


class Calling:
    """A call of ``to_lake`` in its own thread."""

    def __init__(
        self, stage: Stage, client: Client, *, pauses: Sequence[int] = HELD, **more: Any
    ) -> None:
        self.outcome: list[Any] = []
        arguments = {"folder": str(stage.folder), "pauses": pauses}

        def call() -> None:
            try:
                report = dasklake.to_lake(
                    db.from_sequence(ITEMS, npartitions=20),
                    stage.url,
                    schema=SCHEMA,
                    transform=sample,
                    transform_kwargs=arguments,
                    checkpoint_every=9,
                    mode="resume",
                    run="job",
                    options=dasklake.WriteOptions(scheduler=client),
                    **more,
                )
                self.outcome.append(report)
            except BaseException as error:  # noqa: BLE001 # the test looks at it
                self.outcome.append(error)

        self.thread = threading.Thread(target=call, daemon=True)
        self.thread.start()

    def end(self) -> Any:
        """Wait for the end of the call; return the report or the error."""
        self.thread.join(PATIENCE)
        return self.outcome[0]


def is_stopping(dask_scheduler: Any) -> bool:
    """Return whether the scheduler is ending its run."""
    runs = dask_scheduler.plugins["dasklake"].runs.values()
    return all(active.coordinator.stopping for active in runs)


def has_ended(dask_scheduler: Any) -> bool:
    """Return whether the scheduler has no active run."""
    runs = dask_scheduler.plugins["dasklake"].runs.values()
    return not any(active.coordinator.status().running for active in runs)


def resumes(stage: Stage, write: Callable[[], Any], committed: Iterable[int]) -> None:
    """Check that a resume writes only the missing samples."""
    stage.forget_executions()
    write()
    check_content(dasklake.open(stage.url), ITEMS)
    executions = stage.executions()
    assert set(executions) <= set(ITEMS) - set(committed)
    assert set(executions.values()) == {1}


def test_interrupted_client_commits_running_tasks(
    start_cluster: StartCluster, stage: Stage
) -> None:
    """Ctrl-C ends the run: running tasks are committed, and the client explains how to resume."""
    cluster = start_cluster()
    job = cluster.job(stage, pauses=HELD)
    stage.held(HELD, 2)
    job.send_signal(signal.SIGINT)
    with Client(cluster.address, set_as_default=False) as client:
        wait_until(lambda: client.run_on_scheduler(is_stopping), "the scheduler has heard it")
    stage.let_go(*HELD)
    code, output = last_words(job)
    assert code == -signal.SIGINT
    executions = stage.executions()
    # The workers' own queues end with what runs: one or two partitions each.
    assert 36 <= len(executions) <= 42
    assert "KeyboardInterrupt" in output
    assert f"{len(executions)} samples committed" in output
    assert "mode='resume', run='job'" in output
    check_content(dasklake.open(stage.url), sorted(executions))
    assert set(executions.values()) == {1}
    resumes(stage, lambda: report_of(cluster.job(stage)), executions)


def test_second_interrupt_returns_at_once(cluster: Cluster, client: Client, stage: Stage) -> None:
    """A second Ctrl-C returns at once and explains the resume; the cluster commits running tasks."""
    job = cluster.job(stage, pauses=HELD)
    stage.held(HELD, 2)
    job.send_signal(signal.SIGINT)
    wait_until(lambda: client.run_on_scheduler(is_stopping), "the scheduler has heard it")
    job.send_signal(signal.SIGINT)
    # Both workers are held still: nobody has waited for them.
    code, output = last_words(job)
    assert code == -signal.SIGINT
    assert "Run 'job' was interrupted again before its outcome was known" in output
    assert "mode='resume', run='job'" in output
    stage.let_go(*HELD)
    wait_until(lambda: client.run_on_scheduler(has_ended), "the cluster has committed it")
    executed = stage.executions()
    check_content(dasklake.open(stage.url), sorted(executed))
    assert residue(stage.url) == set()
    resumes(stage, lambda: report_of(cluster.job(stage)), executed)


#: A client that is killed when it calls one of its functions; the last argument names it.
KILLED = """
import json, os, signal, sys
import dasklake._run.execute, dasklake._run.scheduler_client
from tests.support import _job

module, _, name = sys.argv[2].rpartition(".")
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
setattr(sys.modules[module], name, die)
_job.main(**json.loads(sys.argv[1]))
"""

#: Moments of a call, each named by the next function.
MOMENTS = {
    "nothing is begun": "dasklake._run.execute.start_run",
    "the run is begun": "dasklake._run.execute.open_on_scheduler",
    "the scheduler knows of it": "dasklake._run.execute.run_on_scheduler",
    "the graph is sent": "dasklake._run.scheduler_client._follow",
}


def test_client_killed_at_any_moment(cluster: Cluster, client: Client, tmp_path: Any) -> None:
    """After a kill of the client at any moment, its restarted script writes each sample once."""
    stages = {name: Stage(tmp_path / name.replace(" ", "-")) for name in MOMENTS}
    jobs = []
    for name, stage in stages.items():
        stage.folder.mkdir()
        arguments = stage.arguments(cluster.file)
        jobs.append(start(["-W", "ignore", "-c", KILLED, arguments, MOMENTS[name]], output=DEVNULL))
    assert {job.wait(PATIENCE) for job in jobs} == {-signal.SIGKILL}
    # Their hearts must not be taken for living ones, nor beaten by the dead.
    again = {name: cluster.job(stage) for name, stage in stages.items()}
    for name, job in again.items():
        assert report_of(job)["samples"] == len(ITEMS), name
        stage = stages[name]
        check_content(dasklake.open(stage.url), ITEMS)
        assert stage.executions() == dict.fromkeys(ITEMS, 1), name
        assert residue(stage.url) == set(), name


async def forget_worker(dask_scheduler: Any, address: str) -> None:
    """Expire a worker, as if its heartbeats had stopped long ago."""
    dask_scheduler.workers[address].last_seen = 0.0
    await dask_scheduler.check_worker_ttl()


def test_frozen_worker_is_removed(start_cluster: StartCluster, stage: Stage) -> None:
    """A frozen worker is removed; when it wakes, its chunks are ignored."""
    cluster = start_cluster()
    with Client(cluster.address, set_as_default=False, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        addresses = {pid: address for address, pid in client.run(os.getpid).items()}
        calling = Calling(stage, client, pauses=[31])
        frozen = cluster.worker(stage.reached(31))
        wait_until_reported(client, stage)
        frozen.send_signal(signal.SIGSTOP)
        client.run_on_scheduler(forget_worker, address=addresses[frozen.pid])
        stage.let_go(31)
        report = calling.end()
        version = dasklake.open(stage.url).version
        assert (report.samples, report.version) == (60, version)
        frozen.send_signal(signal.SIGCONT)
        frozen.wait(PATIENCE)
    lake = dasklake.open(stage.url)
    assert (lake.version, lake.is_complete) == (version, True)
    check_content(lake, ITEMS)
    assert {x for x, times in stage.executions().items() if times > 1} <= {30, 31, 32}
    # The attempt of the one that woke up, if it came so far, is named by nobody.
    assert {key.rpartition("/")[2].partition("-")[0] for key in residue(stage.url)} <= {"10"}


def test_restarted_cluster_loses_the_run(stage: Stage, tmp_path: Any) -> None:
    """``Client.restart()`` during a run raises that the run is lost; complete partitions are kept."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(tmp_path / "dask"),
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        calling = Calling(stage, client)
        stage.held(HELD, 2)
        wait_until_reported(client, stage)
        with Client(cluster, set_as_default=False) as other:
            restarting = threading.Thread(target=other.restart, daemon=True)
            restarting.start()
            lost = calling.end()
            stage.let_go(*HELD)
            restarting.join(PATIENCE)
        assert isinstance(lost, RunLostError)
        assert "30 samples committed" in str(lost)
        assert "mode='resume', run='job'" in str(lost)
        check_content(dasklake.open(stage.url), BEFORE)
        resumes(stage, lambda: Calling(stage, client).end(), BEFORE)


def test_reset_refuses_a_live_run(client: Client, stage: Stage) -> None:
    """Reset refuses a live run; with force it closes the run, which commits nothing afterwards."""
    calling = Calling(stage, client)
    stage.held(HELD, 2)
    wait_until(lambda: len(dasklake.open(stage.url)) > len(BEFORE) - 9, "all that is due is in")
    committed = [row["x"] for row in dasklake.open(stage.url)]
    with pytest.raises(RunActiveError, match="'job'"):
        dasklake.open(stage.url).reset()
    report = dasklake.open(stage.url).reset(force=True)
    assert report.closed == {"main/job": 1}
    stage.let_go(*HELD)
    assert isinstance(calling.end(), RunAbortedError)
    check_content(dasklake.open(stage.url), committed)
    # The scheduler has let go of the tasks, their workers have not yet. Each may have begun another.
    wait_until(lambda: not any(client.run(tasks_of).values()), "the old tasks are over")
    resumes(stage, lambda: Calling(stage, client).end(), committed)


def test_closed_scheduler_commits_complete_partitions(
    start_cluster: StartCluster, stage: Stage
) -> None:
    """A scheduler that is closed cleanly commits complete partitions; its client is notified."""
    cluster = start_cluster()
    with Client(cluster.address, set_as_default=False, timeout="10s") as client:
        calling = Calling(stage, client)
        stage.held(HELD, 2)
        wait_until_reported(client, stage)
        cluster.scheduler.send_signal(signal.SIGTERM)
        cluster.scheduler.wait(PATIENCE)
        check_content(dasklake.open(stage.url), BEFORE)
        kill(*cluster.workers)
        stage.let_go(*HELD)
        lost = calling.end()
    assert isinstance(lost, RunLostError)
    assert "mode='resume', run='job'" in str(lost)


@pytest.mark.parametrize("coordinator", ["scheduler", "client"])
def test_killed_scheduler_loses_the_run(
    start_cluster: StartCluster, stage: Stage, coordinator: str
) -> None:
    """A client whose scheduler is killed raises that its run is lost and how to resume it."""
    cluster = start_cluster()
    with Client(cluster.address, set_as_default=False, timeout="10s") as client:
        calling = Calling(stage, client, coordinator=coordinator)
        stage.held(HELD, 2)
        wait_until(lambda: len(dasklake.open(stage.url)) >= 18, "two checkpoints are made")
        kill(cluster.scheduler)
        lost = calling.end()
    assert isinstance(lost, RunLostError)
    assert "mode='resume', run='job'" in str(lost)
    committed = [row["x"] for row in dasklake.open(stage.url)]
    assert len(committed) >= 18
    check_content(dasklake.open(stage.url), sorted(committed))
