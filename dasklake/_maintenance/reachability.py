"""Find the objects that the versions of all branches name."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dasklake._format import object_keys
from dasklake._log.log import MAIN, Log
from dasklake._log.transactions import branch_names
from dasklake._model.commit import Commit, Kind, RunState, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.versions import Versions
from dasklake._storage.store import ObjectStore, temporary_target
from dasklake.exceptions import ObjectNotFoundError, VersionExpiredError

#: Concurrent requests.
REQUESTS = 16

#: Objects deleted between two reports of progress.
_STEP = 256

#: Objects of an attempt: its chunks, and the table of its failures if they are many.
_OBJECT = re.compile(
    r"data/(?P<home>[^/]+/[^/]+)/"
    r"\d+-(?P<epoch>\d+)-(?P<attempt>[0-9a-f]{16})-(?:(?P<chunk>\d+)|failures)\.arrow"
)

#: Combine an attempt and a chunk into one number.
_ODD, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1

#: Called with the number of finished objects and the number of all objects.
OnStatus = Callable[[int, int], object]


class Table(NamedTuple):
    """A segment or a table of failures, and the newest version that names it."""

    log: Log
    ref: SegmentRef
    version: int


class ObjectName(NamedTuple):
    """The parts of the key of a run's object; ``chunk`` is None for a table of failures."""

    home: str
    epoch: int
    attempt: int
    chunk: int | None


def parse_data_key(key: str) -> ObjectName | None:
    """Parse the key of a run's object, temporary or not; return None for other keys."""
    match = _OBJECT.fullmatch(temporary_target(key) or key)
    if match is None:
        return None
    chunk = match["chunk"]
    return ObjectName(
        match["home"],
        int(match["epoch"]),
        int(match["attempt"], 16),
        None if chunk is None else int(chunk),
    )


@dataclass
class Reachable:
    """The objects that some versions name.

    Attributes
    ----------
    segments, failures : set of str
        Names of tables.
    attempts : mapping of str to set of int
        Attempts with at least one named chunk, by run.
    chunks : mapping of str to set of int
        One number for each named chunk, by run. If two chunks share a number, both count as
        named: that keeps too much and never too little.
    """

    segments: set[str] = field(default_factory=set)
    failures: set[str] = field(default_factory=set)
    attempts: dict[str, set[int]] = field(default_factory=dict)
    chunks: dict[str, set[int]] = field(default_factory=dict)

    def includes(self, name: ObjectName) -> bool:
        """Return whether a version needs an object of a run."""
        if name.chunk is None:
            return name.attempt in self.attempts.get(name.home, ())
        number = name.attempt ^ ((name.chunk + 1) * _ODD & _MASK)
        return number in self.chunks.get(name.home, ())

    def add(self, manifest: Manifest, homes: set[str]) -> None:
        """Add the chunks of some runs that a segment names."""
        for number, home in enumerate(manifest.home):
            if home not in homes:
                continue
            rows = manifest.run == number
            attempts = manifest.attempt[rows]
            chunks = manifest.chunk[rows].astype(np.uint64) + np.uint64(1)
            numbers = attempts ^ (chunks * np.uint64(_ODD))  # wraps around on purpose
            self.attempts.setdefault(home, set()).update(np.unique(attempts).tolist())
            self.chunks.setdefault(home, set()).update(numbers.tolist())


class BranchHeads:
    """The heads of all branches, read once.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    logs : dict of str to Log
        Logs of its branches. Missing ones are added. They can be reused, for the commits that
        they cache do not change.

    Attributes
    ----------
    heads : dict of str to Commit
        The newest commit of each branch.
    expired : mapping of str to Versions
        The expired versions, by branch.
    """

    def __init__(self, store: ObjectStore, logs: dict[str, Log]) -> None:
        for name in branch_names(store):
            if name not in logs:
                logs[name] = Log(store, name)
        self.logs = logs
        main = logs[MAIN].head() if MAIN in logs else None
        # Read before the branches: versions that expire after that are still kept.
        self.expired: Mapping[str, Versions] = main.expired if main else {}
        heads = {name: main if name == MAIN else log.head() for name, log in logs.items()}
        self.heads: dict[str, Commit] = {name: head for name, head in heads.items() if head}

    @property
    def single_writer(self) -> bool:
        """True if the lake was created on storage without exclusive create."""
        return any(head.single_writer for head in self.heads.values())

    def unfinished(self) -> dict[str, RunState]:
        """Return the runs that are or could be continued, by ``<branch>/<run>``."""
        return {
            object_keys.home_of(branch, run): state
            for branch, head in self.heads.items()
            for run, state in head.runs.items()
            if not state.finished and head.kind is not Kind.CLOSED
        }

    @property
    def unrestorable(self) -> Mapping[str, Container[int]]:
        """Return the versions that no concurrent restore can bring back: the expired ones of main.

        A restore on another branch may have read the expire marks before, and loses no race until
        the vacuum that set them has fenced the branch.
        """
        return {MAIN: self.expired.get(MAIN, Versions())}

    def reachable(self, homes: set[str], without: Mapping[str, Container[int]]) -> Reachable:
        """Return the objects that versions name.

        Parameters
        ----------
        homes : set of str
            The runs whose chunks are collected, as ``<branch>/<run>``.
        without : mapping of str to container of int
            Versions to leave out, by branch.

        Raises
        ------
        CorruptionError
            A segment is damaged or lost, so the needed chunks are unknown.
        """
        reachable = Reachable()
        tables: dict[str, Table] = {}
        for branch in self.heads:
            for commit in self._commits(branch, without.get(branch, ())):
                reachable.failures.update(ref.name for ref in commit.failures)
                for ref in commit.segments:
                    table = tables.get(ref.name)
                    if table is None or table.version in self.expired.get(table.log.branch, ()):
                        tables[ref.name] = Table(self.logs[branch], ref, commit.version)
        reachable.segments.update(tables)
        if not homes:
            return reachable
        with ThreadPoolExecutor(REQUESTS) as pool:
            for manifest in pool.map(self._segment, tables.values()):
                if manifest is not None:
                    reachable.add(manifest, homes)
        return reachable

    def _commits(self, branch: str, without: Container[int]) -> Iterator[Commit]:
        """Yield the commits of a branch but some, newest first."""
        newest = self.heads[branch].version
        versions = [version for version in range(newest, -1, -1) if version not in without]
        with ThreadPoolExecutor(REQUESTS) as pool:
            yield from pool.map(self.logs[branch].read, versions)

    def _segment(self, table: Table) -> Manifest | None:
        """Read a segment; return None if its version has expired and a vacuum has deleted it."""
        try:
            return table.log.segment(table.ref)
        except ObjectNotFoundError as error:
            if table.version in self.expired.get(table.log.branch, ()):
                return None
            reason = table.log.missing_object_error(
                table.version, object_keys.segment_key(table.ref.name)
            )
            if isinstance(reason, VersionExpiredError):
                return None
            raise reason from error


def delete_objects(store: ObjectStore, keys: Sequence[str], on_status: OnStatus | None) -> None:
    """Delete objects in batches, and report the progress."""
    for start in range(0, len(keys), _STEP):
        store.delete(keys[start : start + _STEP])
        if on_status is not None:
            on_status(min(start + _STEP, len(keys)), len(keys))
