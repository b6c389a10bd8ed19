"""Limits of the retries and caches of a storage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Limits that travel with a store to all processes that use it.

    Attributes
    ----------
    read_seconds : float
        Time for which a read, a listing or another single operation is retried.
    write_seconds : float
        Time for which an operation of a write task is retried: longer than storages throttle, and
        with Dask's own retries about as long as a commit is retried.
    commit_seconds : float
        Time for which the operations of a commit are retried.
    cache_bytes : int
        Most bytes of opened chunks that a reader keeps in memory.
    """

    read_seconds: float = 30.0
    write_seconds: float = 150.0
    commit_seconds: float = 600.0
    cache_bytes: int = 256 * 2**20
