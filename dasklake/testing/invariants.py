# ruff: noqa: S101, SLF001 - a check asserts; a history is read by its own module
"""What has to hold of a lake at every moment, whoever writes to it, crashes, or cleans up.

Each check reads a :class:`History`, all that can be seen of the lake from outside, and raises an
``AssertionError`` that names the version and the object. A lake that is being tried is looked at
again and again::

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

#: Fields of a run's state that only ever move forwards.
_FORWARDS = ("epoch", "closed", "finished", "replaced", "overwrote", "partitions")

#: Kinds of commit that take rows away.
_REPLACING = (Kind.OVERWRITE,)

#: Kinds of commit whose rows are those of another version.
_BROUGHT = (Kind.RESTORE, Kind.BRANCH)


class _Facts(NamedTuple):
    """What was found when a version was looked at first."""

    #: Every object it names, and its length.
    objects: Mapping[str, int]
    #: The attempt at each partition, by home and number.
    attempts: Mapping[tuple[str, int], tuple[int, str]]
    rows: int


@dataclass(frozen=True, eq=False)
class History:
    """All that can be seen of a lake at one moment.

    Attributes
    ----------
    store : ObjectStore
        The lake's objects.
    documents : mapping of str to bytes
        Every commit as it is stored, by key.
    commits : mapping of str to tuple of Commit
        The versions of each branch, the oldest first.
    objects : mapping of str to int
        Every object there is, and its length in bytes.
    """

    store: ObjectStore
    documents: Mapping[str, bytes]
    commits: Mapping[str, tuple[Commit, ...]]
    objects: Mapping[str, int]
    _facts: dict[str, _Facts] = field(default_factory=dict, repr=False)

    def is_expired(self, branch: str, version: int) -> bool:
        """Tell whether a version was given up.

        Parameters
        ----------
        branch : str
            The branch.
        version : int
            Its number.

        Returns
        -------
        bool
            True if an entry of ``main`` says so.
        """
        main = self.commits.get("main", ())
        return bool(main) and version in main[-1].expired.get(branch, ())

    def visible(self) -> Iterator[Commit]:
        """Yield every version of every branch that is not expired.

        Yields
        ------
        Commit
            The oldest of each branch first.
        """
        for branch, commits in self.commits.items():
            yield from (c for c in commits if not self.is_expired(branch, c.version))


def read_history(store: ObjectStore, before: History | None = None) -> History:
    """Read all that can be seen of a lake.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    before : History, optional
        What was read earlier; versions that were checked then are not opened again.

    Returns
    -------
    History
        The lake as it is now.

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
    for branch, found in numbers.items():
        assert sorted(found) == list(range(len(found))), f"branch {branch} has gaps: {found}"
        log = Log(store, branch)
        earlier = before.commits.get(branch, ()) if before else ()
        branch_commits = []
        for version in range(len(found)):
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
    """Read a lake and check everything that needs no knowledge of who wrote to it.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    before : History, optional
        What was seen earlier.

    Returns
    -------
    History
        What is seen now.

    Raises
    ------
    AssertionError
        Something does not hold; the message names the version and the object.
    """
    now = read_history(store, before)
    if before is not None:
        check_unchanged(before, now)
    check_log(now)
    check_objects(now)
    check_partitions(now)
    return now


def check_unchanged(before: History, now: History) -> None:
    """Check that a version, once visible, never changes and never goes.

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
    """Check that every log is one chain, and that its tables only ever move forwards.

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
            assert len(set(orders)) == len(orders), f"{where}: two runs have one place"
        for before, commit in pairwise(commits):
            where = f"version {commit.version} of {branch} ({commit.kind})"
            assert commit.parent == before.id, f"{where} was not built on the one before it"
            for name, had in before.expired.items():
                assert set(had) <= set(commit.expired.get(name, ())), f"{where} revives versions"
            for run, old in before.runs.items():
                assert run in commit.runs, f"{where} forgets run {run}"
                _check_run(old, commit.runs[run], f"{where}: run {run}")


def _check_run(old: RunState, new: RunState, where: str) -> None:
    assert (new.plan, new.order) == (old.plan, old.order), f"{where} changed its plan or its place"
    for name in _FORWARDS:
        assert getattr(new, name) >= getattr(old, name), f"{where}: {name} moved backwards"
    assert new.finished == (new.partitions >= new.plan.partitions), f"{where}: finished is wrong"


def check_objects(history: History) -> None:
    """Check that all that a visible version names exists, and is as it was written.

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
            assert key in history.objects, f"{where} names {key}, which is gone"
            assert history.objects[key] == size, f"{where} names {key}, which has another length"


def _facts(history: History, commit: Commit, where: str) -> _Facts:
    found = history._facts.get(commit.id)
    if found is None:
        try:
            found = _look(history.store, commit, where, _compactions(history))
        except (CorruptionError, ObjectNotFoundError) as error:
            raise AssertionError(f"{where}: {error}") from error
        history._facts[commit.id] = found
    return found


def _compactions(history: History) -> set[str]:
    """Return the runs that only joined chunks of others, with their branches."""
    return {
        object_keys.home_of(branch, run)
        for branch, commits in history.commits.items()
        for run, state in commits[-1].runs.items()
        if state.plan.compaction
    }


def _look(store: ObjectStore, commit: Commit, where: str, compactions: set[str]) -> _Facts:
    log = Log(store, commit.branch)
    objects = {object_keys.segment_key(ref.name): ref.size for ref in commit.segments}
    manifest = join_manifests([log.segment(ref) for ref in commit.segments])
    failures = [_failures(store, ref) for ref in commit.failures]
    objects |= {object_keys.failures_key(ref.name): ref.size for ref in commit.failures}
    # Of partitions that a compaction joined the rest alone is under their own names.
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
        place = (object_keys.home_of(name.branch, name.run), name.partition)
        if place[0] in compactions:
            continue
        attempt = (name.epoch, name.attempt)
        assert attempts.setdefault(place, attempt) == attempt, f"{where}: {place} is there twice"
        lasts = chunks.setdefault(place, [])
        assert joined or name.chunk == len(lasts), f"{where}: {place} lacks chunk {len(lasts)}"
        lasts.append(is_last)
    for place, lasts in () if joined else chunks.items():
        assert lasts == [False] * (len(lasts) - 1) + [True], f"{where}: {place} is not complete"
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
    about = head.header
    home = object_keys.home_of(about.branch, about.run)
    said = object_keys.chunk_key(home, about.partition, about.epoch, about.attempt, about.chunk)
    assert said == key, f"{key} says that it is {said}"
    assert head.rows == int(manifest.rows[i]), f"{key} has {head.rows} rows"
    return about.last


def check_partitions(history: History) -> None:
    """Check which partitions come and go from version to version.

    Within a version no partition is there twice, mixed from two attempts, or incomplete; from one
    version to the next only an overwrite or a restore takes rows away, and only data commits of a
    run add any: its own, of an epoch that is not closed.

    Parameters
    ----------
    history : History
        The lake.

    Raises
    ------
    AssertionError
        A partition went, came from nowhere, or came back.
    """
    for branch, commits in history.commits.items():
        for before, commit in pairwise(commits):
            if history.is_expired(branch, before.version) or commit.kind in _BROUGHT:
                continue
            if history.is_expired(branch, commit.version):
                continue
            where = f"version {commit.version} of {branch} ({commit.kind})"
            had, has = _facts(history, before, where), _facts(history, commit, where)
            if commit.kind is Kind.COMPACT:
                assert has.rows == had.rows, f"{where} has {has.rows} samples, not {had.rows}"
            else:
                _check_change(before, commit, had.attempts, has.attempts, where)


def _check_change(
    before: Commit,
    commit: Commit,
    had: Mapping[tuple[str, int], tuple[int, str]],
    has: Mapping[tuple[str, int], tuple[int, str]],
    where: str,
) -> None:
    lost = [place for place, attempt in had.items() if has.get(place) != attempt]
    new = {place: attempt for place, attempt in has.items() if had.get(place) != attempt}
    assert commit.kind in _REPLACING or not lost, f"{where} lost {lost}"
    if commit.kind not in (Kind.DATA, Kind.OVERWRITE) or "run" not in commit.entry:
        assert not new, f"{where} added {list(new)}"
        return
    run = commit.entry["run"]
    state = before.runs[run]
    for (home, partition), (epoch, _) in new.items():
        assert home == object_keys.home_of(commit.branch, run), f"{where} added rows of {home}"
        assert state.closed < epoch <= state.epoch, (
            f"{where} added partition {partition} of epoch {epoch}, closed up to {state.closed}"
        )


def check_acknowledged(
    history: History, acknowledged: Iterable[tuple[Commit, Sequence[Receipt]]]
) -> None:
    """Check that every commit that somebody was told of is in the log, with what it was to hold.

    Parameters
    ----------
    history : History
        The lake.
    acknowledged : iterable of (Commit, sequence of Receipt)
        What commits returned, and the receipts they were given.

    Raises
    ------
    AssertionError
        A commit is not there, or lacks a partition of a run that it does not call finished.
    """
    for told, receipts in acknowledged:
        where = f"version {told.version} of {told.branch} ({told.kind})"
        commits = history.commits.get(told.branch, ())
        assert told.version < len(commits), f"{where} was acknowledged and is not there"
        commit = commits[told.version]
        assert commit == told, f"{where} was acknowledged with another content"
        if history.is_expired(told.branch, told.version):
            continue
        has = _facts(history, commit, where).attempts
        for receipt in receipts:
            place = (object_keys.home_of(told.branch, receipt.run), receipt.partition)
            there = has.get(place) == (receipt.epoch, receipt.attempt)
            assert there or commit.runs[receipt.run].finished, f"{where} lacks {place}"


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
        A tensor whose value tells the sample.
    expected : sequence
        Its values, of all samples, in order.
    version : int, optional
        Which version; left out, the newest.

    Raises
    ------
    AssertionError
        A sample is missing, doubled, wrong, or in another place.
    """
    commit = history.commits[branch][-1 if version is None else version]
    reader = make_reader(Log(history.store, branch), commit)
    found = [np.asarray(sample[tensor]).tolist() for sample in reader.stream([tensor])]
    where = f"version {commit.version} of {branch} ({commit.kind})"
    assert found == list(expected), f"{where} holds {found}, not {list(expected)}"
