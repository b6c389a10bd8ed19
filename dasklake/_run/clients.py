"""Find the Dask client of a call, or start one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it has no types
import dask
from distributed import Client, LocalCluster, Worker, WorkerPlugin, get_worker

from dasklake import creds
from dasklake._main_guard import raise_if_unguarded
from dasklake.exceptions import InvalidInputError


def client_of(scheduler: object) -> Client | None:
    """Return the client whose cluster runs a Dask ``get`` function, or None if it is local."""
    owner = getattr(scheduler, "__self__", None)
    return owner if isinstance(owner, Client) else None


def asynchronous_client(scheduler: object) -> Client | None:
    """Return the client whose methods have to be awaited, or None.

    Parameters
    ----------
    scheduler : object
        The scheduler that the user chose; None for Dask's current choice.
    """
    if scheduler is None and dask.config.get("scheduler", None) in (None, "dask.distributed"):
        with contextlib.suppress(ValueError):
            scheduler = Client.current()
    return scheduler if isinstance(scheduler, Client) and scheduler.asynchronous else None


@contextlib.contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Start worker processes on this machine for the duration of the block.

    Parameters
    ----------
    workers : int
        Number of processes, with one thread each. They get the values of the credentials keys that
        were populated in this process, also if they are restarted.

    Raises
    ------
    InvalidInputError
        The processes would run the user's script again, or the values of a credentials key cannot
        be pickled.
    """
    values = _picklable(creds.populated())
    if dask.config.get("distributed.worker.multiprocessing-method", "spawn") != "fork":
        raise_if_unguarded()
    addresses: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, **addresses) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        if values:
            client.register_plugin(_PopulateCreds(values), name="dasklake-creds")
        yield client


class _PopulateCreds(WorkerPlugin):
    """Populate credentials keys in each worker process, before its first task."""

    def __init__(self, values: dict[str, creds.StorageOptions]) -> None:
        self._values = values

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 # the signature of Dask
        """Populate the keys."""
        for key, value in self._values.items():
            creds.populate(key, value)


def _picklable(values: dict[str, creds.StorageOptions]) -> dict[str, creds.StorageOptions]:
    """Return the values of credentials keys after checking that workers can get them.

    Raises
    ------
    InvalidInputError
        A value cannot be pickled.
    """
    for key, value in values.items():
        try:
            cloudpickle.dumps(value)
            continue
        except Exception as error:  # noqa: BLE001 # objects of users can raise any error
            kind = type(error).__name__
        # Raised out of the handler: the context could show the values.
        raise InvalidInputError(
            f"The values of the credentials key {key!r} must be picklable to reach the workers that "
            f"eval starts, got a {kind}. Give a mapping or a function without open connections, or set "
            f"dasklake.creds.{key} in the Dask configuration."
        )
    return values


async def on_own_client(client: Client, action: Callable[[Client], Any]) -> Any:
    """Run a blocking action beside the event loop of an asynchronous client.

    Parameters
    ----------
    client : distributed.Client
        The asynchronous client.
    action : callable
        Called in a thread, with a synchronous client of the same cluster.
    """
    address, security = client.scheduler_info()["address"], client.security

    def run() -> Any:
        with Client(address, security=security, set_as_default=False) as own:
            return action(own)

    return await asyncio.to_thread(run)


def inside_task() -> bool:
    """Return whether this code runs inside a task of a distributed worker."""
    try:
        return bool(get_worker().get_current_task())
    except (ValueError, AttributeError):
        return False
