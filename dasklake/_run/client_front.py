"""The client's end of a write on a cluster: submit the graph, wait, and say how it went.

With :func:`run_on_scheduler` the scheduler plugin commits, and the run goes on when this client
dies; with :func:`run_on_client` the coordinator lives here.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it has no types
import dask
from dask._task_spec import (
    Dict,  # the public alias lacks it
    GraphNode,
    Task,
    TaskRef,
)
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client, Future, LocalCluster, as_completed, get_worker
from distributed.protocol.pickle import dumps, loads
from distributed.scheduler import KilledWorker

from dasklake._run.coordinator import Coordinator, Status
from dasklake._run.outcome import interrupt_error, second_interrupt_error
from dasklake._run.run_spec import Assignment
from dasklake._run.scheduler_plugin import CheckpointPlugin
from dasklake._schema.printable import safe_str
from dasklake._write.failures import failure_of_task
from dasklake._write.graph import WriteGraph
from dasklake.exceptions import InvalidInputError, LakeError, RunFailedError, RunLostError

__all__ = [
    "asynchronous_client",
    "client_of",
    "find_on_scheduler",
    "follow_on_scheduler",
    "hold_results",
    "inside_task",
    "local_client",
    "on_own_client",
    "open_on_scheduler",
    "run_on_client",
    "run_on_scheduler",
]

#: Calls the status back to the user: a bar, a log.
Watch = Callable[[Status], None]

#: States in which the scheduler computes a result or has it.
_HELD = {"waiting", "no-worker", "queued", "processing", "memory", "erred"}

#: Message if the scheduler released a result while the graph was submitted.
_DROPPED = (
    "The input or transform_kwargs refers to results of futures that the cluster has released. Keep "
    "the futures in a variable until the write ends, and run again with mode='resume', run={run!r}."
)

#: States of a future whose result is lost.
_GONE = {"cancelled", "lost"}

#: Seconds in which a key must arrive at the scheduler, and those for a graph of this client.
_ARRIVAL, _SUBMISSION = 2.0, 120.0

#: Seconds without a connection after which the scheduler is taken for dead; and between two looks.
_SILENCE, _LOOK = 5.0, 0.5


def client_of(scheduler: object) -> Client | None:
    """Return the client whose cluster a Dask ``get`` function computes on; None for a local one."""
    owner = getattr(scheduler, "__self__", None)
    return owner if isinstance(owner, Client) else None


def asynchronous_client(scheduler: object) -> Client | None:
    """Return the client whose methods have to be awaited; None where there is no such client.

    Parameters
    ----------
    scheduler : object
        What the user chose; None for Dask's current choice.
    """
    if scheduler is None and dask.config.get("scheduler", None) in (None, "dask.distributed"):
        with contextlib.suppress(ValueError):
            scheduler = Client.current()
    return scheduler if isinstance(scheduler, Client) and scheduler.asynchronous else None


@contextlib.contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Start worker processes on this machine, for the time of the block.

    Parameters
    ----------
    workers : int
        Processes, of one thread each.
    """
    where: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, **where) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


async def on_own_client(client: Client, action: Callable[[Client], Any]) -> Any:
    """Run an action that waits, beside an asynchronous client's event loop.

    Parameters
    ----------
    client : distributed.Client
        The asynchronous client.
    action : callable
        Called in a thread, with a client of its own for the same cluster.
    """
    address, security = client.scheduler_info()["address"], client.security

    def run() -> Any:
        with Client(address, security=security, set_as_default=False) as own:
            return action(own)

    return await asyncio.to_thread(run)


def inside_task() -> bool:
    """Whether this code runs inside a task of a distributed worker."""
    try:
        return bool(get_worker().get_current_task())
    except (ValueError, AttributeError):
        return False


def _register(client: Client) -> Exception | None:
    """Put the plugin on the scheduler; the error where the scheduler cannot take it."""
    try:
        client.register_plugin(CheckpointPlugin())
    except Exception as error:  # noqa: BLE001 # whatever unpickling on a foreign machine raises
        return error
    return None


def open_on_scheduler(client: Client, assignment: Assignment, name: str, *, required: bool) -> bool:
    """Give a run its coordinator on the scheduler.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    assignment : Assignment
        For the coordinator.
    name : str
        Prefix of the write keys.
    required : bool
        Whether a scheduler that cannot is an error; else the user is warned.

    Returns
    -------
    bool
        Whether the scheduler commits; the client has to where it does not.

    Raises
    ------
    RunFailedError
        The scheduler cannot coordinate the run, and has to.
    """
    why: Exception | None = _register(client)
    if why is None:
        with _cluster_errors(assignment.run):
            answer = _call(client, "open", name=name, assignment=dumps(assignment), owner=client.id)
        why = loads(answer["error"]) if "error" in answer else None
    if why is None:
        return True
    if required:
        raise RunFailedError(
            f"The scheduler cannot commit: {why}. Install dasklake there and give it access to "
            "the storage, or let coordinator='client' commit from here."
        ) from why
    warnings.warn(
        f"The scheduler cannot commit ({why}); this client does, and has to live until the end.",
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
    on_status: Watch,
) -> Status:
    """Submit a write and wait for its end; the scheduler, where the run was opened, commits.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    assignment : Assignment
        For the coordinator.
    graph : WriteGraph
        The tasks.
    name : str
        Prefix of the write keys.
    retries : int
        How often Dask tries a task that erred again.
    on_status : callable
        Called with the status from time to time.
    """
    run = assignment.run
    futures: list[Any] = []
    with _cluster_errors(run):
        try:
            try:
                futures = _submit(client, graph, retries)
            except Exception:
                # Nobody else would end it.
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
    """Look for a run of a lake that the cluster is writing, perhaps for a client that died.

    Returns
    -------
    tuple of (str, str) or None
        The prefix of its write keys, and its name.
    """
    if _register(client) is not None:
        return None
    with _cluster_errors(run):
        found = _call(client, "find", url=url, run=run)
    return (found["name"], found["run"]) if found else None


def follow_on_scheduler(client: Client, run: str, name: str, *, on_status: Watch) -> Status:
    """Wait for the end of a run that the cluster is writing already."""
    with _cluster_errors(run):
        return _follow(client, run, name, [], on_status)


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
        with _cluster_errors(None):
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


def _call(client: Client, operation: str, **arguments: Any) -> Any:
    """Call one of the plugin's handlers."""
    return client.sync(_ask, client, operation, **arguments)


async def _ask(client: Client, operation: str, **arguments: Any) -> Any:
    """Call a handler, for no longer than the client is connected.

    A call to a scheduler that died would only end with Dask's time-out for connections.
    """
    if client.scheduler is None:
        raise ConnectionError("the client was closed, or has given the scheduler up")
    call = asyncio.ensure_future(getattr(client.scheduler, f"dasklake_{operation}")(**arguments))
    try:
        heard = time.monotonic()
        while not (await asyncio.wait({call}, timeout=_LOOK))[0]:
            if client.status == "running":
                heard = time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise ConnectionError("the scheduler does not answer any more")
        return call.result()
    finally:
        call.cancel()


def _follow(client: Client, run: str, name: str, futures: list[Any], on_status: Watch) -> Status:
    while True:
        answer = _call(client, "wait", name=name)
        if "unknown" in answer:
            raise RunLostError(
                f"The scheduler does not know run {run!r} any more. Run again with mode='resume', "
                f"run={run!r}."
            )
        if answer["adopted"]:
            # From here on the run goes on without us.
            for future in futures:
                future.release()
            futures.clear()
        elif any(future.status in ("error", "cancelled", "lost") for future in futures[:1]):
            # The scheduler could not take the graph in.
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


def _submit(client: Client, graph: WriteGraph, retries: int) -> list[Any]:
    with warnings.catch_warnings():
        # The shared arguments are meant to travel with the graph: they arrive once, and survive
        # the death of every worker, which scattered data do not.
        warnings.filterwarnings("ignore", message="Sending large graph")
        priority = graph.priorities().get
        layer = MaterializedLayer(graph.tasks, annotations={"priority": priority})
        try:
            futures: list[Any] = client.get(
                HighLevelGraph({"to_lake": layer}, {"to_lake": set()}),
                list(graph.keys),
                sync=False,
                retries=retries,
            )
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise InvalidInputError(
                f"The input or the transform cannot be sent to workers ({safe_str(error)}). Leave out what "
                "only this process has, such as locks and open files."
            ) from error
    return futures


@contextlib.contextmanager
def _cluster_errors(run: str | None) -> Iterator[None]:
    try:
        yield
    except (OSError, asyncio.CancelledError) as error:
        if isinstance(error, LakeError):
            raise
        named = f", run={run!r}" if run else ""
        raise RunLostError(
            f"The cluster is gone ({error}). What was committed is kept: run again with "
            f"mode='resume'{named}."
        ) from error


def run_on_client(
    client: Client, assignment: Assignment, graph: WriteGraph, *, retries: int, on_status: Watch
) -> Status:
    """Submit a write and commit from here, for schedulers that cannot.

    The client has to live until the end; otherwise as :func:`run_on_scheduler`.
    """
    coordinator = Coordinator(assignment)
    coordinator.start()
    run = assignment.run
    try:
        with _cluster_errors(run):
            # The scheduler may lack this package: it must not have to open what it hands on.
            futures = _submit(client, _sealed(graph), retries)
            front = _ClientFront(client, coordinator, graph, {f.key: f for f in futures})
            try:
                front.settle_all(on_status)
            except KeyboardInterrupt:
                coordinator.stop("cancelled")
                try:
                    front.drain()
                    problem = coordinator.wait().problem
                except KeyboardInterrupt:
                    raise second_interrupt_error(run, on_cluster=False) from None
                raise interrupt_error(run, problem) from None
            return coordinator.follow(on_status)
    finally:
        # However this ends, nobody must take the run for alive afterwards.
        coordinator.stop("lost")
        coordinator.drain()
        coordinator.join()


@dataclass(frozen=True, slots=True)
class _ClientFront:
    """The write tasks of a coordinator that lives here; ``left`` are those not settled yet."""

    client: Client
    coordinator: Coordinator
    graph: WriteGraph
    left: dict[Any, Any]

    def settle_all(self, on_status: Watch) -> None:
        """Take the outcomes in as they come, until all are there or the run has to end."""
        for future in as_completed(list(self.left.values()), loop=self.client.loop):
            if future.cancelled():
                self.coordinator.stop("lost")
                self.coordinator.drain()
                return
            self._settle(future)
            on_status(self.coordinator.status())
            if self.coordinator.stopping:
                self.drain()
                return

    def drain(self) -> None:
        """Take back the tasks of a stopped run that have not begun, and settle the others."""
        scheduler: Any = self.client.scheduler
        states = self.client.sync(scheduler.get_task_status, keys=list(self.left))
        begun = {k for k, state in states.items() if state in ("processing", "memory", "erred")}
        self.client.cancel([future for key, future in self.left.items() if key not in begun])
        self.coordinator.drain({self.graph.keys[key] for key in begun})
        for future in as_completed([self.left[key] for key in begun], loop=self.client.loop):
            self._settle(future)
        self.coordinator.drain()

    def _settle(self, future: Any) -> None:
        del self.left[future.key]
        if future.status == "finished":
            self.coordinator.deliver(future.result())
        elif future.status == "error":
            error = future.exception()
            run, partition = self.coordinator.assignment.run, self.graph.keys[future.key]
            failure = failure_of_task(run, partition, error, "")
            self.coordinator.record_failure(failure, error, fatal=isinstance(error, KilledWorker))
        future.release()


def _sealed(graph: WriteGraph) -> WriteGraph:
    """Return the graph with its tasks as bytes, so that only workers need what is in them."""
    tasks: dict[Any, GraphNode] = {
        key: Task(
            key,
            operator.call,
            Task(None, cloudpickle.loads, cloudpickle.dumps(node)),
            Dict({need: TaskRef(need) for need in node.dependencies}),
        )
        for key, node in graph.tasks.items()
    }
    return WriteGraph(tasks, graph.keys)
