"""Write one partition on a worker: make samples, write chunks, return a receipt.

Samples are encoded one by one, or in blocks of rows, and flushed when a chunk is full. So memory is
bounded by one chunk and one block for a partition of any length. The last chunk is marked as the
last, so a complete partition can be recognised from storage alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it has no types

from dasklake._codecs.frame_cells import values_of_row
from dasklake._links.limits import use_limits
from dasklake._log.creds_keys import check_keys
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure
from dasklake._schema.printable import printable, safe_str
from dasklake._storage.hidden import safe_text, without_secrets
from dasklake._storage.store import ObjectStore
from dasklake._write.batched import BatchWriter
from dasklake._write.chunk_writer import ChunkWriter, write_lost
from dasklake._write.encoder import Block, blocks_of
from dasklake._write.failures import attach, attached, failure_of_sample, never_skipped
from dasklake._write.job import Deliver, Job, Outcome, PartMaker
from dasklake._write.link_queue import LinkQueue, QueuedInput, require_keys
from dasklake._write.retrying import RetryingStore
from dasklake._write.row_blocks import RowBlock
from dasklake.exceptions import (
    LakeNotSharedError,
    NotFoundError,
    PermissionDeniedError,
    RunFailedError,
    SampleError,
    StoreError,
)


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
        deliver(_hidden(outcome))
        return None


def _portable(outcome: Outcome) -> Outcome:
    """Return an outcome that can be pickled; an exception that cannot is replaced."""
    error = outcome.error
    return outcome if error is None else outcome._replace(error=_portable_error(error))


def _portable_error(error: BaseException) -> BaseException:
    """Return an error, or one with its text if it cannot be pickled, printed or encoded."""
    hidden = without_secrets(error)
    if hidden is None:
        return _textual(error)
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
        f"{error!r}{error}".encode()
    except Exception:  # noqa: BLE001 # the exception class is the user's
        return _textual(error)
    return error


def _textual(error: BaseException) -> BaseException:
    """Return an error of dasklake with the text of an error, without its secrets."""
    text = safe_text(f"{printable(type(error).__qualname__)}: {safe_str(error)}")
    return StoreError(text) if never_skipped(error) else RunFailedError(text)


def _hidden(outcome: Outcome) -> Outcome:
    """Return an outcome whose error shows no secret."""
    error = outcome.error
    if error is None or without_secrets(error) is not None:
        return outcome
    return outcome._replace(error=_textual(error))


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
        self.unverified = [name for name, verify in links.items() if not verify]
        self.queue: LinkQueue | None = None
        self.batches: BatchWriter | None = None
        if job.batched:
            self.batches = BatchWriter(job, self.chunks, self.unverified, self._sample_failed)
        elif any(links.values()):
            self.queue = LinkQueue(job.schema)

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
            for verifying in (self.queue, self.batches):
                if verifying is not None:
                    verifying.close()

    def failed(self, error: Exception) -> Outcome:
        """Return the outcome of an attempt that failed as a whole, not in the user's code."""
        return Outcome(None, attached(error) or self._failure(error, None, None), error)

    def _blocks(
        self, makers: tuple[PartMaker, ...], values: Mapping[Any, Any]
    ) -> Iterator[Block | RowBlock]:
        parts = tuple(make(values) for make in makers)
        if self.batches is not None:
            yield from self.batches.blocks(parts)
        else:
            yield from blocks_of(self.job.kind, self.job.names, parts, self.job.index)

    def _run(self, blocks: Iterator[Block | RowBlock]) -> Outcome:
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

    def _write(self, block: Block | RowBlock, position: int) -> Outcome | None:
        """Write a block; return an outcome if it ends the partition."""
        if not isinstance(block, Block):
            return None if self.batches is None else self.batches.write(block, position)
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
