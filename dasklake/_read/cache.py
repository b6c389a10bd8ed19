"""A cache with a limited number and size of entries."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["LRUCache"]

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Keeps the entries that were put last. The newest one is kept whatever its size.

    Parameters
    ----------
    max_entries : int
        Maximum number of entries.
    max_size : float, default inf
        Maximum total size of the entries.

    Examples
    --------
    >>> cache = LRUCache(max_entries=2)
    >>> for key in "abc":
    ...     cache.put(key, key.upper())
    >>> [cache.get(key) for key in "abc"]
    [None, 'B', 'C']
    """

    def __init__(self, max_entries: int, max_size: float = math.inf) -> None:
        self._max_entries = max_entries
        self._max_size = max_size
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return a value, or None if it is not in the cache."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, size: int = 0) -> None:
        """Add or update an entry, and evict the least recent ones."""
        with self._lock:
            if key in self._entries:
                self._size -= self._entries.pop(key)[1]
            self._entries[key] = value, size
            self._size += size
            while len(self._entries) > 1 and (
                len(self._entries) > self._max_entries or self._size > self._max_size
            ):
                self._size -= self._entries.popitem(last=False)[1][1]
