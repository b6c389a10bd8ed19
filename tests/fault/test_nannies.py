"""Workers with nannies: partitions that hang or use all memory, and workers that leave and join."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake.exceptions import PartitionTimeoutError, TransformError
from tests.support._work import PATIENCE, SCHEMA, content, note, sample
from tests.support.clusters import (
    DEEP,
    Stage,
    check_content,
    residue,
    wait_until,
    wait_until_reported,
)

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ITEMS = range(60)

#: Memory limit of a worker, in bytes.
LIMIT = 1_000_000_000

#: After how long a cluster looks whether a worker that it lost is back, and else gives its nanny up.
LOST = "distributed.deploy.lost-worker-timeout"


@contextlib.contextmanager
def start_nannies(folder: Path, workers: int, **config: Any) -> Iterator[LocalCluster]:
    """Start workers with nannies; new workers are ready at once."""
    with (
        dask.config.set({"temporary-directory": str(folder), **config}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=LIMIT,
            preload=["tests.support._work"],
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def nannies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Run two workers with nannies; a busy machine may restart them slowly."""
    with start_nannies(tmp_path_factory.mktemp("dask"), 2, **{LOST: "600s"}) as cluster:
        yield cluster


@pytest.fixture
def nursed(nannies: LocalCluster) -> Iterator[Client]:
    """Connect to both workers."""
    with Client(nannies, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield client


def workers_of(cluster: LocalCluster) -> Sequence[str]:
    """Return the worker addresses of a cluster."""
    assert cluster.scheduler is not None
    return list(cluster.scheduler.workers)


def write(stage: Stage, client: Client, transform: Any = sample, **more: Any) -> Any:
    """Write the items, or resume the run."""
    arguments: dict[str, Any] = {
        "schema": SCHEMA,
        "transform": transform,
        "transform_kwargs": {"folder": str(stage.folder)},
        "checkpoint_every": 9,
        "mode": "resume",
        "run": "job",
        "options": dasklake.WriteOptions(scheduler=client),
    }
    bag = db.from_sequence(ITEMS, npartitions=20)
    return dasklake.to_lake(bag, stage.url, **(arguments | more))


def begin(stage: Stage, client: Client, **more: Any) -> tuple[threading.Thread, list[Any]]:
    """Call it in a thread."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.append(write(stage, client, **more))
        except BaseException as error:  # noqa: BLE001 # the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, outcome


def hanging(x: int, folder: str) -> dict[str, Any]:
    """Make a sample; item 31 hangs the first time, item 34 every time."""
    note(folder, str(x))
    first = Path(folder, f"{x}.hung")
    if x == 34 or (x == 31 and not first.exists()):
        first.touch()
        while True:
            time.sleep(1)
    return content(x)


def test_hanging_partitions_are_retried(nursed: Client, stage: Stage) -> None:
    """When all workers hang each is restarted; what hung is tried again, and is written or has failed."""
    options = dasklake.WriteOptions(scheduler=nursed, partition_timeout=3, retries=1)
    report = write(stage, nursed, hanging, on_error="skip", max_failures=None, options=options)
    assert (report.samples, report.failures) == (57, 1)
    lake = dasklake.open(stage.url)
    check_content(lake, [x for x in ITEMS if x not in (33, 34, 35)])
    (row,) = lake.failures().to_dict("records")
    assert (row["exception"], row["partition"]) == ("PartitionTimeoutError", 11)
    assert "took longer than partition_timeout (3 s) in 2 attempt(s)" in row["message"]
    executions = stage.executions()
    assert (executions[31], executions[34]) == (2, 2)
    # What hangs is repeated; on a busy machine a neighbour may have had to wait as long.
    assert {30, 31, 33, 34} <= {x for x, times in executions.items() if times > 1}
    assert set(executions) == set(ITEMS) - {35}
    assert lake.is_complete
    assert all(key.startswith("data/") for key in residue(stage.url))
    nursed.wait_for_workers(2, timeout=PATIENCE)


def test_run_ends_if_no_worker_returns(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose cluster loses its workers for good when they hang ends, and says why."""
    monkeypatch.setattr("dasklake._run.hang_watch._ALONE_SECONDS", 1.0)
    with (
        start_nannies(tmp_path, 1, **{LOST: "10ms"}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        options = dasklake.WriteOptions(scheduler=client, partition_timeout=2, retries=5)
        with pytest.raises(
            PartitionTimeoutError, match="the cluster has had no worker for 1 s"
        ) as caught:
            write(stage, client, hanging, options=options)
        assert caught.value.partition == 10
        assert "mode='resume', run='job'" in str(caught.value)
        assert not workers_of(cluster)
    check_content(dasklake.open(stage.url), range(30))


if DEEP:

    def test_worker_that_hangs_twice_is_not_lost(stage: Stage, tmp_path: Path) -> None:
        """A worker restarted twice is not away when its cluster looks for it after the first time."""
        Path(stage.folder, "31.hung").touch()
        with (
            start_nannies(tmp_path, 1, **{LOST: "8s"}) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            options = dasklake.WriteOptions(scheduler=client, partition_timeout=3, retries=2)
            report = write(stage, client, hanging, on_error="skip", options=options)
            assert (report.samples, report.failures) == (57, 1)
            assert stage.executions()[34] == 3
            client.wait_for_workers(1, timeout=PATIENCE)


if DEEP:

    def test_partition_that_always_hangs_ends_the_run(nursed: Client, stage: Stage) -> None:
        """Not skipped, a partition that hangs ends the run with its number; a mended function goes on."""
        options = dasklake.WriteOptions(scheduler=nursed, partition_timeout="4s", retries=0)
        Path(stage.folder, "31.hung").touch()
        with pytest.raises(PartitionTimeoutError, match="Partition 11 took longer") as caught:
            write(stage, nursed, hanging, options=options)
        committed = [row["x"] for row in dasklake.open(stage.url)]
        assert (caught.value.partition, caught.value.seconds) == (11, 4.0)
        assert caught.value.samples_processed == len(committed) >= 33
        assert "mode='resume', run='job'" in str(caught.value)
        check_content(dasklake.open(stage.url), sorted(committed))
        stage.forget_executions()
        write(stage, nursed)
        check_content(dasklake.open(stage.url), ITEMS)
        assert stage.executions() == dict.fromkeys(set(ITEMS) - set(committed), 1)
        assert residue(stage.url) == set()


def test_hanging_partition_without_a_nanny_ends_the_run(client: Client, stage: Stage) -> None:
    """On a worker that nobody restarts a hanging partition ends the run, and the message says so."""
    options = dasklake.WriteOptions(scheduler=client, partition_timeout=3)
    arguments = {"folder": str(stage.folder), "pauses": [31]}
    try:
        with pytest.raises(PartitionTimeoutError, match="no nanny") as caught:
            write(stage, client, transform_kwargs=arguments, on_error="skip", options=options)
    finally:
        stage.let_go(31)
    committed = [row["x"] for row in dasklake.open(stage.url)]
    assert (caught.value.partition, caught.value.samples_processed) == (10, len(committed))
    assert "mode='resume', run='job'" in str(caught.value)
    check_content(dasklake.open(stage.url), sorted(committed))
    wait_until(lambda: stage.executions()[32], "the task that hung has gone on")
    stage.forget_executions()
    write(stage, client)
    check_content(dasklake.open(stage.url), ITEMS)
    assert stage.executions().keys() <= set(ITEMS) - set(committed)


def greedy(x: int, folder: str) -> dict[str, Any]:
    """Make a sample; item 31 takes all memory there is."""
    note(folder, str(x))
    taken: list[bytearray] = []
    while x == 31:
        if len(taken) < 20:
            taken.append(bytearray(LIMIT // 20))
            taken[-1][::4096] = b"x" * len(taken[-1][::4096])
        time.sleep(0.01)  # until the nanny ends it
    return content(x)


def test_out_of_memory_ends_the_run(stage: Stage, tmp_path: Path) -> None:
    """A partition for which workers run out of memory ends the run, and is named; others are kept."""
    # The first death is enough here; Dask's own patience is three more.
    patience = {"distributed.scheduler.allowed-failures": 0}
    with (
        start_nannies(tmp_path, 1, **patience) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        with pytest.raises(TransformError, match=r"partition 10.*KilledWorker") as caught:
            write(stage, client, greedy)
        assert caught.value.partition == 10
        assert "out of memory" in str(caught.value)
        assert "mode='resume', run='job'" in str(caught.value)
        committed = [row["x"] for row in dasklake.open(stage.url)]
        assert caught.value.samples_processed == len(committed) == 30
        check_content(dasklake.open(stage.url), range(30))
        stage.forget_executions()
        # Its nanny has started another one.
        write(stage, client)
        check_content(dasklake.open(stage.url), ITEMS)
        assert stage.executions() == dict.fromkeys(range(30, 60), 1)


if DEEP:

    def test_restarted_worker_costs_only_work_in_flight(nursed: Client, stage: Stage) -> None:
        """A worker that its nanny restarts costs what was in flight on it, and nobody has to help."""
        addresses = {pid: address for address, pid in nursed.run(os.getpid).items()}
        thread, outcome = begin(
            stage, nursed, transform_kwargs={"folder": str(stage.folder), "pauses": [31]}
        )
        nursed.restart_workers([addresses[stage.reached(31)]], timeout=PATIENCE)
        stage.let_go(31)
        thread.join(PATIENCE)
        assert outcome[0].samples == 60
        check_content(dasklake.open(stage.url), ITEMS)
        assert {x for x, times in stage.executions().items() if times > 1} <= {30, 31}
        assert residue(stage.url) == set()


def test_scaled_cluster_writes_each_sample_once(
    nannies: LocalCluster, nursed: Client, stage: Stage
) -> None:
    """A cluster that loses a worker on purpose, and gets one again, writes each sample once."""
    thread, outcome = begin(
        stage, nursed, transform_kwargs={"folder": str(stage.folder), "pauses": [16, 19, 22, 25]}
    )
    stage.held([16, 19, 22, 25], 2)
    wait_until_reported(nursed, stage)
    nannies.scale(1)
    wait_until(lambda: len(workers_of(nannies)) == 1, "one worker is gone")
    stage.let_go(16, 19, 22, 25)
    stage.wait_for_checkpoints(2)
    nannies.scale(2)
    thread.join(PATIENCE)
    assert outcome[0].samples == 60
    check_content(dasklake.open(stage.url), ITEMS)
    repeated = {x for x, times in stage.executions().items() if times > 1}
    assert len({x // 3 for x in repeated}) <= 1
    assert all(key.startswith("data/") for key in residue(stage.url))
    nursed.wait_for_workers(2, timeout=PATIENCE)


if DEEP:

    def test_adaptive_cluster_writes_all_samples(nannies: LocalCluster, stage: Stage) -> None:
        """A cluster that starts from nothing and scales itself writes all, and shrinks again."""
        nannies.scale(0)
        wait_until(lambda: not workers_of(nannies), "no worker is left")
        nannies.adapt(minimum=0, maximum=2, interval="100ms", wait_count=1)
        try:
            with Client(nannies, set_as_default=False) as client:
                assert write(stage, client).samples == 60
                wait_until(lambda: not workers_of(nannies), "nobody is needed any more")
        finally:
            nannies.adapt(minimum=2, maximum=2)
        check_content(dasklake.open(stage.url), ITEMS)
        assert stage.executions() == dict.fromkeys(ITEMS, 1)
