# ruff: noqa: S101 - a check asserts
"""Check the invariants of a lake, which hold at every moment and after every crash.

Each check reads a :class:`History`, which is the observable state of the lake, and raises an
``AssertionError`` that names the version and the object. A lake under test is checked repeatedly::

    seen = read_history(store)
    ...                                     # writers, crashes, resets
    seen = check_history(store, before=seen)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._model.commit import Commit, Kind, RunState
from dasklake._model.receipt import Receipt
from dasklake._read.reader import make_reader
from dasklake._storage.store import ObjectStore
from dasklake.testing._history import History, read_history

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

#: Fields of a run's state that never decrease.
_FORWARDS = ("epoch", "closed", "finished", "replaced", "overwrote", "partitions")

#: Kinds of commit that remove rows.
_REPLACING = (Kind.OVERWRITE,)

#: Kinds of commit whose rows are those of another version.
_COPIED = (Kind.RESTORE, Kind.BRANCH)


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
        for key, size in history.facts(commit, where).objects.items():
            assert key in history.objects, f"{where} names {key}, which is missing"
            assert history.objects[key] == size, f"{where} names {key}, which has another size"


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
            old, new = history.facts(before, where), history.facts(commit, where)
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
        attempts = history.facts(commit, where).attempts
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
