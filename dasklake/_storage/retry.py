"""Asking a storage again: for a bounded time, with jitter, and given up on a word."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from dasklake.exceptions import StoreError

__all__ = ["call_with_retries"]

#: First and longest pause between two tries, in seconds.
_FIRST, _LONGEST = 0.05, 15.0

_T = TypeVar("_T")


def _nobody(_: str | None) -> None:
    """Tell nobody."""


def call_with_retries(
    action: Callable[[], _T],
    *,
    retry_seconds: float,
    wait: Callable[[float], object],
    final: tuple[type[StoreError], ...],
    on_retry: Callable[[str | None], object] = _nobody,
) -> _T:
    """Run an action, again while the storage fails.

    Parameters
    ----------
    action : callable
        May be run several times.
    retry_seconds : float
        For so long; the action's own time counts.
    wait : callable
        Waits the seconds it is given; true where the action is to be given up.
    final : tuple of type
        Errors that asking again cannot mend.
    on_retry : callable, optional
        Told why the action is run again, and None when it is done.

    Returns
    -------
    object
        What the action returned.

    Raises
    ------
    StoreError
        The storage failed for longer, or in a way that is final.
    """
    deadline = time.monotonic() + retry_seconds
    pause = _FIRST
    while True:
        try:
            done = action()
        except StoreError as error:
            if isinstance(error, final):
                raise
            on_retry(str(error))
            if time.monotonic() + pause > deadline or wait(pause * random.random()):  # noqa: S311 # jitter
                raise
            pause = min(2 * pause, _LONGEST)
        else:
            on_retry(None)
            return done
