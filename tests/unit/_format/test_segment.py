"""Segments and failures tables: their bytes, and refused tables."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from dasklake._format.segment import (
    build_manifest,
    failures_bytes,
    join_manifests,
    read_failures,
    read_segment,
    segment_bytes,
    table_ref,
)
from dasklake._model.commit import SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake.exceptions import CorruptionError
from tests.support.lakes import failure


def receipt(partition: int, chunks: int = 1) -> Receipt:
    """Create a receipt."""
    refs = tuple(ChunkRef(n, 10, 1000, 100, 7) for n in range(chunks))
    return Receipt("run", 2, partition, "fedcba9876543210", refs, inputs=10 * chunks)


def file_of(batches: list[pa.RecordBatch]) -> tuple[bytes, SegmentRef]:
    """Write batches as an IPC file, with a matching reference."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data = bytes(sink.getvalue())
    count = sum(batch.num_rows for batch in batches)
    return data, SegmentRef("ab" * 8, count, 0, len(data), google_crc32c.value(data))


def batch_of(manifest: Manifest) -> pa.RecordBatch:
    """Return the record batch of a segment."""
    return pa.ipc.open_file(pa.py_buffer(segment_bytes(manifest))).get_batch(0)


def with_column(name: str, column: Any) -> tuple[bytes, SegmentRef]:
    """Return a segment with one column replaced."""
    batch = batch_of(build_manifest("main/run", 0, [receipt(0), receipt(1)]))
    index = batch.schema.get_field_index(name)
    return file_of([batch.set_column(index, name, column)])


def test_rows_are_in_the_order_of_the_input() -> None:
    """Rows are sorted by partition and chunk, for any order of receipts."""
    manifest = build_manifest("main/run", 4, [receipt(7), receipt(1, chunks=2), receipt(3)])
    assert manifest.partition.tolist() == [1, 1, 3, 7]
    assert manifest.chunk.tolist() == [0, 1, 0, 0]
    assert set(manifest.order.tolist()) == {4}
    assert manifest.attempt.tolist() == [0xFEDCBA9876543210] * 4


def test_runs_are_in_the_order_they_began() -> None:
    """Rows of several runs are sorted by the order numbers of the runs, not by their names."""
    joined = join_manifests(
        [build_manifest("main/a", 9, [receipt(0)]), build_manifest("main/b", 2, [receipt(5)])]
    )
    assert [joined.home[run] for run in joined.run] == ["main/b", "main/a"]


def test_nothing_joined_is_empty() -> None:
    """No manifests, or empty ones, make an empty manifest with every column."""
    for empty in (join_manifests([]), build_manifest("main/run", 0, [])):
        assert len(empty) == 0
        assert empty.attempt.dtype == np.uint64


def test_segment_opens_with_plain_arrow() -> None:
    """Any Arrow reader opens a segment: one record batch, one row for each chunk."""
    batch = batch_of(build_manifest("main/run", 0, [receipt(0, chunks=3)]))
    assert batch.num_rows == 3
    assert batch.column("home").to_pylist() == ["main/run"] * 3
    assert batch.column("rows").to_pylist() == [10] * 3


def test_checksum_length_and_rows_must_match() -> None:
    """A segment that does not match its reference is corruption, even if it is complete."""
    data = segment_bytes(build_manifest("main/run", 0, [receipt(0)]))
    other = segment_bytes(build_manifest("main/run", 0, [receipt(1)]))
    ref = table_ref("ab" * 8, data, rows=1, samples=10, level=0)
    assert len(read_segment(data, ref)) == 1
    for wrong, why in ((other, "checksum"), (data + b"x", "checksum"), (b"", "checksum")):
        with pytest.raises(CorruptionError, match=why):
            read_segment(wrong, ref)
    miscounted = table_ref("ab" * 8, data, rows=2, samples=10, level=0)
    with pytest.raises(CorruptionError, match="must have 2 rows, got 1"):
        read_segment(data, miscounted)


@pytest.mark.parametrize(
    "home", ["main", "main/", "/run", "../..", "main/../x", "main/a/b", "main/.x", "ma in/run"]
)
def test_names_stay_under_the_root(home: str) -> None:
    """A segment with chunks outside the lake is corruption."""
    data, ref = file_of([batch_of(build_manifest(home, 0, [receipt(0)]))])
    with pytest.raises(CorruptionError, match="ab" * 8):
        read_segment(data, ref)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("home", pa.array(["main/run", "main/run"])),
        ("home", pa.array(["main/run", None]).dictionary_encode()),
        ("home", pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), ["a/b"], safe=False)),
        (
            "home",
            pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array([None, "a/b"])),
        ),
        ("partition", pa.array([0, None], pa.int64())),
        ("rows", pa.array(["many", "few"])),
        ("crc", pa.array([[1], [2]])),
    ],
    ids=["plain", "missing", "beyond", "none", "gap", "words", "lists"],
)
def test_odd_columns_are_damaged(name: str, column: Any) -> None:
    """An invalid segment with a valid checksum is corruption."""
    data, ref = with_column(name, column)
    with pytest.raises(CorruptionError, match="ab" * 8):
        read_segment(data, ref)


def test_other_shapes_are_damaged() -> None:
    """A segment has every column, in exactly one record batch."""
    batch = batch_of(build_manifest("main/run", 0, [receipt(0)]))
    for batches in ([batch.drop_columns(["crc"])], [batch, batch]):
        data, ref = file_of(batches)
        with pytest.raises(CorruptionError, match="ab" * 8):
            read_segment(data, ref)


def test_odd_failures_are_damaged() -> None:
    """A failures table without a column is corruption; an additional column is ignored."""
    written = failure("run", 0, 1)
    batch = pa.ipc.open_file(pa.py_buffer(failures_bytes([written]))).get_batch(0)
    bad, ref = file_of([batch.drop_columns(["item"])])
    with pytest.raises(CorruptionError, match="some/key"):
        read_failures(bad, ref, "some/key")
    newer, ref = file_of([batch.append_column("mood", pa.array(["good"]))])
    assert read_failures(newer, ref, "some/key") == [written]
