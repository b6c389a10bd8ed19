"""The partitions that wrote the rows of chunks, also of chunks that a compaction joined.

The key of a row is its run, its partition and its position there. It must not change when chunks of
several partitions are joined, so the segment lists the parts of such chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._model.manifest import Manifest
from dasklake._model.stored_types import MAX_COUNT

__all__ = ["PARTS_TYPE", "ChunkParts", "check_parts", "joined_parts", "parts_of"]

_FIELDS = ("order", "partition", "rows")

#: Type of the column: for each chunk, its parts in order, or null if one partition wrote all rows.
PARTS_TYPE = pa.list_(pa.struct([(name, pa.int64()) for name in _FIELDS]))

_Numbers = npt.NDArray[np.int64]


class ChunkParts(NamedTuple):
    """Consecutive rows of one partition in one chunk: one element for each, in row order.

    Attributes
    ----------
    order, partition, rows : numpy.ndarray
        Order number of the run, partition, and number of rows.
    chunk : numpy.ndarray
        Number of the chunk in the manifest.
    """

    order: _Numbers
    partition: _Numbers
    rows: _Numbers
    chunk: _Numbers


def parts_of(manifest: Manifest) -> ChunkParts:
    """Return the parts of all chunks of a manifest."""
    count = len(manifest)
    if manifest.parts is None:
        return ChunkParts(manifest.order, manifest.partition, manifest.rows, np.arange(count))
    listed = ~manifest.parts.is_null().to_numpy(zero_copy_only=False).astype(bool)
    lengths = np.where(listed, pc.fill_null(pc.list_value_length(manifest.parts), 0), 1)
    chunk = np.repeat(np.arange(count), lengths.astype(np.int64))
    from_list = listed[chunk]
    pieces = manifest.parts.flatten()
    columns: dict[str, _Numbers] = {}
    for name in _FIELDS:
        columns[name] = np.asarray(getattr(manifest, name), np.int64)[chunk]
        columns[name][from_list] = pieces.field(name).to_numpy()
    return ChunkParts(**columns, chunk=chunk)


def check_parts(manifest: Manifest) -> None:
    """Refuse parts that do not add up to the rows of their chunk.

    Raises
    ------
    ValueError
        A number is missing or out of range, or the rows of a chunk differ.
    """
    if manifest.parts is None:
        return
    pieces = manifest.parts.flatten()
    columns = [pieces.field(name) for name in _FIELDS]
    if pieces.null_count or any(column.null_count for column in columns):
        raise ValueError("a part of a chunk lacks a number")
    if any(((c.to_numpy() < 0) | (c.to_numpy() > MAX_COUNT)).any() for c in columns):
        raise ValueError("a part of a chunk has a number that is out of range")
    parts = parts_of(manifest)
    if (parts.rows > np.asarray(manifest.rows)[parts.chunk]).any():
        raise ValueError("a part of a chunk has more rows than the chunk")
    sums = np.bincount(parts.chunk, weights=parts.rows, minlength=len(manifest))
    if (sums != manifest.rows).any():
        raise ValueError("the parts of a chunk must have the rows of the chunk")


def joined_parts(manifest: Manifest, groups: Sequence[range]) -> pa.ListArray:
    """Return the parts of the chunks that are made of groups of neighbouring chunks."""
    parts = parts_of(manifest)
    begins = np.searchsorted(parts.chunk, [group.start for group in groups])
    ends = np.searchsorted(parts.chunk, [group.stop for group in groups])
    values = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        columns = (column[begin:end].tolist() for column in parts[:3])
        keyed = groupby(zip(*columns, strict=True), key=lambda part: part[:2])
        runs = [(*key, sum(rows for *_, rows in run)) for key, run in keyed]
        pieces = [dict(zip(_FIELDS, run, strict=True)) for run in runs if run[2]]
        values.append(pieces)
    return pa.array(values, PARTS_TYPE)
