"""What a worker does: turn one partition into chunks and a receipt.

Samples are encoded as they come and flushed whenever a chunk is full, so memory is bounded by one
chunk however long the partition is. The last chunk says that it is the last, which makes a complete
partition recognisable from storage alone.
"""

from __future__ import annotations

import errno
import os
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from dasklake._format import layout
from dasklake._format.chunk import ChunkHeader, write_chunk
from dasklake._format.columns import ColumnBuilder
from dasklake._format.segment import failures_bytes
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake._model.schema import Schema
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore
from dasklake._write.sample import Encoder, Item, items_of
from dasklake.exceptions import (
    CorruptionError,
    LakeNotSharedError,
    MissingExtraError,
    NotFoundError,
    SampleError,
    StoreError,
)

__all__ = ["Deliver", "Job", "Outcome", "Place", "write_lost", "write_partition"]

#: More failures of one partition than this lie in an object of their own, so that receipts and
#: chunk heads stay small.
_INLINE_FAILURES = 8

#: Characters kept of an item, a message and a traceback.
_ITEM, _MESSAGE, _TRACEBACK = 120, 500, 4000

#: Never a property of one sample: the run must stop, or Dask must try again.
_NEVER_SKIPPED = (
    MemoryError,
    PermissionError,
    ConnectionError,
    TimeoutError,
    StoreError,
    CorruptionError,
    MissingExtraError,
)
_NEVER_SKIPPED_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the chunks of an epoch of a run go.

    Attributes
    ----------
    store : ObjectStore
        The lake's objects.
    home : str
        ``<branch>/<run>``.
    run : str
        The run.
    epoch : int
        The epoch.
    """

    store: ObjectStore
    home: str
    run: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Job:
    """What all write tasks of an epoch share; travels as one graph node.

    Attributes
    ----------
    place : Place
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
    """

    place: Place
    entry: tuple[int, str]
    schema: Schema
    kind: str
    names: tuple[str, ...] = ()
    transform: Callable[..., Any] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False
    chunk_size: int = 64 << 20
    only: frozenset[int] | None = None


class Deliver(Protocol):
    """Takes outcomes to the coordinator, where a task's result does not."""

    def __call__(self, outcome: Outcome) -> object:
        """Take one there."""

    def stopped(self) -> bool:
        """Whether the run has ended, so that nothing has to be written any more."""


class Outcome(NamedTuple):
    """How a write task ended: with a receipt, or at a failure that ends the run."""

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
    check_shared(job)
    outcome = _Attempt(job, partition, start).run(makers, values)
    if deliver is None:
        return outcome
    deliver(outcome)
    return None


def check_shared(job: Job) -> None:
    """Look once in each process whether the storage here is the lake's."""
    _check_shared(job.place.store, job.place.home, *job.entry)


@lru_cache(maxsize=64)
def _check_shared(store: ObjectStore, home: str, version: int, commit_id: str) -> None:
    branch = home.partition("/")[0]
    try:
        found: str | None = Log(store, branch).read(version).id
    except NotFoundError:
        found = None
    if found != commit_id:
        raise LakeNotSharedError(
            f"Worker {socket.gethostname()} (process {os.getpid()}) does not see the lake under "
            f"{store.url}: version {version} is {'another' if found else 'not there'}. Use "
            "storage that every worker reaches under the same URL."
        )


def write_lost(place: Place, schema: Schema, failure: Failure) -> Receipt:
    """Write the empty chunk of a partition that failed as a whole, and return its receipt."""
    attempt = _Chunks(place, schema, failure.partition, 0)
    attempt.failures.append(failure)
    return attempt.finish(0)


class _Chunks:
    """The chunks of one attempt at a partition."""

    def __init__(self, place: Place, schema: Schema, partition: int, chunk_size: int) -> None:
        self.place = place
        self.partition = partition
        self.chunk_size = chunk_size
        self.attempt = layout.new_id()
        self.encoder = Encoder(schema)
        self.builders: dict[str, ColumnBuilder] = self.encoder.builders()
        self.chunks: list[ChunkRef] = []
        self.failures: list[Failure] = []

    @property
    def rows(self) -> int:
        return next(iter(self.builders.values())).rows

    def add(self, encoded: Mapping[str, Any]) -> None:
        """Add one encoded sample; a full chunk is written when the next sample comes."""
        if self.rows and sum(b.nbytes for b in self.builders.values()) >= self.chunk_size:
            self._flush(last=False, inputs=0)
        for name, builder in self.builders.items():
            builder.append(encoded[name])
        if any(builder.borrowed for builder in self.builders.values()):
            # Too large to copy: written before the user's code can change it.
            self._flush(last=False, inputs=0)

    def extend(self, columns: Mapping[str, Any]) -> None:
        """Add many encoded samples, cut into chunks."""
        rows = len(next(iter(columns.values())))
        size = sum(column.nbytes for column in columns.values())
        step = max(1, int(rows * self.chunk_size / max(size, 1)))
        for begin in range(0, rows, step):
            if self.rows:
                self._flush(last=False, inputs=0)
            for name, builder in self.builders.items():
                builder.extend(columns[name].slice(begin, step))

    def finish(self, inputs: int) -> Receipt:
        """Write the last chunk and return the receipt."""
        few = tuple(self.failures) if len(self.failures) <= _INLINE_FAILURES else ()
        key = None
        if self.failures and not few:
            key = layout.partition_failures_key(
                self.place.home, self.partition, self.place.epoch, self.attempt
            )
            self.place.store.put(key, failures_bytes(self.failures))
        self._flush(last=True, inputs=inputs, failures=few, failures_key=key)
        return Receipt(
            run=self.place.run,
            epoch=self.place.epoch,
            partition=self.partition,
            attempt=self.attempt,
            chunks=tuple(self.chunks),
            inputs=inputs,
            failures=few,
            failures_key=key,
            failed=len(self.failures),
        )

    def _flush(
        self,
        *,
        last: bool,
        inputs: int,
        failures: tuple[Failure, ...] = (),
        failures_key: str | None = None,
    ) -> None:
        number = len(self.chunks)
        branch, _, run = self.place.home.partition("/")
        header = ChunkHeader(
            branch=branch,
            run=run,
            epoch=self.place.epoch,
            partition=self.partition,
            attempt=self.attempt,
            chunk=number,
            last=last,
            inputs=inputs,
            failures=failures,
            failures_key=failures_key,
            failed=len(self.failures) if last else 0,
        )
        columns = [column for b in self.builders.values() for column in b.finish()]
        chunk = write_chunk(columns, header)
        key = layout.chunk_key(
            self.place.home, self.partition, self.place.epoch, self.attempt, number
        )
        self.place.store.put(key, chunk.data)
        size = len(chunk.data)
        self.chunks.append(ChunkRef(number, chunk.rows, size, chunk.head, chunk.crc))
        self.builders = self.encoder.builders()


class _Attempt:
    """One attempt at a partition: goes through its items and decides what a failure means."""

    def __init__(self, job: Job, partition: int, start: int | None) -> None:
        self.job = job
        self.partition = partition
        self.start = start
        self.chunks = _Chunks(job.place, job.schema, partition, job.chunk_size)

    def run(self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Outcome:
        """Write the partition and say how it ended."""
        try:
            return self._run(self._items(makers, values))
        except (KeyboardInterrupt, SystemExit) as error:
            # Uncaught they would take the worker down, four times, and the cause with it.
            return Outcome(None, None, error, interrupt=True)

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
                return Outcome(self.chunks.finish(inputs))
            failed = self._write(item, inputs)
            if failed is not None:
                return failed
            inputs += item.count

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
            try:
                sample = self._transform(value)
                self.chunks.add(self.chunks.encoder.encode(sample))
            except Exception as error:
                if never_skipped(error):
                    raise
                failure = self._failure(error, position + offset, value)
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
            return Outcome(None, failure, error)
        return Outcome(write_lost(self.job.place, self.job.schema, failure))

    def _failure(self, error: BaseException, position: int | None, item: Any) -> Failure:
        known = self.start is not None and position is not None
        return Failure(
            run=self.job.place.run,
            partition=self.partition,
            position=position,
            index=(self.start or 0) + (position or 0) if known else None,
            item=None if position is None else describe_item(item),
            tensor=error.tensor if isinstance(error, SampleError) else None,
            exception=type(error).__qualname__,
            message=_shorten(str(error), _MESSAGE),
            traceback=_shorten(_trace(error), _TRACEBACK),
        )


def never_skipped(error: BaseException | None) -> bool:
    """Whether an error says something of the storage or the machine, not of a sample."""
    return isinstance(error, _NEVER_SKIPPED) or (
        isinstance(error, OSError) and error.errno in _NEVER_SKIPPED_ERRNO
    )


def describe_item(item: Any) -> str:
    """Show an item as far as it helps to find it again."""
    if isinstance(item, Mapping):
        inside = ", ".join(f"{key!r}: {describe_item(value)}" for key, value in item.items())
        return _shorten(f"{{{inside}}}", _ITEM)
    if hasattr(item, "shape") and hasattr(item, "dtype") and bool(getattr(item, "ndim", 0)):
        return f"array of shape {tuple(item.shape)} and dtype {item.dtype}"
    return _shorten(repr(item), _ITEM)


def _shorten(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]} … {text[-half:]}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def failure_of_task(
    run: str, partition: int, error: BaseException | None, text: str, message: str | None = None
) -> Failure:
    """Describe a partition whose task failed before our part of it was reached.

    Parameters
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    error : BaseException or None
        What was raised, where it could be brought here.
    text : str
        Its traceback.
    message : str, optional
        Its message, where the error itself could not be brought here.
    """
    name = type(error).__qualname__ if error is not None else "Exception"
    said = str(error) if error is not None else str(message)
    return Failure(
        run=run,
        partition=partition,
        position=None,
        index=None,
        item=None,
        tensor=None,
        exception=name,
        message=_shorten(said, _MESSAGE),
        traceback=_shorten(text, _TRACEBACK),
    )
