"""Write the chunks of one attempt at a partition, and return its receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from dasklake._codecs.compression import Encoded
from dasklake._codecs.decoded_size import DECODED_RATIO, bytes_of_stored, expands
from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHeader, write_chunk
from dasklake._format.columns import ColumnBuilder
from dasklake._format.segment import failures_bytes
from dasklake._format.statistics import encode_statistics
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake._schema.schema import Schema
from dasklake._schema.values import Blob
from dasklake._storage.store import ObjectStore
from dasklake._write.encoder import Encoder

#: Most failures of a partition that are kept in the chunk head and the receipt. More of them are
#: written to an object of their own.
_INLINE_FAILURES = 8


@dataclass(frozen=True, slots=True)
class RunLocation:
    """Destination of the chunks of a run's epoch.

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

    @property
    def branch(self) -> str:
        """The run's home branch."""
        return self.home.partition("/")[0]


#: Writes an object: a key, and its bytes.
Put = Callable[[str, Any], None]


#: Encoded values of a tensor: an array of its storage type, or one by one.
Column: TypeAlias = pa.Array | list[Encoded]

#: Assumed size of a value that was encoded alone, in bytes.
_SMALL = 16


class ChunkWriter:
    """Collect samples in chunks and write them with ``put``, by default that of the store."""

    def __init__(
        self,
        location: RunLocation,
        schema: Schema,
        partition: int,
        chunk_size: int,
        put: Put | None = None,
        *,
        strict: bool = True,
    ) -> None:
        self.location = location
        self.put = put or location.store.put
        self.partition = partition
        self.chunk_size = chunk_size
        self.attempt = object_keys.new_id()
        self.schema = schema
        self.encoder = Encoder(schema, strict=strict)
        self.builders: dict[str, ColumnBuilder] = self.encoder.builders()
        self.chunks: list[ChunkRef] = []
        self.names = {
            name: dict.fromkeys(spec.class_names or ())
            for name, spec in schema.items()
            if spec.may_discover
        }
        self._given = {name: len(names) for name, names in self.names.items()}
        self.failures: list[Failure] = []
        self._expanding = {name: spec for name, spec in schema.items() if expands(spec)}
        #: Decoded bytes of the samples so far that are larger than what is stored.
        self._decoded = 0

    @property
    def rows(self) -> int:
        return next(iter(self.builders.values())).rows

    def add(self, encoded: Mapping[str, Any]) -> None:
        """Add one encoded sample; a full chunk is written before the next sample is added."""
        if self.rows and self._is_full():
            self._flush(last=False, inputs=0)
        for name, spec in self._expanding.items():
            self._decoded += bytes_of_stored(spec, encoded[name])
        for name, builder in self.builders.items():
            builder.append(encoded[name])
        if any(builder.borrowed for builder in self.builders.values()):
            # Too large to copy: written before the user's code can change it.
            self._flush(last=False, inputs=0)

    @property
    def _nbytes(self) -> int:
        return sum(builder.nbytes for builder in self.builders.values())

    def _is_full(self) -> bool:
        """Return whether the chunk has its size, or would be too large for readers once decoded."""
        return self._nbytes >= self.chunk_size or self._decoded >= DECODED_RATIO * self.chunk_size

    def extend(self, columns: Mapping[str, Column]) -> None:
        """Add columns of encoded samples, split into chunks."""
        rows = len(next(iter(columns.values())))
        size = sum(map(_size_of, columns.values()))
        step = max(1, int(rows * self.chunk_size / max(size, 1)))
        for begin in range(0, rows, step):
            added = size * min(step, rows - begin) // rows
            if self.rows and (self._is_full() or self._nbytes + added > self.chunk_size):
                self._flush(last=False, inputs=0)
            for name, builder in self.builders.items():
                column = columns[name]
                if isinstance(column, list):
                    for value in column[begin : begin + step]:
                        builder.append(value)
                else:
                    builder.extend(column.slice(begin, step))

    def finish(self, inputs: int) -> Receipt:
        """Write the last chunk and return the receipt."""
        inline = tuple(self.failures) if len(self.failures) <= _INLINE_FAILURES else ()
        key = None
        if self.failures and not inline:
            key = object_keys.partition_failures_key(
                self.location.home, self.partition, self.location.epoch, self.attempt
            )
            self.put(key, failures_bytes(self.failures))
        self._flush(last=True, inputs=inputs, failures=inline, failures_key=key)
        return Receipt(
            run=self.location.run,
            epoch=self.location.epoch,
            partition=self.partition,
            attempt=self.attempt,
            chunks=tuple(self.chunks),
            inputs=inputs,
            failures=inline,
            failures_key=key,
            failed=len(self.failures),
            names=self._discovered(),
        )

    def _discovered(self) -> dict[str, tuple[str, ...]]:
        """Return the class names that the schema did not have, in the order of the samples.

        An empty tuple marks a tensor whose labels are indices, although they could have been names.
        """
        new = {name: tuple(names)[self._given[name] :] for name, names in self.names.items()}
        indices = {name for name in new if self.encoder.labels_are_indices(name)}
        return {name: names for name, names in new.items() if names or name in indices}

    def _flush(
        self,
        *,
        last: bool,
        inputs: int,
        failures: tuple[Failure, ...] = (),
        failures_key: str | None = None,
    ) -> None:
        number = len(self.chunks)
        branch, _, run = self.location.home.partition("/")
        header = ChunkHeader(
            branch=branch,
            run=run,
            epoch=self.location.epoch,
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
        for name in self.names:
            self.names[name] |= dict.fromkeys(self.builders[name].names)
        chunk = write_chunk(columns, header)
        key = object_keys.chunk_key(
            self.location.home, self.partition, self.location.epoch, self.attempt, number
        )
        self.put(key, chunk.data)
        statistics = encode_statistics(columns, self.schema) if chunk.rows else None
        self.chunks.append(
            ChunkRef(number, chunk.rows, len(chunk.data), chunk.head, chunk.crc, statistics)
        )
        self.builders = self.encoder.builders()
        self._decoded = 0


def write_lost(
    location: RunLocation, schema: Schema, failure: Failure, put: Put | None = None
) -> Receipt:
    """Write the empty chunk of a partition that failed as a whole, and return its receipt."""
    writer = ChunkWriter(location, schema, failure.partition, 0, put)
    writer.failures.append(failure)
    return writer.finish(0)


def _size_of(column: Column) -> int:
    if not isinstance(column, list):
        return int(column.nbytes)
    data = sum(len(value.data) for value in column if isinstance(value, Blob))
    return data + _SMALL * len(column)
