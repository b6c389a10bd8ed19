"""Every scheduler of Dask writes the same lake, and none of them waits for a commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import pytest
from dask.delayed import delayed
from distributed import Client, LocalCluster

import dasklake
from dasklake._run.coordinator import Coordinator
from dasklake._storage.store import ObjectStore
from dasklake._write.job import Outcome
from dasklake.exceptions import NestedRunError, StoreError
from tests.support._work import PATIENCE, SCHEMA, content, note, sample
from tests.support.clusters import Cluster, Front, Stage, check_content, wait_until

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ITEMS = range(60)


def bag_of_items() -> Any:
    """Return the items as a bag of 20 partitions."""
    return db.from_sequence(ITEMS, npartitions=20)


@pytest.mark.parametrize(
    "front", ["sync", "threads", "processes", "scheduler", "client"], indirect=True
)
def test_schedulers_write_the_same_content(front: Front, stage: Stage) -> None:
    """Each scheduler writes each sample once, in input order, with several checkpoints."""
    report = front.write(
        bag_of_items(),
        stage.url,
        schema=SCHEMA,
        transform=sample,
        transform_kwargs={"folder": str(stage.folder)},
        checkpoint_every=15,
        message="first try",
    )
    assert (report.samples, report.partitions, report.failures) == (60, 20, 0)
    checkpoints = stage.checkpoints()
    assert report.commits == len(checkpoints)
    assert 1 <= len(checkpoints) <= 4
    assert checkpoints[-1].progress is not None
    assert checkpoints[-1].progress.percent == 100
    assert checkpoints[-1].message.startswith("first try\n")
    assert stage.executions() == dict.fromkeys(ITEMS, 1)
    lake = dasklake.open(stage.url)
    assert lake.is_complete
    assert report.version == lake.version
    check_content(lake, ITEMS)


class HeldCommits:
    """Commits that wait, starting with the first one that makes samples visible.

    Parameters
    ----------
    monkeypatch : pytest.MonkeyPatch
        Installs the waiting commits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting, self.go = threading.Event(), threading.Event()
        self.create = ObjectStore.create

        def create(store: ObjectStore, key: str, data: Any) -> None:
            # Versions 0 and 1 create the lake and begin the run.
            if key.startswith("_lake/log/") and int(Path(key).stem) > 1:
                self.waiting.set()
                assert self.go.wait(PATIENCE)
            self.create(store, key, data)

        monkeypatch.setattr(ObjectStore, "create", create)
        #: Outcomes that the coordinator has; the last sample is made some time before the last one.
        self.outcomes: list[Outcome] = []
        deliver = Coordinator.deliver

        def count(coordinator: Coordinator, outcome: Outcome) -> None:
            if len(self.outcomes) == 19:
                # A busy machine may begin the first commit after all tasks: the last one waits for it.
                assert self.waiting.wait(PATIENCE)
            deliver(coordinator, outcome)
            self.outcomes.append(outcome)

        monkeypatch.setattr(Coordinator, "deliver", count)


def begin_write(stage: Stage, options: dasklake.WriteOptions) -> Callable[[], Any]:
    """Call ``to_lake`` in a thread; return a function that waits for its report."""
    reports: list[Any] = []

    def call() -> None:
        report = dasklake.to_lake(
            bag_of_items(),
            stage.url,
            schema=SCHEMA,
            transform=sample,
            transform_kwargs={"folder": str(stage.folder)},
            checkpoint_every=3,
            options=options,
        )
        reports.append(report)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def end() -> Any:
        thread.join(PATIENCE)
        return reports[0]

    return end


def test_held_commit_does_not_stop_a_scheduler(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit hangs, a cluster's scheduler responds to 100 calls and all tasks run."""
    held = HeldCommits(monkeypatch)
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        end = begin_write(stage, dasklake.WriteOptions(scheduler=client))
        assert held.waiting.wait(PATIENCE)
        for _ in range(100):
            assert client.sync(client.scheduler.identity)["type"] == "Scheduler"
        wait_until(lambda: len(held.outcomes) == 20, "all tasks run")
        assert client.submit(sum, [1, 2]).result(PATIENCE) == 3
        assert stage.checkpoints() == []
        held.go.set()
        report = end()
    # Receipts that arrived while the first commit hung are in the second.
    assert (report.samples, report.commits) == (60, 2)
    check_content(dasklake.open(stage.url), ITEMS)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_held_commit_does_not_stop_a_local_scheduler(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    """While a commit hangs, all tasks of a local scheduler run."""
    held = HeldCommits(monkeypatch)
    end = begin_write(stage, dasklake.WriteOptions(scheduler=scheduler))
    assert held.waiting.wait(PATIENCE)
    wait_until(lambda: len(held.outcomes) == 20, "all tasks run")
    assert stage.checkpoints() == []
    held.go.set()
    report = end()
    assert (report.samples, report.commits) == (60, 2)
    check_content(dasklake.open(stage.url), ITEMS)


def test_asynchronous_client_is_not_blocked(cluster: Cluster, stage: Stage) -> None:
    """On an asynchronous client ``to_lake`` returns an awaitable and does not block the loop."""
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def write() -> Any:
        async with Client(cluster.address, asynchronous=True, set_as_default=False) as client:
            counting = asyncio.create_task(count())
            report = await dasklake.to_lake(  # type: ignore[misc] # only the client makes it awaitable
                bag_of_items(),
                stage.url,
                schema=SCHEMA,
                transform=sample,
                transform_kwargs={"folder": str(stage.folder)},
                options=dasklake.WriteOptions(scheduler=client),
            )
            counting.cancel()
            return report

    report = asyncio.run(write())
    assert (report.samples, report.partitions) == (60, 20)
    assert len(turns) > 20
    check_content(dasklake.open(stage.url), ITEMS)


def nested(url: str) -> None:
    """Write a lake from inside a task."""
    bag = db.from_sequence([content(1)], npartitions=1)
    dasklake.to_lake(bag, url, schema=SCHEMA)


def test_write_inside_a_task_is_refused(client: Client, stage: Stage) -> None:
    """Inside a Dask task ``to_lake`` refuses, and writes nothing."""
    with pytest.raises(NestedRunError, match="on the client"):
        client.submit(nested, stage.url).result(PATIENCE)
    assert not Path(stage.url).exists()


def noted_range(first: int, folder: str) -> list[int]:
    """Record the call and return a partition."""
    note(folder, str(first))
    return list(range(first, first + 3))


def test_shared_upstream_is_computed_once(front: Front, stage: Stage) -> None:
    """A task shared by two partitions is computed once, on every scheduler."""
    folder = str(stage.folder)
    source = db.from_delayed([delayed(noted_range)(first, folder) for first in (0, 3)])
    both = db.concat([source.map(content), source.map(content)])
    report = front.write(both, stage.url, schema=SCHEMA)
    assert report.partitions == 4
    assert stage.executions() == {0: 1, 3: 1}
    check_content(dasklake.open(stage.url), [*range(6), *range(6)])


def noted_offset(folder: str) -> int:
    """Record the call and return a shared argument."""
    note(folder, "7")
    return 7


def moved(x: int, offset: int) -> dict[str, Any]:
    """Make the sample of an item with an offset."""
    return content(x + offset)


def test_shared_argument_is_computed_once(front: Front, stage: Stage) -> None:
    """A Delayed among the arguments of the transform is computed once per run."""
    offset = delayed(noted_offset)(str(stage.folder))
    front.write(
        bag_of_items(),
        stage.url,
        schema=SCHEMA,
        transform=moved,
        transform_kwargs={"offset": offset},
        checkpoint_every=3,
    )
    assert stage.executions() == {7: 1}
    check_content(dasklake.open(stage.url), range(7, 67))


def test_lazy_write_computed_twice_is_one_run(stage: Stage) -> None:
    """``compute=False`` returns a Delayed of one run; a second computation finds the run finished."""
    lazy = dasklake.to_lake(
        bag_of_items(),
        stage.url,
        schema=SCHEMA,
        transform=sample,
        transform_kwargs={"folder": str(stage.folder)},
        compute=False,
    )
    assert not Path(stage.url).exists()
    first, second = lazy.compute(scheduler="sync"), lazy.compute(scheduler="sync")
    assert (first.samples, first.run) == (second.samples, second.run) == (60, second.run)
    assert first.version == second.version
    assert stage.executions() == dict.fromkeys(ITEMS, 1)
    assert len(stage.checkpoints()) == 1
    check_content(dasklake.open(stage.url), ITEMS)


def test_lazy_write_runs_on_a_cluster(client: Client, stage: Stage) -> None:
    """A Delayed write runs on a cluster like every Delayed."""
    lazy = dasklake.to_lake(
        bag_of_items(),
        stage.url,
        schema=SCHEMA,
        transform=sample,
        transform_kwargs={"folder": str(stage.folder)},
        compute=False,
    )
    assert client.compute(lazy).result(PATIENCE).samples == 60
    check_content(dasklake.open(stage.url), ITEMS)


def unreliable(x: int, folder: str) -> dict[str, Any]:
    """Make a sample; raise a storage error once, at item 31."""
    note(folder, str(x))
    if x == 31 and not Path(folder, "failed").exists():
        Path(folder, "failed").touch()
        raise StoreError("the storage failed")
    return content(x)


def test_task_with_a_storage_error_is_retried(front: Front, stage: Stage) -> None:
    """Only the write task with a storage error is retried."""
    front.write(
        bag_of_items(),
        stage.url,
        schema=SCHEMA,
        transform=unreliable,
        transform_kwargs={"folder": str(stage.folder)},
    )
    check_content(dasklake.open(stage.url), ITEMS)
    twice = {item for item, times in stage.executions().items() if times > 1}
    assert twice == {30, 31}
