"""Lakes of any schema, written with codecs and log only, to be read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from dasklake._codecs.registry import codec_for
from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead, ChunkHeader, EncodedChunk, write_chunk
from dasklake._format.columns import ColumnBuilder
from dasklake._format.statistics import encode_statistics
from dasklake._log.log import Log
from dasklake._log.run_entries import begin
from dasklake._log.run_writer import RunWriter
from dasklake._log.transactions import create_lake
from dasklake._model.commit import Plan
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore

Sample = Mapping[str, Any]

HEADER = ChunkHeader("main", "run", 1, 0, "ab" * 8, 0, last=True)


def encode(schema: Schema, samples: Sequence[Sample], header: ChunkHeader = HEADER) -> EncodedChunk:
    """Encode samples as one chunk."""
    columns = []
    for name, spec in schema.items():
        codec, builder = codec_for(spec), ColumnBuilder(name, spec)
        for sample in samples:
            value = sample[name]
            builder.append(None if value is None else codec.encode(value))
        columns += builder.finish()
    return write_chunk(columns, header)


def opened(chunk: EncodedChunk) -> ChunkHead:
    """Read and check an encoded chunk."""
    data = bytes(chunk.data)
    head = ChunkHead.parse(data, len(data), "some/chunk", chunk.crc)
    head.check(head.length, data[head.length :])
    return head


class Writing:
    """A run in progress: each call commits one more partition.

    Parameters
    ----------
    store : ObjectStore
        The storage of the lake.
    schema : Schema
        The schema of the lake.
    partitions : int
        Number of partitions of the run.
    """

    def __init__(self, store: ObjectStore, schema: Schema, partitions: int) -> None:
        self.schema = schema
        self.store = store
        log = Log(store)
        head, _ = create_lake(log, schema)
        entry = begin(log, head, "run", Plan(partitions, None, "0" * 32, None))
        self.writer = RunWriter(log, "run", 1, entry, schema, "run")

    def commit(self, partition: int, chunks: Sequence[Sequence[Sample]]) -> Receipt:
        """Write and commit a partition."""
        attempt = object_keys.new_id()
        refs = []
        for number, samples in enumerate(chunks):
            last = number == len(chunks) - 1
            header = ChunkHeader("main", "run", 1, partition, attempt, number, last=last)
            chunk = encode(self.schema, samples, header)
            key = object_keys.chunk_key(self.writer.home, partition, 1, attempt, number)
            self.store.put(key, chunk.data)
            batch = opened(chunk).batch
            columns = zip(batch.schema, batch.columns, strict=True)
            statistics = encode_statistics(columns, self.schema) if chunk.rows else None
            refs.append(
                ChunkRef(number, chunk.rows, len(chunk.data), chunk.head, chunk.crc, statistics)
            )
        receipt = Receipt("run", 1, partition, attempt, tuple(refs), sum(r.rows for r in refs))
        self.writer.commit([receipt], [])
        return receipt

    def keys(self, receipt: Receipt) -> list[str]:
        """Return the keys of a partition's chunks."""
        return [
            object_keys.chunk_key(
                self.writer.home, receipt.partition, 1, receipt.attempt, ref.chunk
            )
            for ref in receipt.chunks
        ]


Make = Callable[..., ObjectStore]


@pytest.fixture
def make_lake(tmp_path: Any) -> Make:
    """Return a function that writes a complete lake: partitions of chunks of samples."""

    def make(
        schema: Schema,
        partitions: Sequence[Sequence[Sequence[Sample]]],
        store: ObjectStore | None = None,
    ) -> ObjectStore:
        store = store or ObjectStore(tmp_path / "lake")
        writing = Writing(store, schema, len(partitions))
        for number, chunks in enumerate(partitions):
            writing.commit(number, chunks)
        return store

    return make


def same(actual: Any, expected: Any) -> bool:
    """Return whether a value was read back as it was written."""
    if expected is None or actual is None:
        return actual is expected
    if isinstance(expected, str | dict):
        return bool(actual == expected)
    actual, expected = np.asarray(actual), np.asarray(expected)
    kind = actual.dtype.kind
    return bool(
        actual.shape == expected.shape
        and np.array_equal(actual, expected.astype(actual.dtype), equal_nan=kind in "fcmM")
    )
