"""Write on a cluster and commit from the client, for schedulers that cannot commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distributed import Client, as_completed

from dasklake._dask import KilledWorker
from dasklake._run.blame import executing_keys
from dasklake._run.coordinator import Coordinator, Status
from dasklake._run.outcome import interrupt_error, second_interrupt_error
from dasklake._run.run_spec import Assignment
from dasklake._run.scheduler_client import OnStatus
from dasklake._run.submit import cluster_errors, seal, submit
from dasklake._write.failures import failure_of_task
from dasklake._write.graph import WriteGraph


def run_on_client(
    client: Client, assignment: Assignment, graph: WriteGraph, *, retries: int, on_status: OnStatus
) -> Status:
    """Submit a write and commit from this process, which must stay alive until the run ends.

    The parameters are those of :func:`~dasklake._run.scheduler_client.run_on_scheduler`.
    """
    coordinator = Coordinator(assignment)
    coordinator.start()
    run = assignment.run
    try:
        with cluster_errors(run):
            # The scheduler may lack this package, so it must not unpickle the tasks.
            futures = submit(client, seal(graph), retries)
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
        # The heartbeat must end in any case, or the run would seem to be alive.
        coordinator.stop("lost")
        coordinator.drain()
        coordinator.join()


@dataclass(frozen=True, slots=True)
class _ClientFront:
    """The write tasks of a coordinator in this process; ``pending`` are those not settled yet."""

    client: Client
    coordinator: Coordinator
    graph: WriteGraph
    pending: dict[Any, Any]

    def settle_all(self, on_status: OnStatus) -> None:
        """Record outcomes as they arrive, until all are known or the run has to end."""
        for future in as_completed(list(self.pending.values()), loop=self.client.loop):
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
        """Cancel the tasks of a stopped run that have not begun, and settle the others."""
        begun = {
            k for k, state in self._states().items() if state in ("processing", "memory", "erred")
        }
        self.client.cancel([future for key, future in self.pending.items() if key not in begun])
        self.coordinator.drain({self.graph.keys[key] for key in begun})
        for future in as_completed([self.pending[key] for key in begun], loop=self.client.loop):
            self._settle(future)
        self.coordinator.drain()

    def _settle(self, future: Any) -> None:
        killed = future.status == "error" and isinstance(future.exception(), KilledWorker)
        if killed and not self.coordinator.stopping:
            future = self._culprit(future)
        if self.pending.pop(future.key, None) is None:
            return  # blamed already
        if future.status == "finished":
            self.coordinator.deliver(future.result())
        elif future.status == "error":
            error = future.exception()
            killed = isinstance(error, KilledWorker)  # also if it is another future now
            # Of the tasks of one dead worker only the first one is blamed.
            if not (killed and self.coordinator.stopping):
                run, partition = self.coordinator.assignment.run, self.graph.keys[future.key]
                failure = failure_of_task(run, partition, error, "")
                self.coordinator.record_failure(failure, error, fatal=killed)
        future.release()

    def _culprit(self, future: Any) -> Any:
        """Return the task that killed the worker of a task that failed with it."""
        worker = future.exception().last_worker.address
        # The scheduler fails all tasks of a dead worker at once; their errors may still be arriving.
        errors = {
            key
            for key, state in self._states().items()
            if state == "erred"
            and isinstance(error := self.pending[key].exception(), KilledWorker)
            and error.last_worker.address == worker
        }
        partitions = {key: self.graph.keys[key] for key in self.pending}
        key = executing_keys(future.exception(), partitions, errors)[0]
        return self.pending[key] if key in errors else future

    def _states(self) -> dict[Any, str]:
        """Return the scheduler's states of the tasks that are not settled yet."""
        scheduler: Any = self.client.scheduler
        states: dict[Any, str] = self.client.sync(
            scheduler.get_task_status, keys=list(self.pending)
        )
        return states
