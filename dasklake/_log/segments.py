"""Add segments and failures tables to a version; merge 16 tables of a level into one."""

from __future__ import annotations

from collections.abc import Sequence

from dasklake._format import object_keys
from dasklake._format.segment import (
    failures_bytes,
    join_manifests,
    read_failures,
    read_segment,
    segment_bytes,
    table_ref,
)
from dasklake._log.log import Log
from dasklake._model.commit import Commit, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import Failure

#: Number of tables of one level that become one table of the next level.
_MERGE = 16


def add_segment(
    log: Log, base: Commit, commit_id: str, new: Manifest
) -> tuple[tuple[SegmentRef, ...], list[tuple[str, bytes]]]:
    """Return the segments of the version after ``base``, and the new object to store."""
    if not len(new):
        return base.segments, []
    unmerged, merged, level = _merge(base.segments)
    # Not cached: a long run would keep every segment that it merged.
    keys = [object_keys.segment_key(ref.name) for ref in merged]
    manifests = [
        read_segment(log.store.get(key, ref.size), ref, statistics=True)
        for key, ref in zip(keys, merged, strict=True)
    ]
    manifest = join_manifests([*manifests, new]) if merged else new
    data = segment_bytes(manifest)
    samples = int(manifest.rows.sum())
    ref = table_ref(commit_id, data, rows=len(manifest), samples=samples, level=level)
    return (*unmerged, ref), [(object_keys.segment_key(commit_id), data)]


def add_failures(
    log: Log, base: Commit, commit_id: str, failures: Sequence[Failure]
) -> tuple[tuple[SegmentRef, ...], list[tuple[str, bytes]]]:
    """Return the failures tables of the version after ``base``, and the new object to store."""
    if not failures:
        return base.failures, []
    unmerged, merged, level = _merge(base.failures)
    earlier: list[Failure] = []
    for ref in merged:
        key = object_keys.failures_key(ref.name)
        earlier += read_failures(log.store.get(key, ref.size), ref, key)
    rows = [*earlier, *failures]
    data = failures_bytes(rows)
    ref = table_ref(commit_id, data, rows=len(rows), samples=0, level=level)
    return (*unmerged, ref), [(object_keys.failures_key(commit_id), data)]


def _merge(
    refs: tuple[SegmentRef, ...],
) -> tuple[tuple[SegmentRef, ...], tuple[SegmentRef, ...], int]:
    """Split tables into those that stay and those to merge with the next new one.

    Levels never rise from left to right, so the tables to merge are the last ones. The third
    value is the level of the merged table.
    """
    level = 0
    end = len(refs)
    while True:
        same = end
        while same and refs[same - 1].level == level:
            same -= 1
        if end - same < _MERGE - 1:
            return refs[:end], refs[end:], level
        end, level = same, level + 1
