"""Verify: read every version again and compare all checksums."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import chunk_key_at, read_failures
from dasklake._log.log import MAIN, Log
from dasklake._log.transactions import branch_names
from dasklake._maintenance.reachability import REQUESTS, Table
from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    LakeError,
    ObjectNotFoundError,
    VersionNotFoundError,
)

__all__ = ["Damage", "VerifyReport", "verify"]

#: Bytes of a chunk that are read at a time, and how many chunks at the same time.
_WINDOW = 8 * 2**20
_READERS = 4

#: The object of a large schema, as messages name it.
_SCHEMA = re.compile(r"_lake/schemas/[0-9a-f]{32}\.json")


@dataclass(frozen=True, slots=True)
class Damage:
    """An object that is not as it was written.

    Attributes
    ----------
    key : str
        The object.
    problem : str
        What is wrong with it.
    branch : str
        The branch whose log names it.
    version : int or None
        The newest version that is concerned; None where that cannot be told.
    rows : tuple of int, or None
        First row of that version that the object holds, and the one after the last; None where
        it holds no rows or their place cannot be told.
    """

    key: str
    problem: str
    branch: str
    version: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification has found.

    Attributes
    ----------
    versions, segments, chunks : int
        How many of each were read; ``segments`` counts tables of failures too.
    samples : int
        Samples in the chunks.
    bytes : int
        Length of the chunks.
    quick : bool
        True if of each chunk only size and head were read.
    damaged : tuple of Damage
        What is wrong; empty for a sound lake.
    """

    versions: int
    segments: int
    chunks: int
    samples: int
    bytes: int
    quick: bool
    damaged: tuple[Damage, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return not self.damaged


def verify(store: ObjectStore, log: Log, *, quick: bool = False) -> VerifyReport:
    """Read every version again and compare all checksums.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    quick : bool, default False
        Read only sizes and heads of the chunks, not their data.

    Returns
    -------
    VerifyReport
        What was read, and what is damaged.

    Raises
    ------
    LakeNotFoundError
        There is no lake.
    """
    if log.head_version() is None:
        log.require_head()
    return _Verification(store, log, quick=quick).run()


@dataclass(slots=True)
class _Chunk:
    """A chunk as the segments name it."""

    key: str
    branch: str
    rows: int
    size: int
    head: int
    crc: int


@dataclass
class _Verification:
    store: ObjectStore
    log: Log
    quick: bool
    damaged: list[Damage] = field(default_factory=list)

    def run(self) -> VerifyReport:
        """Check commits, then the tables they name, then the chunks these name."""
        names = {*branch_names(self.store), self.log.branch}
        logs = {name: Log(self.store, name) for name in sorted(names)}
        commits = self._commits(logs)
        tables: dict[str, Table] = {}
        chunks: dict[str, _Chunk] = {}
        for branch, found in commits.items():
            for commit in found:
                for ref in commit.segments:
                    table = Table(logs[branch], ref, commit.version)
                    tables.setdefault(object_keys.segment_key(ref.name), table)
                for ref in commit.failures:
                    table = Table(logs[branch], ref, commit.version)
                    tables.setdefault(object_keys.failures_key(ref.name), table)
        with ThreadPoolExecutor(REQUESTS) as pool:
            for manifest, branch in pool.map(self._table, tables, tables.values()):
                chunks |= _chunks(manifest, branch)
        self._places(logs, commits, self._check(chunks))
        return VerifyReport(
            versions=sum(map(len, commits.values())),
            segments=len(tables),
            chunks=len(chunks),
            samples=sum(chunk.rows for chunk in chunks.values()),
            bytes=sum(chunk.size for chunk in chunks.values()),
            quick=self.quick,
            damaged=tuple(self.damaged),
        )

    def _commits(self, logs: Mapping[str, Log]) -> dict[str, list[Commit]]:
        """Read the versions of all branches that are not expired, newest first."""
        found: dict[str, list[Commit]] = {}
        expired: Mapping[str, Container[int]] = {}
        # What is expired is said on the main branch.
        for branch in sorted(logs, key=lambda name: name != MAIN):
            read = self._history(logs[branch])
            commits = [commit for commit in read.values() if isinstance(commit, Commit)]
            if branch == MAIN and commits:
                expired = commits[0].expired
            gone = expired.get(branch, ())
            self._check_history(branch, read, gone)
            found[branch] = [commit for commit in commits if commit.version not in gone]
        return found

    def _history(self, log: Log) -> dict[int, Commit | LakeError]:
        """Read all commits of a branch, newest first; errors in the place of those that are bad."""
        newest = log.head_version()
        if newest is None:
            return {}

        def read(version: int) -> Commit | LakeError:
            try:
                return log.read(version)
            except (VersionNotFoundError, ObjectNotFoundError, CorruptionError) as error:
                return error

        try:
            versions = log.versions(newest)[::-1]
        except CorruptionError as error:
            return {newest: error}
        with ThreadPoolExecutor(REQUESTS) as pool:
            return dict(zip(versions, pool.map(read, versions), strict=True))

    def _check_history(
        self, branch: str, read: Mapping[int, Commit | LakeError], gone: Container[int]
    ) -> None:
        """Report bad commits, large schemas that are bad, and commits out of their order."""
        later: Commit | None = None
        for version, commit in read.items():
            key = object_keys.commit_key(branch, version)
            if isinstance(commit, Commit):
                if later and later.parent != commit.id:
                    problem = f"it was not built on version {version}"
                    self._report(
                        object_keys.commit_key(branch, later.version),
                        problem,
                        branch,
                        later.version,
                    )
                later = commit
                continue
            later = None
            if isinstance(commit, ObjectNotFoundError) and version in gone:
                continue  # the schema of a version that was given up
            schema = _SCHEMA.search(str(commit))
            key = schema.group() if schema else key
            self._report(key, _problem(commit, key), branch, version)

    def _report(self, key: str, problem: str, branch: str, version: int) -> None:
        if all(found.key != key for found in self.damaged):
            self.damaged.append(Damage(key, problem, branch, version))

    def _table(self, key: str, table: Table) -> tuple[Manifest | None, str]:
        """Read a segment or a table of failures."""
        branch = table.log.branch
        try:
            if key == object_keys.segment_key(table.ref.name):
                return table.log.segment(table.ref), branch
            read_failures(self.store.get(key, table.ref.size), table.ref, key)
        except (ObjectNotFoundError, CorruptionError) as error:
            problem = _problem(error, key)
            if table.ref.samples:
                problem = f"{problem}; it leads to {table.ref.samples} samples"
            self.damaged.append(Damage(key, problem, branch, table.version))
        return None, branch

    def _check(self, chunks: Mapping[str, _Chunk]) -> dict[str, Damage]:
        """Check all chunks; return what is wrong with them, by key."""
        sizes = dict(self.store.walk("data"))

        def check(chunk: _Chunk) -> Damage | None:
            try:
                self._chunk(chunk, sizes.get(chunk.key))
            except (ObjectNotFoundError, CorruptionError) as error:
                return Damage(chunk.key, _problem(error, chunk.key), chunk.branch)
            return None

        with ThreadPoolExecutor(REQUESTS if self.quick else _READERS) as pool:
            return {bad.key: bad for bad in pool.map(check, chunks.values()) if bad}

    def _chunk(self, chunk: _Chunk, size: int | None) -> None:
        if size is None:
            raise CorruptionError("it is missing")
        if size != chunk.size:
            raise CorruptionError(f"it has {size} bytes, not {chunk.size}")
        data = self.store.get_range(chunk.key, 0, chunk.head)
        head = ChunkHead.parse(data, chunk.size, chunk.key, chunk.crc)
        header = head.header
        home = object_keys.home_of(header.branch, header.run)
        attempt = (home, header.partition, header.epoch, header.attempt)
        if object_keys.chunk_key(*attempt, header.chunk) != chunk.key or head.rows != chunk.rows:
            raise CorruptionError("it is another chunk than the one that was written here")
        step = max(_WINDOW // head.page, 1) * head.page
        for start in range(head.length, 0 if self.quick else head.size, step):
            stop = min(start + step, head.size)
            head.check(start, self.store.get_range(chunk.key, start, stop))

    def _places(
        self,
        logs: Mapping[str, Log],
        commits: Mapping[str, list[Commit]],
        damaged: dict[str, Damage],
    ) -> None:
        """Say which rows of which version the damaged chunks hold."""
        for branch, found in commits.items():
            for commit in found:
                if not damaged:
                    return
                try:
                    manifest = logs[branch].manifest(commit)
                except CorruptionError:
                    continue  # reported already; the places of its rows cannot be told
                ends = np.cumsum(manifest.rows)
                for i in range(len(manifest)):
                    bad = damaged.pop(chunk_key_at(manifest, i), None)
                    if bad:
                        stop = int(ends[i])
                        rows = (stop - int(manifest.rows[i]), stop)
                        self.damaged.append(
                            Damage(bad.key, bad.problem, branch, commit.version, rows)
                        )
        self.damaged.extend(damaged.values())


def _chunks(manifest: Manifest | None, branch: str) -> dict[str, _Chunk]:
    """Return the chunks of a segment, by key."""
    if manifest is None:
        return {}
    numbers = zip(
        manifest.rows.tolist(),
        manifest.size.tolist(),
        manifest.head.tolist(),
        manifest.crc.tolist(),
        strict=True,
    )
    keys = (chunk_key_at(manifest, i) for i in range(len(manifest)))
    return {key: _Chunk(key, branch, *rest) for key, rest in zip(keys, numbers, strict=True)}


def _problem(error: Exception, key: str) -> str:
    """Return what an error says of an object, without what the report says anyway."""
    if isinstance(error, ObjectNotFoundError | VersionNotFoundError):
        return "it is missing"
    text = str(error).split(". ")[0].removesuffix(".")
    for start in (f"Object {key} is damaged: ", f"Commit {key} ", f"Chunk {key} is damaged: "):
        text = text.removeprefix(start)
    return text
