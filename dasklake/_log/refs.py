"""Tags, branches and restores: commits on ``main`` that every other entry there collides with.

A branch begins with a commit of its own that says what its entry on ``main`` says, to the byte, so
that whoever finds the one without the other can complete it. A log is never deleted: a branch that
is made again goes on in the numbering of the one that was deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dasklake._format import object_keys
from dasklake._log.log import MAIN, Draft, Log
from dasklake._log.run_entries import next_order
from dasklake._log.transactions import next_commit, raise_if_closed
from dasklake._model.commit import Commit, Kind, RunState
from dasklake._model.versions import Versions
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    VersionExpiredError,
    VersionNotFoundError,
)

__all__ = ["create_branch", "delete_branch", "restore", "tag", "untag"]


def tag(log: Log, head: Commit, name: str, branch: str, version: int) -> Commit:
    """Commit a name for a version, which is kept as long as the name is.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller knows.
    name : str
        The tag.
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
        There is a tag of that name.
    VersionNotFoundError, VersionExpiredError
        There is no such version, or no more.
    """
    object_keys.valid_name("tag", name)

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft:
        if name in head.tags:
            raise ConflictError(
                f"There is a tag {name!r} already, for version {head.tags[name][1]} of branch "
                f"{head.tags[name][0]!r}. Remove it first, or choose another name."
            )
        _live(log, head, branch, version)
        target = [branch, version]
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.TAG,
                f"Tag version {version} of {branch} as {name}",
                entry={"tag": name, "source": target},
                tags={**head.tags, name: target},
            )
        )

    return log.publish(head, build)


def untag(log: Log, head: Commit, name: str) -> Commit:
    """Commit that a tag is no more; the version it stood for may expire then.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller knows.
    name : str
        The tag.

    Returns
    -------
    Commit
        The entry.

    Raises
    ------
    VersionNotFoundError
        There is no such tag.
    """

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft:
        if name not in head.tags:
            raise VersionNotFoundError(f"There is no tag {name!r}. {_list('tags', head.tags)}")
        tags = {each: target for each, target in head.tags.items() if each != name}
        entry = {"tag": name, "source": None}
        return Draft(
            next_commit(head, commit_id, Kind.TAG, f"Remove tag {name}", entry=entry, tags=tags)
        )

    return log.publish(head, build)


def create_branch(log: Log, head: Commit, name: str, source: tuple[str, int]) -> Commit:
    """Commit a new branch on ``main``, then its first version.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller knows.
    name : str
        The branch.
    source : tuple of (str, int)
        Branch and version that it begins with.

    Returns
    -------
    Commit
        The first version of the branch. It is there already where an earlier call for the same
        source was cut short, or did not hear of its success.

    Raises
    ------
    ConflictError
        There is a branch of that name from another source, or its deletion was cut short.
    VersionNotFoundError, VersionExpiredError
        There is no such version, or no more.
    """
    object_keys.valid_name("branch", name)
    _refuse_main(name)

    def build(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft | None:
        there = head.branches.get(name)
        if there is not None and tuple(there["source"]) == source:
            return None
        if there is not None:
            raise ConflictError(
                f"There is a branch {name!r} already, from version {there['source'][1]} of "
                f"{there['source'][0]!r}. Delete it first, or choose another name."
            )
        _live(log, head, *source)
        last = Log(log.store, name).head()
        if last is not None and last.kind is not Kind.CLOSED:
            raise ConflictError(
                f"The deletion of the branch {name!r} was cut short. Delete it again first."
            )
        about = {
            "source": list(source),
            "first": 0 if last is None else last.version + 1,
            "entry": head.version + 1,
        }
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.BRANCH,
                f"Make branch {name} from version {source[1]} of {source[0]}",
                entry={"branch": name, **about},
                branches={**head.branches, name: about},
            )
        )

    made = log.publish(head, build)
    return _first_version(log, made, name)


def _first_version(log: Log, head: Commit, name: str) -> Commit:
    """Return the first version of a branch; create it where nobody has yet.

    Everything in it is derived from the entry on ``main`` and from what that names, none of which
    changes any more: whoever creates it writes the same bytes.
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
    made = replace(
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
        # Runs belong to one branch: none of another's can go on here.
        schema=source.schema.settled,
        runs=dict(before.runs) if before else {},
        progress=None,
        tags={},
        branches={},
        expired={},
        first_order=max(orders),
    )

    def build(head: Commit, _: Sequence[Commit], __: str) -> Draft | None:
        return None if head.version >= first else Draft(made)

    if before is None:
        own.publish_first(lambda _: made)
    else:
        own.publish(before, build)
    return own.read(first)


def delete_branch(log: Log, head: Commit, name: str) -> Commit:
    """Commit on ``main`` that a branch is no more, then close its log: its versions may expire.

    Parameters
    ----------
    log : Log
        The main branch.
    head : Commit
        Its newest commit that the caller knows.
    name : str
        The branch. Where its deletion was cut short it is completed.

    Returns
    -------
    Commit
        The last version of the branch, at which every writer of it stops.

    Raises
    ------
    VersionNotFoundError
        There is no such branch.
    InvalidInputError
        It is the main branch.
    """
    _refuse_main(name)

    def unbranch(head: Commit, _: Sequence[Commit], commit_id: str) -> Draft | None:
        if name not in head.branches:
            return None
        # Nobody who fell asleep while making it may make it after it was deleted.
        _first_version(log, head, name)
        rest = {each: about for each, about in head.branches.items() if each != name}
        message = f"Delete branch {name}"
        entry = {"branch": name}
        return Draft(
            next_commit(head, commit_id, Kind.UNBRANCH, message, entry=entry, branches=rest)
        )

    found = log.publish(head, unbranch)
    own = Log(log.store, name)
    last = own.head()
    if last is None:
        raise VersionNotFoundError(
            f"There is no branch {name!r}. {_list('branches', found.branches)}"
        )
    again = log.require_head().branches.get(name)
    if again is not None:
        return own.read(again["first"] - 1)  # closed by another, and made again

    def close(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft | None:
        if any(commit.kind is Kind.CLOSED for commit in (head, *since)):
            return None  # closed already; what may come after is another branch of that name
        message = f"Close branch {name}"
        runs = _replaced(head.runs)
        return Draft(next_commit(head, commit_id, Kind.CLOSED, message, runs=runs))

    own.publish(last, close)
    return next(commit for commit in own.walk(last.version) if commit.kind is Kind.CLOSED)


def restore(log: Log, head: Commit, version: int) -> Commit:
    """Commit the content of an earlier version of a branch as its newest.

    Parameters
    ----------
    log : Log
        The branch.
    head : Commit
        Its newest commit that the caller knows, read before anything that the call is about.
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
        There is no such version, or no more.
    """

    def build(head: Commit, since: Sequence[Commit], commit_id: str) -> Draft:
        raise_if_closed(head, since)
        # After the branch's head, whatever came in between: an expire that is not seen here is
        # followed by a fence, which this commit then loses to.
        main = head if log.branch == MAIN else Log(log.store).require_head()
        _refuse_expired(main, log.branch, version)
        if not 0 <= version <= head.version:
            raise _no_version(log.branch, version)
        wanted = log.read(version)
        return Draft(
            next_commit(
                head,
                commit_id,
                Kind.RESTORE,
                f"Restore version {version}",
                entry={"version": version},
                schema=wanted.schema.settled,
                segments=wanted.segments,
                failures=wanted.failures,
                totals=wanted.totals,
                histories=wanted.histories,
                runs=_replaced(head.runs),
            )
        )

    return log.publish(head, build)


def _replaced(runs: Mapping[str, RunState]) -> dict[str, RunState]:
    """Return a run table in which no unfinished run can go on."""
    return {
        name: state if state.finished else replace(state, replaced=True, names=None)
        for name, state in runs.items()
    }


def _live(log: Log, main: Commit, branch: str, version: int) -> None:
    """Raise where a version of a branch is not there, or not any more, after a version of main."""
    if branch != MAIN and branch not in main.branches:
        raise VersionNotFoundError(
            f"There is no branch {branch!r}. {_list('branches', main.branches)}"
        )
    _refuse_expired(main, branch, version)
    if branch == MAIN:
        newest: int | None = main.version
    else:
        newest = Log(log.store, branch).head_version()
    if newest is None or not 0 <= version <= newest:
        raise _no_version(branch, version)


def _refuse_expired(main: Commit, branch: str, version: int) -> None:
    if version in main.expired.get(branch, Versions()):
        raise VersionExpiredError(
            f"Version {version} of branch {branch!r} was expired. Choose a newer one."
        )


def _no_version(branch: str, version: int) -> VersionNotFoundError:
    return VersionNotFoundError(
        f"Branch {branch!r} has no version {version}. Choose one that `dasklake log` lists."
    )


def _list(what: str, names: Mapping[str, object]) -> str:
    return f"The {what}: {', '.join(map(repr, names)) or 'none'}."


def _refuse_main(name: str) -> None:
    if name == MAIN:
        raise InvalidInputError("The branch 'main' is always there. Choose another name.")
