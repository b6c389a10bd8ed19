"""Whether a run has a living coordinator: two looks at a counter, no clock but the observer's."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from dasklake._format import object_keys
from dasklake._format.documents import Heartbeat, heartbeat_bytes, read_heartbeat
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError, StoreError

__all__ = ["BEAT_SECONDS", "OBSERVE_SECONDS", "is_alive", "newest_heartbeat", "send_heartbeats"]

#: Seconds between two beats of a coordinator.
BEAT_SECONDS = 2.0

#: Seconds over which an observer watches; a living coordinator beats more often.
OBSERVE_SECONDS = 5.0

#: No heartbeat is longer, in bytes.
_MOST_BYTES = 65_536

#: Seconds between two looks of an observer.
_LOOK = 0.25


def newest_heartbeat(store: ObjectStore, branch: str, run: str) -> Heartbeat | None:
    """Return the newest heartbeat of a run; None where there is none."""
    try:
        return read_heartbeat(store.get(object_keys.heartbeat_key(branch, run), _MOST_BYTES))
    except (CorruptionError, ObjectNotFoundError):
        return None  # it is advisory: what is no heartbeat is none


def is_alive(store: ObjectStore, branch: str, run: str, epoch: int) -> bool:
    """Whether a coordinator of an epoch of the run, or of a newer one, beats.

    Returns at once where the last coordinator said that it stopped, or where its heart is seen to
    beat; after ``OBSERVE_SECONDS`` seconds otherwise. A beat of an older epoch says nothing: it may have
    covered one of the epoch that is asked about.
    """
    seen: set[Heartbeat] = set()
    deadline = time.monotonic() + OBSERVE_SECONDS
    while True:
        beat = newest_heartbeat(store, branch, run)
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


@contextlib.contextmanager
def send_heartbeats(store: ObjectStore, branch: str, run: str) -> Iterator[None]:
    """Beat for a run of one epoch that this process leads, as long as the block lasts."""
    key = object_keys.heartbeat_key(branch, run)
    coordinator = object_keys.new_id()
    ended = threading.Event()

    def beat() -> None:
        counter = 0
        while not ended.wait(BEAT_SECONDS if counter else 0.0):
            counter += 1
            # Advisory: a beat that is late costs an observer some seconds, never data.
            with contextlib.suppress(StoreError):
                store.put(key, heartbeat_bytes(Heartbeat(1, coordinator, counter)))

    thread = threading.Thread(target=beat, name=f"dasklake-beat-{run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StoreError):
            store.delete([key])
