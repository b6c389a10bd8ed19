"""Retry the storage operations of one attempt at a partition, until the run has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from dasklake._storage.retry import PERMANENT, RetryPolicy
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import ObjectExistsError, StoreError

#: Seconds between two checks whether the run has ended.
_CHECK_SECONDS = 0.5

#: Refusals that end the run: another attempt would only repeat the computation.
_REFUSALS = tuple(error for error in PERMANENT if error is not ObjectExistsError)

_T = TypeVar("_T")


class RetryingStore:
    """The storage of one attempt.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    stopped : callable
        Returns whether the run has ended.

    Attributes
    ----------
    refusal : StoreError or None
        The permanent refusal of the storage, which ends the run.
    """

    def __init__(self, store: ObjectStore, stopped: Callable[[], bool]) -> None:
        self.store = store
        self.stopped = stopped
        self.refusal: StoreError | None = None
        self._retries = RetryPolicy(
            store.limits.write_seconds, wait=self._wait, permanent=_REFUSALS
        )

    def put(self, key: str, data: Any) -> None:
        """Write an object, and repeat it while the storage fails."""
        self.call(lambda: self.store.put(key, data))

    def call(self, action: Callable[[], _T]) -> _T:
        """Call an action, and repeat it while the storage fails."""
        try:
            return self._retries.call(action)
        except _REFUSALS as error:
            self.refusal = error
            raise

    def _wait(self, seconds: float) -> bool:
        """Wait; return True as soon as the run has ended."""
        deadline = time.monotonic() + seconds
        while not self.stopped():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(remaining, _CHECK_SECONDS))
        return True
