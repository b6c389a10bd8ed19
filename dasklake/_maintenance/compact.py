"""Compact: join small chunks into full ones, as a run that adds no rows.

A joined chunk has the order number of the run that wrote its parts, and the partition and chunk
number of its first part. Rows, their order and their values stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.decoded_size import DECODED_RATIO
from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead, ChunkHeader, write_chunk
from dasklake._format.chunk_parts import joined_parts
from dasklake._format.class_names import unify_class_names
from dasklake._format.segment import chunk_key_at, join_manifests, segment_bytes, table_ref
from dasklake._format.statistics import encode_statistics
from dasklake._log.heartbeat import send_heartbeats
from dasklake._log.log import Draft, Log
from dasklake._log.run_entries import begin, with_run
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._maintenance.decoded_bytes import decoded_bytes
from dasklake._model.commit import Commit, Kind, Plan, RunState, Totals
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import ChunkRef
from dasklake._model.tensor_history import stored_specs
from dasklake._schema.schema import TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    ObjectNotFoundError,
    RunAbortedError,
)

_LOGGER = logging.getLogger(__name__)

#: The identity of a chunk. Attempts are random, so the run need not be compared.
_IDENTITY = np.dtype([("attempt", "u8"), ("partition", "i8"), ("epoch", "i4"), ("chunk", "i4")])


@dataclass(frozen=True, slots=True)
class CompactReport:
    """The result of a compaction.

    Attributes
    ----------
    version : int or None
        The version that holds the joined chunks, or None if there was nothing to join.
    joined : int
        Number of small chunks that are no longer part of the newest version.
    into : int
        Number of chunks that replaced them.
    bytes : int
        Total size of the new chunks.
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

    Earlier versions stay as they are. The next vacuum deletes the chunks that only they name.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        The branch.
    chunk_size : int, default 64 MiB
        Maximum size of a joined chunk in bytes. Chunks of less than half of it are small.
    on_status : callable, optional
        ``on_status(done, total)`` is called with the numbers of joined and of all small chunks.

    Returns
    -------
    CompactReport
        The joined chunks.

    Raises
    ------
    LakeNotFoundError
        The lake does not exist.
    ConflictError
        Another writer replaced the content of the version, or a reset ended the compaction.
    CorruptionError
        A small chunk is damaged.
    InvalidInputError
        ``chunk_size`` is not positive.
    """
    if chunk_size < 1:
        raise InvalidInputError(
            f"chunk_size must be a positive number of bytes, got {chunk_size}. Give a size such as "
            "'64 MiB'."
        )
    head = log.require_head()
    manifest = log.manifest(head)
    groups = _groups(manifest, head, chunk_size)
    if not groups:
        return CompactReport(None, 0, 0, 0)
    run = f"compact-{object_keys.new_id()}"
    plan = Plan(len(groups), None, "", None, compaction=True)
    entry = begin(log, head, run, plan)
    work = _Compaction(log, run, manifest, head, DECODED_RATIO * chunk_size)
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
        commit = work.commit(entry, joined)
    taken = work.taken
    report = CompactReport(
        commit.version if taken else None,
        sum(len(chunk.group) for chunk in taken),
        len(taken),
        sum(chunk.ref.size for chunk in taken),
    )
    _LOGGER.info(
        "Compacted branch %r of %s: %d chunks joined into %d (%d bytes)",
        log.branch,
        store.url,
        report.joined,
        report.into,
        report.bytes,
    )
    return report


def _groups(manifest: Manifest, head: Commit, chunk_size: int) -> list[range]:
    """Return the neighbouring chunks that become one chunk, as ranges of rows of a manifest.

    Chunks of an unfinished run stay: they show which of its partitions are written. Its missing
    rows will be inserted by its order number, so no chunks are joined across that position.
    """
    waiting = [s.order for s in head.runs.values() if not (s.finished or s.replaced)]
    before = np.searchsorted(np.sort(waiting), manifest.order)
    # Row numbers at which the meaning of a column changed: a chunk lies on one side of them.
    histories = head.histories.values()
    edges = {h.since for h in histories} | {until for h in histories for until, _ in h.former}
    firsts = np.cumsum(manifest.rows) - manifest.rows
    cut = np.isin(firsts, sorted(edges)) | (np.diff(before, prepend=-1) != 0)
    small = (2 * manifest.size < chunk_size) & ~np.isin(manifest.order, waiting)
    groups: list[range] = []
    start = stop = size = 0
    chunks = zip(small.tolist(), cut.tolist(), manifest.size.tolist(), strict=True)
    for i, (is_small, is_cut, length) in enumerate(chunks):
        if is_small and start < stop and not is_cut and size + length <= chunk_size:
            stop, size = i + 1, size + length
            continue
        groups.append(range(start, stop))
        start, stop, size = (i, i + 1, length) if is_small else (i, i, 0)
    groups.append(range(start, stop))
    return [group for group in groups if len(group) > 1]


class _Joined(NamedTuple):
    """A joined chunk, and the manifest rows of its parts."""

    group: range
    attempt: str
    ref: ChunkRef


class _Compaction:
    """Write the chunks of a compaction, then commit them.

    Parameters
    ----------
    log : Log
        The branch.
    run : str
        Name of the compaction's run.
    manifest : Manifest
        The chunks of the version before the compaction.
    head : Commit
        Commit of that version.
    max_decoded : int
        Maximum decoded bytes of a joined chunk.
    """

    def __init__(
        self, log: Log, run: str, manifest: Manifest, head: Commit, max_decoded: int
    ) -> None:
        self.log = log
        self.run = run
        self.manifest = manifest
        self.head = head
        self.max_decoded = max_decoded
        #: The joined chunks that the committed version contains.
        self.taken: list[_Joined] = []

    def join(self, group: range) -> list[_Joined]:
        """Write one chunk with the rows of a group.

        Several, if the columns of its chunks differ or one chunk would be too large once decoded.
        """
        batches = self._read(group)
        first = int(self.manifest.rows[: group[0]].sum())
        sizes = [decoded_bytes(batch, self.head, first) for batch in batches]
        joined = []
        start = 0
        for stop in range(1, len(batches) + 1):
            if (
                stop == len(batches)
                or not _same_columns(batches[start], batches[stop])
                or sum(sizes[start : stop + 1]) > self.max_decoded
            ):
                if stop - start > 1:
                    joined.append(self._write(group[start:stop], batches[start:stop]))
                start = stop
        return joined

    def _write(self, group: range, batches: Sequence[pa.RecordBatch]) -> _Joined:
        schema = batches[0].schema
        columns = [
            (schema.field(i), pa.concat_arrays([batch.column(i) for batch in batches]))
            for i in range(len(schema))
        ]
        first = group[0]
        partition, number = int(self.manifest.partition[first]), int(self.manifest.chunk[first])
        # A new attempt for each chunk: chunks of two runs may share partition and number.
        attempt = object_keys.new_id()
        header = ChunkHeader(
            branch=self.log.branch,
            run=self.run,
            epoch=1,
            partition=partition,
            attempt=attempt,
            chunk=number,
            last=False,  # never recovered by a resume
        )
        chunk = write_chunk(columns, header)
        home = object_keys.home_of(self.log.branch, self.run)
        key = object_keys.chunk_key(home, partition, 1, attempt, number)
        self.log.retry(lambda: self.log.store.put(key, chunk.data))
        # Measured again, so that chunks from before there were statistics get theirs.
        statistics = encode_statistics(columns, self._specs(first), trusted=False)
        ref = ChunkRef(number, chunk.rows, len(chunk.data), chunk.head, chunk.crc, statistics)
        return _Joined(group, attempt, ref)

    def _specs(self, chunk: int) -> dict[str, TensorSpec]:
        """Return the tensors of the version, by their names in a chunk."""
        first = int(self.manifest.rows[:chunk].sum())
        return stored_specs(self.head.schema, self.head.histories, first)

    def _read(self, group: range) -> list[pa.RecordBatch]:
        """Read the chunks of a group as stored, with every checksum verified."""
        keys = [chunk_key_at(self.manifest, i) for i in group]
        chunks: list[bytes] = self.log.retry(
            lambda: self.log.store.get_many(keys), ObjectNotFoundError
        )
        batches = []
        for i, key, data in zip(group, keys, chunks, strict=True):
            head = ChunkHead.parse(data, len(data), key, int(self.manifest.crc[i]))
            head.check(head.length, memoryview(data)[head.length :])
            if head.rows != self.manifest.rows[i]:
                raise CorruptionError(
                    f"Chunk {key} must have {self.manifest.rows[i]} samples, got {head.rows}. Restore "
                    "it from a copy; `dasklake verify` lists all damaged objects."
                )
            batches.append(head.batch)
        return unify_class_names(batches)

    def commit(self, entry: Commit, joined: Sequence[_Joined]) -> Commit:
        """Commit the joined chunks whose parts the newest version still names."""

        def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
            raise_if_closed(head, since)
            for commit in since:
                self._examine(commit)
            segments = [self.log.segment(ref, statistics=True) for ref in head.segments]
            current = join_manifests(segments)
            present = set(np.flatnonzero(_is_in(self.manifest, current)).tolist())
            self.taken = [chunk for chunk in joined if present.issuperset(chunk.group)]
            return self._draft(head, current, commit_id)

        return self.log.publish(entry, build)

    def _examine(self, commit: Commit) -> None:
        """Raise if a concurrent commit ends the compaction."""
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

    def _draft(self, head: Commit, current: Manifest, commit_id: str) -> Draft:
        """Return the commit after a version, and its one segment."""
        parts = [row for chunk in self.taken for row in chunk.group]
        unchanged = ~_is_in(current, _rows(self.manifest, np.array(parts, np.intp)))
        manifest = join_manifests([_rows(current, unchanged), self._new()])
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
            f"Join {len(parts)} chunks into {len(self.taken)}",
            entry={"run": self.run, "epoch": 1},
            runs=with_run(head, self.run, done),
            **changes,
        )
        return Draft(commit, [(object_keys.segment_key(commit_id), data)] if self.taken else [])

    def _new(self) -> Manifest:
        """Return the manifest of the joined chunks, with the order of their first parts."""
        firsts = np.array([chunk.group[0] for chunk in self.taken], np.intp)
        first_parts = _rows(self.manifest, firsts)
        count = len(firsts)
        refs = [chunk.ref for chunk in self.taken]
        return replace(
            first_parts,
            home=(object_keys.home_of(self.log.branch, self.run),),
            run=np.zeros(count, np.int32),
            epoch=np.ones(count, np.int32),
            attempt=np.array([int(chunk.attempt, 16) for chunk in self.taken], np.uint64),
            rows=np.array([ref.rows for ref in refs], np.int64),
            size=np.array([ref.size for ref in refs], np.int64),
            head=np.array([ref.head for ref in refs], np.int64),
            crc=np.array([ref.crc for ref in refs], np.uint32),
            statistics=pa.array([ref.statistics for ref in refs], pa.large_string()),
            parts=joined_parts(self.manifest, [chunk.group for chunk in self.taken]),
        )


def _rows(manifest: Manifest, which: npt.NDArray[Any]) -> Manifest:
    """Return some rows of a manifest, and only the runs that they name."""
    optional = ("statistics", "parts")
    names = [f.name for f in fields(Manifest) if f.name not in ("home", *optional)]
    arrays = {name: getattr(manifest, name)[which] for name in names}
    used, run = np.unique(arrays.pop("run"), return_inverse=True)
    home = tuple(manifest.home[i] for i in used.tolist())
    indices = pa.array(np.flatnonzero(which) if which.dtype == bool else which)
    taken: dict[str, Any] = {
        name: None if column is None else column.take(indices)
        for name in optional
        for column in [getattr(manifest, name)]
    }
    return Manifest(home, run.astype(np.int32), **arrays, **taken)


def _same_columns(one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
    """Return whether the fields have the same names, types and metadata."""
    fields_of_one = one.schema.remove_metadata()
    return bool(fields_of_one.equals(other.schema.remove_metadata(), check_metadata=True))


def _is_in(manifest: Manifest, other: Manifest) -> npt.NDArray[np.bool_]:
    """Return a mask of the chunks of a manifest that another manifest names too."""
    mask = pc.is_in(_identity(manifest), value_set=_identity(other))
    return np.asarray(mask.to_numpy(zero_copy_only=False), bool)


def _identity(manifest: Manifest) -> pa.Array:
    """Return the identities of the chunks of a manifest as bytes, which can be hashed."""
    identities = np.empty(len(manifest), _IDENTITY)
    for name in _IDENTITY.names or ():
        identities[name] = getattr(manifest, name)
    buffers = [None, pa.py_buffer(identities.tobytes())]
    return pa.Array.from_buffers(pa.binary(_IDENTITY.itemsize), len(manifest), buffers)
