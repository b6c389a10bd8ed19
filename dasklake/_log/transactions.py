"""The entries of a log that hold no data: a lake's first commit, begun runs and epochs, fences.

Each function makes a ``build`` for :meth:`Log.publish`. A build sees the head and every commit that
came in between, checks each of them for what concerns its run, and computes everything else from
the head alone, so that nothing that was decided before a lost race survives it.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dasklake._format import object_keys
from dasklake._format.documents import now
from dasklake._log.log import MAIN, Draft, Log
from dasklake._model.commit import Commit, Kind, Plan, RunState
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    LakeExistsError,
    RunSupersededError,
)

__all__ = [
    "abort",
    "author",
    "begin",
    "branch_names",
    "create_lake",
    "expire",
    "fence",
    "find_expirable",
    "next_commit",
    "next_order",
    "raise_if_closed",
    "resume",
    "with_run",
]

_LOGS = "_lake/log"

#: Whether the policy keeps a version of a branch that nothing else keeps.
RetentionPolicy = Callable[[Log, int], bool]


def author() -> str:
    """Return the name of the user, as commits carry it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def create_lake(log: Log, schema: Schema, *, single_writer: bool = False) -> tuple[Commit, bool]:
    """Make the first version of a lake, or open the one that is there.

    The storage is probed first: it must refuse to create an object twice.

    Returns
    -------
    head : Commit
        The newest version.
    ours : bool
        Whether the lake was made by this call.
    """
    head = log.head()
    if head is not None:
        return head, False
    log.store.probe()

    def first_commit(commit_id: str) -> Commit:
        return Commit(
            version=0,
            id=commit_id,
            parent=None,
            branch=log.branch,
            kind=Kind.INIT,
            time=now(),
            author=author(),
            message="Create the lake",
            schema=schema,
            single_writer=single_writer,
        )

    return log.publish_first(first_commit)


def next_commit(head: Commit, commit_id: str, kind: Kind, message: str, **changes: Any) -> Commit:
    """Return the commit after ``head`` that carries everything over but ``changes``."""
    return replace(
        head,
        version=head.version + 1,
        id=commit_id,
        parent=head.id,
        kind=kind,
        time=now(),
        author=author(),
        message=message,
        **{"entry": {}, "progress": None, **changes},
    )


def with_run(head: Commit, run: str, state: RunState) -> Mapping[str, RunState]:
    """Return the run table of a version with another state of one run."""
    return {**head.runs, run: state}


def next_order(head: Commit) -> int:
    """Return the place of the rows of a new run, after those of all others."""
    return max((head.first_order, *(1 + state.order for state in head.runs.values())))


def begin(
    log: Log,
    head: Commit,
    run: str,
    plan: Plan,
    *,
    check: Callable[[Commit], None] = lambda _: None,
) -> Commit:
    """Commit the beginning of a run: its plan and epoch 1.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        The newest commit the caller knows.
    run : str
        Its name.
    plan : Plan
        What it sets out to write.
    check : callable, optional
        Raises where the run must not begin on a version; called for each that it is tried on.

    Raises
    ------
    LakeExistsError
        The branch has a run of that name already.
    ConflictError
        The branch was closed.
    """
    object_keys.valid_name("run", run)

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
        raise_if_closed(head, since)
        check(head)
        if run in head.runs:
            raise LakeExistsError(
                f"The lake has a run {run!r} already. Continue it with mode='resume', or give "
                "the new run another name."
            )
        state = RunState(plan=plan, order=next_order(head))
        entry = {"run": run, "epoch": 1}
        runs = with_run(head, run, state)
        message = f"Begin run {run}"
        return Draft(next_commit(head, commit_id, Kind.BEGIN, message, entry=entry, runs=runs))

    return log.publish(head, build)


def resume(log: Log, head: Commit, run: str, *, take_over: bool = False) -> Commit:
    """Commit the next epoch of a run.

    Parameters
    ----------
    log : Log
        The run's home branch.
    head : Commit
        A version that has the run.
    run : str
        Its name.
    take_over : bool, default False
        Whether to go on when another epoch of the run was committed meanwhile.

    Returns
    -------
    Commit
        The entry, from whose version what is missing has to be computed; or the head, where the
        run is finished.

    Raises
    ------
    ConflictError
        Another writer replaced the run's rows, or the branch was closed.
    RunSupersededError
        Another resume of the run was faster.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft | None:
        raise_if_closed(head, since)
        state = head.runs[run]
        if state.finished:
            return None
        if state.replaced:
            raise ConflictError(
                f"Run {run!r} cannot go on: another writer replaced its rows, or the schema was "
                "changed after it was closed. Write with a new run name."
            )
        for commit in since:
            if commit.kind is Kind.EPOCH and commit.entry["run"] == run and not take_over:
                raise RunSupersededError(
                    f"Another writer has just resumed run {run!r} (version {commit.version}). "
                    "Wait for it, or try again when it has ended."
                )
        epoch = 1 + max(1, state.epoch, state.closed)
        entry = {"run": run, "epoch": epoch}
        runs = with_run(head, run, replace(state, epoch=epoch))
        message = f"Resume run {run} as epoch {epoch}"
        return Draft(next_commit(head, commit_id, Kind.EPOCH, message, entry=entry, runs=runs))

    return log.publish(head, build)


def abort(log: Log, head: Commit, runs: Iterable[str]) -> Commit | None:
    """Commit an abort that closes all epochs so far of the unfinished ones of some runs.

    Returns
    -------
    Commit or None
        The abort, whose entry maps each run to the epoch up to which it is closed; None where
        every run is finished, or the branch was deleted: nothing can be committed there.
    """
    names = sorted(set(runs))

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft | None:
        if head.kind is Kind.CLOSED:
            return None
        open_runs = {
            name: head.runs[name]
            for name in names
            if name in head.runs and not head.runs[name].finished
        }
        if not open_runs:
            return None
        closed = {name: max(s.epoch, s.closed) for name, s in open_runs.items()}
        states = {name: replace(s, closed=closed[name]) for name, s in open_runs.items()}
        message = f"Close {', '.join(f'run {name} up to epoch {e}' for name, e in closed.items())}"
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.ABORT,
                message,
                entry={"closed": closed},
                runs={**head.runs, **states},
            )
        )

    commit, created = log.try_publish(head, build)
    return commit if created else None


def branch_names(store: ObjectStore) -> list[str]:
    """Return the names of all branches that have a log, deleted ones too."""
    found = []
    for name in store.names(_LOGS):
        try:
            found.append(object_keys.valid_name("branch", name))
        except InvalidInputError:
            continue  # a foreign file is no branch
    return found


def find_expirable(main: Commit, logs: dict[str, Log]) -> dict[str, list[int]]:
    """Return the versions that may be given up after a version of ``main``, by branch.

    These are all but the head of each branch, what a tag stands for, what a branch was made
    from, and what was given up before; of a branch that was deleted, the head too.

    Parameters
    ----------
    main : Commit
        The newest version of the main branch.
    logs : dict of str to Log
        Logs of the branches, completed.
    """
    pinned = {(branch, version) for branch, version in main.tags.values()}
    pinned |= {tuple(each["source"]) for each in main.branches.values()}
    for name in branch_names(logs[MAIN].store):
        if name not in logs:
            logs[name] = Log(logs[MAIN].store, name)
    found = {}
    for name, log in logs.items():
        head = main if name == MAIN else log.head()
        if head is None:
            continue
        deleted = name not in main.branches and head.kind is Kind.CLOSED
        gone = main.expired.get(name, Versions())
        versions = range(head.version + 1 if deleted else head.version)
        found[name] = [v for v in versions if v not in gone and (name, v) not in pinned]
    return found


def expire(log: Log, head: Commit, keep: RetentionPolicy) -> Commit:
    """Commit that old versions of all branches are given up; a fence for writers on ``main`` too.

    What may be given up is found out again after each lost race, so that no tag, branch or head
    that came in between is among it. Afterwards each other branch needs a :func:`fence`.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller knows.
    keep : callable
        ``keep(log, version)`` says whether the policy keeps a version of a branch.

    Returns
    -------
    Commit
        The entry, which also carries what was given up before.
    """
    logs = {MAIN: log}

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft:
        found = {
            name: Versions.each(v for v in versions if not keep(logs[name], v))
            for name, versions in find_expirable(head, logs).items()
        }
        new = {name: versions for name, versions in found.items() if versions}
        expired = {name: head.expired.get(name, Versions()) | each for name, each in new.items()}
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.EXPIRE,
                f"Give up {sum(map(len, new.values()))} versions",
                entry={"expired": {name: each.spans for name, each in new.items()}},
                expired={**head.expired, **expired},
            )
        )

    return log.publish(head, build)


def fence(log: Log, head: Commit) -> Commit:
    """Commit an entry that whoever writes to a branch collides with, and has to look around.

    A branch that was deleted needs none: every writer stops there already.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller knows.

    Returns
    -------
    Commit
        The entry; or the head, where the branch was deleted.
    """

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft | None:
        if head.kind is Kind.CLOSED:
            return None
        return Draft(next_commit(head, commit_id, Kind.FENCE, "Fence"))

    return log.publish(head, build)


def raise_if_closed(head: Commit, since: Sequence[Commit]) -> None:
    """Raise where the branch was deleted: nobody who knew it before may write to it again."""
    if any(commit.kind is Kind.CLOSED for commit in (head, *since)):
        raise ConflictError(
            f"The branch {head.branch!r} was deleted. Write to another branch or make it again."
        )
