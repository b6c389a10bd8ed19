"""What a worker does: turn one partition into chunks and a receipt.

Samples are encoded as they come and flushed whenever a chunk is full, so memory is bounded by one
chunk however long the partition is. The last chunk says that it is the last, which makes a complete
partition recognisable from storage alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import cloudpickle  # type: ignore[import-untyped] # it has no types

from dasklake._log.creds_keys import check_keys
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure, Receipt
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import ChunkWriter, RunLocation, write_lost
from dasklake._write.encoder import Item, items_of
from dasklake._write.failures import attach, attached, failure_of_sample, never_skipped
from dasklake._write.link_queue import LinkQueue, QueuedInput
from dasklake._write.retrying import RetryingStore
from dasklake.exceptions import (
    LakeNotSharedError,
    NotFoundError,
    PermissionDeniedError,
    RunFailedError,
    SampleError,
    StoreError,
)

__all__ = ["Deliver", "Job", "Outcome", "PartMaker", "bind", "write_partition"]


@dataclass(frozen=True, slots=True)
class Job:
    """What all write tasks of an epoch share; travels as one graph node.

    Attributes
    ----------
    location : RunLocation
        Where the chunks go.
    entry : tuple of (int, str)
        Version and id of the epoch's entry, which every worker has to see.
    schema : Schema
        What is written.
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    names : tuple of str
        Names of the columns or arrays.
    transform : callable or None
        Called with each item; returns a sample.
    kwargs : mapping
        Its further arguments.
    skip : bool
        Whether a failing sample is skipped.
    chunk_size : int
        Bytes after which a chunk is full.
    only : frozenset of int or None
        The partitions to write, where the graph holds more.
    retries : int or None
        How often an attempt that the storage or the machine failed is made again here; None
        where Dask does.
    strict : bool
        Whether the constraints of htypes are checked.
    """

    location: RunLocation
    entry: tuple[int, str]
    schema: Schema
    kind: str
    names: tuple[str, ...] = ()
    transform: Callable[..., Any] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False
    chunk_size: int = 64 << 20
    only: frozenset[int] | None = None
    retries: int | None = None
    strict: bool = True

    def at(self, location: RunLocation, entry: Commit) -> Job:
        """Return the job of the epoch that a commit began."""
        return replace(self, location=location, entry=(entry.version, entry.id))


class Deliver(Protocol):
    """Takes outcomes to the coordinator, where a task's result does not."""

    def __call__(self, outcome: Outcome) -> object:
        """Take one there."""

    def stopped(self) -> bool:
        """Whether nothing has to be written any more: the run has ended, or the task is not wanted."""


class Outcome(NamedTuple):
    """How a write task ended: with a receipt, or at a failure and an error that end the run."""

    receipt: Receipt | None
    failure: Failure | None = None
    error: BaseException | None = None
    interrupt: bool = False


def bind(job: Job, plain: Mapping[str, Any], computed: Mapping[str, Any]) -> Job:
    """Return the job with the arguments of its transform, given and computed by other tasks."""
    return replace(job, kwargs={**plain, **computed})


@dataclass(frozen=True, slots=True)
class PartMaker:
    """Makes the partition of one collection inside the write task.

    Attributes
    ----------
    key : object
        Key of the partition in its graph.
    task : callable or None
        The tasks that only this partition needs, as one, called with the values of those that
        others need too; None where the partition is such a value itself.
    """

    key: Any
    task: Any

    @property
    def needs(self) -> Iterable[Any]:
        """Keys of the values it is made from."""
        return (self.key,) if self.task is None else self.task.dependencies

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Make the partition."""
        return values[self.key] if self.task is None else self.task(values)


def write_partition(
    job: Job,
    partition: int,
    start: int | None,
    deliver: Deliver | None,
    makers: tuple[PartMaker, ...],
    values: Mapping[Any, Any],
) -> object:
    """Write one partition.

    Parameters
    ----------
    job : Job
        What all write tasks share.
    partition : int
        Its number.
    start : int or None
        Place of its first sample in the whole input, where known.
    deliver : Deliver or None
        Takes the outcome to the coordinator; None where the task's result does.
    makers : tuple of PartMaker
        Make the partition of each collection.
    values : mapping
        What they need.

    Returns
    -------
    Outcome or None
        How it ended; None where ``deliver`` took it along, or nothing was to be done.
    """
    if job.only is not None and partition not in job.only:
        return None
    if deliver is not None and deliver.stopped():
        return None
    task = _Task(job, partition, start, deliver.stopped if deliver is not None else _never)
    outcome = _attempts(task, makers, values)
    if deliver is None:
        return _portable(outcome)
    deliver(outcome)
    return None


def _portable(outcome: Outcome) -> Outcome:
    """Return an outcome that can travel as a result: not every exception survives pickling."""
    if outcome.error is not None:
        try:
            cloudpickle.loads(cloudpickle.dumps(outcome.error))
        except Exception:  # noqa: BLE001 # whatever a user's exception class does when it is made
            text = f"{type(outcome.error).__qualname__}: {outcome.error}"
            return outcome._replace(error=RunFailedError(text))
    return outcome


class _Task(NamedTuple):
    """A partition to write, and what tells that nobody waits for it any more."""

    job: Job
    partition: int
    start: int | None
    stopped: Callable[[], bool]


def _never() -> bool:
    """Tell that a task is waited for always."""
    return False


def _attempts(task: _Task, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Outcome:
    """Attempt a partition until the storage and the machine let it; Dask's local schedulers do not.

    What they are left with is an outcome: raised, it would take the other tasks down.
    """
    left = task.job.retries
    while True:
        attempt = _Attempt(task)
        try:
            return attempt.run(makers, values)
        except Exception as error:
            if left is None:
                raise
            if not left or task.stopped():
                return attempt.failed(error)
            left -= 1


def check_shared(job: Job) -> None:
    """Look once in each process whether the storage here is the lake's, and links can be read."""
    entry = _check_shared(job.location.store, job.location.branch, *job.entry)
    if any(spec.linked for spec in job.schema.values()):
        check_keys(entry, managed=True)


@lru_cache(maxsize=64)
def _check_shared(store: ObjectStore, branch: str, version: int, commit_id: str) -> Commit:
    try:
        found: Commit | None = Log(store, branch).read(version)
    except NotFoundError:
        found = None
    if found is None or found.id != commit_id:
        raise LakeNotSharedError(
            f"Worker {socket.gethostname()} (process {os.getpid()}) does not see the lake under "
            f"{store.url}: version {version} is {'another' if found else 'not there'}. Use "
            "storage that every worker reaches under the same URL."
        )
    return found


class _Attempt:
    """One attempt at a partition: goes through its items and decides what a failure means."""

    def __init__(self, task: _Task) -> None:
        self.job = job = task.job
        self.partition = task.partition
        self.start = task.start
        self.storage = RetryingStore(job.location.store, task.stopped)
        self.chunks = ChunkWriter(
            job.location,
            job.schema,
            task.partition,
            job.chunk_size,
            self.storage.put,
            strict=job.strict,
        )
        self.links = LinkQueue(job.schema)

    def run(self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Outcome:
        """Write the partition and say how it ended."""
        try:
            self.storage.call(lambda: check_shared(self.job))
            return self._run(self._items(makers, values))
        except StoreError as error:
            if error is not self.storage.refusal:
                raise
            # Not raised: Dask would try again, and hide it where other workers fare better.
            return self.failed(error)
        except (KeyboardInterrupt, SystemExit) as error:
            # Uncaught they would take the worker down, four times, and the cause with it.
            return Outcome(None, self._failure(error, None, None), error, interrupt=True)
        finally:
            self.links.close()

    def failed(self, error: Exception) -> Outcome:
        """Return how an attempt ends that failed as a whole, and not by the user's code."""
        return Outcome(None, attached(error) or self._failure(error, None, None), error)

    def _items(self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Iterator[Item]:
        parts = tuple(make(values) for make in makers)
        yield from items_of(self.job.kind, self.job.names, parts)

    def _run(self, items: Iterable[Item]) -> Outcome:
        iterator, inputs = iter(items), 0
        while True:
            try:
                item = next(iterator, None)
            except Exception as error:
                if never_skipped(error):
                    raise
                # After an exception the iterator may hide the rest: it is not asked again.
                return self._partition_failed(error)
            if item is None:
                return self._settle(all_of_them=True) or Outcome(self.chunks.finish(inputs))
            failed = self._write(item, inputs)
            if failed is not None:
                return failed
            inputs += item.count
            # Gone before the next one is made: large arrays then take turns in the same memory.
            del item

    def _write(self, item: Item, position: int) -> Outcome | None:
        """Write an item, or a block of them; an outcome where that ends the partition."""
        if item.columns is not None and self.job.transform is None:
            try:
                columns = self.chunks.encoder.encode_block(item.columns)
            except SampleError:
                columns = None  # sample by sample, to find and name it
            if columns is not None:
                self.chunks.extend(columns)
                return None
        for offset, value in enumerate(item.values()):
            waiting = QueuedInput(position + offset, value)
            try:
                made = self._transform(value)
                waiting.samples += self.chunks.encoder.encode_all(
                    made, transformed=self.job.transform is not None
                )
                self.links.put(waiting)
            except Exception as error:  # noqa: BLE001 # judged in its turn
                self.links.fail(waiting, error)
            ends = waiting.error is not None and (not self.job.skip or never_skipped(waiting.error))
            ended = self._settle(all_of_them=ends)
            if ended is not None:
                return ended
        return None

    def _settle(self, *, all_of_them: bool) -> Outcome | None:
        """Add the samples whose turn it is; an outcome where one of them ends the partition."""
        for waiting in self.links.settled(all_of_them=all_of_them):
            try:
                waiting.settle(self.job.schema)
                for encoded in waiting.samples:
                    self.chunks.add(encoded)
            except Exception as error:
                failure = self._failure(error, waiting.position, waiting.item)
                if isinstance(error, PermissionDeniedError):
                    self.storage.refusal = error
                if never_skipped(error):
                    attach(error, failure)
                    raise
                if not self.job.skip:
                    return Outcome(None, failure, error)
                self.chunks.failures.append(failure)
        return None

    def _transform(self, value: Any) -> Any:
        if self.job.transform is None:
            return value
        return self.job.transform(value, **self.job.kwargs)

    def _partition_failed(self, error: Exception) -> Outcome:
        failure = self._failure(error, None, None)
        if not self.job.skip:
            return self._settle(all_of_them=True) or Outcome(None, failure, error)
        return Outcome(write_lost(self.job.location, self.job.schema, failure, self.storage.put))

    def _failure(self, error: BaseException, position: int | None, item: Any) -> Failure:
        return failure_of_sample(
            self.job.location.run, self.partition, error, (self.start, position), item
        )
