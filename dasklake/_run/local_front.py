"""Writes on Dask's local schedulers: a callback passes outcomes to the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.config
import dask.local
import dask.threaded
from dask.callbacks import Callback
from dask.optimization import cull

from dasklake._run.coordinator import Coordinator, Status
from dasklake._run.outcome import interrupt_error, second_interrupt_error
from dasklake._run.run_spec import Assignment
from dasklake._schema.printable import error_text
from dasklake._write.failures import failure_of_task
from dasklake._write.graph import WriteGraph
from dasklake._write.job import Outcome

#: Seconds between two status reports.
_REPORT = 0.2


class _StoppedError(Exception):
    """Raised to leave a local scheduler when the run ends early; caught in this module."""


class LocalDeliver:
    """Delivers outcomes to a coordinator in the same process."""

    def __init__(self) -> None:
        self.coordinator: Coordinator | None = None

    def __call__(self, outcome: Outcome) -> None:
        """Deliver an outcome."""
        if self.coordinator is not None:
            self.coordinator.deliver(outcome)

    def stopped(self) -> bool:
        """Return whether the run has ended or is ending."""
        return self.coordinator is not None and self.coordinator.stopping


def local_deliver(get: Callable[..., Any]) -> LocalDeliver | None:
    """Return the delivery of a scheduler's tasks; None if they run in other processes."""
    return LocalDeliver() if get in (dask.local.get_sync, dask.threaded.get) else None


def run_locally(
    get: Callable[..., Any],
    assignment: Assignment,
    graph: WriteGraph,
    *,
    deliver: LocalDeliver | None,
    on_status: Callable[[Status], None],
) -> Status:
    """Write with a local scheduler; the coordinator commits in its own thread.

    Parameters
    ----------
    get : callable
        The scheduler's ``get``.
    assignment : Assignment
        The work of the epoch.
    graph : WriteGraph
        The tasks.
    deliver : LocalDeliver or None
        The delivery that the tasks call, if any.
    on_status : callable
        Called with the status regularly.
    """
    coordinator = Coordinator(assignment)
    coordinator.start()
    if deliver is not None:
        deliver.coordinator = coordinator
    front = _Front(coordinator, graph, on_status)
    try:
        front.compute(get)
        if coordinator.stopping:
            coordinator.drain()
        status = coordinator.follow(on_status)
    except KeyboardInterrupt:
        coordinator.stop("cancelled")
        coordinator.drain()
        try:
            status = coordinator.wait()
            coordinator.join()
        except KeyboardInterrupt:
            raise second_interrupt_error(assignment.run, on_cluster=False) from None
        raise interrupt_error(assignment.run, status.problem) from None
    except BaseException:
        # An error of the caller: complete partitions are committed, and the error is raised.
        coordinator.stop("cancelled")
        coordinator.drain()
        coordinator.join()
        raise
    coordinator.join()
    return status


@dataclass(slots=True)
class _Front:
    """The write tasks of a run on a local scheduler."""

    coordinator: Coordinator
    graph: WriteGraph
    on_status: Callable[[Status], None]
    pending: dict[Any, int] = field(init=False)
    running: set[Any] = field(init=False, default_factory=set)
    reported: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.pending = dict(self.graph.keys)

    def compute(self, get: Callable[..., Any]) -> None:
        """Run all write tasks; those that failed with another task are run again, one by one."""
        try:
            self.get(get, list(self.pending))
        except Exception:  # noqa: BLE001 # a shared task failed; the next step finds its partitions
            self.one_by_one(get)

    def get(self, get: Callable[..., Any], keys: list[Any]) -> None:
        try:
            # Without batches, whose partitions would be returned and committed together.
            with (
                dask.config.set(chunksize=1),
                Callback(pretask=self.pretask, posttask=self.posttask),
            ):
                # Dask before 2025.2 runs every task of the graph, whatever the keys.
                get(cull(self.graph.tasks, keys)[0], keys)
        except _StoppedError:
            return

    def one_by_one(self, get: Callable[..., Any]) -> None:
        for key, partition in list(self.pending.items()):
            if self.coordinator.stopping:
                return
            try:
                self.get(get, [key])
            except Exception as error:  # noqa: BLE001 # the user's error, reported with its partition
                text = error_text(error)
                run = self.coordinator.assignment.run
                self.coordinator.record_failure(failure_of_task(run, partition, error, text), error)

    def pretask(self, key: Any, *_: Any) -> None:
        if key in self.pending and not self.coordinator.stopping:
            self.running.add(key)

    def posttask(self, key: Any, result: Any, *_: Any) -> None:
        if key in self.pending:
            self.pending.pop(key)
            self.running.discard(key)
            if result is not None:
                self.coordinator.deliver(result)
            if time.monotonic() - self.reported > _REPORT:
                self.on_status(self.coordinator.status())
                self.reported = time.monotonic()
        # Running tasks are awaited, so that their work is kept.
        if self.coordinator.stopping and not self.running:
            raise _StoppedError
