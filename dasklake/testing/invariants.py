# ruff: noqa: S101, SLF001 - a check asserts; a history is read by its own module
"""Check the invariants of a lake, which hold at every moment and after every crash.

Each check reads a :class:`History`, which is the observable state of the lake, and raises an
``AssertionError`` that names the version and the object. A lake under test is checked repeatedly::

    seen = read_history(store)
    ...                                     # writers, crashes, resets
    seen = check_history(store, before=seen)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dasklake._format import object_keys
from dasklake._format.chunk import ChunkHead
from dasklake._format.segment import chunk_key_at, join_manifests, read_failures
from dasklake._log.log import Log
from dasklake._model.commit import Commit, Kind, RunState, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._model.receipt import Receipt
from dasklake._read.reader import make_reader
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError

__all__ = [
    "History",
    "check_acknowledged",
    "check_history",
    "check_inputs",
    "check_log",
    "check_objects",
    "check_partitions",
    "check_unchanged",
    "read_history",
]

_LOGS = "_lake/log/"

#: Fields of a run's state that never decrease.
_FORWARDS = ("epoch", "closed", "finished", "replaced", "overwrote", "partitions")

#: Kinds of commit that remove rows.
_REPLACING = (Kind.OVERWRITE,)

#: Kinds of commit whose rows are those of another version.
_COPIED = (Kind.RESTORE, Kind.BRANCH)


class _Facts(NamedTuple):
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
    _facts: dict[str, _Facts] = field(default_factory=dict, repr=False)

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
    return History(store, documents, commits, objects, before._facts if before else {})


def check_history(store: ObjectStore, before: History | None = None) -> History:
    """Read a lake and run every check that needs no knowledge of its writers.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    before : History, optional
        An earlier state.

    Returns
    -------
    History
        The current state.

    Raises
    ------
    AssertionError
        An invariant is broken; the message names the version and the object.
    """
    now = read_history(store, before)
    if before is not None:
        check_unchanged(before, now)
    check_log(now)
    check_objects(now)
    check_partitions(now)
    return now


def check_unchanged(before: History, now: History) -> None:
    """Check that a version, once visible, is never changed or deleted.

    Parameters
    ----------
    before, now : History
        The lake at two moments.

    Raises
    ------
    AssertionError
        A commit was changed or deleted.
    """
    for key, document in before.documents.items():
        assert key in now.documents, f"commit {key} was deleted"
        assert now.documents[key] == document, f"commit {key} was changed"


def check_log(history: History) -> None:
    """Check that every log is one chain, and that its run tables never move backwards.

    Parameters
    ----------
    history : History
        The lake.

    Raises
    ------
    AssertionError
        A version does not follow from the one before it.
    """
    main = history.commits.get("main", ())
    for name, (branch, version) in main[-1].tags.items() if main else ():
        assert not history.is_expired(branch, version), f"the version of tag {name} is expired"
    ids = [commit.id for commits in history.commits.values() for commit in commits]
    assert len(set(ids)) == len(ids), "two versions have the same id"
    for branch, commits in history.commits.items():
        for version, commit in enumerate(commits):
            where = f"version {version} of {branch} ({commit.kind})"
            assert (commit.version, commit.branch) == (version, branch), where
            orders = [state.order for state in commit.runs.values()]
            assert len(set(orders)) == len(orders), f"{where}: two runs have the same order number"
        for before, commit in pairwise(commits):
            where = f"version {commit.version} of {branch} ({commit.kind})"
            assert commit.parent == before.id, (
                f"{where} does not name its predecessor as its parent"
            )
            for name, expired in before.expired.items():
                assert set(expired) <= set(commit.expired.get(name, ())), (
                    f"{where} revives versions"
                )
            for run, old in before.runs.items():
                assert run in commit.runs, f"{where} forgets run {run}"
                _check_run(old, commit.runs[run], f"{where}: run {run}")


def _check_run(old: RunState, new: RunState, where: str) -> None:
    assert (new.plan, new.order) == (old.plan, old.order), (
        f"{where} changed its plan or its order number"
    )
    for name in _FORWARDS:
        assert getattr(new, name) >= getattr(old, name), f"{where}: {name} moved backwards"
    assert new.finished == (new.partitions >= new.plan.partitions), f"{where}: finished is wrong"


def check_objects(history: History) -> None:
    """Check that every object that a visible version names exists and is intact.

    Parameters
    ----------
    history : History
        The lake.

    Raises
    ------
    AssertionError
        An object is missing, or damaged.
    """
    for commit in history.visible():
        where = f"version {commit.version} of {commit.branch} ({commit.kind})"
        for key, size in _facts(history, commit, where).objects.items():
            assert key in history.objects, f"{where} names {key}, which is missing"
            assert history.objects[key] == size, f"{where} names {key}, which has another size"


def _facts(history: History, commit: Commit, where: str) -> _Facts:
    facts = history._facts.get(commit.id)
    if facts is None:
        try:
            facts = _read_facts(history.store, commit, where, _compactions(history))
        except (CorruptionError, ObjectNotFoundError) as error:
            raise AssertionError(f"{where}: {error}") from error
        history._facts[commit.id] = facts
    return facts


def _compactions(history: History) -> set[str]:
    """Return the compaction runs, as ``<branch>/<run>``."""
    return {
        object_keys.home_of(branch, run)
        for branch, commits in history.commits.items()
        for run, state in commits[-1].runs.items()
        if state.plan.compaction
    }


def _read_facts(store: ObjectStore, commit: Commit, where: str, compactions: set[str]) -> _Facts:
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
    return _Facts(objects, attempts, rows)


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


def check_partitions(history: History) -> None:
    """Check which partitions each version adds and removes.

    No version names a partition twice, incomplete, or from two attempts. Only an overwrite or a
    restore removes rows. Only data commits of a run add rows: those of the run itself, from an
    epoch that is not closed.

    Parameters
    ----------
    history : History
        The lake.

    Raises
    ------
    AssertionError
        A partition was removed, added or brought back by the wrong commit.
    """
    for branch, commits in history.commits.items():
        for before, commit in pairwise(commits):
            if history.is_expired(branch, before.version) or commit.kind in _COPIED:
                continue
            if history.is_expired(branch, commit.version):
                continue
            where = f"version {commit.version} of {branch} ({commit.kind})"
            old, new = _facts(history, before, where), _facts(history, commit, where)
            if commit.kind is Kind.COMPACT:
                assert new.rows == old.rows, f"{where} has {new.rows} samples, not {old.rows}"
            else:
                _check_change(before, commit, old.attempts, new.attempts, where)


def _check_change(
    before: Commit,
    commit: Commit,
    old: Mapping[tuple[str, int], tuple[int, str]],
    new: Mapping[tuple[str, int], tuple[int, str]],
    where: str,
) -> None:
    lost = [partition for partition, attempt in old.items() if new.get(partition) != attempt]
    added = {partition: a for partition, a in new.items() if old.get(partition) != a}
    assert commit.kind in _REPLACING or not lost, f"{where} lost {lost}"
    if commit.kind not in (Kind.DATA, Kind.OVERWRITE) or "run" not in commit.entry:
        assert not added, f"{where} added {list(added)}"
        return
    run = commit.entry["run"]
    state = before.runs[run]
    for (home, partition), (epoch, _) in added.items():
        assert home == object_keys.home_of(commit.branch, run), f"{where} added rows of {home}"
        assert state.closed < epoch <= state.epoch, (
            f"{where} added partition {partition} of epoch {epoch}, closed up to {state.closed}"
        )


def check_acknowledged(
    history: History, acknowledged: Iterable[tuple[Commit, Sequence[Receipt]]]
) -> None:
    """Check that every acknowledged commit is in the log, with the receipts that it was given.

    Parameters
    ----------
    history : History
        The lake.
    acknowledged : iterable of (Commit, sequence of Receipt)
        The returned commits, and the receipts that they were given.

    Raises
    ------
    AssertionError
        A commit is missing, or lacks a partition of a run that is not finished in it.
    """
    for returned, receipts in acknowledged:
        where = f"version {returned.version} of {returned.branch} ({returned.kind})"
        commits = history.commits.get(returned.branch, ())
        assert returned.version < len(commits), f"{where} was acknowledged and is missing"
        commit = commits[returned.version]
        assert commit == returned, f"{where} was acknowledged with another content"
        if history.is_expired(returned.branch, returned.version):
            continue
        attempts = _facts(history, commit, where).attempts
        for receipt in receipts:
            partition = (object_keys.home_of(returned.branch, receipt.run), receipt.partition)
            present = attempts.get(partition) == (receipt.epoch, receipt.attempt)
            assert present or commit.runs[receipt.run].finished, f"{where} lacks {partition}"


def check_inputs(
    history: History, branch: str, tensor: str, expected: Sequence[Any], version: int | None = None
) -> None:
    """Check that a version holds each input sample exactly once, in the order of the input.

    Parameters
    ----------
    history : History
        The lake.
    branch : str
        The branch.
    tensor : str
        A tensor whose value identifies the sample.
    expected : sequence
        Its values in all samples, in order.
    version : int, optional
        The version; by default the newest.

    Raises
    ------
    AssertionError
        A sample is missing, repeated, wrong, or in the wrong order.
    """
    commit = history.commits[branch][-1 if version is None else version]
    reader = make_reader(Log(history.store, branch), commit)
    values = [np.asarray(sample[tensor]).tolist() for sample in reader.stream([tensor])]
    where = f"version {commit.version} of {branch} ({commit.kind})"
    assert values == list(expected), f"{where} holds {values}, not {list(expected)}"
