# ruff: noqa: S101 - reading a lake for its checks asserts, too
"""The observable state of a lake: every commit, every object, and the content of each version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import chunk_key_at, join_manifests, read_failures
from dasklake._log.log import Log
from dasklake._model.commit import Commit, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError

_LOGS = "_lake/log/"


class Facts(NamedTuple):
    """The content of a version, read once."""

    #: Every object that the version names, and its size.
    objects: Mapping[str, int]
    #: The attempt of each partition, by home and number.
    attempts: Mapping[tuple[str, int], tuple[int, str]]
    rows: int


@dataclass(frozen=True, eq=False)
class History:
    """The observable state of a lake at one moment.

    Attributes
    ----------
    store : ObjectStore
        The lake's objects.
    documents : mapping of str to bytes
        Every commit as stored, by key.
    commits : mapping of str to tuple of Commit
        The versions of each branch, oldest first.
    objects : mapping of str to int
        Every object, and its size in bytes.
    """

    store: ObjectStore
    documents: Mapping[str, bytes]
    commits: Mapping[str, tuple[Commit, ...]]
    objects: Mapping[str, int]
    _facts: dict[str, Facts] = field(default_factory=dict, repr=False)

    def is_expired(self, branch: str, version: int) -> bool:
        """Return whether a version is expired.

        Parameters
        ----------
        branch : str
            The branch.
        version : int
            Its number.

        Returns
        -------
        bool
            True if the newest version of ``main`` records it as expired.
        """
        main = self.commits.get("main", ())
        return bool(main) and version in main[-1].expired.get(branch, ())

    def visible(self) -> Iterator[Commit]:
        """Yield every version of every branch that is not expired.

        Yields
        ------
        Commit
            The versions of each branch, oldest first.
        """
        for branch, commits in self.commits.items():
            yield from (c for c in commits if not self.is_expired(branch, c.version))

    def facts(self, commit: Commit, where: str) -> Facts:
        """Return the content of a version, which is read once.

        Parameters
        ----------
        commit : Commit
            The version.
        where : str
            Description of the version, for messages.

        Returns
        -------
        Facts
            Its objects, attempts and rows.

        Raises
        ------
        AssertionError
            The parts of the version do not match each other, or cannot be read.
        """
        facts = self._facts.get(commit.id)
        if facts is None:
            try:
                facts = _read_facts(self.store, commit, where, _compactions(self))
            except (CorruptionError, ObjectNotFoundError) as error:
                raise AssertionError(f"{where}: {error}") from error
            self._facts[commit.id] = facts
        return facts


def read_history(store: ObjectStore, before: History | None = None) -> History:
    """Read the observable state of a lake.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    before : History, optional
        An earlier state. Versions that were checked then are not read again.

    Returns
    -------
    History
        The current state of the lake.

    Raises
    ------
    AssertionError
        A commit cannot be read, or a version is missing between two others.
    """
    objects = dict(store.walk("", temporary=True))
    numbers: dict[str, list[int]] = {}
    for key in objects:
        branch = key.removeprefix(_LOGS).partition("/")[0]
        version = object_keys.parse_commit_key(key)
        if version is not None and key == object_keys.commit_key(branch, version):
            numbers.setdefault(branch, []).append(version)
    documents: dict[str, bytes] = {}
    commits: dict[str, tuple[Commit, ...]] = {}
    for branch, versions in numbers.items():
        expected = list(range(len(versions)))
        assert sorted(versions) == expected, f"branch {branch} has gaps: {versions}"
        log = Log(store, branch)
        earlier = before.commits.get(branch, ()) if before else ()
        branch_commits = []
        for version in expected:
            key = object_keys.commit_key(branch, version)
            documents[key] = store.get(key)
            same = before is not None and before.documents.get(key) == documents[key]
            try:
                commit = earlier[version] if same else log.read(version)
            except (CorruptionError, ObjectNotFoundError) as error:
                raise AssertionError(f"version {version} of {branch} ({key}): {error}") from error
            branch_commits.append(commit)
        commits[branch] = tuple(branch_commits)
    return History(store, documents, commits, objects, before._facts if before else {})  # noqa: SLF001 # its own class


def _compactions(history: History) -> set[str]:
    """Return the compaction runs, as ``<branch>/<run>``."""
    return {
        object_keys.home_of(branch, run)
        for branch, commits in history.commits.items()
        for run, state in commits[-1].runs.items()
        if state.plan.compaction
    }


def _read_facts(store: ObjectStore, commit: Commit, where: str, compactions: set[str]) -> Facts:
    log = Log(store, commit.branch)
    objects = {object_keys.segment_key(ref.name): ref.size for ref in commit.segments}
    manifest = join_manifests([log.segment(ref) for ref in commit.segments])
    failures = [_failures(store, ref) for ref in commit.failures]
    objects |= {object_keys.failures_key(ref.name): ref.size for ref in commit.failures}
    # After a compaction, only the chunks that were not joined keep the names of their runs.
    joined = bool(compactions.intersection(manifest.home))
    attempts: dict[tuple[str, int], tuple[int, str]] = {}
    chunks: dict[tuple[str, int], list[bool]] = {}
    for i in range(len(manifest)):
        key = chunk_key_at(manifest, i)
        assert key not in objects, f"{where} names {key} twice"
        objects[key] = int(manifest.size[i])
        name = object_keys.parse_chunk_key(key)
        assert name is not None, f"{where} names {key}"
        is_last = _checked_chunk(store, manifest, i, key)
        partition = (object_keys.home_of(name.branch, name.run), name.partition)
        if partition[0] in compactions:
            continue
        attempt = (name.epoch, name.attempt)
        first = attempts.setdefault(partition, attempt)
        assert first == attempt, f"{where} names {partition} twice"
        lasts = chunks.setdefault(partition, [])
        in_order = joined or name.chunk == len(lasts)
        assert in_order, f"{where}: {partition} lacks chunk {len(lasts)}"
        lasts.append(is_last)
    for partition, lasts in () if joined else chunks.items():
        complete = lasts == [False] * (len(lasts) - 1) + [True]
        assert complete, f"{where}: {partition} is not complete"
    rows = int(manifest.rows.sum())
    totals = commit.totals
    assert totals.samples == rows, f"{where} counts {totals.samples} samples and names {rows}"
    assert totals.chunks == len(manifest), f"{where} counts {totals.chunks} chunks"
    assert totals.size == int(manifest.size.sum()), f"{where} counts {totals.size} bytes"
    assert totals.failures == sum(failures), f"{where} counts {totals.failures} failures"
    return Facts(objects, attempts, rows)


def _failures(store: ObjectStore, ref: SegmentRef) -> int:
    key = object_keys.failures_key(ref.name)
    return len(read_failures(store.get(key), ref, key))


def _checked_chunk(store: ObjectStore, manifest: Manifest, i: int, key: str) -> bool:
    """Check all bytes of a chunk; return whether it is the last of its partition."""
    data = store.get(key)
    head = ChunkHead.parse(data, len(data), key, int(manifest.crc[i]))
    head.check(head.length, memoryview(data)[head.length :])
    header = head.header
    home = object_keys.home_of(header.branch, header.run)
    own = object_keys.chunk_key(home, header.partition, header.epoch, header.attempt, header.chunk)
    assert own == key, f"the header of {key} names {own}"
    assert head.rows == int(manifest.rows[i]), f"{key} has {head.rows} rows"
    return header.last
