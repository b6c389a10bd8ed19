"""Reset: close the unfinished runs and delete their uncommitted objects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dasklake._format import object_keys
from dasklake._log.heartbeat import is_alive
from dasklake._log.log import Log
from dasklake._log.run_entries import abort
from dasklake._maintenance.reachability import (
    REQUESTS,
    BranchHeads,
    OnStatus,
    Reachable,
    delete_objects,
    parse_data_key,
)
from dasklake._model.commit import RunState
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import RunActiveError, UnsupportedStoreError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResetReport:
    """The result of a reset, or of its dry run.

    Attributes
    ----------
    closed : mapping of str to int
        The unfinished runs, as ``<branch>/<run>``, and the epoch up to which each is closed.
        Objects that were written for these epochs can no longer be committed.
    objects : tuple of str
        Keys of the deleted objects.
    bytes : int
        Total size of these objects.
    dry_run : bool
        Whether this was a dry run: nothing was changed.
    uploads : int
        Aborted uploads of such objects.
    """

    closed: Mapping[str, int]
    objects: tuple[str, ...]
    bytes: int
    dry_run: bool
    uploads: int = 0


def reset(
    store: ObjectStore,
    log: Log,
    *,
    force: bool = False,
    dry_run: bool = False,
    on_status: OnStatus | None = None,
) -> ResetReport:
    """Close the unfinished runs and delete their uncommitted objects.

    Committed data stays, and a run can be resumed afterwards. An abort is committed first: after
    it, no coordinator of a closed epoch can commit. Only then are the objects listed, compared
    with every version, and deleted.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    force : bool, default False
        Also close runs that an active coordinator is writing. The coordinator stops.
    dry_run : bool, default False
        Change nothing, and report the planned changes.
    on_status : callable, optional
        ``on_status(done, total)`` is called with the numbers of deleted and of all objects.

    Returns
    -------
    ResetReport
        The closed runs and deleted objects.

    Raises
    ------
    LakeNotFoundError
        The lake does not exist.
    RunActiveError
        A run is being written, and ``force`` is False.
    UnsupportedStoreError
        ``force`` is True, and the storage has no exclusive create: it cannot stop a writer.
    """
    logs = {log.branch: log}
    before = BranchHeads(store, logs)
    if log.branch not in before.heads:
        log.require_head()
    states = before.unfinished()
    # These heads decide which runs to close: open runs in any case, and closed runs commit nothing.
    # Only the report of a dry run needs newer heads.
    leftovers = _leftovers(
        store,
        {home: _closing(state) for home, state in states.items()},
        lambda: BranchHeads(store, logs) if dry_run else before,
    )
    homes = [home for home, s in states.items() if leftovers[home] or s.closed < s.epoch]
    if force and (store.single_writer or before.single_writer):
        raise UnsupportedStoreError(
            f"{store.url} is on storage without exclusive create, where reset cannot stop an "
            "active writer. Stop the writer yourself, then reset without force."
        )
    if not force:
        _raise_if_active(store, {home: states[home] for home in homes})
    if dry_run:
        closed = {home: _closing(states[home]) for home in homes}
    else:
        closed = _close(before, homes)
        # List again, then read all logs again: data committed before the abort is in a log now,
        # and no data of a closed epoch can be committed after it.
        leftovers = _leftovers(store, closed, lambda: BranchHeads(store, logs))
    objects = sorted(entry for home in closed for entry in leftovers[home])
    keys = [key for key, _ in objects]
    uploads = _uploads(store, closed)
    if not dry_run:
        delete_objects(store, keys, on_status)
        store.abort_uploads(uploads)
    size = sum(size for _, size in objects)
    _LOGGER.info(
        "%s %s: %d runs closed, %d objects deleted (%d bytes), %d uploads aborted",
        "Dry run of a reset of" if dry_run else "Reset",
        store.url,
        len(closed),
        len(keys),
        size,
        len(uploads),
    )
    return ResetReport(closed, tuple(keys), size, dry_run, len(uploads))


def _closing(state: RunState) -> int:
    return max(state.epoch, state.closed)


def _raise_if_active(store: ObjectStore, states: Mapping[str, RunState]) -> None:
    def is_active(home: str) -> bool:
        branch, _, run = home.partition("/")
        # A coordinator of a closed epoch cannot commit, even if it still sends heartbeats.
        return is_alive(store, branch, run, max(states[home].epoch, states[home].closed + 1))

    with ThreadPoolExecutor(REQUESTS) as pool:
        for home, active in zip(states, pool.map(is_active, states), strict=True):
            if active:
                raise RunActiveError(
                    f"Run {home.partition('/')[2]!r} is being written. Wait for it to end (`dasklake "
                    "watch` shows it), stop it, or reset with force to close it anyway."
                )


def _close(heads: BranchHeads, homes: Iterable[str]) -> dict[str, int]:
    """Commit one abort for each home branch; return the last closed epoch of each run."""
    runs: dict[str, list[str]] = {}
    for home in homes:
        branch, _, run = home.partition("/")
        runs.setdefault(branch, []).append(run)
    closed: dict[str, int] = {}
    for branch, names in runs.items():
        commit = abort(heads.logs[branch], heads.heads[branch], names)
        entry = commit.entry["closed"] if commit else {}
        closed |= {object_keys.home_of(branch, run): epoch for run, epoch in entry.items()}
    return closed


def _leftovers(
    store: ObjectStore, closing: Mapping[str, int], read_heads: Callable[[], BranchHeads]
) -> dict[str, list[tuple[str, int]]]:
    """List the objects of closed epochs that no version names, by run; then read the heads."""
    listed = {home: store.walk(object_keys.data_prefix(home), temporary=True) for home in closing}
    # After the listing, so that an object that is committed in between counts as committed.
    reachable = Reachable()
    if closing:
        heads = read_heads()
        reachable = heads.reachable(set(closing), heads.unrestorable)
    return {
        home: [(key, size) for key, size in listed[home] if _is_leftover(key, closing, reachable)]
        for home in closing
    }


def _is_leftover(key: str, closing: Mapping[str, int], reachable: Reachable) -> bool:
    name = parse_data_key(key)
    if name is None or name.epoch > closing.get(name.home, 0):
        return False
    return not reachable.includes(name)


def _uploads(store: ObjectStore, closed: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the unfinished uploads of closed epochs."""
    return [
        upload
        for upload in store.pending_uploads("data")
        if _is_leftover(upload[0], closed, Reachable())
    ]
