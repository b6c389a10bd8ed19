"""Read samples batch by batch, ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.collate import Batch, Collator, PendingBatch, Transform
from dasklake._read.fetched import Form
from dasklake._read.read_ahead import read_ahead
from dasklake._read.reader import Reader
from dasklake._read.rows import Rows
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, LakeError

__all__ = ["BatchOptions", "Batches", "Forms", "forms_of", "take"]

#: Forms of the values of each tensor.
Forms = Mapping[str, Form]

#: Most threads that decode by default: more of them rarely help, and other loaders run beside them.
_MAX_THREADS = 4

#: Bytes that are read together from a disk: in order, so that they stay in the processor's cache, and
#: out of order, so that each chunk has several samples. Share of the read-ahead on other storage.
_LOCAL_UNIT, _SCATTERED_UNIT = 16 * 2**20, 32 * 2**20
_REMOTE_SHARE = 16

#: Batches that are decoded ahead of the one that is used.
_DECODED_AHEAD = 2


def forms_of(schema: Mapping[str, TensorSpec], names: Sequence[str], decode: Any) -> Forms:
    """Parse the argument ``decode``.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors of the version.
    names : sequence of str
        The tensors that are read.
    decode : bool or mapping
        True, False, or a mapping of names to True, False or ``"bytes"``.

    Raises
    ------
    InvalidInputError
        ``decode`` is something else, names another tensor, or a tensor without files.
    """
    if isinstance(decode, bool):
        return dict.fromkeys(names, Form.DECODED if decode else Form.STORED)
    if not isinstance(decode, Mapping):
        raise InvalidInputError(
            f"decode must be True, False, or a dict such as {{'image': 'bytes'}}, got {decode!r}."
        )
    forms = dict.fromkeys(names, Form.DECODED)
    for name, form in decode.items():
        if name not in forms:
            raise InvalidInputError(
                f"decode names {name!r}, which is not read. Use one of: {', '.join(names)}."
            )
        if isinstance(form, bool):
            forms[name] = Form.DECODED if form else Form.STORED
        elif form != "bytes":
            raise InvalidInputError(
                f"decode must give True, False or 'bytes' for tensor {name!r}, got {form!r}."
            )
        elif not _has_files(schema[name]):
            raise InvalidInputError(
                f"decode cannot give bytes of tensor {name!r}: it does not contain files. Use True "
                "or False."
            )
        else:
            forms[name] = Form.BYTES
    return forms


def _has_files(spec: TensorSpec) -> bool:
    return spec.item.encoded if spec.sequence else spec.encoded or spec.linked


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


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Options of :class:`Batches`.

    Attributes
    ----------
    batch_size : int
        Samples of a batch.
    forms : mapping of str to Form
        The tensors, and the forms of their values.
    transform : callable or None
        Called with each sample.
    drop_last : bool
        Whether a last batch with fewer samples is left out.
    read_ahead : int
        Bytes that are read ahead.
    threads : int
        Threads that decode; 0 for the calling thread.
    """

    batch_size: int
    forms: Forms
    transform: Transform | None = None
    drop_last: bool = False
    read_ahead: int = 256 * 2**20
    threads: int = 0


class Batches:
    """Batches of samples, as returned by ``lake.batches``. Each iteration reads them anew.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    rows : range or numpy.ndarray
        Numbers of the samples, in reading order.
    options : BatchOptions
        The options.
    """

    def __init__(self, reader: Reader, rows: Rows, options: BatchOptions) -> None:
        self._reader = reader
        self._rows = rows
        self._options = options

    def __len__(self) -> int:
        count, size = len(self._rows), self._options.batch_size
        return count // size if self._options.drop_last else -(-count // size)

    def __repr__(self) -> str:
        return f"Batches({len(self)} of {self._options.batch_size} samples)"

    def __iter__(self) -> Generator[Batch]:
        return self._read()

    def _batch_rows(self, batch: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the samples of a batch."""
        begin = batch * self._options.batch_size
        return np.asarray(self._rows[begin : begin + self._options.batch_size], np.int64)

    def _units(self) -> Iterator[list[npt.NDArray[np.int64]]]:
        """Yield batches that are read together."""
        unit: list[npt.NDArray[np.int64]] = []
        most, rows = self._unit_rows(), 0
        for batch in range(len(self)):
            numbers = self._batch_rows(batch)
            if unit and rows + len(numbers) > most:
                yield unit
                unit, rows = [], 0
            unit.append(numbers)
            rows += len(numbers)
        if unit:
            yield unit

    def _unit_rows(self) -> int:
        """Return the number of samples that are read together."""
        nbytes = self._reader.fetcher.bytes_per_row(self._rows, list(self._options.forms))
        share = self._options.read_ahead // _REMOTE_SHARE
        if self._reader.fetcher.local:
            rows = self._rows
            in_order = isinstance(rows, range) or not len(rows) or bool((np.diff(rows) >= 0).all())
            share = min(_LOCAL_UNIT if in_order else _SCATTERED_UNIT, share)
        return int(max(1, share / nbytes))

    def _read(self) -> Generator[Batch]:
        options, origin = self._options, self._reader.origin
        process = os.getpid()
        threads = options.threads or default_threads()
        decode = options.transform or Collator.needs_pool(self._reader.schema, options.forms)
        pool = ThreadPoolExecutor(threads, "dasklake-decode") if decode else None
        tensors = self._reader.fetcher.tensors
        collator = Collator(origin, tensors, options.forms, options.transform, threads, pool)
        pending: deque[PendingBatch | LakeError] = deque()
        started = self._started(collator)
        try:
            for batch in started:
                pending.append(batch)
                if len(pending) <= (_DECODED_AHEAD if pool else 0):
                    continue
                yield self._finished(pending.popleft(), process)
            while pending:
                yield self._finished(pending.popleft(), process)
        finally:
            started.close()
            for batch in pending:
                if isinstance(batch, PendingBatch):
                    batch.cancel()
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def _finished(self, batch: PendingBatch | LakeError, process: int) -> Batch:
        if os.getpid() != process:
            raise InvalidInputError(
                "An iteration over batches cannot continue in a forked process. Begin it there."
            )
        if isinstance(batch, LakeError):
            raise batch
        return batch.result()

    def _started(self, collator: Collator) -> Generator[PendingBatch | LakeError]:
        """Yield the batches whose values were read, while they are decoded."""
        fetcher, forms = self._reader.fetcher, self._options.forms
        sizes: deque[list[npt.NDArray[np.int64]]] = deque()

        def rows() -> Iterator[npt.NDArray[np.int64]]:
            for unit in self._units():
                sizes.append(unit)
                yield np.concatenate(unit)

        for fetched in read_ahead(fetcher, rows(), forms, self._options.read_ahead):
            unit, begin = sizes.popleft(), 0
            for numbers in unit:
                if isinstance(fetched, LakeError):
                    # The batches before the damaged one are intact.
                    try:
                        alone = fetcher.fetch(numbers, forms)
                    except LakeError as error:
                        yield error
                        return
                    yield collator.start(alone, 0, len(numbers))
                    continue
                yield collator.start(fetched, begin, begin + len(numbers))
                begin += len(numbers)
