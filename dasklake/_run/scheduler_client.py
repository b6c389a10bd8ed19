"""The client's side of a run whose commits are made by the scheduler plugin.

The run continues if this client dies.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from distributed import Client

from dasklake._dask import dumps, loads
from dasklake._run.coordinator import Status
from dasklake._run.outcome import interrupt_error, second_interrupt_error
from dasklake._run.run_spec import Assignment
from dasklake._run.scheduler_plugin import CheckpointPlugin
from dasklake._run.submit import cluster_errors, submit
from dasklake._write.graph import WriteGraph
from dasklake.exceptions import InvalidInputError, RunFailedError, RunLostError

#: Receives the status of a run from time to time, such as a progress bar.
OnStatus = Callable[[Status], None]

#: Message if the scheduler released a result while the graph was submitted.
_DROPPED = (
    "The input or transform_kwargs refers to results of futures that the cluster has released. Keep "
    "the futures in a variable until the write ends, and run again with mode='resume', run={run!r}."
)

#: Seconds without a connection after which the scheduler counts as dead, and between two checks.
_SILENCE_SECONDS, _CHECK_SECONDS = 5.0, 0.5


def _register(client: Client) -> Exception | None:
    """Register the plugin; return the error if the scheduler cannot load it."""
    try:
        client.register_plugin(CheckpointPlugin())
    except Exception as error:  # noqa: BLE001 # unpickling on another machine raises any error
        return error
    return None


def open_on_scheduler(client: Client, assignment: Assignment, name: str, *, required: bool) -> bool:
    """Create the coordinator of a run on the scheduler.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    assignment : Assignment
        The coordinator's task.
    name : str
        Prefix of the write keys.
    required : bool
        Whether to raise an error instead of a warning if the scheduler cannot coordinate.

    Returns
    -------
    bool
        Whether the scheduler commits. Otherwise the client has to.

    Raises
    ------
    RunFailedError
        The scheduler cannot coordinate the run, and ``required`` is true.
    """
    reason: Exception | None = _register(client)
    if reason is None:
        with cluster_errors(assignment.run):
            answer = _call(client, "open", name=name, assignment=dumps(assignment), owner=client.id)
        reason = loads(answer["error"]) if "error" in answer else None
    if reason is None:
        return True
    if required:
        raise RunFailedError(
            f"The scheduler cannot commit: {reason}. Install dasklake on the scheduler and give it "
            "access to the storage, or use coordinator='client'."
        ) from reason
    warnings.warn(
        f"The scheduler cannot commit ({reason}). This client commits instead, and must stay alive "
        "until the run ends.",
        stacklevel=2,
    )
    return False


def run_on_scheduler(
    client: Client,
    assignment: Assignment,
    graph: WriteGraph,
    *,
    name: str,
    retries: int,
    on_status: OnStatus,
) -> Status:
    """Submit a write whose run was opened on the scheduler, and wait for its end.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    assignment : Assignment
        The coordinator's task.
    graph : WriteGraph
        The tasks.
    name : str
        Prefix of the write keys.
    retries : int
        How often Dask retries a task that erred.
    on_status : callable
        Called with the status from time to time.
    """
    run = assignment.run
    futures: list[Any] = []
    with cluster_errors(run):
        try:
            try:
                futures = submit(client, graph, retries)
            except Exception:
                # No other process would end the run.
                _call(client, "stop", name=name, kind="cancelled")
                raise
            return _follow(client, run, name, futures, on_status)
        except KeyboardInterrupt:
            try:
                _call(client, "stop", name=name, kind="cancelled")
                status = _follow(client, run, name, futures, on_status)
            except KeyboardInterrupt:
                raise second_interrupt_error(run, on_cluster=True) from None
            raise interrupt_error(run, status.problem) from None


def find_on_scheduler(client: Client, url: str, run: str | None) -> tuple[str, str] | None:
    """Find a run of a lake that the cluster is writing, perhaps for a client that died.

    Returns
    -------
    tuple of (str, str) or None
        The prefix of its write keys, and its name.
    """
    if _register(client) is not None:
        return None
    with cluster_errors(run):
        answer = _call(client, "find", url=url, run=run)
    return (answer["name"], answer["run"]) if answer else None


def follow_on_scheduler(client: Client, run: str, name: str, *, on_status: OnStatus) -> Status:
    """Wait for the end of a run that the cluster is writing already."""
    with cluster_errors(run):
        return _follow(client, run, name, [], on_status)


def _call(client: Client, operation: str, **arguments: Any) -> Any:
    """Call a handler of the plugin."""
    return client.sync(_call_async, client, operation, **arguments)


async def _call_async(client: Client, operation: str, **arguments: Any) -> Any:
    """Call a handler of the plugin while the client is connected.

    Without this check, a call to a dead scheduler ends only with Dask's connection time-out.
    """
    if client.scheduler is None:
        raise ConnectionError("the client is closed")
    call = asyncio.ensure_future(getattr(client.scheduler, f"dasklake_{operation}")(**arguments))
    try:
        last_connected = time.monotonic()
        while not (await asyncio.wait({call}, timeout=_CHECK_SECONDS))[0]:
            if client.status == "running":
                last_connected = time.monotonic()
            elif time.monotonic() - last_connected > _SILENCE_SECONDS:
                raise ConnectionError("the scheduler does not answer")
        return call.result()
    finally:
        call.cancel()


def _follow(client: Client, run: str, name: str, futures: list[Any], on_status: OnStatus) -> Status:
    while True:
        answer = _call(client, "wait", name=name)
        if "unknown" in answer:
            raise RunLostError(
                f"The scheduler does not know run {run!r}. Run again with mode='resume', run={run!r}."
            )
        if answer["owned"]:
            # From now on the run does not need this client.
            for future in futures:
                future.release()
            futures.clear()
        elif any(future.status in ("error", "cancelled", "lost") for future in futures[:1]):
            # The scheduler could not load the graph.
            _call(client, "stop", name=name, kind="cancelled")
            try:
                futures[0].result()
            except CancelledError as error:
                if "lost dependencies" not in str(error):
                    raise
                raise InvalidInputError(_DROPPED.format(run=run)) from error
        status: Status = loads(answer["status"])
        on_status(status)
        if not status.running:
            return status
