"""Commit that old versions expire, and the fences that follow on the other branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dasklake._log.log import MAIN, Log
from dasklake._log.transactions import branch_names, next_commit
from dasklake._model.commit import Commit, Kind
from dasklake._model.versions import Versions

#: Return whether a version of a branch is kept that no tag or branch keeps.
RetentionPolicy = Callable[[Log, int], bool]


def find_expirable(main: Commit, logs: dict[str, Log]) -> dict[str, list[int]]:
    """Return the versions that may expire after a version of ``main``, by branch.

    These are all versions except the head of each branch, tagged versions, sources of branches,
    and versions that are already expired. The head of a deleted branch may expire too.

    Parameters
    ----------
    main : Commit
        The newest version of the main branch.
    logs : dict of str to Log
        Logs of the branches. Missing ones are added.
    """
    pinned = {(branch, version) for branch, version in main.tags.values()}
    pinned |= {tuple(about["source"]) for about in main.branches.values()}
    for name in branch_names(logs[MAIN].store):
        if name not in logs:
            logs[name] = Log(logs[MAIN].store, name)
    expirable = {}
    for name, log in logs.items():
        head = main if name == MAIN else log.head()
        if head is None:
            continue
        deleted = name not in main.branches and head.kind is Kind.CLOSED
        expired = main.expired.get(name, Versions())
        versions = range(head.version + 1 if deleted else head.version)
        expirable[name] = [v for v in versions if v not in expired and (name, v) not in pinned]
    return expirable


def expire(log: Log, head: Commit, keep: RetentionPolicy) -> Commit:
    """Commit that old versions of all branches expire; writers on ``main`` collide with it.

    The expirable versions are computed again after each lost race, so that no tag, branch or head
    that was committed concurrently is among them. Each other branch needs a :func:`fence` then.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller has read.
    keep : callable
        ``keep(log, version)`` returns whether the policy keeps a version of a branch.

    Returns
    -------
    Commit
        The entry, which also carries the versions that expired before.
    """
    logs = {MAIN: log}

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit:
        expirable = {
            name: Versions.each(v for v in versions if not keep(logs[name], v))
            for name, versions in find_expirable(head, logs).items()
        }
        new = {name: versions for name, versions in expirable.items() if versions}
        expired = {name: head.expired.get(name, Versions()) | gone for name, gone in new.items()}
        return next_commit(
            head,
            commit_id,
            Kind.EXPIRE,
            f"Expire {sum(map(len, new.values()))} versions",
            entry={"expired": {name: versions.spans for name, versions in new.items()}},
            expired={**head.expired, **expired},
        )

    return log.publish(head, build)


def fence(log: Log, head: Commit) -> Commit:
    """Commit an entry that changes nothing, so that concurrent writers of a branch lose a race.

    They then read the log again. A deleted branch needs no fence: every writer stops there.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller has read.

    Returns
    -------
    Commit
        The entry; or the head, if the branch was deleted.
    """

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit | None:
        if head.kind is Kind.CLOSED:
            return None
        return next_commit(head, commit_id, Kind.FENCE, "Fence")

    return log.publish(head, build)
