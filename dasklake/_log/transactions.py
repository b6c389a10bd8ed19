"""Create a lake; helpers that every commit of a log uses.

Each kind of commit has a function that passes a ``build`` to :meth:`Log.publish`. The builder gets
the head and every commit since the caller's head. It examines each of these commits and computes
everything else from the head alone, so that no decision from before a lost race survives it.
"""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dasklake._format import object_keys
from dasklake._format.documents import now
from dasklake._log.log import Log
from dasklake._model.commit import Commit, Kind
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import ConflictError, InvalidInputError

_LOGS = "_lake/log"


def author() -> str:
    """Return the user name that commits carry."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def create_lake(log: Log, schema: Schema, *, single_writer: bool = False) -> tuple[Commit, bool]:
    """Create the first version of a lake, or open the existing lake.

    The storage is probed first: it must refuse to create an object twice.

    Returns
    -------
    head : Commit
        The newest version.
    created : bool
        Whether this call created the lake.
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
    """Return the commit after ``head``, with everything carried over except ``changes``."""
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


def branch_names(store: ObjectStore) -> list[str]:
    """Return the names of all branches that have a log, including deleted ones."""
    branches = []
    for name in store.names(_LOGS):
        try:
            branches.append(object_keys.valid_name("branch", name))
        except InvalidInputError:
            continue  # a foreign file
    return branches


def raise_if_closed(head: Commit, since: Sequence[Commit]) -> None:
    """Raise ``ConflictError`` if the branch was deleted: earlier writers may not write to it."""
    if any(commit.kind is Kind.CLOSED for commit in (head, *since)):
        raise ConflictError(
            f"The branch {head.branch!r} was deleted. Write to another branch, or create it again."
        )
