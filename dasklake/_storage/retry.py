"""Retry storage operations with exponential backoff, jitter and cancellation.

``RetryPolicy.call`` is the only loop for blocking operations. The coroutines of ``_links.verify``
have a loop of their own, which takes its pauses from ``RetryPolicy.pauses``. Libraries such as
tenacity were considered: they cannot let an enclosing call take over the retries of the operations
inside it.

Storage libraries also retry by themselves: botocore makes up to five attempts within about ten
seconds, and s3fs repeats those up to five times. All of this is one attempt of a policy, so that
the total is bounded by ``RetryPolicy.seconds`` and the duration of one attempt.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TypeVar

from dasklake.exceptions import (
    LakeNotSharedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    StoreError,
    UnsupportedStoreError,
)

#: Errors that another attempt cannot fix.
PERMANENT = (
    LakeNotSharedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    UnsupportedStoreError,
)

_LOGGER = logging.getLogger(__name__)

#: Whether an enclosing call retries already, in this thread or coroutine.
_RETRYING: ContextVar[bool] = ContextVar("dasklake_retrying", default=False)

_A = TypeVar("_A")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the retries of an operation.

    Attributes
    ----------
    seconds : float
        Time after which no further attempt begins.
    wait : callable
        Waits for a number of seconds; returns true to cancel the retries.
    permanent : tuple of type
        Errors that are raised at once.
    on_retry : callable or None
        Called with the reason before each retry, and with None after success.
    transient_only : bool
        Whether to retry only errors that are known to be temporary, such as HTTP 503.
    first, longest : float
        First and longest pause between two attempts, in seconds.
    """

    seconds: float
    wait: Callable[[float], object] = time.sleep
    permanent: tuple[type[StoreError], ...] = PERMANENT
    on_retry: Callable[[str | None], object] | None = None
    transient_only: bool = False
    first: float = 0.05
    longest: float = 15.0

    def pauses(self) -> Iterator[float]:
        """Return the pauses between attempts, in seconds, until the time from now on is over."""
        deadline = time.monotonic() + self.seconds

        def pauses() -> Iterator[float]:
            pause = self.first
            while time.monotonic() + pause <= deadline:
                yield pause * random.random()  # noqa: S311 # jitter
                pause = min(2 * pause, self.longest)

        return pauses()

    def call(self, action: Callable[[], _T], *permanent: type[StoreError]) -> _T:
        """Call an action, and repeat it while the storage fails.

        Inside another call the action is called once: the enclosing call repeats all of it.

        Parameters
        ----------
        action : callable
            Called once or several times.
        *permanent : type
            Further errors that are raised at once.

        Returns
        -------
        object
            The result of the action.

        Raises
        ------
        StoreError
            The error is permanent, the time is over, or ``wait`` cancelled the retries.
        """
        if _RETRYING.get():
            return action()
        token = _RETRYING.set(True)
        try:
            return self._repeat(action, permanent)
        finally:
            _RETRYING.reset(token)

    def _repeat(self, action: Callable[[], _T], permanent: tuple[type[StoreError], ...]) -> _T:
        notify = self.on_retry or (lambda _: None)
        pauses = self.pauses()
        attempt = 1
        while True:
            try:
                result = action()
            except StoreError as error:
                if isinstance(error, self.permanent + permanent):
                    raise
                if self.transient_only and not error.transient:
                    raise
                notify(str(error))
                pause = next(pauses, None)
                if pause is None or self.wait(pause):
                    raise
                attempt += 1
                _LOGGER.warning("Attempt %d in %.1f s: %s", attempt, pause, error)
            else:
                notify(None)
                return result


def in_context(action: Callable[[_A], _T]) -> Callable[[_A], _T]:
    """Return an action that leaves retries to the enclosing call, also in other threads."""
    context = copy_context()
    return lambda argument: context.copy().run(action, argument)


#: For single operations of a store: a listing, a read, a probe.
STORE_RETRIES = RetryPolicy(seconds=30.0, transient_only=True, longest=5.0)

#: For operations that are repeated anyway, such as heartbeats.
NO_RETRIES = RetryPolicy(seconds=0.0)
