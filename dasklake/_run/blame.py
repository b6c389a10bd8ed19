"""Find the task that killed a worker.

When a worker dies, Dask suspects every task that was assigned to it: those that were executing, and
those that only waited in its queue. A task with more suspicions than ``allowed-failures`` ends with
a ``KilledWorker`` error, so the error can hit a task that never ran. The error holds the worker's
last heartbeat, which names the executing tasks. A task that began after it is not there. But a
worker starts its tasks by priority, so the first of the failed partitions fill the threads that the
heartbeat does not account for. A worker reports a completed task some milliseconds later, so a task
that ended just before the death is suspected too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dasklake._dask import KilledWorker


def executing_keys(
    error: KilledWorker, partitions: Mapping[Any, int], failed: Iterable[Any]
) -> list[Any]:
    """Return the keys of a run's tasks that a dead worker was executing, the likeliest first.

    Parameters
    ----------
    error : KilledWorker
        Dask's error about the death.
    partitions : mapping of key to int
        The run's write tasks that are not finished, and their partitions. Lower partitions have a
        higher priority.
    failed : iterable of key
        The tasks that Dask failed because of this death.

    Returns
    -------
    list
        At most as many keys as the worker has threads, and at least one.
    """
    worker = error.last_worker
    executing = [key for key in worker.executing if key in partitions]
    queued = sorted(set(failed) - set(executing), key=partitions.__getitem__)
    return (executing + queued)[: max(worker.nthreads, 1)]
