"""Every version of every branch, and what they name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from dasklake._format import layout
from dasklake._model.commit import Commit, RunState, SegmentRef
from dasklake._model.manifest import Manifest
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore
from dasklake.exceptions import InvalidInputError, ObjectNotFoundError, VersionExpiredError

__all__ = ["MAIN", "REQUESTS", "Heads", "Table", "branches"]

MAIN = "main"

#: Requests at the same time.
REQUESTS = 16

_LOGS = "_lake/log"


class Table(NamedTuple):
    """A segment or a table of failures, and the newest version that names it."""

    log: Log
    ref: SegmentRef
    version: int


class Heads:
    """The heads of all branches at one moment.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    logs : dict of str to Log
        Logs of its branches; completed, and kept for the next moment, for what they have read
        does not change.

    Attributes
    ----------
    heads : dict of str to Commit
        The newest commit of each branch.
    """

    def __init__(self, store: ObjectStore, logs: dict[str, Log]) -> None:
        for name in branches(store):
            if name not in logs:
                logs[name] = Log(store, name)
        self.logs = logs
        main = logs[MAIN].head() if MAIN in logs else None
        # Read before the branches: what is expired after that is still kept.
        self._expired: Mapping[str, Any] = main.expired if main else {}
        found = {name: log.head() for name, log in logs.items()}
        self.heads: dict[str, Commit] = {name: head for name, head in found.items() if head}

    def unfinished(self) -> dict[str, RunState]:
        """Return the runs that are not finished, by branch and name."""
        return {
            layout.home_of(branch, run): state
            for branch, head in self.heads.items()
            for run, state in head.runs.items()
            if not state.finished
        }

    def commits(self, branch: str) -> Iterator[Commit]:
        """Yield the versions of a branch that are not expired, newest first."""
        gone = set(self._expired.get(branch, ()))
        versions = [v for v in range(self.heads[branch].version, -1, -1) if v not in gone]
        with ThreadPoolExecutor(REQUESTS) as pool:
            yield from pool.map(self.logs[branch].read, versions)

    def attempts(self, homes: set[str]) -> dict[str, set[int]]:
        """Return the attempts that any version names, by run."""
        found: dict[str, set[int]] = {}
        if not homes:
            return found
        tables: dict[str, Table] = {}
        for branch in self.heads:
            for commit in self.commits(branch):
                for ref in commit.segments:
                    tables.setdefault(ref.name, Table(self.logs[branch], ref, commit.version))
        with ThreadPoolExecutor(REQUESTS) as pool:
            for manifest in pool.map(_segment, tables.values()):
                for number, home in enumerate(manifest.home if manifest else ()):
                    if manifest and home in homes:
                        names = np.unique(manifest.attempt[manifest.run == number])
                        found.setdefault(home, set()).update(names.tolist())
        return found


def branches(store: ObjectStore) -> list[str]:
    """Return the names of all branches that have a log."""
    found = []
    for name in store.names(_LOGS):
        try:
            found.append(layout.valid_name("branch", name))
        except InvalidInputError:
            continue  # a foreign file is no branch
    return found


def _segment(table: Table) -> Manifest | None:
    """Read a segment; None where its version has been expired meanwhile."""
    try:
        return table.log.segment(table.ref)
    except ObjectNotFoundError as error:
        reason = table.log.missing(table.version, layout.segment_key(table.ref.name))
        if isinstance(reason, VersionExpiredError):
            return None
        raise reason from error
