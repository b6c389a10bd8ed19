"""Send the heartbeats of a coordinator, and check whether a run has an active one.

A check compares a counter between two reads, and uses no clock but the observer's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes, read_heartbeat
from dasklake._storage.retry import NO_RETRIES
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, ObjectNotFoundError, StoreError

_LOGGER = logging.getLogger(__name__)

#: Seconds between two heartbeats of a coordinator.
BEAT_SECONDS = 2.0

#: Seconds over which an observer checks; an active coordinator sends heartbeats more often.
OBSERVE_SECONDS = 5.0

#: Maximum size of a heartbeat in bytes.
_MOST_BYTES = 65_536

#: Seconds between two checks of an observer.
_CHECK_SECONDS = 0.25


def newest_heartbeat(store: ObjectStore, branch: str, run: str) -> Heartbeat | None:
    """Return the newest heartbeat of a run, or None if it has none."""
    try:
        return read_heartbeat(store.get(object_keys.heartbeat_key(branch, run), _MOST_BYTES))
    except (CorruptionError, ObjectNotFoundError):
        return None  # advisory: an unreadable heartbeat counts as none


def is_alive(store: ObjectStore, branch: str, run: str, epoch: int) -> bool:
    """Return whether a coordinator of an epoch of the run, or of a newer one, is active.

    The function returns at once if the last coordinator reported that it stopped, or if the
    heartbeat changes; after ``OBSERVE_SECONDS`` otherwise. A heartbeat of an older epoch is
    ignored: it may have overwritten one of this epoch.
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
        time.sleep(_CHECK_SECONDS)


@contextlib.contextmanager
def send_heartbeats(store: ObjectStore, branch: str, run: str) -> Iterator[None]:
    """Send heartbeats for a run of one epoch that this process leads, during the block."""
    key = object_keys.heartbeat_key(branch, run)
    coordinator = object_keys.new_id()
    store = store.with_retries(NO_RETRIES)  # each beat is followed by the next
    ended = threading.Event()

    def beat() -> None:
        counter = 0
        while not ended.wait(BEAT_SECONDS if counter else 0.0):
            counter += 1
            # Advisory: a late heartbeat delays an observer by some seconds and costs no data.
            with contextlib.suppress(StoreError):
                store.put(key, heartbeat_bytes(Heartbeat(1, coordinator, counter)))
                _LOGGER.debug("Heartbeat %d of run %r", counter, run)

    thread = threading.Thread(target=beat, name=f"dasklake-beat-{run}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StoreError):
            store.delete([key])
