"""Test the parts of joined chunks, which keep the keys of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake._format.chunk_parts import PARTS_TYPE, joined_parts, parts_of
from dasklake._format.segment import (
    build_manifest,
    join_manifests,
    read_segment,
    segment_bytes,
    table_ref,
)
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake.exceptions import CorruptionError


def _manifest(*rows: int, order: int = 0) -> Manifest:
    """Return a manifest of one chunk for each partition."""
    receipts = [
        Receipt("run", 1, i, "ab" * 8, (ChunkRef(0, count, 1_000, 100, 5),), count)
        for i, count in enumerate(rows)
    ]
    return build_manifest("main/run", order, receipts)


def _with_parts(manifest: Manifest, *parts: Any) -> Manifest:
    names = ("order", "partition", "rows")
    values = [p and [dict(zip(names, numbers, strict=True)) for numbers in p] for p in parts]
    return replace(manifest, parts=pa.array(values, PARTS_TYPE))


def _listed(manifest: Manifest) -> list[tuple[int, ...]]:
    return [tuple(map(int, part)) for part in zip(*parts_of(manifest), strict=True)]


def _read(manifest: Manifest) -> Manifest:
    data = segment_bytes(manifest)
    rows = sum(manifest.rows.tolist())
    ref = table_ref("ab" * 8, data, rows=len(manifest), samples=rows, level=0)
    return read_segment(data, ref)


def test_chunks_without_parts_are_their_own() -> None:
    """A chunk that was not joined has the rows of its own partition."""
    assert _listed(_manifest(3, 5)) == [(0, 0, 3, 0), (0, 1, 5, 1)]
    mixed = _with_parts(_manifest(3, 5), None, [(0, 7, 2), (1, 0, 3)])
    assert _listed(mixed) == [(0, 0, 3, 0), (0, 7, 2, 1), (1, 0, 3, 1)]


def test_parts_come_back() -> None:
    """A segment keeps the parts; one without joined chunks does not have the column."""
    manifest = _with_parts(_manifest(3, 5), None, [(0, 7, 2), (1, 0, 3)])
    assert _listed(_read(manifest)) == _listed(manifest)
    assert _read(_manifest(3, 5)).parts is None
    assert _read(_with_parts(_manifest(3), None)).parts is None


def test_joined_segments_keep_the_parts() -> None:
    """Parts stay with their chunks when manifests with and without them are joined and sorted."""
    later = _with_parts(_manifest(4, order=2), [(2, 0, 1), (3, 0, 3)])
    joined = join_manifests([later, _manifest(3, 5, order=1)])
    assert _listed(joined) == [(1, 0, 3, 0), (1, 1, 5, 1), (2, 0, 1, 2), (3, 0, 3, 2)]


def test_joined_chunks_list_what_they_are_made_of() -> None:
    """A joined chunk lists its parts once for each partition, also if it is joined again."""
    manifest = _with_parts(_manifest(3, 5, 1, 2), None, [(0, 1, 2), (0, 2, 3)], [(0, 2, 1)], None)
    parts = joined_parts(manifest, [range(3), range(3, 4)])
    values = [[tuple(part.values()) for part in chunk] for chunk in parts.to_pylist()]
    assert values == [[(0, 0, 3), (0, 1, 2), (0, 2, 4)], [(0, 3, 2)]]


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 0, 2)],
        [(0, 0, 4)],
        [(0, 0, 4), (0, 1, -1)],
        [(0, -1, 3)],
        [(-1, 0, 3)],
        [(0, 0, None)],
        [(0, 0, 2**62), (0, 1, 2**62)],
        [],
    ],
    ids=str,
)
def test_damaged_parts(parts: Any) -> None:
    """Parts that are not the rows of their chunk are corruption."""
    manifest = _manifest(3)
    names = ("order", "partition", "rows")
    values = [[dict(zip(names, numbers, strict=True)) for numbers in parts]]
    with pytest.raises(CorruptionError, match="ab" * 8):
        _read(replace(manifest, parts=pa.array(values, PARTS_TYPE)))


def test_parts_of_another_type() -> None:
    """A column of another type is corruption."""
    manifest = replace(_manifest(3), parts=pa.array([[1]]))
    with pytest.raises(CorruptionError, match="'parts' must be list"):
        _read(manifest)
    assert np.array_equal(_read(_manifest(3)).rows, [3])
