"""Preview a write: process some items in memory, and estimate the cost of the whole input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from dask.utils import format_bytes, format_time

from dasklake._dask import Task
from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._log.log import Log
from dasklake._log.transactions import create_lake
from dasklake._model.receipt import Failure, Receipt
from dasklake._run.coordinator import load_failures
from dasklake._run.progress import CheckpointInterval
from dasklake._schema.schema import Schema, describe
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.graph import Delivery, write_graph
from dasklake._write.job import Job, Outcome, PartMaker
from dasklake._write.partition import write_partition
from dasklake._write.source import Source

#: Maximum number of partitions from which items are taken.
_PARTITIONS = 8

#: Number of failures that a preview prints.
_SHOWN = 5

#: Requests before the first task, which create the lake and begin the run.
_BEGIN = 10


class Trial(NamedTuple):
    """Result of the first items of some partitions.

    Attributes
    ----------
    inputs, samples : int
        Number of tried items, and of samples made of them.
    sizes : dict of str to int
        Stored bytes of each tensor.
    overhead : int
        Bytes of a chunk that belong to no tensor.
    seconds : float
        Duration, including the reading of the input.
    failures : tuple of Failure
        The items that failed.
    """

    inputs: int
    samples: int
    sizes: dict[str, int]
    overhead: int
    seconds: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """Estimate of a write, from some items that were processed in memory.

    Attributes
    ----------
    schema : Schema
        The tensors that would be written.
    inputs, samples : int
        Number of tried items, and of samples made of them.
    sizes : mapping of str to int
        Stored bytes of each tensor of these samples.
    overhead : int
        Bytes of a chunk that belong to no tensor.
    seconds : float
        Total duration of the tried items.
    failures : tuple of Failure
        The tried items that failed.
    total : int or None
        Number of items in the whole input, if known.
    partitions, workers : int
        Number of partitions, and of partitions that can be written at the same time.
    chunk_size : int
        Target size of a chunk in bytes.
    interval : CheckpointInterval
        When a checkpoint is due.
    """

    schema: Schema
    inputs: int
    samples: int
    sizes: Mapping[str, int]
    overhead: int
    seconds: float
    failures: tuple[Failure, ...]
    total: int | None
    partitions: int
    workers: int
    chunk_size: int
    interval: CheckpointInterval = field(repr=False)

    @property
    def estimated_bytes(self) -> int | None:
        """Bytes of all chunks; None if the number of items is unknown."""
        values = self._scaled(sum(self.sizes.values()))
        return None if values is None else values + self._chunks(values) * self.overhead

    @property
    def estimated_seconds(self) -> float | None:
        """Duration of the write; None if the number of items is unknown."""
        whole = self._scaled(self.seconds * 1e6)
        return None if whole is None else whole / 1e6 / min(self.workers, self.partitions)

    @property
    def estimated_commits(self) -> int | None:
        """Number of data commits; None if the number of items is unknown."""
        if self.total is None or self.estimated_seconds is None:
            return None
        commits = 1
        if self.interval.inputs is not None:
            commits = math.ceil(self.total / self.interval.inputs)
        elif self.interval.seconds is not None:
            commits = math.ceil(self.estimated_seconds / self.interval.seconds)
        return max(1, min(commits, self.partitions))

    @property
    def estimated_objects(self) -> int | None:
        """Number of chunks, segments and commits; None if the number of items is unknown."""
        values = self._scaled(sum(self.sizes.values()))
        if values is None or self.estimated_commits is None:
            return None
        return self._chunks(values) + 2 * self.estimated_commits + 2

    @property
    def estimated_requests(self) -> int | None:
        """Number of write requests; None if the number of items is unknown."""
        if self.estimated_objects is None:
            return None
        return self.estimated_objects + _BEGIN

    def _chunks(self, values: int) -> int:
        return self.partitions * max(1, math.ceil(values / self.partitions / self.chunk_size))

    def _scaled(self, amount: float) -> int | None:
        if self.total is None or not self.inputs:
            return None
        return round(amount / self.inputs * self.total)

    def __str__(self) -> str:
        return "\n".join([*self._tried(), *self._whole(), *self._failed()])

    def _tried(self) -> list[str]:
        duration = format_time(self.seconds)
        counts = f"{self.inputs} items produced {self.samples} samples in {duration}"
        lines = [f"Preview: {counts}. Nothing was written."]
        rows = max(self.samples, 1)
        width = max(map(len, self.schema), default=0)
        return lines + [
            f"  {name:<{width}}  {format_bytes(round(self.sizes.get(name, 0) / rows)):>10} per sample  "
            f"{describe(spec)}"
            for name, spec in self.schema.items()
        ]

    def _whole(self) -> list[str]:
        size, seconds = self.estimated_bytes, self.estimated_seconds
        if size is None or seconds is None:
            return [f"Whole input: {self.partitions} partitions, unknown number of items."]
        amount = (
            f"{format_bytes(size)}, {format_time(seconds)} on {_number(self.workers, 'worker')}"
        )
        counts = (
            _number(self.estimated_objects, "object"),
            _number(self.estimated_requests, "request"),
            _number(self.estimated_commits, "commit"),
        )
        return [
            f"Whole input: {_number(self.total, 'item')} in {_number(self.partitions, 'partition')}:",
            f"  about {amount}, {', '.join(counts)}.",
        ]

    def _failed(self) -> list[str]:
        if not self.failures:
            return ["No item failed."]
        lines = [f"{_number(len(self.failures), 'item')} failed:"]
        for failure in self.failures[:_SHOWN]:
            index = failure.index
            position = f"partition {failure.partition}" if index is None else f"index {index}"
            lines.append(f"  {position} ({failure.item}): {failure.exception}: {failure.message}")
        return lines


def _number(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class _Head:
    """Callable that makes the first items of a partition.

    Parameters
    ----------
    maker : PartMaker
        Makes the partition.
    most : int
        Maximum number of items.
    """

    def __init__(self, maker: PartMaker, most: int) -> None:
        self.maker = maker
        self.most = most

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Make the items."""
        part = self.maker(values)
        if hasattr(part, "iloc"):
            return part.iloc[: self.most]
        if hasattr(part, "shape"):
            return part[: self.most]
        return islice(part, self.most)


def try_partition(
    most: int,
    job: Job,
    partition: int,
    start: int | None,
    makers: tuple[PartMaker, ...],
    values: Mapping[Any, Any],
) -> Trial:
    """Write the first items of a partition to a lake in memory, and delete it.

    Parameters
    ----------
    most : int
        Maximum number of items.
    job, partition, start, makers, values
        As for :func:`dasklake._write.partition.write_partition`.
    """
    store = ObjectStore(f"memory://dasklake-preview/{object_keys.new_id()}")
    try:
        entry, _ = create_lake(Log(store), job.schema)
        home = object_keys.home_of("main", "preview")
        trial = replace(job.at(RunLocation(store, home, "preview", 1), entry), skip=True, retries=0)
        heads: Any = tuple(_Head(maker, most) for maker in makers)
        began = time.perf_counter()
        outcome = write_partition(trial, partition, start, None, heads, values)
        seconds = time.perf_counter() - began
        if not isinstance(outcome, Outcome) or outcome.receipt is None:
            failure = outcome.failure if isinstance(outcome, Outcome) else None
            return Trial(most, 0, {}, 0, seconds, (failure,) if failure is not None else ())
        return _measure(trial, outcome.receipt, seconds)
    finally:
        store.delete([key for key, _ in store.walk("")])


def _measure(job: Job, receipt: Receipt, seconds: float) -> Trial:
    store = job.location.store
    sizes = dict.fromkeys(job.schema, 0)
    for chunk in receipt.chunks:
        key = object_keys.chunk_key(
            job.location.home, receipt.partition, 1, receipt.attempt, chunk.chunk
        )
        head = ChunkHead.parse(store.get(key), chunk.size, key)
        for name in sizes:
            sizes[name] += sum(stop - begin for begin, stop in head.spans(name))
    failures = tuple(load_failures(store, [receipt]))
    overhead = (receipt.size - sum(sizes.values())) // max(1, len(receipt.chunks))
    return Trial(receipt.inputs, receipt.samples, sizes, overhead, seconds, failures)


def preview_write(
    source: Source,
    job: Job,
    kwargs: Mapping[str, Any],
    most: int,
    get: Callable[..., Any],
) -> Trial:
    """Try the first items of an input.

    Parameters
    ----------
    source : Source
        The input.
    job : Job
        What the write tasks would share, without a location.
    kwargs : mapping
        Further arguments of the transform.
    most : int
        Maximum number of items.
    get : callable
        Dask's scheduler function.
    """
    total = Trial(0, 0, dict.fromkeys(job.schema, 0), 0, 0.0, ())
    for partition in range(min(len(source.parts), _PARTITIONS)):
        remaining = most - total.inputs
        if remaining <= 0:
            break
        name = f"preview-{object_keys.new_id()[:8]}"
        graph = write_graph(source, job, kwargs, [partition], Delivery(name))
        (key,) = graph.keys
        shared, number, start, _, makers, refs = graph.tasks[key].args  # type: ignore[attr-defined] # a Task, made by write_graph
        task = Task(key, try_partition, remaining, shared, number, start, makers, refs)
        (trial,) = get({**graph.tasks, key: task}, [key])
        total = Trial(
            inputs=total.inputs + trial.inputs,
            samples=total.samples + trial.samples,
            sizes={name: size + trial.sizes.get(name, 0) for name, size in total.sizes.items()},
            overhead=max(total.overhead, trial.overhead),
            seconds=total.seconds + trial.seconds,
            failures=total.failures + trial.failures,
        )
    return total
