"""Test the graph of a write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.bag as db
import pytest
from dask.delayed import delayed
from dask.local import get_sync

import dasklake
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.graph import Delivery, WriteGraph, write_graph
from dasklake._write.input import source_of
from dasklake._write.job import Job
from dasklake.exceptions import InvalidInputError


@pytest.mark.parametrize("nested", [False, True])
def test_arguments_of_several_partitions_are_refused(tmp_path: Path, nested: bool) -> None:  # noqa: FBT001 # a parameter of the test
    """A bag with several partitions is an error anywhere in an argument."""
    bag = db.from_sequence([1, 2], npartitions=2)
    with pytest.raises(
        InvalidInputError, match=r"transform_kwargs\['more'\] must have one partition, got 2"
    ):
        dasklake.to_lake(
            bag,
            tmp_path / "lake",
            schema={"x": dasklake.TensorSpec(dtype="int64", shape=())},
            transform=lambda item, more: {"x": item + len(more)},
            transform_kwargs={"more": {"bag": [bag]} if nested else bag},
            options=dasklake.WriteOptions(scheduler="sync"),
        )


SCHEMA = Schema({"x": TensorSpec(dtype="int64", shape=())})


def graph_of(
    collection: Any, *, local: bool = False, kwargs: dict[str, Any] | None = None
) -> WriteGraph:
    """Build the graph of a write."""
    source = source_of(collection, SCHEMA)
    location = RunLocation(ObjectStore("memory://nowhere"), "main/run", "run", 1)
    job = Job(location, (1, "ab" * 8), SCHEMA, source.kind)
    partitions = range(len(source.parts))
    return write_graph(source, job, kwargs or {}, partitions, Delivery("write", local=local))


def numbers(partitions: int) -> Any:
    """Return a bag of one number in each partition."""
    return db.from_sequence(range(partitions), npartitions=partitions)


def test_one_task_for_each_partition() -> None:
    """Tasks that only one partition needs are fused into its write task."""
    bag = numbers(5).map(str).filter(bool).map_partitions(list)
    graph = graph_of(bag)
    assert graph.keys == {("write", i): i for i in range(5)}
    assert set(graph.tasks) == {*graph.keys, "write-job"}
    assert all(graph.tasks[key].dependencies == {"write-job"} for key in graph.keys)


def test_local_tasks_contain_the_job() -> None:
    """A local scheduler gets the job inside each task, and keys that sort against the input."""
    graph = graph_of(numbers(12), local=True)
    assert set(graph.tasks) == set(graph.keys)
    assert sorted(graph.keys, reverse=True) == list(graph.keys)
    assert not any(node.dependencies for node in graph.tasks.values())


def test_shared_tasks_stay_outside() -> None:
    """A task that several partitions need stays a separate task, and occurs once."""
    shared = numbers(1).map(str)
    both = db.concat([shared.map(len), shared.map(repr)])
    graph = graph_of(both)
    shared_keys = set(graph.tasks) - set(graph.keys) - {"write-job"}
    assert len(shared_keys) >= 1
    needed = [graph.tasks[key].dependencies - {"write-job"} for key in graph.keys]
    assert needed[0] == needed[1]
    assert len(needed[0]) == 1


def test_only_requested_partitions_have_tasks() -> None:
    """Partitions that are not written have no tasks in the graph."""
    source = source_of(numbers(6).map(str), SCHEMA)
    location = RunLocation(ObjectStore("memory://nowhere"), "main/run", "run", 1)
    job = Job(location, (1, "ab" * 8), SCHEMA, "bag")
    graph = write_graph(source, job, {}, [4, 1], Delivery("write"))
    assert graph.keys == {("write", 4): 4, ("write", 1): 1}
    assert set(graph.tasks) == {*graph.keys, "write-job"}


def test_priorities_follow_the_input() -> None:
    """Earlier partitions come first, and shared tasks come with the first of them."""
    shared = numbers(1).map(str)
    graph = graph_of(db.concat([numbers(2), shared.map(len), shared.map(repr)]))
    priorities = graph.priorities()
    assert [priorities[key] for key in graph.keys] == [0, -1, -2, -3]
    shared_keys = set(graph.tasks) - set(graph.keys) - {"write-job"}
    assert {priorities[key] for key in shared_keys} == {-2}
    assert priorities["write-job"] == 0


@pytest.mark.parametrize("local", [False, True])
def test_computed_arguments_are_one_node(*, local: bool) -> None:
    """A Delayed among the arguments is computed once, and reaches all tasks with the job."""
    index = delayed(dict)(a=1)
    graph = graph_of(numbers(3), local=local, kwargs={"index": index, "plain": 7})
    assert all(graph.tasks[key].dependencies == {"write-job"} for key in graph.keys)
    assert index.key in graph.tasks["write-job"].dependencies
    (job,) = get_sync(graph.tasks, ["write-job"])
    assert dict(job.kwargs) == {"index": {"a": 1}, "plain": 7}
