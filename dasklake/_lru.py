"""A cache that evicts the least recently used entries."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from dasklake._fork import renew_after_fork

K = TypeVar("K")
V = TypeVar("V")


class LRUCache(Generic[K, V]):
    """Thread-safe cache of the entries used last. The newest one is kept whatever its size.

    Parameters
    ----------
    max_size : float, default inf
        Maximum total size of the entries, in bytes.
    max_entries : float, default inf
        Maximum number of entries.

    Examples
    --------
    >>> cache = LRUCache(max_entries=2)
    >>> for key in "abac":
    ...     if cache.get(key) is None:
    ...         cache.put(key, key.upper())
    >>> [cache.get(key) for key in "abc"]
    ['A', None, 'C']
    """

    def __init__(self, *, max_size: float = math.inf, max_entries: float = math.inf) -> None:
        self._max_size = max_size
        self._max_entries = max_entries
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        renew_after_fork(self)

    def renew(self) -> None:
        """Replace the lock, and discard the entries if another thread was changing them."""
        if self._lock.locked():
            self._entries, self._size = OrderedDict(), 0
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Return a value and mark it as used, or return None if it is not in the cache."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: K, value: V, size: int = 0) -> None:
        """Add or update an entry, and evict the least recently used ones."""
        with self._lock:
            self._size += size - self._entries.pop(key, (value, 0))[1]
            self._entries[key] = value, size
            while len(self._entries) > 1 and (
                len(self._entries) > self._max_entries or self._size > self._max_size
            ):
                self._size -= self._entries.popitem(last=False)[1][1]
