"""Write blocks of rows with a batched transform, and find the rows that fail.

A block that fails is divided in two halves, and those again, until the rows are found that fail alone.
The rows between them are written as smaller blocks. So the result of a row must not depend on the
other rows of its block. Rows that fail together, and not alone, have all failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dasklake._write.block_size import BlockSize, bytes_of_columns
from dasklake._write.chunk_writer import ChunkWriter, Column
from dasklake._write.column_encoder import ColumnEncoder
from dasklake._write.failures import never_skipped
from dasklake._write.job import Job, Outcome
from dasklake._write.link_queue import LinkQueue, QueuedInput, copied, require_keys
from dasklake._write.row_blocks import RowBlock, row_blocks_of

#: Records the failure of an item: the error, the item's position, and the item. It raises the error or
#: returns the outcome of the partition, if the item is not skipped.
Fail = Callable[[Exception, int, Any], Outcome | None]


@dataclass(frozen=True, slots=True)
class _Encoded:
    """The encoded samples of a block: as columns, or one by one."""

    columns: dict[str, Column] | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)

    def detached(self) -> _Encoded:
        """Return the samples apart from memory that the next call of the transform may change."""
        samples = [{n: copied(value) for n, value in sample.items()} for sample in self.samples]
        return _Encoded(self.columns, samples)


@dataclass(frozen=True, slots=True)
class _Failed:
    """A block that failed: its rows, and the position of the first one."""

    error: Exception
    position: int
    block: RowBlock

    @property
    def item(self) -> Any:
        """The row, or the description of several."""
        return self.block.item() if self.block.count == 1 else _Rows(self.block.count)


class BatchWriter:
    """Write the blocks of a partition.

    Parameters
    ----------
    job : Job
        The common parameters of the write tasks.
    chunks : ChunkWriter
        Writes the chunks.
    unverified : list of str
        The tensors of links that are not verified.
    fail : callable
        Records a failure.
    """

    def __init__(self, job: Job, chunks: ChunkWriter, unverified: list[str], fail: Fail) -> None:
        self._job = job
        self._chunks = chunks
        self._encoder = ColumnEncoder(chunks.encoder)
        self._unverified = unverified
        self._fail = fail
        self._size = BlockSize(job.batch_size)
        #: Bytes of the last block that was transformed.
        self._nbytes = 0
        verified = any(spec.linked and spec.verify for spec in job.schema.values())
        self._queue = LinkQueue(job.schema, repeated=True) if verified else None

    def blocks(self, parts: tuple[Any, ...]) -> Iterator[RowBlock]:
        """Yield the blocks of a partition."""
        job = self._job
        return row_blocks_of(job.kind, job.names, parts, job.index, self._size)

    def write(self, block: RowBlock, position: int) -> Outcome | None:
        """Write a block; return an outcome if it ends the partition.

        Parameters
        ----------
        block : RowBlock
            The rows.
        position : int
            Position of the first one in the partition.
        """
        try:
            pieces = self._encode_rows(block, position)
        finally:
            if self._queue is not None:
                self._queue.forget()
        if len(pieces) == 1:
            self._size.adapt(block.count, self._nbytes)
        for piece in pieces:
            if isinstance(piece, _Encoded):
                self._add(piece)
                continue
            outcome = self._fail(piece.error, piece.position, piece.item)
            if outcome is not None:
                return outcome
        return None

    def close(self) -> None:
        """Cancel the verification of links."""
        if self._queue is not None:
            self._queue.close()

    def _encode_rows(self, block: RowBlock, position: int) -> list[_Encoded | _Failed]:
        """Encode a block; if it fails, return its rows in the largest blocks that do not fail.

        Nothing follows the first failure that ends the partition.
        """
        try:
            return [self._encode(block)]
        except Exception as error:  # noqa: BLE001 # judged by the caller
            failed = _Failed(error, position, block)
        if block.count == 1 or never_skipped(failed.error):
            return [failed]
        half = block.count // 2
        first = self._encode_rows(block.part(0, half), position)
        pieces = [p.detached() if isinstance(p, _Encoded) else p for p in first]
        if not _ends(pieces, skip=self._job.skip):
            pieces += self._encode_rows(block.part(half, block.count), position + half)
        if any(isinstance(piece, _Failed) for piece in pieces):
            return pieces
        if not self._job.skip:
            return [failed]
        rows = range(block.count)
        return [_Failed(failed.error, position + r, block.part(r, r + 1)) for r in rows]

    def _encode(self, block: RowBlock) -> _Encoded:
        """Transform a block, and encode the result."""
        transform = self._job.transform
        given = block.columns()
        result = given if transform is None else transform(given, **self._job.kwargs)
        columns, rows = self._encoder.columns(result, block.count)
        self._nbytes = max(bytes_of_columns(given), bytes_of_columns(columns))
        encoded = self._encoder.encode(columns, rows)
        if encoded is not None:
            return _Encoded(encoded)
        samples = self._encoder.samples(columns, rows)
        require_keys(self._unverified, samples)
        if self._queue is not None:
            self._queue.put(QueuedInput(0, None, samples))
            for queued in self._queue.ready(flush=True):
                queued.settle(self._job.schema)
                samples = queued.samples
        return _Encoded(samples=samples)

    def _add(self, encoded: _Encoded) -> None:
        if encoded.columns is not None:
            self._chunks.extend(encoded.columns)
        for sample in encoded.samples:
            self._chunks.add(sample)


def _ends(pieces: list[_Encoded | _Failed], *, skip: bool) -> bool:
    """Return whether the last piece is a failure that ends the partition."""
    last = pieces[-1]
    return isinstance(last, _Failed) and (not skip or never_skipped(last.error))


class _Rows:
    """The description of a block that fails as a whole."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __repr__(self) -> str:
        return f"a block of {self._count} rows that begins here"
