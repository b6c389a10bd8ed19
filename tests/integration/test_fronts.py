"""One input through every scheduler and coordinator; a commit that takes its time stops nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake._model.commit import Kind
from dasklake._store.log import Draft, Log

# distributed leaves the sockets of a cluster that it starts here to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Exception ignored in. <.*socket"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

SCHEMA = {
    "x": dasklake.TensorSpec(dtype="int64", shape=()),
    "mask": "binary_mask",
}
SAMPLES = 60


def sample(item: int) -> dict[str, Any]:
    """Make a sample with a ragged mask."""
    return {"x": item, "mask": np.arange(item * 6).reshape(2, 3, item) % 5 == 0}


def bag() -> Any:
    """Return the input."""
    return db.from_sequence(range(SAMPLES), npartitions=20)


def content(url: Path) -> list[tuple[int, tuple[int, ...], bytes]]:
    """Return what a lake holds, comparable."""
    return [
        (int(each["x"]), each["mask"].shape, each["mask"].tobytes()) for each in dasklake.open(url)
    ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Start a cluster of two worker processes."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture
def expected(tmp_path: Path) -> list[Any]:
    """Write the input with the simplest scheduler."""
    url = tmp_path / "expected"
    options = dasklake.WriteOptions(scheduler="sync")
    bag().to_lake(url, schema=SCHEMA, transform=sample, options=options)
    return content(url)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_local_schedulers_write_the_same(
    tmp_path: Path, expected: list[Any], scheduler: str
) -> None:
    """Threads and processes write what the synchronous scheduler writes."""
    options = dasklake.WriteOptions(scheduler=scheduler)
    report = bag().to_lake(
        tmp_path / "lake", schema=SCHEMA, transform=sample, checkpoint_every=10, options=options
    )
    assert content(tmp_path / "lake") == expected
    assert report.commits > 1


@pytest.mark.parametrize("coordinator", ["scheduler", "client"])
def test_a_cluster_writes_the_same(
    tmp_path: Path, expected: list[Any], cluster: LocalCluster, coordinator: Any
) -> None:
    """A cluster writes it too, whether its scheduler commits or the client."""
    with Client(cluster) as client:
        pids = client.run(__import__("os").getpid)
        assert len(set(pids.values())) == 2
        report = bag().to_lake(
            tmp_path / "lake",
            schema=SCHEMA,
            transform=sample,
            checkpoint_every=10,
            coordinator=coordinator,
        )
    assert content(tmp_path / "lake") == expected
    assert report.commits > 1
    last = dasklake.open(tmp_path / "lake").commit.progress
    assert last is not None
    assert (last.percent, last.inputs) == (100.0, SAMPLES)


class HeldCommit:
    """Holds the first data commit of this process until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.free = threading.Event()

    def hold(self, create: Any) -> Any:
        """Wrap the step that creates a commit."""

        def create_later(log: Log, draft: Draft) -> bool:
            if draft.commit.kind is Kind.DATA and not self.begun.is_set():
                self.begun.set()
                assert self.free.wait(60)
            return bool(create(log, draft))

        return create_later


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[HeldCommit]:
    """Hold the first data commit."""
    commit = HeldCommit()
    monkeypatch.setattr(Log, "_create", commit.hold(Log._create))  # the step to stop at
    yield commit
    commit.free.set()


def test_a_slow_commit_does_not_stop_the_scheduler(tmp_path: Path, held: HeldCommit) -> None:
    """While a commit waits, the scheduler answers 100 calls and every task goes on."""
    answered: list[int] = []
    made = tmp_path / "made"
    made.touch()

    def count(item: int) -> dict[str, Any]:
        with made.open("a") as file:
            file.write("x")
        return sample(item)

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):

        def watch() -> None:
            held.begun.wait(60)
            for call in range(100):
                client.scheduler_info()
                answered.append(call)
            # All tasks run although none of them is committed.
            while made.stat().st_size < SAMPLES:
                client.scheduler_info()
            answered.append(len(dasklake.open(tmp_path / "lake")))
            held.free.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        report = bag().to_lake(
            tmp_path / "lake", schema=SCHEMA, transform=count, checkpoint_every=3
        )
        watcher.join()
    assert answered == [*range(100), 0]
    # What came in meanwhile is one commit, or two where the last receipt was a moment late.
    assert report.samples == SAMPLES
    assert report.commits in (2, 3)


def test_a_slow_commit_does_not_stop_a_local_scheduler(tmp_path: Path, held: HeldCommit) -> None:
    """While a commit waits, a local scheduler goes on to its last task."""

    def count(item: int) -> dict[str, Any]:
        if item == 0:
            return sample(item)
        # From the second partition on, a commit is being held.
        assert item < 3 or held.begun.wait(60)
        if item == SAMPLES - 1:
            held.free.set()
        return sample(item)

    report = bag().to_lake(
        tmp_path / "lake",
        schema=SCHEMA,
        transform=count,
        checkpoint_every=3,
        options=dasklake.WriteOptions(scheduler="sync"),
    )
    # What came in meanwhile is one commit, or two where the last receipt was a moment late.
    assert report.samples == SAMPLES
    assert report.commits in (2, 3)
