"""Segments and failures tables: Arrow IPC files of one record batch each.

A segment has one row for each chunk. The commit that names it has its crc32c. A checksum only shows
that the bytes are as written. A lake may come from an untrusted source, so readers also validate the
values of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format import object_keys
from dasklake._format.arrow_message import BATCH, DICTIONARY, MAGIC, SCHEMA, walk_messages
from dasklake._format.chunk import max_rows
from dasklake._format.chunk_parts import PARTS_TYPE, check_parts
from dasklake._format.validate import validate
from dasklake._model.commit import SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import Failure, Receipt
from dasklake._model.stored_types import MAX_COUNT
from dasklake.exceptions import CorruptionError

_NUMBERS: dict[str, Any] = {
    "order": np.int64,
    "partition": np.int64,
    "epoch": np.int32,
    "attempt": np.uint64,
    "chunk": np.int32,
    "rows": np.int64,
    "size": np.int64,
    "head": np.int64,
    "crc": np.uint32,
}
_INTEGERS = {"partition": pa.int64(), "position": pa.int64(), "index": pa.int64()}
_HOME = pa.dictionary(pa.int32(), pa.string())

#: The optional column of statistics. Its offsets have 64 bits: a million chunks may have 2 GB.
_STATISTICS = "statistics"
_TEXT = pa.large_string()


#: The optional column of the partitions that wrote the rows of joined chunks.
_PARTS = "parts"


def build_manifest(home: str, order: int, receipts: Sequence[Receipt]) -> Manifest:
    """Return the chunk references of receipts of one run.

    Parameters
    ----------
    home : str
        ``<branch>/<run>``.
    order : int
        Position of the run's rows among those of other runs.
    receipts : sequence of Receipt
        The receipts of its write tasks.
    """
    rows = [
        (order, r.partition, r.epoch, int(r.attempt, 16), c.chunk, c.rows, c.size, c.head, c.crc)
        for r in receipts
        for c in r.chunks
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(_NUMBERS)
    arrays = {
        name: np.array(column, dtype)
        for (name, dtype), column in zip(_NUMBERS.items(), columns, strict=True)
    }
    statistics = pa.array([c.statistics for r in receipts for c in r.chunks], _TEXT)
    manifest = Manifest((home,), np.zeros(len(rows), np.int32), **arrays, statistics=statistics)
    return join_manifests([manifest])


def join_manifests(manifests: Sequence[Manifest]) -> Manifest:
    """Join manifests in row order: (run order, partition, chunk).

    The result has an optional column if one of the manifests has it, with nulls for the others.
    """
    homes: dict[str, int] = {}
    runs = []
    for manifest in manifests:
        index = [homes.setdefault(home, len(homes)) for home in manifest.home]
        runs.append(np.array(index, np.int32)[manifest.run])
    run = np.concatenate(runs) if runs else np.zeros(0, np.int32)
    arrays = {
        name: np.concatenate([getattr(m, name) for m in manifests] or [np.zeros(0, dtype)])
        for name, dtype in _NUMBERS.items()
    }
    by_row = np.lexsort((arrays["chunk"], arrays["partition"], arrays["order"]))
    sorted_arrays = {name: array[by_row] for name, array in arrays.items()}
    statistics = _joined([m.statistics for m in manifests], manifests, _TEXT, by_row)
    parts = _joined([m.parts for m in manifests], manifests, PARTS_TYPE, by_row)
    return Manifest(tuple(homes), run[by_row], **sorted_arrays, statistics=statistics, parts=parts)


def _joined(
    columns: Sequence[Any],
    manifests: Sequence[Manifest],
    kind: pa.DataType,
    by_row: npt.NDArray[np.int64],
) -> Any:
    """Return an optional column of joined manifests, or None if none has it."""
    if all(column is None for column in columns):
        return None
    pairs = zip(columns, manifests, strict=True)
    columns_or_nulls = [pa.nulls(len(m), kind) if column is None else column for column, m in pairs]
    return pa.concat_arrays(columns_or_nulls).take(pa.array(by_row))


def chunk_key_at(manifest: Manifest, i: int) -> str:
    """Return the key of chunk ``i``, relative to the lake's root."""
    return object_keys.chunk_key(
        manifest.home[int(manifest.run[i])],
        int(manifest.partition[i]),
        int(manifest.epoch[i]),
        f"{int(manifest.attempt[i]):016x}",
        int(manifest.chunk[i]),
    )


def segment_bytes(manifest: Manifest) -> bytes:
    """Return the object that holds a manifest."""
    home = pa.DictionaryArray.from_arrays(
        pa.array(manifest.run, pa.int32()), pa.array(manifest.home, pa.string())
    )
    columns = {"home": home} | {name: pa.array(getattr(manifest, name)) for name in _NUMBERS}
    if manifest.statistics is not None and manifest.statistics.null_count < len(manifest):
        columns[_STATISTICS] = manifest.statistics
    if manifest.parts is not None and manifest.parts.null_count < len(manifest):
        columns[_PARTS] = manifest.parts
    return _arrow_file(pa.record_batch(columns))


def read_segment(data: bytes, ref: SegmentRef, *, statistics: bool = False) -> Manifest:
    """Decode the object of a segment.

    Parameters
    ----------
    data : bytes
        The object.
    ref : SegmentRef
        The reference to it.
    statistics : bool, default False
        Whether to keep its statistics, if it has them.

    Raises
    ------
    CorruptionError
        The bytes do not match the reference, or are not a valid table.
    """
    key = object_keys.segment_key(ref.name)
    batch = _read_batch(data, ref, key)
    try:
        home = _column(batch, "home", _HOME)
        # Copied, so that a manifest does not keep the statistics in memory.
        arrays = {
            name: _column(batch, name, pa.from_numpy_dtype(dtype)).to_numpy().copy()
            for name, dtype in _NUMBERS.items()
        }
        homes = tuple(home.dictionary.to_pylist())
        run = home.indices.to_numpy().copy()
        for run_home in homes:
            branch, _, name = run_home.partition("/")
            object_keys.valid_name("branch", branch)
            object_keys.valid_name("run", name)
        texts = _statistics(batch) if statistics else None
        manifest = Manifest(homes, run, **arrays, statistics=texts, parts=_parts(batch))
        _check_numbers(manifest, ref)
        check_parts(manifest)
    except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        raise _damaged(key, str(error)) from error
    return manifest


def _column(batch: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.Array:
    column = batch.column(name)
    if column.type != kind or column.null_count:
        raise ValueError(f"its column {name!r} must be {kind} without nulls, got {column.type}")
    return column


def _statistics(batch: pa.RecordBatch) -> pa.LargeStringArray | None:
    if _STATISTICS not in batch.schema.names:
        return None
    column = batch.column(_STATISTICS)
    if column.type != _TEXT:
        raise ValueError(f"its column {_STATISTICS!r} must be {_TEXT}, got {column.type}")
    return column


def _parts(batch: pa.RecordBatch) -> pa.ListArray | None:
    if _PARTS not in batch.schema.names:
        return None
    column = batch.column(_PARTS)
    if column.type != PARTS_TYPE:
        raise ValueError(f"its column {_PARTS!r} must be {PARTS_TYPE}, got {column.type}")
    # Copied, so that a manifest does not keep the statistics in memory.
    return column.take(pa.array(np.arange(len(column))))


def _check_numbers(manifest: Manifest, ref: SegmentRef) -> None:
    """Refuse numbers that are out of range or do not match the reference."""
    for name in _NUMBERS:
        numbers = getattr(manifest, name)
        if name != "attempt" and len(numbers) and not 0 <= int(numbers.min()) <= MAX_COUNT:
            raise ValueError(f"its column {name!r} has negative numbers")
    if (manifest.head > manifest.size).any() or (manifest.size > MAX_COUNT // 16).any():
        raise ValueError("a chunk must be at least as large as its head and below 2**59 bytes")
    if (manifest.rows > max_rows(manifest.size)).any():
        raise ValueError("a chunk has more samples than its size allows")
    if sum(manifest.rows.tolist()) != ref.samples:
        raise ValueError(f"its chunks must hold {ref.samples} samples")


def failures_bytes(failures: Sequence[Failure]) -> bytes:
    """Return the object that holds failures."""
    names = [f.name for f in fields(Failure)]
    columns = zip(*(astuple(f) for f in failures), strict=True) if failures else [()] * len(names)
    return _arrow_file(
        pa.record_batch(
            {
                name: pa.array(column, _INTEGERS.get(name, pa.string()))
                for name, column in zip(names, columns, strict=True)
            }
        )
    )


def read_failures(data: bytes, ref: SegmentRef | None, key: str) -> list[Failure]:
    """Decode the object of failures. ``ref`` may be None, without a checksum.

    Raises
    ------
    CorruptionError
        The bytes do not match the reference, or are not a valid table.
    """
    batch = _read_batch(data, ref, key)
    try:
        names = [f.name for f in fields(Failure) if f.name in batch.schema.names]
        _check_types(batch.select(names))
        return validate(batch.select(names).to_pylist(), list[Failure])
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _damaged(key, str(error)) from error


def _check_types(batch: pa.RecordBatch) -> None:
    for field in batch.schema:
        kind = _INTEGERS.get(field.name, pa.string())
        if field.type != kind:
            raise ValueError(f"its column {field.name!r} must be {kind}, got {field.type}")


def table_ref(name: str, data: bytes, *, rows: int, samples: int, level: int) -> SegmentRef:
    """Return the reference to a table for a commit."""
    return SegmentRef(name, rows, samples, len(data), google_crc32c.value(data), level)


def _arrow_file(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _read_batch(data: bytes, ref: SegmentRef | None, key: str) -> pa.RecordBatch:
    if ref is not None and (len(data) != ref.size or google_crc32c.value(data) != ref.crc):
        raise _damaged(key, "its checksum differs")
    try:
        kinds = [message.kind for message in walk_messages(data)]
        if kinds[:1] + kinds[-1:] != [SCHEMA, BATCH] or {*kinds[1:-1]} - {DICTIONARY}:
            raise _damaged(key, "it must hold one record batch")
        # As a stream, so that Arrow reads only the messages that were just checked.
        batch = pa.ipc.open_stream(pa.py_buffer(data)[len(MAGIC) :]).read_next_batch()
        batch.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, StopIteration, RecursionError) as error:
        raise _damaged(key, str(error)) from error
    if ref is not None and batch.num_rows != ref.rows:
        raise _damaged(key, f"it must have {ref.rows} rows, got {batch.num_rows}")
    return batch


def _damaged(key: str, reason: str) -> CorruptionError:
    return CorruptionError(f"Object {key} is damaged: {reason}. Restore it from a copy.")
