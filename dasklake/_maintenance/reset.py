"""Reset: close the unfinished runs, delete what they left uncommitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

__all__ = ["ResetReport", "reset"]


@dataclass(frozen=True, slots=True)
class ResetReport:
    """What a reset has done, or would do.

    Attributes
    ----------
    closed : mapping of str to int
        The unfinished runs, as ``<branch>/<run>``, and the epoch up to which each is closed:
        nothing that was written for it until then can be committed any more.
    objects : tuple of str
        Keys of the objects that were deleted.
    bytes : int
        Their length.
    dry_run : bool
        True if nothing was changed.
    uploads : int
        Unfinished uploads of such objects whose parts were removed.
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
    """Close the unfinished runs and delete what they left uncommitted.

    What is committed stays, and a run can be resumed afterwards. First an abort is committed,
    past which no coordinator of a closed epoch can commit; only then is anything listed, looked
    up in every version, and deleted.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    log : Log
        A log of the lake.
    force : bool, default False
        Also close runs that a living coordinator is writing: it stops.
    dry_run : bool, default False
        Change nothing; report what would be done.
    on_status : callable, optional
        ``on_status(done, total)`` is told how many of the objects are deleted.

    Returns
    -------
    ResetReport
        What was closed and deleted.

    Raises
    ------
    LakeNotFoundError
        There is no lake.
    RunActiveError
        A run is being written, and ``force`` was not given.
    UnsupportedStoreError
        ``force`` on a storage without exclusive create, which cannot stop another writer.
    """
    log.require_head()
    logs = {log.branch: log}
    now = BranchHeads(store, logs)
    states = now.unfinished()
    found = _leftovers(store, logs, {home: _closing(state) for home, state in states.items()})
    wanted = [home for home, s in states.items() if found[home] or s.closed < s.epoch]
    if force and (store.single_writer or now.single_writer):
        raise UnsupportedStoreError(
            f"{store.url} is on storage without exclusive create, where a living writer cannot be "
            "stopped. Stop it yourself, then reset without force."
        )
    if not force:
        _refuse_living(store, {home: states[home] for home in wanted})
    if dry_run:
        closed = {home: _closing(states[home]) for home in wanted}
    else:
        closed = _close(now, wanted)
        # Listed and looked up again: what was committed before the abort is in the log by now,
        # and nothing of a closed epoch can be committed after it.
        found = _leftovers(store, logs, closed)
    objects = sorted(entry for home in closed for entry in found[home])
    keys = [key for key, _ in objects]
    uploads = _uploads(store, closed)
    if not dry_run:
        delete_objects(store, keys, on_status)
        store.abandon(uploads)
    size = sum(size for _, size in objects)
    return ResetReport(closed, tuple(keys), size, dry_run, len(uploads))


def _closing(state: RunState) -> int:
    return max(state.epoch, state.closed)


def _refuse_living(store: ObjectStore, states: Mapping[str, RunState]) -> None:
    def alive(home: str) -> bool:
        branch, _, run = home.partition("/")
        # A coordinator of a closed epoch has nothing to say any more, even if it still beats.
        return is_alive(store, branch, run, max(states[home].epoch, states[home].closed + 1))

    with ThreadPoolExecutor(REQUESTS) as pool:
        for home, beats in zip(states, pool.map(alive, states), strict=True):
            if beats:
                raise RunActiveError(
                    f"Run {home.partition('/')[2]!r} is being written. Wait for it (`dasklake "
                    "watch` shows it), stop it, or reset with force to close it all the same."
                )


def _close(now: BranchHeads, homes: Iterable[str]) -> dict[str, int]:
    """Commit one abort for each home branch; return up to where each run is closed by it."""
    runs: dict[str, list[str]] = {}
    for home in homes:
        branch, _, run = home.partition("/")
        runs.setdefault(branch, []).append(run)
    closed: dict[str, int] = {}
    for branch, names in runs.items():
        made = abort(now.logs[branch], now.heads[branch], names)
        entry = made.entry["closed"] if made else {}
        closed |= {object_keys.home_of(branch, run): epoch for run, epoch in entry.items()}
    return closed


def _leftovers(
    store: ObjectStore, logs: dict[str, Log], closing: Mapping[str, int]
) -> dict[str, list[tuple[str, int]]]:
    """Return the objects of closed epochs that no version names, by run."""
    listed = {home: store.walk(object_keys.data_prefix(home), temporary=True) for home in closing}
    # After the listing: what is listed and committed in between is then seen as committed.
    reachable = BranchHeads(store, logs).reachable(set(closing)) if closing else Reachable()
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
    nothing = Reachable()
    return [each for each in store.uploads("data") if _is_leftover(each[0], closed, nothing)]
