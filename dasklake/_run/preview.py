"""Before a long job: some items go all the way into memory, and say what the whole will take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from dask._task_spec import Task

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import read_failures
from dasklake._log.log import Log
from dasklake._log.transactions import create_lake
from dasklake._model.receipt import Failure, Receipt
from dasklake._run.progress import CheckpointInterval
from dasklake._schema.schema import Schema, describe
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import Place
from dasklake._write.graph import Delivery, write_graph
from dasklake._write.input import Source
from dasklake._write.partition import Job, Outcome, PartMaker, write_partition

__all__ = ["Preview", "Trial", "preview_write", "try_partition"]

#: Partitions that are looked into for items, at most.
_PARTITIONS = 8

#: Failures that a preview shows.
_SHOWN = 5

#: Requests before the first task: the lake is made, and the run begun.
_BEGIN = 10


class Trial(NamedTuple):
    """What became of the first items of one partition.

    Attributes
    ----------
    inputs, samples : int
        Items that were tried, and samples that were made of them.
    sizes : dict of str to int
        Bytes of each tensor, as chunks store them.
    overhead : int
        Bytes of a chunk that are of no tensor.
    seconds : float
        How long it took, the reading of the input included.
    failures : tuple of Failure
        What failed.
    """

    inputs: int
    samples: int
    sizes: dict[str, int]
    overhead: int
    seconds: float
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a write would do, judged by some items that went through everything.

    Attributes
    ----------
    schema : Schema
        What would be written.
    inputs, samples : int
        Items that were tried, and samples that were made of them.
    sizes : mapping of str to int
        Bytes of each tensor of these samples, as stored.
    overhead : int
        Bytes of a chunk that are of no tensor.
    seconds : float
        How long they took, one after the other.
    failures : tuple of Failure
        Those of them that failed.
    total : int or None
        Items of the whole input, where known.
    partitions, workers : int
        Partitions of the input, and how many can be written at the same time.
    chunk_size : int
        Bytes after which a chunk is full.
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
        """Bytes of all chunks; None where the number of items is not known."""
        values = self._scaled(sum(self.sizes.values()))
        return None if values is None else values + self._chunks(values) * self.overhead

    @property
    def estimated_seconds(self) -> float | None:
        """How long the write would take; None where the number of items is not known."""
        whole = self._scaled(self.seconds * 1e6)
        return None if whole is None else whole / 1e6 / min(self.workers, self.partitions)

    @property
    def estimated_commits(self) -> int | None:
        """Data commits; None where the number of items is not known."""
        if self.total is None or self.estimated_seconds is None:
            return None
        wanted = 1
        if self.interval.inputs is not None:
            wanted = math.ceil(self.total / self.interval.inputs)
        elif self.interval.seconds is not None:
            wanted = math.ceil(self.estimated_seconds / self.interval.seconds)
        return max(1, min(wanted, self.partitions))

    @property
    def estimated_objects(self) -> int | None:
        """Chunks, segments and commits; None where the number of items is not known."""
        values = self._scaled(sum(self.sizes.values()))
        if values is None or self.estimated_commits is None:
            return None
        return self._chunks(values) + 2 * self.estimated_commits + 2

    @property
    def estimated_requests(self) -> int | None:
        """Requests that write; None where the number of items is not known."""
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
        made = f"{self.inputs} items made {self.samples} samples in {self.seconds:.2f} s"
        lines = [f"Preview: {made}; nothing was written."]
        rows = max(self.samples, 1)
        width = max(map(len, self.schema), default=0)
        return lines + [
            f"  {name:<{width}}  {_size(self.sizes.get(name, 0) / rows):>9} a sample  "
            f"{describe(spec)}"
            for name, spec in self.schema.items()
        ]

    def _whole(self) -> list[str]:
        size, seconds = self.estimated_bytes, self.estimated_seconds
        if size is None or seconds is None:
            return [f"The whole: {self.partitions} partitions, of a number of items not known."]
        amount = f"{_size(size)}, {_time(seconds)} on {_number(self.workers, 'worker')}"
        counts = (
            _number(self.estimated_objects, "object"),
            _number(self.estimated_requests, "request"),
            _number(self.estimated_commits, "commit"),
        )
        return [
            f"The whole: {_number(self.total, 'item')} in {_number(self.partitions, 'partition')}:",
            f"  about {amount}, {', '.join(counts)}.",
        ]

    def _failed(self) -> list[str]:
        if not self.failures:
            return ["No item failed."]
        lines = [f"{_number(len(self.failures), 'item')} failed:"]
        for each in self.failures[:_SHOWN]:
            where = each.index if each.index is not None else f"partition {each.partition}"
            lines.append(f"  {where} ({each.item}): {each.exception}: {each.message}")
        return lines


def _number(count: int | None, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{max(seconds, 0.1):.1f} s"


class _Head:
    """Makes the first items of a partition.

    Parameters
    ----------
    maker : PartMaker
        Makes the partition.
    most : int
        Items at most.
    """

    def __init__(self, maker: PartMaker, most: int) -> None:
        self.maker = maker
        self.most = most

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Make them."""
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
    """Write the first items of a partition to a lake in the memory of this process, and drop it.

    Parameters
    ----------
    most : int
        Items at most.
    job, partition, start, makers, values
        As for :func:`dasklake._write.partition.write_partition`.
    """
    store = ObjectStore(f"memory://dasklake-preview/{object_keys.new_id()}")
    try:
        entry, _ = create_lake(Log(store), job.schema)
        place = Place(store, object_keys.home_of("main", "preview"), "preview", 1)
        trial = replace(
            job, place=place, entry=(entry.version, entry.id), skip=True, only=None, retries=0
        )
        heads: Any = tuple(_Head(maker, most) for maker in makers)
        began = time.perf_counter()
        outcome = write_partition(trial, partition, start, None, heads, values)
        seconds = time.perf_counter() - began
        if not isinstance(outcome, Outcome) or outcome.receipt is None:
            failure = outcome.failure if isinstance(outcome, Outcome) else None
            return Trial(most, 0, {}, 0, seconds, (failure,) if failure is not None else ())
        return _weighed(trial, outcome.receipt, seconds)
    finally:
        store.delete([key for key, _ in store.walk("")])


def _weighed(job: Job, receipt: Receipt, seconds: float) -> Trial:
    store = job.place.store
    sizes = dict.fromkeys(job.schema, 0)
    for chunk in receipt.chunks:
        key = object_keys.chunk_key(
            job.place.home, receipt.partition, 1, receipt.attempt, chunk.chunk
        )
        head = ChunkHead.parse(store.get(key), chunk.size, key)
        for name in sizes:
            sizes[name] += sum(stop - begin for begin, stop in head.spans(name))
    failures = receipt.failures
    if receipt.failures_key is not None:
        data = store.get(receipt.failures_key)
        failures = tuple(read_failures(data, None, receipt.failures_key))
    overhead = (receipt.size - sum(sizes.values())) // max(1, len(receipt.chunks))
    return Trial(receipt.inputs, receipt.samples, sizes, overhead, seconds, failures)


def preview_write(
    source: Source,
    job: Job,
    kwargs: Mapping[str, Any],
    most: int,
    get: Callable[..., Any],
) -> list[Trial]:
    """Try the first items of an input.

    Parameters
    ----------
    source : Source
        The input.
    job : Job
        What the write tasks would share, but for the place.
    kwargs : mapping
        Further arguments of the transform.
    most : int
        Items at most.
    get : callable
        Dask's scheduler function.
    """
    trials: list[Trial] = []
    for partition in range(min(len(source.parts), _PARTITIONS)):
        left = most - sum(trial.inputs for trial in trials)
        if left <= 0:
            break
        name = f"preview-{object_keys.new_id()[:8]}"
        graph = write_graph(source, job, kwargs, [partition], Delivery(name))
        (key,) = graph.keys
        shared, number, start, _, makers, refs = graph.tasks[key].args  # type: ignore[attr-defined] # a Task, made there
        task = Task(key, try_partition, left, shared, number, start, makers, refs)
        trials += get({**graph.tasks, key: task}, [key])
    return trials
