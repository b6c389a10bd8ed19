"""Keep the results of a user's futures on the cluster while a run reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from distributed import Client, Future

from dasklake._run.submit import cluster_errors
from dasklake.exceptions import InvalidInputError

#: States in which the scheduler computes a result or has it.
_HELD = {"waiting", "no-worker", "queued", "processing", "memory", "erred"}

#: States of a future whose result is lost.
_GONE = {"cancelled", "lost"}

#: Seconds in which a key must arrive at the scheduler, and those for a graph of this client.
_ARRIVAL, _SUBMISSION = 2.0, 120.0


def hold_results(client: Client, keys: set[Any], held: Mapping[Any, Any]) -> list[Future[Any]]:
    """Return new futures of results on a cluster, which keep them there.

    Parameters
    ----------
    client : distributed.Client
        The cluster that is to write.
    keys : set of key
        The results that the graph refers to without computing them.
    held : mapping of key to Future
        The futures that the user's collection and arguments hold.

    Raises
    ------
    InvalidInputError
        The cluster does not have a result: it was released, cancelled, or is on another cluster.
    """
    if not keys:
        return []
    # A graph that was just submitted may not have reached the scheduler. If its futures are
    # pending here, the scheduler will either know their keys or report them as cancelled.
    submitted = {key for key in keys if key in client.futures}
    futures: dict[Any, Future[Any]] = {key: Future(key, client) for key in keys}
    gone = {k for k in keys if k in held and held[k].status in _GONE}
    scheduler: Any = client.scheduler
    began = time.monotonic()
    while True:
        with cluster_errors(None):
            states = client.sync(scheduler.get_task_status, keys=list(keys))
        missing = {key for key in keys if states.get(key) not in _HELD}
        gone |= {key for key in missing if futures[key].status in _GONE}
        waited = time.monotonic() - began
        if waited > _ARRIVAL:
            gone |= missing if waited > _SUBMISSION else missing - submitted
        if gone or not missing:
            break
        time.sleep(0.1)
    if gone:
        raise InvalidInputError(
            f"The cluster does not hold {len(gone)} of {len(keys)} results of futures that the "
            f"input or transform_kwargs refers to (such as {min(map(repr, gone))}). They were "
            "released or cancelled, or belong to another cluster. Keep the futures or the persisted "
            "collection in a variable until the write ends, or build the collection again from its "
            "source. A run that has begun is continued with mode='resume'."
        )
    return list(futures.values())
