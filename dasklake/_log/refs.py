"""Commit tags, branches and restores.

Tags and branches are commits on ``main``, where every other entry collides with them. The first
commit of a branch is derived from its entry on ``main`` to the byte, so that any process that finds
the entry without the commit can create it. A log is never deleted: a branch that is created again
continues the numbering of the deleted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dasklake._format import object_keys
from dasklake._log.log import MAIN, Log
from dasklake._log.run_entries import next_order, replace_unfinished
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind
from dasklake._model.versions import Versions
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    VersionExpiredError,
    VersionNotFoundError,
)


def tag(log: Log, head: Commit, name: str, branch: str, version: int) -> Commit:
    """Commit a tag for a version, which is kept as long as the tag exists.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller has read.
    name : str
        Name of the tag.
    branch : str
        Branch of the version.
    version : int
        Its number.

    Returns
    -------
    Commit
        The entry.

    Raises
    ------
    ConflictError
        A tag of that name exists.
    VersionNotFoundError, VersionExpiredError
        The version does not exist, or was expired.
    """
    object_keys.valid_name("tag", name)

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit:
        if name in head.tags:
            raise ConflictError(
                f"Tag {name!r} already exists, for version {head.tags[name][1]} of branch "
                f"{head.tags[name][0]!r}. Remove it first, or choose another name."
            )
        _raise_if_unavailable(log, head, branch, version)
        target = [branch, version]
        return next_commit(
            head,
            commit_id,
            Kind.TAG,
            f"Tag version {version} of {branch} as {name}",
            entry={"tag": name, "source": target},
            tags={**head.tags, name: target},
        )

    return log.publish(head, build)


def untag(log: Log, head: Commit, name: str) -> Commit:
    """Commit that a tag is removed. Its version may expire then.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller has read.
    name : str
        Name of the tag.

    Returns
    -------
    Commit
        The entry.

    Raises
    ------
    VersionNotFoundError
        The tag does not exist.
    """

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit:
        if name not in head.tags:
            raise VersionNotFoundError(f"Tag {name!r} does not exist. {_list('tags', head.tags)}")
        tags = {other: target for other, target in head.tags.items() if other != name}
        entry = {"tag": name, "source": None}
        return next_commit(head, commit_id, Kind.TAG, f"Remove tag {name}", entry=entry, tags=tags)

    return log.publish(head, build)


def create_branch(log: Log, head: Commit, name: str, source: tuple[str, int]) -> Commit:
    """Commit a new branch on ``main``, then its first version.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller has read.
    name : str
        Name of the branch.
    source : tuple of (str, int)
        Branch and version that the new branch begins with.

    Returns
    -------
    Commit
        The first version of the branch. It may exist already, if an earlier call for the same
        source was interrupted, or did not receive the answer of its create.

    Raises
    ------
    ConflictError
        A branch of that name exists with another source, or its deletion was interrupted.
    VersionNotFoundError, VersionExpiredError
        The version does not exist, or was expired.
    """
    object_keys.valid_name("branch", name)
    _raise_if_main(name)

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit | None:
        existing = head.branches.get(name)
        if existing is not None and tuple(existing["source"]) == source:
            return None
        if existing is not None:
            raise ConflictError(
                f"Branch {name!r} already exists, from version {existing['source'][1]} of "
                f"{existing['source'][0]!r}. Delete it first, or choose another name."
            )
        _raise_if_unavailable(log, head, *source)
        last = Log(log.store, name).head()
        if last is not None and last.kind is not Kind.CLOSED:
            raise ConflictError(
                f"The deletion of branch {name!r} was interrupted. Delete it again first."
            )
        about = {
            "source": list(source),
            "first": 0 if last is None else last.version + 1,
            "entry": head.version + 1,
        }
        return next_commit(
            head,
            commit_id,
            Kind.BRANCH,
            f"Create branch {name} from version {source[1]} of {source[0]}",
            entry={"branch": name, **about},
            branches={**head.branches, name: about},
        )

    entry = log.publish(head, build)
    return _first_version(log, entry, name)


def _first_version(log: Log, head: Commit, name: str) -> Commit:
    """Return the first version of a branch, and create it if it does not exist.

    All of it is derived from the entry on ``main`` and from the versions that the entry names.
    These never change, so every process that creates it writes the same bytes.
    """
    about = head.branches[name]
    entry = log.read(about["entry"])
    own = Log(log.store, name)
    first: int = about["first"]
    newest = own.head_version()
    if newest is not None and newest >= first:
        return own.read(first)
    before = own.read(first - 1) if first else None
    branch, version = about["source"]
    source = Log(log.store, branch).read(version)
    orders = [next_order(source), next_order(before) if before else 0]
    commit = replace(
        source,
        version=first,
        id=hashlib.sha256(f"{entry.id}/{name}".encode()).hexdigest()[:16],
        parent=before.id if before else None,
        branch=name,
        kind=Kind.BRANCH,
        time=entry.time,
        author=entry.author,
        message=entry.message,
        entry={"source": about["source"], "main": entry.version},
        # A run belongs to one branch: no run of the source can continue here.
        schema=source.schema.with_all_names_settled,
        runs=dict(before.runs) if before else {},
        progress=None,
        tags={},
        branches={},
        expired={},
        first_order=max(orders),
    )

    def build(head: Commit, _: Sequence[Commit], __: str) -> Commit | None:
        return None if head.version >= first else commit

    if before is None:
        own.publish_first(lambda _: commit)
    else:
        own.publish(before, build)
    return own.read(first)


def delete_branch(log: Log, head: Commit, name: str) -> Commit:
    """Commit on ``main`` that a branch is deleted, then close its log. Its versions may expire.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller has read.
    name : str
        Name of the branch. An interrupted deletion is completed.

    Returns
    -------
    Commit
        The last version of the branch, at which every writer of it stops.

    Raises
    ------
    VersionNotFoundError
        The branch does not exist.
    InvalidInputError
        The branch is ``main``.
    """
    _raise_if_main(name)

    def unbranch(head: Commit, _: Sequence[Commit], commit_id: str) -> Commit | None:
        if name not in head.branches:
            return None
        # A process that paused while creating the branch must not create it after its deletion.
        _first_version(log, head, name)
        branches = {other: about for other, about in head.branches.items() if other != name}
        message = f"Delete branch {name}"
        entry = {"branch": name}
        return next_commit(head, commit_id, Kind.UNBRANCH, message, entry=entry, branches=branches)

    main = log.publish(head, unbranch)
    own = Log(log.store, name)
    last = own.head()
    if last is None:
        raise VersionNotFoundError(
            f"Branch {name!r} does not exist. {_list('branches', main.branches)}"
        )
    recreated = log.require_head().branches.get(name)
    if recreated is not None:
        return own.read(recreated["first"] - 1)  # another process closed and recreated it

    def close(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit | None:
        if any(commit.kind is Kind.CLOSED for commit in (head, *since)):
            return None  # closed already; later commits are of a recreated branch
        message = f"Close branch {name}"
        runs = replace_unfinished(head.runs)
        return next_commit(head, commit_id, Kind.CLOSED, message, runs=runs)

    own.publish(last, close)
    return next(commit for commit in own.walk(last.version) if commit.kind is Kind.CLOSED)


def restore(log: Log, head: Commit, version: int) -> Commit:
    """Commit the content of an earlier version of a branch as its newest.

    Parameters
    ----------
    log : Log
        Name of the branch.
    head : Commit
        Its newest commit that the caller has read, before it read anything else for this call.
    version : int
        The version.

    Returns
    -------
    Commit
        The entry.

    Raises
    ------
    ConflictError
        The branch was deleted.
    VersionNotFoundError, VersionExpiredError
        The version does not exist, or was expired.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Commit:
        raise_if_closed(head, since)
        # Read main after the branch's head, on every rebase: an expire that is not visible here
        # is followed by a fence, and this commit loses the race to it.
        main = head if log.branch == MAIN else Log(log.store).require_head()
        _raise_if_expired(main, log.branch, version)
        if not 0 <= version <= head.version:
            raise _version_not_found(log.branch, version)
        restored = log.read(version)
        return next_commit(
            head,
            commit_id,
            Kind.RESTORE,
            f"Restore version {version}",
            entry={"version": version},
            schema=restored.schema.with_all_names_settled,
            segments=restored.segments,
            failures=restored.failures,
            totals=restored.totals,
            histories=restored.histories,
            runs=replace_unfinished(head.runs),
        )

    return log.publish(head, build)


def _raise_if_unavailable(log: Log, main: Commit, branch: str, version: int) -> None:
    """Raise if a version of a branch does not exist, or expired, as of a version of main."""
    if branch != MAIN and branch not in main.branches:
        raise VersionNotFoundError(
            f"Branch {branch!r} does not exist. {_list('branches', main.branches)}"
        )
    _raise_if_expired(main, branch, version)
    if branch == MAIN:
        newest: int | None = main.version
    else:
        newest = Log(log.store, branch).head_version()
    if newest is None or not 0 <= version <= newest:
        raise _version_not_found(branch, version)


def _raise_if_expired(main: Commit, branch: str, version: int) -> None:
    if version in main.expired.get(branch, Versions()):
        raise VersionExpiredError(
            f"Version {version} of branch {branch!r} was expired. Choose a newer one."
        )


def _version_not_found(branch: str, version: int) -> VersionNotFoundError:
    return VersionNotFoundError(
        f"Branch {branch!r} has no version {version}. Choose one that `dasklake log` lists."
    )


def _list(label: str, names: Mapping[str, object]) -> str:
    return f"Existing {label}: {', '.join(map(repr, names)) or 'none'}."


def _raise_if_main(name: str) -> None:
    if name == MAIN:
        raise InvalidInputError("Branch 'main' cannot be created or deleted. Choose another name.")
