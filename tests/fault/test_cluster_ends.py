"""Somebody ends a run from outside: Ctrl-C, a restart, a scheduler that is closed or killed."""

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
    """A call of ``to_lake`` in a thread of its own."""

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
        """Wait for its end; the report or the error."""
        self.thread.join(PATIENCE)
        return self.outcome[0]


def is_stopping(dask_scheduler: Any) -> bool:
    """Whether the scheduler has heard that its run is to end."""
    runs = dask_scheduler.plugins["dasklake"].runs.values()
    return all(active.coordinator.stopping for active in runs)


def has_ended(dask_scheduler: Any) -> bool:
    """Whether no run of the scheduler is being written."""
    runs = dask_scheduler.plugins["dasklake"].runs.values()
    return not any(active.coordinator.status().running for active in runs)


def resumes(stage: Stage, write: Callable[[], Any], kept: Iterable[int]) -> None:
    """Check that a resume writes what is missing, and nothing else."""
    stage.forget_executions()
    write()
    check_content(dasklake.open(stage.url), ITEMS)
    executions = stage.executions()
    assert set(executions) <= set(ITEMS) - set(kept)
    assert set(executions.values()) == {1}


def test_interrupted_client(start_cluster: StartCluster, stage: Stage) -> None:
    """Ctrl-C ends the run: what runs is finished and committed, and the client says how to go on."""
    cluster = start_cluster()
    job = cluster.job(stage, pauses=HELD)
    stage.held(HELD, 2)
    job.send_signal(signal.SIGINT)
    with Client(cluster.address, set_as_default=False) as client:
        wait_until(lambda: client.run_on_scheduler(is_stopping), "the scheduler has heard it")
    stage.let_go(*HELD)
    code, words = last_words(job)
    assert code == -signal.SIGINT
    executions = stage.executions()
    # The workers' own queues end with what runs: one or two partitions each.
    assert 36 <= len(executions) <= 42
    assert "KeyboardInterrupt" in words
    assert f"{len(executions)} samples committed" in words
    assert "mode='resume', run='job'" in words
    check_content(dasklake.open(stage.url), sorted(executions))
    assert set(executions.values()) == {1}
    resumes(stage, lambda: report_of(cluster.job(stage)), executions)


def test_interrupted_twice(cluster: Cluster, client: Client, stage: Stage) -> None:
    """A second Ctrl-C leaves at once and says how to go on; the cluster still commits what runs."""
    job = cluster.job(stage, pauses=HELD)
    stage.held(HELD, 2)
    job.send_signal(signal.SIGINT)
    wait_until(lambda: client.run_on_scheduler(is_stopping), "the scheduler has heard it")
    job.send_signal(signal.SIGINT)
    # Both workers are held still: nobody has waited for them.
    code, words = last_words(job)
    assert code == -signal.SIGINT
    assert "Run 'job' was interrupted again before its outcome was known" in words
    assert "mode='resume', run='job'" in words
    stage.let_go(*HELD)
    wait_until(lambda: client.run_on_scheduler(has_ended), "the cluster has committed it")
    kept = stage.executions()
    check_content(dasklake.open(stage.url), sorted(kept))
    assert residue(stage.url) == set()
    resumes(stage, lambda: report_of(cluster.job(stage)), kept)


#: A client that is killed when it calls a function of its own: its name is the last argument.
KILLED = """
import json, os, signal, sys
import dasklake._run.execute, dasklake._run.scheduler_client
from tests.support import _job

module, _, name = sys.argv[2].rpartition(".")
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
setattr(sys.modules[module], name, die)
_job.main(**json.loads(sys.argv[1]))
"""

#: Moments of a call, by the function that comes next.
MOMENTS = {
    "nothing is begun": "dasklake._run.execute.start_run",
    "the run is begun": "dasklake._run.execute.open_on_scheduler",
    "the scheduler knows of it": "dasklake._run.execute.run_on_scheduler",
    "the graph is sent": "dasklake._run.scheduler_client._follow",
}


def test_client_killed_at_any_moment(cluster: Cluster, client: Client, tmp_path: Any) -> None:
    """Whenever the client is killed, the same script, started again, writes each sample once."""
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
    """Let a worker's time be over, as if nothing had been heard of it for long."""
    dask_scheduler.workers[address].last_seen = 0.0
    await dask_scheduler.check_worker_ttl()


def test_frozen_worker(start_cluster: StartCluster, stage: Stage) -> None:
    """A worker that freezes is given up; when it wakes, what it writes counts for nothing."""
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


def test_restarted_cluster(stage: Stage, tmp_path: Any) -> None:
    """``Client.restart()`` in mid-run loses the run, which says so; what was complete is kept."""
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


def test_reset_of_a_living_run(client: Client, stage: Stage) -> None:
    """Reset refuses a living run; forced, it closes it, and nothing of it is committed any more."""
    calling = Calling(stage, client)
    stage.held(HELD, 2)
    wait_until(lambda: len(dasklake.open(stage.url)) > len(BEFORE) - 9, "all that is due is in")
    kept = [row["x"] for row in dasklake.open(stage.url)]
    with pytest.raises(RunActiveError, match="'job'"):
        dasklake.open(stage.url).reset()
    report = dasklake.open(stage.url).reset(force=True)
    assert report.closed == {"main/job": 1}
    stage.let_go(*HELD)
    assert isinstance(calling.end(), RunAbortedError)
    check_content(dasklake.open(stage.url), kept)
    # The scheduler has let go of them, their workers have not yet.
    old = {x for item in stage.held(HELD, 2) for x in range(item // 3 * 3, item // 3 * 3 + 3)}
    wait_until(lambda: old <= set(stage.executions()), "the old tasks are over")
    resumes(stage, lambda: Calling(stage, client).end(), kept)


def test_closed_scheduler(start_cluster: StartCluster, stage: Stage) -> None:
    """A scheduler that is closed in good order commits what is complete; the client learns of it."""
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
def test_killed_scheduler(start_cluster: StartCluster, stage: Stage, coordinator: str) -> None:
    """A client whose scheduler is killed learns that its run is lost, and how to go on."""
    cluster = start_cluster()
    with Client(cluster.address, set_as_default=False, timeout="10s") as client:
        calling = Calling(stage, client, coordinator=coordinator)
        stage.held(HELD, 2)
        wait_until(lambda: len(dasklake.open(stage.url)) >= 18, "two checkpoints are made")
        kill(cluster.scheduler)
        lost = calling.end()
    assert isinstance(lost, RunLostError)
    assert "mode='resume', run='job'" in str(lost)
    kept = [row["x"] for row in dasklake.open(stage.url)]
    assert len(kept) >= 18
    check_content(dasklake.open(stage.url), sorted(kept))
