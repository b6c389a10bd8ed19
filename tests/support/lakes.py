"""Small lakes made by hand, without Dask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHeader, write_chunk
from dasklake._format.columns import ColumnBuilder
from dasklake._format.segment import failures_bytes
from dasklake._format.statistics import encode_statistics
from dasklake._log.log import MAIN, Log
from dasklake._log.run_entries import begin, resume
from dasklake._log.run_writer import RunWriter
from dasklake._log.transactions import create_lake
from dasklake._model.commit import Commit, Plan
from dasklake._model.receipt import ChunkRef, Failure, Receipt
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore

SCHEMA = Schema({"x": TensorSpec(dtype="int64", shape=())})


@dataclass
class SmallLake:
    """A lake of one tensor ``x``, and the steps of its writers.

    Attributes
    ----------
    store : ObjectStore
        The storage of the lake.
    branch : str
        The branch to write; a branch other than the main one exists already.
    log : Log
        The log of the branch.
    """

    store: ObjectStore
    branch: str = MAIN
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log(self.store, self.branch)
        if self.branch == MAIN:
            create_lake(self.log, SCHEMA, single_writer=self.store.single_writer)

    @property
    def head(self) -> Commit:
        """Return the newest version."""
        return Log(self.store, self.branch).require_head()

    def begin(self, run: str, partitions: int, *, overwrite: bool = False) -> RunWriter:
        """Begin a run."""
        plan = Plan(partitions, None, "0" * 32, None, overwrite=overwrite)
        entry = begin(self.log, self.head, run, plan)
        return RunWriter(Log(self.store, self.branch), run, 1, entry, SCHEMA)

    def resume(self, run: str) -> RunWriter:
        """Begin the next epoch of a run."""
        entry = resume(self.log, self.head, run)
        log = Log(self.store, self.branch)
        return RunWriter(log, run, entry.runs[run].epoch, entry, SCHEMA)

    def write(
        self,
        writer: RunWriter,
        partition: int,
        chunks: Sequence[Sequence[int]] = ((0, 1, 2),),
        failures: int = 0,
    ) -> Receipt:
        """Write the chunks of one attempt at a partition, each a list of values."""
        attempt = object_keys.new_id()
        partition_path = (writer.home, partition, writer.epoch, attempt)
        failed = [failure(writer.run, partition, n) for n in range(failures)]
        key = object_keys.partition_failures_key(*partition_path) if failed else None
        if key:
            self.store.put(key, failures_bytes(failed))
        refs = []
        for number, values in enumerate(chunks):
            builder = ColumnBuilder("x", SCHEMA["x"])
            for value in values:
                builder.append(value)
            last = number == len(chunks) - 1
            header = ChunkHeader(
                branch=writer.log.branch,
                run=writer.run,
                epoch=writer.epoch,
                partition=partition,
                attempt=attempt,
                chunk=number,
                last=last,
                inputs=sum(map(len, chunks)) + failures if last else 0,
                failures_key=key if last else None,
                failed=failures if last else 0,
            )
            columns = builder.finish()
            chunk = write_chunk(columns, header)
            self.store.put(object_keys.chunk_key(*partition_path, number), chunk.data)
            statistics = encode_statistics(columns, SCHEMA) if values else None
            refs.append(
                ChunkRef(number, chunk.rows, len(chunk.data), chunk.head, chunk.crc, statistics)
            )
        rows = sum(ref.rows for ref in refs)
        return Receipt(
            writer.run,
            writer.epoch,
            partition,
            attempt,
            tuple(refs),
            inputs=rows + failures,
            failures_key=key,
            failed=failures,
        )

    def keys(self, receipt: Receipt) -> set[str]:
        """Return the keys of all objects of an attempt."""
        home = object_keys.home_of(self.log.branch, receipt.run)
        partition_path = (home, receipt.partition, receipt.epoch, receipt.attempt)
        keys = {object_keys.chunk_key(*partition_path, chunk.chunk) for chunk in receipt.chunks}
        return keys | ({receipt.failures_key} if receipt.failures_key else set())

    def objects(self) -> set[str]:
        """Return the keys of all objects."""
        return {key for key, _ in self.store.walk("", temporary=True)}


def failure(run: str, partition: int, position: int) -> Failure:
    """Make a failure."""
    return Failure(run, partition, position, None, "item", "x", "ValueError", "no", "trace")


@pytest.fixture
def small_lake(tmp_path: Path) -> SmallLake:
    """Make an empty lake on the local disk."""
    return SmallLake(ObjectStore(tmp_path / "lake"))
