"""Vacuum: give up old versions, delete what only they named and what finished runs left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dasklake._format import object_keys
from dasklake._format.documents import now as current_time
from dasklake._log.expiry import expire, fence, find_expirable
from dasklake._log.log import MAIN, Log
from dasklake._maintenance.reachability import (
    REQUESTS,
    BranchHeads,
    OnStatus,
    Reachable,
    delete_objects,
    parse_data_key,
)
from dasklake._model.commit import Commit, Kind, RunState
from dasklake._storage.store import ObjectStore, temporary_target
from dasklake.exceptions import InvalidInputError, UnsupportedStoreError

__all__ = ["VacuumReport", "vacuum"]

_TABLE = re.compile(r"_lake/(?:segments|failures)/[0-9a-f]{16,32}\.arrow")

#: Larger than any epoch.
_ALL = 2**63


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """What a vacuum has done, or would do.

    Attributes
    ----------
    expired : mapping of str to tuple of int
        The versions that were given up, by branch: they can no longer be opened.
    objects : tuple of str
        Keys of the objects that were deleted.
    bytes : int
        Their length.
    dry_run : bool
        True if nothing was changed.
    uploads : int
        Unfinished uploads of runs that have ended whose parts were removed.
    """

    expired: Mapping[str, tuple[int, ...]]
    objects: tuple[str, ...]
    bytes: int
    dry_run: bool
    uploads: int = 0


def vacuum(
    store: ObjectStore,
    log: Log,
    *,
    older_than: timedelta | None = None,
    dry_run: bool = False,
    on_status: OnStatus | None = None,
) -> VacuumReport:
    """Give up old versions, and delete what only they named and what runs that ended left.

    The newest version of each branch, those that have a tag and those that branches were made from
    are always kept; so is everything that a run needs that is not finished and not reset. Where
    nothing would be deleted no version is given up.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    older_than : datetime.timedelta, optional
        Keep the versions that were the newest of their branch less than this time ago, by the
        times in the commits; left out, none of them.
    dry_run : bool, default False
        Change nothing; report what would be done.
    on_status : callable, optional
        ``on_status(done, total)`` is told how many of the objects are deleted.

    Returns
    -------
    VacuumReport
        What was given up and deleted.

    Raises
    ------
    LakeNotFoundError
        There is no lake.
    UnsupportedStoreError
        The storage has no exclusive create, so that no writer could be kept away.
    CorruptionError
        A segment is damaged or lost: nobody knows what is needed, so nothing is deleted.
    InvalidInputError
        ``older_than`` is negative.
    """
    log.require_head()
    if older_than is not None and older_than < timedelta(0):
        raise InvalidInputError("older_than is negative. Give a time such as '30d'.")
    logs = {MAIN: Log(store)} | {log.branch: log}
    before = BranchHeads(store, logs)
    if store.single_writer or before.single_writer:
        raise UnsupportedStoreError(
            f"{store.url} is on storage without exclusive create, where a living writer cannot be "
            "kept from naming what is about to be deleted. Copy the lake to other storage first."
        )
    keep = _Policy(older_than)
    candidates = _Candidates(store, before)
    old = {
        name: [version for version in versions if not keep(logs[name], version)]
        for name, versions in find_expirable(before.heads[MAIN], logs).items()
    }
    found = candidates.unreachable(before.reachable(candidates.homes, old))
    expired = {name: tuple(versions) for name, versions in old.items() if versions}
    if not found and not candidates.uploads:
        expired = {}
    elif not dry_run:
        entry = expire(logs[MAIN], before.heads[MAIN], keep)
        given_up = entry.entry["expired"]
        expired = {
            name: tuple(v for first, stop in spans for v in range(first, stop))
            for name, spans in given_up.items()
        }
        _fence(store, logs, entry)
        # From here on whoever had written something and not named it yet has to write it again.
        found = candidates.unreachable(BranchHeads(store, logs).reachable(candidates.homes))
        delete_objects(store, [key for key, _ in found], on_status)
        store.abandon(candidates.uploads)
    size = sum(size for _, size in found)
    keys = tuple(key for key, _ in found)
    return VacuumReport(expired, keys, size, dry_run, len(candidates.uploads))


class _Policy:
    """Which versions are kept for their age; reads each commit's time once."""

    def __init__(self, older_than: timedelta | None) -> None:
        self._since = None if older_than is None else _ago(older_than)
        self._times: dict[tuple[str, int], datetime] = {}

    def __call__(self, log: Log, version: int) -> bool:
        if self._since is None:
            return False
        # It was the newest until the next one came.
        after = (log.branch, version + 1)
        if after not in self._times:
            self._read(log, version + 1)
        return self._times.get(after, self._since) > self._since

    def _read(self, log: Log, start: int) -> None:
        """Read the times of the commits from one on, all of them at once."""
        newest = log.head_version() or 0
        missing = [v for v in range(start, newest + 1) if (log.branch, v) not in self._times]
        with ThreadPoolExecutor(REQUESTS) as pool:
            for commit in pool.map(log.read, missing):
                self._times[log.branch, commit.version] = commit.time


def _ago(time: timedelta) -> datetime:
    try:
        return current_time() - time
    except OverflowError:  # longer than there have been calendars
        return datetime.min.replace(tzinfo=UTC)


class _Candidates:
    """The objects that may be deleted, listed before anything is given up.

    Segments, tables of failures, and what lies under the prefixes of runs of which nothing can be
    committed any more: they are finished, or replaced by another's overwrite or restore, or their
    branch was deleted; or these epochs of them are closed.
    """

    def __init__(self, store: ObjectStore, heads: BranchHeads) -> None:
        ended = {
            object_keys.home_of(branch, run): limit
            for branch, head in heads.heads.items()
            for run, state in head.runs.items()
            if (limit := _ended(head, state))
        }
        self.homes = set(ended)
        with ThreadPoolExecutor(REQUESTS) as pool:
            folders = ["_lake/segments", "_lake/failures", *map(object_keys.data_prefix, ended)]
            listed = pool.map(lambda folder: store.walk(folder, temporary=True), folders)
            entries = [entry for found in listed for entry in found]
            beats = [
                object_keys.heartbeat_key(*home.split("/"))
                for home, limit in ended.items()
                if limit == _ALL
            ]
            sizes = dict(store.walk("_lake/runs")) if beats else {}
        self._entries = [e for e in entries if not e[0].startswith("data/") or _is_old(e[0], ended)]
        #: Advisory, and of runs that nobody continues: not even a zombie's is missed.
        self._beats = [(key, sizes[key]) for key in beats if key in sizes]
        self.uploads = [each for each in store.uploads("data") if _is_old(each[0], ended)]

    def unreachable(self, reachable: Reachable) -> list[tuple[str, int]]:
        """Return keys and lengths of those that no version names."""
        tables = {object_keys.segment_key(name) for name in reachable.segments}
        tables |= {object_keys.failures_key(name) for name in reachable.failures}
        found = [entry for entry in self._entries if not _is_reachable(entry[0], reachable, tables)]
        return sorted([*found, *self._beats])


def _ended(head: Commit, state: RunState) -> int:
    """Return the newest epoch of a run of which nothing can be committed any more."""
    over = state.finished or state.replaced or head.kind is Kind.CLOSED
    return _ALL if over else state.closed


def _is_old(key: str, ended: Mapping[str, int]) -> bool:
    """Whether an object of a run, also a half-written one, is of an epoch that has ended."""
    name = parse_data_key(key)
    return name is not None and name.epoch <= ended.get(name.home, 0)


def _is_reachable(key: str, reachable: Reachable, tables: set[str]) -> bool:
    meant = temporary_target(key) or key
    name = parse_data_key(meant)
    if name is not None:
        return reachable.includes(name)
    # What does not look like a table is foreign, and left alone.
    return meant in tables or not _TABLE.fullmatch(meant)


def _fence(store: ObjectStore, logs: Mapping[str, Log], entry: Commit) -> None:
    """Commit a fence to the log of each other branch of an expire's version."""
    for name, log in {**{b: Log(store, b) for b in entry.branches}, **logs}.items():
        head = None if name == MAIN else log.head()
        if head is not None:
            fence(log, head)
