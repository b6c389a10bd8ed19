"""Vacuum: expire old versions, delete the objects that only they named, and leftovers of runs."""

from __future__ import annotations

import logging
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
from dasklake._model.versions import Versions
from dasklake._storage.store import ObjectStore, temporary_target
from dasklake.exceptions import InvalidInputError, UnsupportedStoreError

_LOGGER = logging.getLogger(__name__)

_TABLE = re.compile(r"_lake/(?:segments|failures)/[0-9a-f]{16,32}\.arrow")

#: Larger than any epoch.
_ALL = 2**63


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """The result of a vacuum, or of its dry run.

    Attributes
    ----------
    expired : mapping of str to tuple of int
        The expired versions, by branch. They can no longer be opened.
    objects : tuple of str
        Keys of the deleted objects.
    bytes : int
        Total size of these objects.
    dry_run : bool
        Whether this was a dry run: nothing was changed.
    uploads : int
        Aborted uploads of runs that have ended.
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
    """Expire old versions, and delete the objects that only they named, and leftovers of runs.

    The newest version of each branch, tagged versions, and the source versions of branches are
    always kept. So are all objects of runs that are neither finished nor reset. If there is
    nothing to delete, no version expires.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    older_than : datetime.timedelta, optional
        Keep the versions that were the newest of their branch less than this time ago, by the
        times in the commits. If omitted, no version is kept for its age.
    dry_run : bool, default False
        Change nothing, and report the planned changes.
    on_status : callable, optional
        ``on_status(done, total)`` is called with the numbers of deleted and of all objects.

    Returns
    -------
    VacuumReport
        The expired versions and deleted objects.

    Raises
    ------
    LakeNotFoundError
        The lake does not exist.
    UnsupportedStoreError
        The storage has no exclusive create, so that writers cannot be kept out.
    CorruptionError
        A segment is damaged or lost. The needed objects are unknown, so nothing is deleted.
    InvalidInputError
        ``older_than`` is negative.
    """
    if older_than is not None and older_than < timedelta(0):
        raise InvalidInputError(
            f"older_than must not be negative, got {older_than}. Give a time such as '30d'."
        )
    logs = {MAIN: Log(store)} | {log.branch: log}
    before = BranchHeads(store, logs)
    if log.branch not in before.heads:
        log.require_head()
    if store.single_writer or before.single_writer:
        raise UnsupportedStoreError(
            f"{store.url} is on storage without exclusive create, where an active writer could "
            "commit objects that vacuum deletes. Copy the lake to other storage first."
        )
    keep = _Policy(older_than)
    candidates = _Candidates(store, before)
    old = {
        name: [version for version in versions if not keep(logs[name], version)]
        for name, versions in find_expirable(before.heads[MAIN], logs).items()
    }
    without = {
        name: before.expired.get(name, Versions()) | Versions.each(old.get(name, ()))
        for name in before.heads
    }
    garbage = candidates.unreachable(before.reachable(candidates.homes, without))
    expired = {name: tuple(versions) for name, versions in old.items() if versions}
    if not garbage and not candidates.uploads:
        expired = {}
    elif not dry_run:
        entry = expire(logs[MAIN], before.heads[MAIN], keep)
        expired = {
            name: tuple(v for first, stop in spans for v in range(first, stop))
            for name, spans in entry.entry["expired"].items()
        }
        _fence(store, logs, entry)
        # From here on, a writer whose objects were not yet named must write them again, and no
        # restore can name what has expired. What another vacuum expires since is not fenced yet.
        after = BranchHeads(store, logs)
        garbage = candidates.unreachable(after.reachable(candidates.homes, entry.expired))
        delete_objects(store, [key for key, _ in garbage], on_status)
        store.abort_uploads(candidates.uploads)
    size = sum(size for _, size in garbage)
    keys = tuple(key for key, _ in garbage)
    _LOGGER.info(
        "%s %s: %d versions expired, %d objects deleted (%d bytes), %d uploads aborted",
        "Dry run of a vacuum of" if dry_run else "Vacuumed",
        store.url,
        sum(map(len, expired.values())),
        len(keys),
        size,
        len(candidates.uploads),
    )
    return VacuumReport(expired, keys, size, dry_run, len(candidates.uploads))


class _Policy:
    """Keep versions for their age; read the time of each commit once."""

    def __init__(self, older_than: timedelta | None) -> None:
        self._since = None if older_than is None else _ago(older_than)
        self._times: dict[tuple[str, int], datetime] = {}

    def __call__(self, log: Log, version: int) -> bool:
        if self._since is None:
            return False
        # A version was the newest until its successor was committed.
        successor = (log.branch, version + 1)
        if successor not in self._times:
            self._read(log, version + 1)
        return self._times.get(successor, self._since) > self._since

    def _read(self, log: Log, start: int) -> None:
        """Read the times of all commits from ``start`` on, concurrently."""
        newest = log.head_version() or 0
        missing = [v for v in range(start, newest + 1) if (log.branch, v) not in self._times]
        with ThreadPoolExecutor(REQUESTS) as pool:
            for commit in pool.map(log.read, missing):
                self._times[log.branch, commit.version] = commit.time


def _ago(time: timedelta) -> datetime:
    try:
        return current_time() - time
    except OverflowError:  # before the first date
        return datetime.min.replace(tzinfo=UTC)


class _Candidates:
    """The objects that may be deleted, listed before any version expires.

    These are segments, tables of failures, and the objects of runs that can commit no more: runs
    that are finished, or replaced by an overwrite or restore, or whose branch was deleted. Of a
    reset run, these are the objects of its closed epochs.
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
            listings = pool.map(lambda folder: store.walk(folder, temporary=True), folders)
            entries = [entry for listing in listings for entry in listing]
            beats = [
                object_keys.heartbeat_key(*home.split("/"))
                for home, limit in ended.items()
                if limit == _ALL
            ]
            sizes = dict(store.walk("_lake/runs")) if beats else {}
        self._entries = [e for e in entries if not e[0].startswith("data/") or _is_old(e[0], ended)]
        #: Heartbeats of runs that are never continued. They are advisory.
        self._beats = [(key, sizes[key]) for key in beats if key in sizes]
        self.uploads = [u for u in store.pending_uploads("data") if _is_old(u[0], ended)]

    def unreachable(self, reachable: Reachable) -> list[tuple[str, int]]:
        """Return keys and sizes of the objects that no version names."""
        tables = {object_keys.segment_key(name) for name in reachable.segments}
        tables |= {object_keys.failures_key(name) for name in reachable.failures}
        garbage = [
            entry for entry in self._entries if not _is_reachable(entry[0], reachable, tables)
        ]
        return sorted([*garbage, *self._beats])


def _ended(head: Commit, state: RunState) -> int:
    """Return the newest epoch of a run that can commit no more."""
    over = state.finished or state.replaced or head.kind is Kind.CLOSED
    return _ALL if over else state.closed


def _is_old(key: str, ended: Mapping[str, int]) -> bool:
    """Return whether a run's object, temporary or not, is of an epoch that has ended."""
    name = parse_data_key(key)
    return name is not None and name.epoch <= ended.get(name.home, 0)


def _is_reachable(key: str, reachable: Reachable, tables: set[str]) -> bool:
    target = temporary_target(key) or key
    name = parse_data_key(target)
    if name is not None:
        return reachable.includes(name)
    # An object with another name is foreign, and stays.
    return target in tables or not _TABLE.fullmatch(target)


def _fence(store: ObjectStore, logs: Mapping[str, Log], entry: Commit) -> None:
    """Commit a fence to the log of each branch but main that exists at the expire entry."""
    for name, log in {**{b: Log(store, b) for b in entry.branches}, **logs}.items():
        head = None if name == MAIN else log.head()
        if head is not None:
            fence(log, head)
