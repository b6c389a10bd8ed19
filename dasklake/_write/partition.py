"""Write one partition on a worker: make samples, write chunks, return a receipt.

Samples are encoded one by one and flushed when a chunk is full, so memory is bounded by one chunk
for a partition of any length. The last chunk is marked as the last. A complete partition can thus be
recognised from storage alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import cloudpickle  # type: ignore[import-untyped] # it has no types

from dasklake._codecs.frame_cells import values_of_row
from dasklake._links.limits import LinkLimits, use_limits
from dasklake._log.creds_keys import check_keys
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure, Receipt
from dasklake._schema.printable import printable, safe_str
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import ChunkWriter, RunLocation, write_lost
from dasklake._write.encoder import Block, blocks_of
from dasklake._write.failures import attach, attached, failure_of_sample, never_skipped
from dasklake._write.link_queue import LinkQueue, QueuedInput, require_keys
from dasklake._write.retrying import RetryingStore
from dasklake.exceptions import (
    LakeNotSharedError,
    NotFoundError,
    PermissionDeniedError,
    RunFailedError,
    SampleError,
    StoreError,
)


@dataclass(frozen=True, slots=True)
class Job:
    """The common parameters of an epoch's write tasks; one node of the graph.

    Attributes
    ----------
    location : RunLocation
        Destination of the chunks.
    entry : tuple of (int, str)
        Version and id of the commit that began the epoch, which every worker has to see.
    schema : Schema
        Schema of the samples.
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    names : tuple of str
        Names of the columns or arrays.
    index : tuple of str
        For each level of the index of a frame, its tensor, or an empty name.
    lake_columns : frozenset of str
        Columns of a frame that come from a lake, in the types of pandas.
    transform : callable or None
        Called with each item; returns a sample.
    kwargs : mapping
        Further arguments of the transform.
    skip : bool
        Whether failing samples are skipped.
    chunk_size : int
        Size at which a chunk is full, in bytes.
    only : frozenset of int or None
        The partitions to write, if the graph has more.
    retries : int or None
        Number of times an attempt is repeated here after a failure of the storage or the machine;
        None if Dask repeats it.
    strict : bool
        Whether the constraints of htypes are checked.
    links : LinkLimits
        Limits for reading the targets of links.
    """

    location: RunLocation
    entry: tuple[int, str]
    schema: Schema
    kind: str
    names: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    lake_columns: frozenset[str] = frozenset()
    transform: Callable[..., Any] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    skip: bool = False
    chunk_size: int = 64 << 20
    only: frozenset[int] | None = None
    retries: int | None = None
    strict: bool = True
    links: LinkLimits = field(default_factory=LinkLimits)

    def at(self, location: RunLocation, entry: Commit) -> Job:
        """Return the job of the epoch that a commit began."""
        return replace(self, location=location, entry=(entry.version, entry.id))


class Deliver(Protocol):
    """Sends outcomes to the coordinator, if the results of tasks do not reach it."""

    def __call__(self, outcome: Outcome) -> object:
        """Send an outcome."""

    def stopped(self) -> bool:
        """Return whether the run has ended or the task was cancelled."""


class Outcome(NamedTuple):
    """Outcome of a write task: a receipt, or the failure and the error that end the run."""

    receipt: Receipt | None
    failure: Failure | None = None
    error: BaseException | None = None
    interrupt: bool = False


def bind(job: Job, plain: Mapping[str, Any], computed: Mapping[str, Any]) -> Job:
    """Return the job with the arguments of its transform, both plain and computed by tasks."""
    return replace(job, kwargs={**plain, **computed})


@dataclass(frozen=True, slots=True)
class PartMaker:
    """Computes the partition of one collection inside the write task.

    Attributes
    ----------
    key : object
        Key of the partition in its graph.
    task : callable or None
        The tasks that only this partition needs, fused; called with the results of shared tasks.
        None if the partition itself is such a result.
    """

    key: Any
    task: Any

    @property
    def needs(self) -> Iterable[Any]:
        """Keys of the results that the partition is computed from."""
        return (self.key,) if self.task is None else self.task.dependencies

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Return the partition."""
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
        The common parameters of the write tasks.
    partition : int
        Number of the partition.
    start : int or None
        Index of its first sample in the whole input, if known.
    deliver : Deliver or None
        Sends the outcome to the coordinator; None if the task returns it.
    makers : tuple of PartMaker
        Compute the partition of each collection.
    values : mapping
        Results of other tasks, by key.

    Returns
    -------
    Outcome or None
        The outcome; None if ``deliver`` sent it, or if there was nothing to write.
    """
    if job.only is not None and partition not in job.only:
        return None
    if deliver is not None and deliver.stopped():
        return None
    stopped = deliver.stopped if deliver is not None else lambda: False
    retries = job.retries
    while True:
        attempt = _Attempt(job, partition, start, stopped)
        replacement: BaseException | None = None
        try:
            outcome = attempt.run(makers, values)
        except Exception as error:
            if retries is None:
                replacement = _portable_error(error)
                if replacement is error:
                    raise
                attach(replacement, attempt.failed(error).failure)
            # Dask's local schedulers do not retry, and a raised error would end the other tasks.
            if retries and not stopped():
                retries -= 1
                continue
            outcome = attempt.failed(error)
        if replacement is not None:
            # Raised out of the handler, because Dask would pickle the context, too.
            raise replacement
        if deliver is None:
            return _portable(outcome)
        deliver(outcome)
        return None


def _portable(outcome: Outcome) -> Outcome:
    """Return an outcome that can be pickled; an exception that cannot is replaced."""
    error = outcome.error
    return outcome if error is None else outcome._replace(error=_portable_error(error))


def _portable_error(error: BaseException) -> BaseException:
    """Return an error, or one with its text if it cannot be pickled, printed or encoded."""
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
        f"{error!r}{error}".encode()
    except Exception:  # noqa: BLE001 # the exception class is the user's
        text = f"{printable(type(error).__qualname__)}: {safe_str(error)}"
        return StoreError(text) if never_skipped(error) else RunFailedError(text)
    return error


def check_shared(job: Job) -> None:
    """Check once in each process that it sees the lake, and has the credentials of links."""
    entry = _check_shared(job.location.store, job.location.branch, *job.entry)
    if any(spec.linked for spec in job.schema.values()):
        check_keys(entry, managed=True)


@lru_cache(maxsize=64)
def _check_shared(store: ObjectStore, branch: str, version: int, commit_id: str) -> Commit:
    try:
        commit: Commit | None = Log(store, branch).read(version)
    except NotFoundError:
        commit = None
    if commit is None or commit.id != commit_id:
        raise LakeNotSharedError(
            f"Worker {socket.gethostname()} (process {os.getpid()}) does not see the lake under "
            f"{store.url}: version {version} {'differs' if commit else 'does not exist'} there. Use "
            "storage that every worker reaches under the same URL."
        )
    return commit


class _Attempt:
    """One attempt at a partition: writes its samples and judges its failures."""

    def __init__(
        self, job: Job, partition: int, start: int | None, stopped: Callable[[], bool]
    ) -> None:
        self.job = job
        self.partition = partition
        self.start = start
        self.storage = RetryingStore(job.location.store, stopped)
        self.chunks = ChunkWriter(
            job.location,
            job.schema,
            partition,
            job.chunk_size,
            self.storage.put,
            strict=job.strict,
        )
        links = {name: spec.verify for name, spec in job.schema.items() if spec.linked}
        self.queue = LinkQueue(job.schema) if any(links.values()) else None
        self.unverified = [name for name, verify in links.items() if not verify]

    def run(self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Outcome:
        """Write the partition, and return the outcome."""
        try:
            self.storage.call(lambda: check_shared(self.job))
            with use_limits(self.job.links):
                return self._run(self._blocks(makers, values))
        except StoreError as error:
            if error is not self.storage.refusal:
                raise
            # Not raised: Dask would retry, and hide the error if another worker succeeds.
            return self.failed(error)
        except (KeyboardInterrupt, SystemExit) as error:
            # Uncaught, they would end the worker four times, and the cause would be lost.
            return Outcome(None, self._failure(error, None, None), error, interrupt=True)
        finally:
            if self.queue is not None:
                self.queue.close()

    def failed(self, error: Exception) -> Outcome:
        """Return the outcome of an attempt that failed as a whole, not in the user's code."""
        return Outcome(None, attached(error) or self._failure(error, None, None), error)

    def _blocks(self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]) -> Iterator[Block]:
        parts = tuple(make(values) for make in makers)
        yield from blocks_of(self.job.kind, self.job.names, parts, self.job.index)

    def _run(self, blocks: Iterator[Block]) -> Outcome:
        inputs = 0
        while True:
            try:
                block = next(blocks, None)
            except Exception as error:
                if never_skipped(error):
                    raise
                # An iterator that raised may hide its remaining items, so it is not continued.
                return self._partition_failed(error)
            if block is None:
                return self._add_ready(flush=True) or Outcome(self.chunks.finish(inputs))
            outcome = self._write(block, inputs)
            if outcome is not None:
                return outcome
            inputs += block.count
            # Freed before the next block is made, so that large arrays reuse the same memory.
            del block

    def _write(self, block: Block, position: int) -> Outcome | None:
        """Write a block; return an outcome if it ends the partition."""
        if block.columns is not None and self.job.transform is None:
            try:
                columns = self.chunks.encoder.encode_block(block.columns)
            except SampleError:
                columns = None  # encoded one by one, to find and name the sample
            if columns is not None:
                self.chunks.extend(columns)
                return None
        if self.queue is None:
            write = partial(self._add, block)
        else:
            write = partial(self._enqueue, self.queue, block)
        for row, item in enumerate(block.items(), position):
            outcome = write(row, item)
            if outcome is not None:
                return outcome
        return None

    def _samples(self, block: Block, item: Any) -> list[dict[str, Any]]:
        """Transform an item, and encode the samples made from it."""
        transform = self.job.transform
        sample = block.sample(item) if transform is None else transform(item, **self.job.kwargs)
        if self.job.kind == "dataframe" and transform is None:
            sample = values_of_row(sample, self.job.schema, self.job.lake_columns)
        samples = self.chunks.encoder.encode_all(sample, transformed=transform is not None)
        require_keys(self.unverified, samples)
        return samples

    def _add(self, block: Block, row: int, item: Any) -> Outcome | None:
        """Write the samples of an item; return an outcome if it ends the partition."""
        try:
            for sample in self._samples(block, item):
                self.chunks.add(sample)
        except Exception as error:  # noqa: BLE001 # judged there
            return self._sample_failed(error, row, item)
        return None

    def _enqueue(self, queue: LinkQueue, block: Block, row: int, item: Any) -> Outcome | None:
        """Put an item in the queue, and write the samples that are ready."""
        queued, flush = QueuedInput(row, item), False
        try:
            queued.samples += self._samples(block, item)
            queue.put(queued)
        except Exception as error:  # noqa: BLE001 # judged after the samples before it
            queue.fail(queued, error)
            flush = not self.job.skip or never_skipped(error)
        return self._add_ready(flush=flush)

    def _add_ready(self, *, flush: bool) -> Outcome | None:
        """Write the samples that leave the queue; return an outcome if one ends the partition."""
        for queued in self.queue.ready(flush=flush) if self.queue is not None else ():
            try:
                queued.settle(self.job.schema)
                for sample in queued.samples:
                    self.chunks.add(sample)
            except Exception as error:  # noqa: BLE001 # judged there
                outcome = self._sample_failed(error, queued.position, queued.item)
                if outcome is not None:
                    return outcome
        return None

    def _sample_failed(self, error: Exception, row: int, item: Any) -> Outcome | None:
        """Record the failure of a sample; raise it, or return the outcome, if it is not skipped."""
        failure = self._failure(error, row, item)
        if isinstance(error, PermissionDeniedError):
            self.storage.refusal = error
        if never_skipped(error):
            attach(error, failure)
            raise error
        if not self.job.skip:
            return Outcome(None, failure, error)
        self.chunks.failures.append(failure)
        return None

    def _partition_failed(self, error: Exception) -> Outcome:
        failure = self._failure(error, None, None)
        if not self.job.skip:
            return self._add_ready(flush=True) or Outcome(None, failure, error)
        return Outcome(write_lost(self.job.location, self.job.schema, failure, self.storage.put))

    def _failure(self, error: BaseException, position: int | None, item: Any) -> Failure:
        return failure_of_sample(
            self.job.location.run, self.partition, error, (self.start, position), item
        )
