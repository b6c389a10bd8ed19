"""Whether a run has a living coordinator: two looks at a counter, no clock but the observer's."""

from __future__ import annotations

import time

from dasklake._format import layout
from dasklake._format.documents import Heartbeat, read_heartbeat
from dasklake._store.objects import ObjectStore
from dasklake.exceptions import ObjectNotFoundError

__all__ = ["BEAT", "INTERVAL", "is_alive", "last_beat"]

#: Seconds between two beats of a coordinator.
BEAT = 2.0

#: Seconds over which an observer watches; a living coordinator beats more often.
INTERVAL = 5.0

#: Seconds between two looks of an observer.
_LOOK = 0.25


def last_beat(store: ObjectStore, branch: str, run: str) -> Heartbeat | None:
    """Return the newest heartbeat of a run; None where there is none."""
    try:
        return read_heartbeat(store.get(layout.heartbeat_key(branch, run)))
    except ObjectNotFoundError:
        return None


def is_alive(store: ObjectStore, branch: str, run: str, epoch: int) -> bool:
    """Whether a coordinator of an epoch of the run, or of a newer one, beats.

    Returns at once where the last coordinator said that it stopped, or where its heart is seen to
    beat; after ``INTERVAL`` seconds otherwise. A beat of an older epoch says nothing: it may have
    covered one of the epoch that is asked about.
    """
    seen: set[Heartbeat] = set()
    deadline = time.monotonic() + INTERVAL
    while True:
        beat = last_beat(store, branch, run)
        if beat is None:
            return False
        if beat.epoch >= epoch:
            if beat.state != "running":
                return False
            seen.add(beat)
        if len(seen) > 1:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK)
