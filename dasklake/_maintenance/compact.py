"""Compact: join small chunks into full ones, as a run of its own that writes nothing new.

A joined chunk takes the place of the chunks it was made of by their order: that of the run that
wrote them, and the partition and number of the first. Rows, their order and their values stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead, ChunkHeader, write_chunk
from dasklake._format.columns import unify_class_names
from dasklake._format.segment import chunk_key_at, join_manifests, segment_bytes, table_ref
from dasklake._log.heartbeat import send_heartbeats
from dasklake._log.log import Draft, Log
from dasklake._log.run_entries import begin, with_run
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind, Plan, RunState, Totals
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import ChunkRef
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    ObjectNotFoundError,
    RunAbortedError,
)

__all__ = ["CompactReport", "compact"]

#: What makes a chunk the one it is; attempts are random, so the run need not be compared.
_IDENTITY = np.dtype([("attempt", "u8"), ("partition", "i8"), ("epoch", "i4"), ("chunk", "i4")])


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction has done.

    Attributes
    ----------
    version : int or None
        The version that holds the joined chunks; None where there was nothing to join.
    joined : int
        Small chunks that are no longer part of the newest version.
    into : int
        Chunks that took their place.
    bytes : int
        Length of these.
    """

    version: int | None
    joined: int
    into: int
    bytes: int


def compact(
    store: ObjectStore,
    log: Log,
    *,
    chunk_size: int = 64 << 20,
    on_status: Callable[[int, int], object] | None = None,
) -> CompactReport:
    """Join small chunks of finished runs into full ones, across runs and partitions.

    Earlier versions stay as they are, and what only they name is deleted by the next vacuum.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        The branch.
    chunk_size : int, default 64 MiB
        Bytes that a joined chunk has at most; chunks of less than half of it are small.
    on_status : callable, optional
        ``on_status(done, total)`` is told how many of the small chunks are joined.

    Returns
    -------
    CompactReport
        What was joined.

    Raises
    ------
    LakeNotFoundError
        There is no lake.
    ConflictError
        Another writer replaced what the version held, or a reset ended the compaction.
    CorruptionError
        A small chunk is damaged.
    InvalidInputError
        ``chunk_size`` is not positive.
    """
    if chunk_size < 1:
        raise InvalidInputError(f"chunk_size={chunk_size} is no size. Give some bytes, '64 MiB'.")
    head = log.require_head()
    manifest = log.manifest(head)
    groups = _groups(manifest, head, chunk_size)
    if not groups:
        return CompactReport(None, 0, 0, 0)
    run = f"compact-{object_keys.new_id()}"
    plan = Plan(len(groups), None, "", None, compaction=True)
    entry = begin(log, head, run, plan)
    work = _Compaction(log, run, manifest)
    with send_heartbeats(store, log.branch, run):
        joined: list[_Joined] = []
        done, total = 0, sum(len(group) for group in groups)
        for group in groups:
            try:
                joined += work.join(group)
            except ObjectNotFoundError as error:
                raise log.missing_object_error(head.version, str(error)) from error
            done += len(group)
            if on_status is not None:
                on_status(done, total)
        made = work.commit(entry, joined)
    taken = work.taken
    return CompactReport(
        made.version if taken else None,
        sum(len(each.group) for each in taken),
        len(taken),
        sum(each.ref.size for each in taken),
    )


def _groups(manifest: Manifest, head: Commit, chunk_size: int) -> list[range]:
    """Return the neighbours that become one chunk, as places in a manifest.

    Left alone is what an unfinished run has written: it must stay visible which of its partitions
    are there. The rows that it will write come where its order says, so nothing is joined over
    that place either.
    """
    waiting = [s.order for s in head.runs.values() if not (s.finished or s.replaced)]
    before = np.searchsorted(np.sort(waiting), manifest.order)
    # Where what the columns mean has changed; a chunk lies on one side.
    past = head.histories.values()
    edges = {each.since for each in past} | {until for p in past for until, _ in p.former}
    firsts = np.cumsum(manifest.rows) - manifest.rows
    cut = np.isin(firsts, sorted(edges)) | (np.diff(before, prepend=-1) != 0)
    small = (2 * manifest.size < chunk_size) & ~np.isin(manifest.order, waiting)
    found: list[range] = []
    start = stop = size = 0
    chunks = zip(small.tolist(), cut.tolist(), manifest.size.tolist(), strict=True)
    for i, (is_small, is_cut, each) in enumerate(chunks):
        if is_small and start < stop and not is_cut and size + each <= chunk_size:
            stop, size = i + 1, size + each
            continue
        found.append(range(start, stop))
        start, stop, size = (i, i + 1, each) if is_small else (i, i, 0)
    found.append(range(start, stop))
    return [group for group in found if len(group) > 1]


class _Joined(NamedTuple):
    """A chunk, and the places in the manifest of those it was made of."""

    group: range
    attempt: str
    ref: ChunkRef


class _Compaction:
    """One compaction: writes its chunks, then commits them.

    Parameters
    ----------
    log : Log
        The branch.
    run : str
        Name of the compaction's run.
    manifest : Manifest
        The chunks of the version that it began on.
    """

    def __init__(self, log: Log, run: str, manifest: Manifest) -> None:
        self.log = log
        self.run = run
        self.manifest = manifest
        #: The joined chunks that are part of the version that was made.
        self.taken: list[_Joined] = []

    def join(self, group: range) -> list[_Joined]:
        """Write one chunk that holds what those of a group hold; several where columns differ."""
        batches = self._read(group)
        found = []
        start = 0
        for stop in range(1, len(batches) + 1):
            if stop == len(batches) or not _same_columns(batches[start], batches[stop]):
                if stop - start > 1:
                    found.append(self._write(group[start:stop], batches[start:stop]))
                start = stop
        return found

    def _write(self, group: range, batches: Sequence[pa.RecordBatch]) -> _Joined:
        schema = batches[0].schema
        columns = [
            (schema.field(i), pa.concat_arrays([batch.column(i) for batch in batches]))
            for i in range(len(schema))
        ]
        first = group[0]
        partition, number = int(self.manifest.partition[first]), int(self.manifest.chunk[first])
        # One for each chunk: those of two runs may have the same partition and number.
        attempt = object_keys.new_id()
        header = ChunkHeader(
            branch=self.log.branch,
            run=self.run,
            epoch=1,
            partition=partition,
            attempt=attempt,
            chunk=number,
            last=False,  # nobody adopts it
        )
        chunk = write_chunk(columns, header)
        home = object_keys.home_of(self.log.branch, self.run)
        key = object_keys.chunk_key(home, partition, 1, attempt, number)
        self.log.retry(lambda: self.log.store.put(key, chunk.data))
        ref = ChunkRef(number, chunk.rows, len(chunk.data), chunk.head, chunk.crc)
        return _Joined(group, attempt, ref)

    def _read(self, group: range) -> list[pa.RecordBatch]:
        """Return what the chunks of a group hold, as it is stored, with every byte checked."""
        keys = [chunk_key_at(self.manifest, i) for i in group]
        found: list[bytes] = self.log.retry(
            lambda: self.log.store.get_many(keys), ObjectNotFoundError
        )
        batches = []
        for i, key, data in zip(group, keys, found, strict=True):
            head = ChunkHead.parse(data, len(data), key, int(self.manifest.crc[i]))
            head.check(head.length, memoryview(data)[head.length :])
            if head.rows != self.manifest.rows[i]:
                raise CorruptionError(
                    f"Chunk {key} has {head.rows} samples, not {self.manifest.rows[i]}. Restore "
                    "it from a copy; `dasklake verify` shows what else is damaged."
                )
            batches.append(head.batch)
        return unify_class_names(batches)

    def commit(self, entry: Commit, joined: Sequence[_Joined]) -> Commit:
        """Commit the joined chunks in place of those that the newest version still names."""

        def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
            raise_if_closed(head, since)
            for commit in since:
                self._examine(commit)
            now = join_manifests([self.log.segment(ref) for ref in head.segments])
            there = set(np.flatnonzero(_is_in(self.manifest, now)).tolist())
            self.taken = [each for each in joined if there.issuperset(each.group)]
            return self._draft(head, now, commit_id)

        return self.log.publish(entry, build)

    def _examine(self, commit: Commit) -> None:
        """Stop where a commit that came in between ends the compaction."""
        if commit.kind is Kind.ABORT and self.run in commit.entry["closed"]:
            raise RunAbortedError(
                f"The compaction was reset (version {commit.version}). Start it again; nothing "
                "was changed."
            )
        if commit.kind in (Kind.OVERWRITE, Kind.RESTORE):
            raise ConflictError(
                f"Version {commit.version} ({commit.kind}) replaced the lake's content during the "
                "compaction. Start it again; nothing was changed."
            )

    def _draft(self, head: Commit, now: Manifest, commit_id: str) -> Draft:
        """Return the commit after a version, and the one segment that it names."""
        gone = [place for each in self.taken for place in each.group]
        left = ~_is_in(now, _rows(self.manifest, np.array(gone, np.intp)))
        manifest = join_manifests([_rows(now, left), self._new()])
        data = segment_bytes(manifest)
        state: RunState = head.runs[self.run]
        changes: dict[str, Any] = {}
        if self.taken:
            level = max(ref.level for ref in head.segments)
            samples = int(manifest.rows.sum())
            ref = table_ref(commit_id, data, rows=len(manifest), samples=samples, level=level)
            changes["segments"] = (ref,)
            changes["totals"] = Totals(
                head.totals.samples, len(manifest), head.totals.failures, int(manifest.size.sum())
            )
        done = replace(state, finished=True, partitions=state.plan.partitions)
        commit = next_commit(
            head,
            commit_id,
            Kind.COMPACT,
            f"Join {len(gone)} chunks into {len(self.taken)}",
            entry={"run": self.run, "epoch": 1},
            runs=with_run(head, self.run, done),
            **changes,
        )
        return Draft(commit, [(object_keys.segment_key(commit_id), data)] if self.taken else [])

    def _new(self) -> Manifest:
        """Return the joined chunks, each in the place of the first of its group."""
        firsts = np.array([each.group[0] for each in self.taken], np.intp)
        of = _rows(self.manifest, firsts)
        count = len(firsts)
        refs = [each.ref for each in self.taken]
        return replace(
            of,
            home=(object_keys.home_of(self.log.branch, self.run),),
            run=np.zeros(count, np.int32),
            epoch=np.ones(count, np.int32),
            attempt=np.array([int(each.attempt, 16) for each in self.taken], np.uint64),
            rows=np.array([ref.rows for ref in refs], np.int64),
            size=np.array([ref.size for ref in refs], np.int64),
            head=np.array([ref.head for ref in refs], np.int64),
            crc=np.array([ref.crc for ref in refs], np.uint32),
        )


def _rows(manifest: Manifest, which: npt.NDArray[Any]) -> Manifest:
    """Return some chunks of a manifest, and only their runs."""
    names = [field.name for field in fields(Manifest) if field.name != "home"]
    arrays = {name: getattr(manifest, name)[which] for name in names}
    used, run = np.unique(arrays.pop("run"), return_inverse=True)
    home = tuple(manifest.home[i] for i in used.tolist())
    return Manifest(home, run.astype(np.int32), **arrays)


def _same_columns(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    """Whether names, types and what the fields say of themselves are the same."""
    left, right = one.schema.remove_metadata(), other.schema.remove_metadata()
    return bool(left.equals(right, check_metadata=True))


def _is_in(manifest: Manifest, other: Manifest) -> npt.NDArray[np.bool_]:
    """Return which chunks of a manifest another names too."""
    found = pc.is_in(_identity(manifest), value_set=_identity(other))
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _identity(manifest: Manifest) -> pa.Array:
    """Return what tells the chunks of a manifest from each other, as bytes: these are hashed."""
    found = np.empty(len(manifest), _IDENTITY)
    for name in _IDENTITY.names or ():
        found[name] = getattr(manifest, name)
    buffers = [None, pa.py_buffer(found.tobytes())]
    return pa.Array.from_buffers(pa.binary(_IDENTITY.itemsize), len(manifest), buffers)
