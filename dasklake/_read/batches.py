"""Read samples batch by batch, ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.batch_options import BatchOptions, Forms
from dasklake._read.collate import Batch, Collator, PendingBatch
from dasklake._read.order import Order, default_block
from dasklake._read.read_ahead import read_ahead
from dasklake._read.reader import Reader
from dasklake._read.rows import PackedRows, Rows, pack_rows, unpack_rows
from dasklake._read.shards import (
    BatchRows,
    LoaderState,
    Shards,
    batch_rows,
    check_state,
    make_state,
    order_digest,
    parse_state,
)
from dasklake._schema.argument_types import check_arguments
from dasklake.exceptions import InvalidInputError, LakeError

__all__ = ["Batches", "take"]

#: Most threads that decode by default: more of them rarely help, and other loaders run beside them.
_MAX_THREADS = 4

#: Bytes that are read together from a disk: in order, so that they stay in the processor's cache, and
#: out of order, so that each chunk has several samples. Share of the read-ahead on other storage.
_LOCAL_UNIT, _SCATTERED_UNIT = 4 * 2**20, 8 * 2**20
_REMOTE_SHARE = 16

#: Share of the read-ahead that a window of shuffled blocks takes: one is used, the next one is read, and
#: the batches that wait keep the blocks of the last one.
_WINDOW_SHARE = 8

#: Batches that are decoded ahead of the one that is used.
_DECODED_AHEAD = 2


def take(reader: Reader, rows: npt.NDArray[np.int64], forms: Forms, threads: int = 0) -> Batch:
    """Return some samples as columns.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    rows : numpy.ndarray
        int64: numbers of the samples.
    forms : mapping of str to Form
        The tensors, and the forms of their values.
    threads : int, default 0
        Threads that decode; 0 for the default.
    """
    fetched = reader.fetcher.fetch(rows, forms)
    threads = min(threads or default_threads(), len(rows))
    if threads < 2 or not Collator.needs_pool(reader.schema, forms):
        return (
            Collator(reader.origin, reader.fetcher.tensors, forms)
            .start(fetched, 0, len(rows))
            .result()
        )
    with ThreadPoolExecutor(threads, "dasklake-decode") as pool:
        collator = Collator(
            reader.origin, reader.fetcher.tensors, forms, threads=threads, pool=pool
        )
        return collator.start(fetched, 0, len(rows)).result()


def default_threads() -> int:
    """Return the number of threads that decode by default."""
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


@check_arguments
class Batches:
    """Batches of samples, as returned by :meth:`Lake.batches`.

    An iterable of dicts with an array or a list for each tensor. Its length is the number of batches.
    Each iteration reads the same samples in the same order, and ends its threads when it ends.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    rows : range or numpy.ndarray
        Numbers of the samples, in reading order.
    options : BatchOptions
        The options.

    Attributes
    ----------
    padding : int
        Samples at the end of the last batch that was yielded, which repeat others so that all
        processes have equally many.
    """

    def __init__(self, reader: Reader, rows: Rows, options: BatchOptions) -> None:
        self._reader = reader
        self._rows = rows
        self._options = options
        self._shards = Shards(
            samples=len(rows),
            batch_size=options.batch_size,
            rank=options.rank,
            ranks=options.ranks,
            start=options.start,
            drop_last=options.drop_last,
            worker=options.worker,
            workers=options.workers,
        )
        self._yielded = 0
        self.padding = 0

    def __reduce__(self) -> tuple[Any, ...]:
        packed = pack_rows(self._rows if len(self._rows) else range(0))
        return _restored, (self._reader, packed, self._options)

    def __len__(self) -> int:
        return len(self._shards)

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self._options.batch_size} samples)"

    def __iter__(self) -> Generator[Batch]:
        return self._read()

    @property
    def state(self) -> dict[str, Any]:
        """State after the last batch that was yielded, as a dict of numbers and a string.

        ``lake.batches(..., state=state)`` continues with the next sample, also with another batch
        size or another number of processes.
        """
        batches = self._yielded * self._options.workers
        position = self._shards.position_after(min(batches, self._shards.total))
        version = self._reader.origin.version
        return {**make_state(version, self._order, position, self._digest)}

    @cached_property
    def _order(self) -> Order:
        shuffle = self._options.shuffle
        block, window = shuffle.block, shuffle.window
        if shuffle.shuffle and (block is None or window is None):
            remote = not self._reader.fetcher.local
            nbytes = self._nbytes if remote else 1.0
            if block is None:
                block = default_block(nbytes) if remote else 1
            if window is None and remote:
                # A window is kept in memory while the next one is read.
                rows = self._options.read_ahead / _WINDOW_SHARE / nbytes
                window = max(1, min(Order(0, block=block).window, int(rows / block)))
        return Order(
            len(self._rows),
            shuffle=shuffle.shuffle,
            seed=shuffle.seed,
            epoch=shuffle.epoch,
            block=block or 1,
            window=window,
            weights=shuffle.weights,
        )

    @cached_property
    def _digest(self) -> str:
        return order_digest(self._order, self._rows)

    @cached_property
    def _nbytes(self) -> float:
        """Stored bytes of a sample of the tensors."""
        return self._reader.fetcher.bytes_per_row(self._rows, list(self._options.forms))

    @property
    def options(self) -> BatchOptions:
        """The options."""
        return self._options

    def state_after(self, batches: int) -> dict[str, Any]:
        """Return the state after some batches of each process, without reading them.

        Parameters
        ----------
        batches : int
            Number of batches, from the first.

        Returns
        -------
        dict
            As :attr:`state`.
        """
        position = self._shards.position_after(min(batches, self._shards.total))
        return {**self.state, "position": position}

    def part(
        self, epoch: int, start: int, worker: int, workers: int, threads: int | None = None
    ) -> Batches:
        """Return the batches of a loader's worker in an epoch.

        Parameters
        ----------
        epoch, start : int
            Number of the epoch, and the position at which the batches begin.
        worker, workers : int
            Numbers of the loader's worker and of all workers.
        threads : int, optional
            Threads that decode. By default, those of the options.

        Returns
        -------
        Batches
            The batches of the worker.
        """
        options = replace(
            self._options,
            shuffle=replace(self._options.shuffle, epoch=epoch),
            start=start,
            worker=worker,
            workers=workers,
            threads=self._options.threads if threads is None else threads,
        )
        return Batches(self._reader, self._rows, options)

    def resumed(self, state: LoaderState) -> Batches:
        """Return the batches that continue at a state.

        Parameters
        ----------
        state : LoaderState
            The state, parsed.

        Returns
        -------
        Batches
            The batches of the other samples of the epoch.

        Raises
        ------
        InvalidInputError
            The state is of another version, other samples or another order.
        """
        state = parse_state(state)
        shuffle = replace(
            self._options.shuffle,
            seed=state["seed"],
            epoch=state["epoch"],
            block=state["block"],
            window=state["window"],
        )
        same = Batches(self._reader, self._rows, replace(self._options, shuffle=shuffle))
        check_state(state, self._reader.origin.version, same._order, same._digest)
        options = replace(self._options, shuffle=shuffle, start=state["position"])
        return Batches(self._reader, self._rows, options)

    def _units(self) -> Iterator[list[BatchRows]]:
        """Yield batches that are read together."""
        order, shards = self._order, self._shards
        full = order.block * order.window
        windowed = order.shuffle and order.block > 1
        most = self._unit_rows(windowed=windowed)
        unit: list[BatchRows] = []
        rows, last_window = 0, 0
        for index, batch in enumerate(batch_rows(order, shards)):
            begin = shards.position_after(shards.worker + index * shards.workers)
            # The rows of a window are neighbours: each block of it is read once.
            window = begin // full if windowed else 0
            if unit and (rows + len(batch.rows) > most or window != last_window):
                yield unit
                unit, rows = [], 0
            unit.append(BatchRows(self._numbers(batch.rows), batch.padding))
            rows += len(batch.rows)
            last_window = window
        if unit:
            yield unit

    def _numbers(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the numbers of samples in the version."""
        if isinstance(self._rows, range):
            return indices + self._rows.start
        return self._rows[indices]

    def _unit_rows(self, *, windowed: bool) -> int:
        """Return the number of samples that are read together."""
        share = self._options.read_ahead // (_WINDOW_SHARE if windowed else _REMOTE_SHARE)
        if self._reader.fetcher.local:
            rows = self._rows
            in_order = isinstance(rows, range) or not len(rows) or bool((np.diff(rows) >= 0).all())
            in_order = in_order and not self._order.shuffle
            share = min(_LOCAL_UNIT if in_order else _SCATTERED_UNIT, share)
        return int(max(1, share / self._nbytes))

    def _read(self) -> Generator[Batch]:
        options, reader = self._options, self._reader
        process = os.getpid()
        threads = options.threads or default_threads()
        decode = options.transform or Collator.needs_pool(reader.schema, options.forms)
        pool = ThreadPoolExecutor(threads, "dasklake-decode") if decode else None
        tensors = reader.fetcher.tensors
        collator = Collator(reader.origin, tensors, options.forms, options.transform, threads, pool)
        pending: deque[tuple[PendingBatch | LakeError, int]] = deque()
        started = self._started(collator)
        self._yielded = self.padding = 0
        try:
            while True:
                for item in started:
                    pending.append(item)
                    if len(pending) > (_DECODED_AHEAD if pool else 0):
                        break
                if not pending:
                    return
                batch, padding = pending.popleft()
                result = _finished(batch, process)
                self._yielded, self.padding = self._yielded + 1, padding
                yield result
                del result, batch
        finally:
            started.close()
            for unused, _ in pending:
                if isinstance(unused, PendingBatch):
                    unused.cancel()
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _started(self, collator: Collator) -> Generator[tuple[PendingBatch | LakeError, int]]:
        """Yield the batches whose values were read, while they are decoded, and their padding."""
        fetcher, forms = self._reader.fetcher, self._options.forms
        units: deque[list[BatchRows]] = deque()

        def rows() -> Iterator[npt.NDArray[np.int64]]:
            for unit in self._units():
                units.append(unit)
                yield np.concatenate([batch.rows for batch in unit])

        for fetched in read_ahead(fetcher, rows(), forms, self._options.read_ahead):
            begin = 0
            for numbers, padding in units.popleft():
                if isinstance(fetched, LakeError):
                    # The batches before the damaged one are intact.
                    try:
                        alone = fetcher.fetch(numbers, forms)
                    except LakeError as error:
                        yield error, 0
                        return
                    yield collator.start(alone, 0, len(numbers)), padding
                    continue
                yield collator.start(fetched, begin, begin + len(numbers)), padding
                begin += len(numbers)
            # Its memory is used again for the next unit.
            del fetched


def _finished(batch: PendingBatch | LakeError, process: int) -> Batch:
    """Wait for a batch and return it."""
    if os.getpid() != process:
        raise InvalidInputError(
            "An iteration over batches cannot continue in a forked process. Begin it there."
        )
    if isinstance(batch, LakeError):
        raise batch
    return batch.result()


def _restored(reader: Reader, packed: PackedRows, options: BatchOptions) -> Batches:
    return Batches(reader, unpack_rows(packed), options)
