"""Call a function for many items in threads, a few items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["AHEAD", "map_in_threads"]

_T = TypeVar("_T")
_R = TypeVar("_R")

_THREADS = 8

#: Calls that are begun before the result of the first one is used.
AHEAD = 2 * _THREADS


def map_in_threads(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Yield the results in order. After an error, no further call is begun."""
    rest = iter(items)
    pending: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            pending.extend(threads.submit(function, item) for item in islice(rest, AHEAD))
            while pending:
                result = pending.popleft().result()
                pending.extend(threads.submit(function, item) for item in islice(rest, 1))
                yield result
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
