"""Local schedulers: the coordinator gets outcomes from the dispatching thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag as db
import dask.local
import dask.multiprocessing
import dask.threaded
import pytest
from dask.optimization import cull

from dasklake._log.log import Log
from dasklake._log.run_writer import RunWriter
from dasklake._run.coordinator import Coordinator, Status
from dasklake._run.local_front import LocalDeliver, local_deliver, run_locally
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake._run.run_spec import RunSpec
from dasklake._run.start import start_run
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake._write.graph import Delivery, WriteGraph, write_graph
from dasklake._write.input import source_of
from dasklake._write.job import Job, Outcome
from dasklake.exceptions import TransformError

SCHEMA = Schema({"x": TensorSpec(dtype="int64", shape=())})
Get = Callable[..., Any]


class Write:
    """A begun write, ready for a scheduler.

    Parameters
    ----------
    path : pathlib.Path
        Where the lake is made.
    bag : dask.bag.Bag
        The input: mappings.
    get : callable
        The scheduler.
    interval : CheckpointInterval
        When a checkpoint is due.
    skip : bool
        Whether failures are skipped.
    """

    def __init__(
        self,
        path: Path,
        bag: Any,
        get: Get,
        interval: CheckpointInterval = CheckpointInterval(),  # noqa: B008 # frozen
        *,
        skip: bool = False,
    ) -> None:
        self.log = Log(ObjectStore(path / "lake"))
        source = source_of(bag, SCHEMA)
        count = len(source.parts)
        spec = RunSpec(
            mode="create",
            run="run",
            schema=SCHEMA,
            partitions=count,
            interval=interval,
            skip=skip,
            max_failures=MaxFailures(share=None),
        )
        self.assignment = start_run(self.log, spec)
        entry = self.assignment.entry
        job = Job(
            location=self.assignment.location,
            entry=(entry.version, entry.id),
            schema=SCHEMA,
            kind="bag",
            skip=skip,
            retries=0,
        )
        self.deliver = local_deliver(get)
        self.get = get
        delivery = Delivery("to_lake-run", self.deliver, local=True)
        self.graph: WriteGraph = write_graph(source, job, {}, self.assignment.missing, delivery)
        self.seen: list[Status] = []

    def run(self, get: Get | None = None) -> Status:
        """Run it."""
        return run_locally(
            get or self.get,
            self.assignment,
            self.graph,
            deliver=self.deliver,
            on_status=self.seen.append,
        )

    def committed(self) -> list[int]:
        """Return the partitions in the newest version."""
        partitions: list[int] = self.log.manifest(self.log.require_head()).partition.tolist()
        return partitions


def numbers(partitions: int) -> Any:
    """Return a bag of one sample in failure partition."""
    return db.from_sequence([{"x": n} for n in range(partitions)], npartitions=partitions)


def bad_at(*values: int) -> Callable[[dict[str, int]], dict[str, int]]:
    """Return a function that fails on some samples."""

    def check(sample: dict[str, int]) -> dict[str, int]:
        if sample["x"] in values:
            raise ValueError(f"bad {sample['x']}")
        return sample

    return check


def test_delivery() -> None:
    """Tasks in the coordinator's process call it; otherwise results carry outcomes."""
    assert isinstance(local_deliver(dask.local.get_sync), LocalDeliver)
    assert isinstance(local_deliver(dask.threaded.get), LocalDeliver)
    assert local_deliver(dask.multiprocessing.get) is None


def test_before_there_is_a_coordinator() -> None:
    """Outcomes delivered before there is a coordinator have no effect."""
    deliver = LocalDeliver()
    deliver(Outcome(None))
    assert not deliver.stopped()


@pytest.mark.parametrize("get", [dask.local.get_sync, dask.threaded.get])
def test_whole_run(tmp_path: Path, get: Get) -> None:
    """A run is written, committed at checkpoints, and followed to its end."""
    write = Write(tmp_path, numbers(6), get, CheckpointInterval(inputs=2))
    status = write.run()
    assert (status.running, status.problem, status.partitions) == (False, None, 6)
    assert 1 <= status.commits <= 3
    assert write.seen[-1] == status
    assert write.committed() == list(range(6))


def test_commits_beside_the_scheduler(tmp_path: Path) -> None:
    """Commits are made in a separate thread, never in the dispatching one."""
    write = Write(tmp_path, numbers(3), dask.local.get_sync, CheckpointInterval(inputs=1))
    real, threads = write.assignment.location.store.create, list[str]()

    def create(key: str, data: bytes) -> None:
        threads.append(threading.current_thread().name)
        real(key, data)

    write.assignment.location.store.create = create  # type: ignore[method-assign] # to record the threads
    write.run()
    assert threads
    assert all(name.startswith("dasklake-run-commit") for name in threads)


def test_input_order(tmp_path: Path) -> None:
    """Partitions are written in the order of the input, so that checkpoints follow it."""
    seen: list[int] = []

    def note(sample: dict[str, int]) -> dict[str, int]:
        seen.append(sample["x"])
        return sample

    Write(tmp_path, numbers(12).map(note), dask.local.get_sync).run()
    assert seen == list(range(12))


def test_first_failure_ends_it(tmp_path: Path) -> None:
    """After a failure nothing more is computed; complete partitions are committed."""
    seen: list[int] = []

    def check(sample: dict[str, int]) -> dict[str, int]:
        seen.append(sample["x"])
        return bad_at(2)(sample)

    write = Write(tmp_path, numbers(6).map(check), dask.local.get_sync)
    status = write.run()
    assert isinstance(status.problem, TransformError)
    assert status.problem.partition == 2
    assert seen == [0, 1, 2]
    assert write.committed() == [0, 1]


def test_skipping(tmp_path: Path) -> None:
    """Failing partitions are skipped, and all others are written."""
    write = Write(tmp_path, numbers(6).map(bad_at(1, 4)), dask.threaded.get, skip=True)
    status = write.run()
    assert (status.problem, status.failures, status.samples) == (None, 2, 4)
    assert write.committed() == list(range(6))


def test_shared_upstream_fails(tmp_path: Path) -> None:
    """A failing shared task fails only the partitions that need it; failure is reported by number."""

    def parts(items: list[int]) -> list[int]:
        raise ValueError(f"no {len(items)}")

    good = numbers(2)
    shared = db.from_sequence([1, 2, 3], npartitions=1).map_partitions(parts)
    bad = shared.map_partitions(lambda s: [{"x": n} for n in s])
    twice = shared.map_partitions(lambda s: [{"x": -n} for n in s])
    write = Write(tmp_path, db.concat([good, bad, twice]), dask.local.get_sync, skip=True)
    status = write.run()
    assert (status.problem, status.failures, status.samples) == (None, 2, 2)
    failures = write.log.failures(write.log.require_head())
    assert sorted(failure.partition for failure in failures) == [2, 3]
    assert {failure.exception for failure in failures} == {"ValueError"}


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C in the dispatching thread commits complete partitions, and says how to resume."""
    write = Write(tmp_path, numbers(4), dask.local.get_sync)

    def get(graph: Any, keys: list[Any], **kwargs: Any) -> Any:
        dask.local.get_sync(cull(graph, keys[:2])[0], keys[:2], **kwargs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="mode='resume', run='run'"):
        write.run(get)
    assert len(write.committed()) == 2


def test_ctrl_c_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C does not wait for the storage, and also says how to resume."""
    write = Write(tmp_path, numbers(4), dask.local.get_sync)
    held, wait = threading.Event(), Coordinator.wait

    def commit(writer: RunWriter, *_: Any) -> Any:
        assert held.wait(20)
        return writer.head

    def impatient(coordinator: Coordinator, timeout: float | None = None) -> Status:
        if not held.is_set():
            raise KeyboardInterrupt
        return wait(coordinator, timeout)

    def get(graph: Any, keys: list[Any], **kwargs: Any) -> Any:
        dask.local.get_sync(cull(graph, keys[:2])[0], keys[:2], **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunWriter, "commit", commit)
    monkeypatch.setattr(Coordinator, "wait", impatient)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted again.*mode='resume', run='run'"):
        write.run(get)
    held.set()
    assert write.deliver is not None
    assert write.deliver.coordinator is not None
    write.deliver.coordinator.join()


def test_ctrl_c_at_the_very_end(tmp_path: Path) -> None:
    """Ctrl-C after the last partition finds the run finished, and says so."""
    write = Write(tmp_path, numbers(2), dask.local.get_sync)

    def get(graph: Any, keys: list[Any], **kwargs: Any) -> Any:
        dask.local.get_sync(graph, keys, **kwargs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="finished"):
        write.run(get)
    assert write.committed() == [0, 1]


def test_scheduler_that_gives_up(tmp_path: Path) -> None:
    """Any other exception of a scheduler is raised, after complete partitions were committed."""
    write = Write(tmp_path, numbers(4), dask.local.get_sync)

    def get(graph: Any, keys: list[Any], **kwargs: Any) -> Any:
        dask.local.get_sync(cull(graph, keys[:3])[0], keys[:3], **kwargs)
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        write.run(get)
    assert len(write.committed()) == 3
