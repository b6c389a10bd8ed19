"""Verify: read every version again and compare all checksums."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import chunk_key_at, read_failures
from dasklake._log.log import MAIN, Log
from dasklake._log.transactions import branch_names
from dasklake._maintenance.reachability import REQUESTS, Table
from dasklake._maintenance.statistics import ChunkVersion, StatisticsCheck, find_versions
from dasklake._model.commit import Commit
from dasklake._model.manifest import Manifest
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeError,
    ObjectNotFoundError,
    VersionNotFoundError,
)

#: Bytes of a chunk per read, and number of chunks that are read concurrently.
_WINDOW = 8 * 2**20
_READERS = 4

#: Finds the values of a version that cannot be decoded, except in some chunks: the key of the chunk,
#: the number of the sample, and the problem of each.
FindUndecodable = Callable[
    [ObjectStore, Commit, Manifest, Container[str]], Iterable[tuple[str, int, str]]
]

#: Key of a large schema in a message.
_SCHEMA = re.compile(r"_lake/schemas/[0-9a-f]{32}\.json")


@dataclass(frozen=True, slots=True)
class Damage:
    """A missing or damaged object.

    Attributes
    ----------
    key : str
        Key of the object.
    problem : str
        Description of the damage.
    branch : str
        The branch whose log names the object.
    version : int or None
        The newest affected version, or None if it is unknown.
    rows : tuple of int, or None
        First row of that version that the object holds, and the row after the last. None if the
        object holds no rows, or if their position is unknown.
    """

    key: str
    problem: str
    branch: str
    version: int | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of a verification.

    Attributes
    ----------
    versions, segments, chunks : int
        Number of objects that were read. ``segments`` counts tables of failures too.
    samples : int
        Number of samples in the chunks.
    bytes : int
        Total size of the chunks.
    quick : bool
        Whether only the size and head of each chunk were read.
    damaged : tuple of Damage
        The damaged objects; empty for an intact lake.
    decoded : bool
        Whether stored media files were decoded, too.
    """

    versions: int
    segments: int
    chunks: int
    samples: int
    bytes: int
    quick: bool
    damaged: tuple[Damage, ...]
    decoded: bool = False

    @property
    def ok(self) -> bool:
        """True if no object is missing or damaged."""
        return not self.damaged


def verify(
    store: ObjectStore, log: Log, *, quick: bool = False, decode: FindUndecodable | None = None
) -> VerifyReport:
    """Read every version again and compare all checksums.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    quick : bool, default False
        Read only the sizes and heads of the chunks, not their data.
    decode : callable, optional
        Finds values that cannot be decoded.

    Returns
    -------
    VerifyReport
        The numbers of objects read, and the damaged objects.

    Raises
    ------
    InvalidInputError
        Both ``quick`` and ``decode`` are given.
    LakeNotFoundError
        The lake does not exist.
    """
    if log.head_version() is None:
        log.require_head()
    if quick and decode is not None:
        raise InvalidInputError(
            "quick=True reads no data that could be decoded. Pass either quick=True or decode=True."
        )
    return _Verification(store, log, quick=quick, decode=decode).run()


@dataclass(slots=True)
class _Chunk:
    """A chunk as described by a segment."""

    key: str
    branch: str
    rows: int
    size: int
    head: int
    crc: int
    statistics: str | None


@dataclass
class _Verification:
    store: ObjectStore
    log: Log
    quick: bool
    decode: FindUndecodable | None = None
    damaged: list[Damage] = field(default_factory=list)
    #: A version of each chunk with statistics, by key.
    versions: dict[str, ChunkVersion] = field(default_factory=dict)

    def run(self) -> VerifyReport:
        """Check commits, then the tables that they name, then the chunks that these name."""
        names = {*branch_names(self.store), self.log.branch}
        logs = {name: Log(self.store, name) for name in sorted(names)}
        commits = self._commits(logs)
        tables: dict[str, Table] = {}
        chunks: dict[str, _Chunk] = {}
        for branch, history in commits.items():
            for commit in history:
                for ref in commit.segments:
                    table = Table(logs[branch], ref, commit.version)
                    tables.setdefault(object_keys.segment_key(ref.name), table)
                for ref in commit.failures:
                    table = Table(logs[branch], ref, commit.version)
                    tables.setdefault(object_keys.failures_key(ref.name), table)
        with ThreadPoolExecutor(REQUESTS) as pool:
            for manifest, branch in pool.map(self._table, tables, tables.values()):
                for key, chunk in _chunks(manifest, branch).items():
                    chunks.setdefault(key, chunk)  # the newest segment comes first
        if not self.quick:
            keys = {key for key, chunk in chunks.items() if chunk.statistics is not None}
            self.versions = find_versions(logs, commits, keys)
        damaged = self._check(chunks)
        self._report_chunks(logs, commits, dict(damaged))
        if self.decode is not None:
            self._decode(self.decode, logs, commits, set(damaged))
        return VerifyReport(
            versions=sum(map(len, commits.values())),
            segments=len(tables),
            chunks=len(chunks),
            samples=sum(chunk.rows for chunk in chunks.values()),
            bytes=sum(chunk.size for chunk in chunks.values()),
            quick=self.quick,
            damaged=tuple(self.damaged),
            decoded=self.decode is not None,
        )

    def _commits(self, logs: Mapping[str, Log]) -> dict[str, list[Commit]]:
        """Read the versions of all branches that are not expired, newest first."""
        live: dict[str, list[Commit]] = {}
        expired: Mapping[str, Container[int]] = {}
        # The main branch records the expired versions of all branches.
        for branch in sorted(logs, key=lambda name: name != MAIN):
            read = self._history(logs[branch])
            commits = [commit for commit in read.values() if isinstance(commit, Commit)]
            if branch == MAIN and commits:
                expired = commits[0].expired
            expired_here = expired.get(branch, ())
            self._check_history(branch, read, expired_here)
            live[branch] = [commit for commit in commits if commit.version not in expired_here]
        return live

    def _history(self, log: Log) -> dict[int, Commit | LakeError]:
        """Read all commits of a branch, newest first; return an error for each unreadable one."""
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
        self, branch: str, read: Mapping[int, Commit | LakeError], expired: Container[int]
    ) -> None:
        """Report damaged commits and large schemas, and commits with another parent."""
        later: Commit | None = None
        for version, commit in read.items():
            key = object_keys.commit_key(branch, version)
            if isinstance(commit, Commit):
                if later and later.parent != commit.id:
                    problem = f"its parent is not version {version}"
                    self._report(
                        object_keys.commit_key(branch, later.version),
                        problem,
                        branch,
                        later.version,
                    )
                later = commit
                continue
            later = None
            if isinstance(commit, ObjectNotFoundError) and version in expired:
                continue  # the schema of an expired version
            schema = _SCHEMA.search(str(commit))
            key = schema.group() if schema else key
            self._report(key, _problem(commit, key), branch, version)

    def _report(self, key: str, problem: str, branch: str, version: int) -> None:
        if all(damage.key != key for damage in self.damaged):
            self.damaged.append(Damage(key, problem, branch, version))

    def _table(self, key: str, table: Table) -> tuple[Manifest | None, str]:
        """Read a segment or a table of failures."""
        branch = table.log.branch
        try:
            if key == object_keys.segment_key(table.ref.name):
                return table.log.segment(table.ref, statistics=not self.quick), branch
            read_failures(self.store.get(key, table.ref.size), table.ref, key)
        except (ObjectNotFoundError, CorruptionError) as error:
            problem = _problem(error, key)
            if table.ref.samples:
                problem = f"{problem}; it lists chunks with {table.ref.samples} samples"
            self.damaged.append(Damage(key, problem, branch, table.version))
        return None, branch

    def _check(self, chunks: Mapping[str, _Chunk]) -> dict[str, Damage]:
        """Check all chunks; return the damaged ones by key."""
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
            raise CorruptionError(f"it must have {chunk.size} bytes, got {size}")
        data = self.store.get_range(chunk.key, 0, chunk.head)
        head = ChunkHead.parse(data, chunk.size, chunk.key, chunk.crc)
        header = head.header
        home = object_keys.home_of(header.branch, header.run)
        attempt = (home, header.partition, header.epoch, header.attempt)
        if object_keys.chunk_key(*attempt, header.chunk) != chunk.key or head.rows != chunk.rows:
            raise CorruptionError("it is a different chunk from the one that was written here")
        if self.quick:
            return
        version = self.versions.get(chunk.key)
        check = None
        if version is not None and chunk.statistics is not None:
            check = StatisticsCheck(head, chunk.statistics, version)
        spans = check.spans() if check is not None else []
        step = max(_WINDOW // head.page, 1) * head.page
        for start in range(head.length, head.size, step):
            stop = min(start + step, head.size)
            data = self.store.get_range(chunk.key, start, stop)
            head.check(start, data)
            if any(begin < stop and start < end for begin, end in spans):
                head.memory[start:stop] = np.frombuffer(data, np.uint8)
        if check is not None:
            check.run()

    def _decode(
        self,
        decode: FindUndecodable,
        logs: Mapping[str, Log],
        commits: Mapping[str, list[Commit]],
        done: set[str],
    ) -> None:
        """Decode each intact chunk once, in the newest version that names it."""
        for branch, history in commits.items():
            for commit in history:
                try:
                    manifest = logs[branch].manifest(commit)
                except CorruptionError:
                    continue  # reported already
                for key, sample, problem in decode(self.store, commit, manifest, done):
                    rows = (sample, sample + 1)
                    self.damaged.append(Damage(key, problem, branch, commit.version, rows))
                done.update(chunk_key_at(manifest, i) for i in range(len(manifest)))

    def _report_chunks(
        self,
        logs: Mapping[str, Log],
        commits: Mapping[str, list[Commit]],
        damaged: dict[str, Damage],
    ) -> None:
        """Report the damaged chunks with their rows in the newest version that names them."""
        for branch, history in commits.items():
            for commit in history:
                if not damaged:
                    return
                try:
                    manifest = logs[branch].manifest(commit)
                except CorruptionError:
                    continue  # reported already; the positions of its rows are unknown
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
        [None] * len(manifest) if manifest.statistics is None else manifest.statistics.to_pylist(),
        strict=True,
    )
    keys = (chunk_key_at(manifest, i) for i in range(len(manifest)))
    return {key: _Chunk(key, branch, *rest) for key, rest in zip(keys, numbers, strict=True)}


def _problem(error: Exception, key: str) -> str:
    """Return the message of an error without the parts that the report shows anyway."""
    if isinstance(error, ObjectNotFoundError | VersionNotFoundError):
        return "it is missing"
    text = str(error).split(". ")[0].removesuffix(".")
    for start in (f"Object {key} is damaged: ", f"Commit {key} ", f"Chunk {key} is damaged: "):
        text = text.removeprefix(start)
    return text
