"""The lake's storage as one attempt at a partition asks it: again while it fails, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from dasklake._storage.retry import call_with_retries
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    LakeNotSharedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    StoreError,
    UnsupportedStoreError,
)

__all__ = ["RetryingStore"]

#: Seconds for which one object is sent again, before the whole attempt counts as failed: longer
#: than storages throttle, and with Dask's own tries about as long as a commit is sent again.
_PATIENCE = 150.0

#: Seconds between two looks whether the run has ended meanwhile.
_LOOK = 0.5

#: What the storage says for good: another attempt would compute everything again in vain.
_REFUSALS = (
    LakeNotSharedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    UnsupportedStoreError,
)

_T = TypeVar("_T")


class RetryingStore:
    """The storage of one attempt.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    stopped : callable
        Whether nobody waits for the attempt any more.

    Attributes
    ----------
    refusal : StoreError or None
        What the storage has refused for good: it ends the run.
    """

    def __init__(self, store: ObjectStore, stopped: Callable[[], bool]) -> None:
        self.store = store
        self.stopped = stopped
        self.refusal: StoreError | None = None

    def put(self, key: str, data: Any) -> None:
        """Write an object; the same bytes again while the storage fails."""
        self.call(lambda: self.store.put(key, data))

    def call(self, action: Callable[[], _T]) -> _T:
        """Run an action of ours, again while the storage fails."""
        try:
            return call_with_retries(
                action, retry_seconds=_PATIENCE, wait=self._wait, final=_REFUSALS
            )
        except _REFUSALS as error:
            self.refusal = error
            raise

    def _wait(self, seconds: float) -> bool:
        """Wait; True as soon as nobody waits for the partition any more."""
        end = time.monotonic() + seconds
        while not self.stopped():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK))
        return True
