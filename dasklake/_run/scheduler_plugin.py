"""The scheduler plugin: receipts arrive with task completions, commits leave beside the event loop.

On the scheduler, :class:`CheckpointPlugin` gives each run a :class:`Coordinator`. On the workers,
:class:`~dasklake._run.task_outcome.TaskDeliver` attaches the outcome of a write task to its
completion.

::

    worker                           scheduler                               storage
    write task ── chunk ──────────────────────────────────────────────────▶ data/…
        └─ receipt in task metadata ─▶ transition() ─▶ Coordinator.deliver
                                                        └─ own thread ─────▶ _lake/log/…
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

from distributed import Scheduler, SchedulerPlugin

from dasklake._dask import KilledWorker, dumps, loads
from dasklake._run.blame import executing_keys
from dasklake._run.coordinator import Coordinator
from dasklake._run.hang_watch import HangWatch, Nannies
from dasklake._run.task_outcome import METADATA, exception_of, unpack_outcome
from dasklake._write.failures import failure_of_task
from dasklake.exceptions import LakeError

#: Dask's own client for tasks whose results no client holds.
_OWNER = "fire-and-forget"

#: Seconds a wait call stays on the scheduler before it answers "still running".
_LONG_POLL = 0.5

#: Number of ended runs that are remembered.
_REMEMBERED = 16

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _ActiveRun:
    """A run on this scheduler.

    Attributes
    ----------
    coordinator : Coordinator
        Commits its receipts.
    client : str
        The client that opened the run.
    keys : dict of key to int
        Write tasks that are not settled yet, and their partitions.
    owned : bool
        Whether the plugin holds the tasks, so that the run continues without its client.
    withdrawn : bool
        Whether tasks that had not begun were released, because the run has to end.
    watch, watching : HangWatch or None, asyncio.Task or None
        The watch over tasks that hang, if the run has a ``partition_timeout``.
    """

    coordinator: Coordinator
    client: str
    keys: dict[Any, int] = field(default_factory=dict)
    owned: bool = False
    withdrawn: bool = False
    watch: HangWatch | None = None
    watching: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class _Death:
    """A write task that Dask failed because its worker died."""

    active: _ActiveRun
    key: Any
    partition: int
    error: KilledWorker


class CheckpointPlugin(SchedulerPlugin):
    """Coordinate the runs of a cluster; registered once, and never unregistered during a run."""

    name = "dasklake"
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, _ActiveRun] = {}
        self.nannies = Nannies()
        #: Failed tasks by dead worker, until the culprit is known.
        self.deaths: dict[str, list[_Death]] = {}
        self.scheduler: Scheduler
        self.loop: asyncio.AbstractEventLoop

    async def start(self, scheduler: Scheduler) -> None:
        """Register the handlers that clients call."""
        self.scheduler = scheduler
        self.loop = asyncio.get_running_loop()
        for worker in scheduler.workers:
            self.add_worker(scheduler, worker)
        scheduler.handlers |= {
            "dasklake_find": self.find,
            "dasklake_open": self.open,
            "dasklake_wait": self.wait,
            "dasklake_stop": self.stop,
        }

    async def find(self, url: str, run: str | None) -> dict[str, str] | None:
        """Return the run of a lake that is being written here: the named one, or the only one."""
        matches = [
            {"name": name, "run": active.coordinator.assignment.run}
            for name, active in self.runs.items()
            if active.coordinator.assignment.location.store.url == url
            and run in (None, active.coordinator.assignment.run)
            and active.owned
            and active.coordinator.status().running
        ]
        return matches[0] if len(matches) == 1 else None

    async def open(self, name: str, assignment: bytes, owner: str) -> dict[str, Any]:
        """Create the coordinator of a run; a second call for the same run has no effect."""
        self._forget()
        if name in self.runs:
            return {}
        coordinator = Coordinator(loads(assignment), lambda: self._changed(name))
        try:
            await asyncio.to_thread(coordinator.start)
        except LakeError as error:
            return {"error": dumps(error)}
        self.runs[name] = active = _ActiveRun(coordinator, owner)
        _LOGGER.info("Run %r is coordinated on this scheduler", coordinator.assignment.run)
        if owner not in self.scheduler.clients:
            # The client died while the coordinator started, so the graph will never arrive.
            coordinator.stop("cancelled")
            coordinator.drain()
        if coordinator.assignment.spec.partition_timeout is not None:
            active.watch = HangWatch(
                self.scheduler, coordinator, active.keys, self.nannies, self._release
            )
            active.watching = asyncio.create_task(active.watch.run())
        return {}

    def _forget(self) -> None:
        """Forget runs that ended long ago; clients may still ask about the newest ones."""
        ended = [n for n, a in self.runs.items() if not a.coordinator.status().running]
        for name in ended[:-_REMEMBERED]:
            del self.runs[name]

    async def wait(self, name: str) -> dict[str, Any]:
        """Answer when the run has ended, or after a while that it has not."""
        active = self.runs.get(name)
        if active is None:
            return {"unknown": True}
        status = await asyncio.to_thread(active.coordinator.wait, _LONG_POLL)
        return {"owned": active.owned, "status": dumps(status)}

    async def stop(self, name: str, kind: str) -> None:
        """End a run early; complete partitions are committed."""
        active = self.runs.get(name)
        if active is not None:
            active.coordinator.stop(kind)
            self._withdraw(active)

    def update_graph(
        self, scheduler: Scheduler, *, client: str, tasks: list[Any], **_: Any
    ) -> None:
        """Take over the write tasks of a run, so that no client holds their results."""
        for key in tasks:
            active = self._run_of(key)
            if active is not None:
                active.keys[key] = key[1]
        for active in self.runs.values():
            if active.keys and not active.owned:
                keys = list(active.keys)
                if active.coordinator.stopping:
                    active.keys.clear()  # the client ended the run before its graph arrived
                else:
                    scheduler.client_desires_keys(keys, client=_OWNER)
                # At once: results that a client holds are recomputed when a worker dies.
                scheduler.client_releases_keys(keys, client=client)
                active.owned = True

    def transition(self, key: Any, start: Any, finish: Any, *_: Any, **kwargs: Any) -> None:  # noqa: ARG002 # Dask's signature
        """Record receipts and errors."""
        active = self._run_of(key) if self.runs else None
        if active is None or key not in active.keys:
            return
        if finish == "memory":
            data = (kwargs.get("metadata") or {}).get(METADATA)
            if data is not None:
                del active.keys[key]
                active.coordinator.deliver(unpack_outcome(data))
        elif finish == "erred":
            self._erred(active, key)
        elif finish == "forgotten":
            active.coordinator.stop("lost")
        if active.coordinator.stopping:
            self.loop.call_soon(self._withdraw, active)

    def _run_of(self, key: Any) -> _ActiveRun | None:
        if isinstance(key, tuple) and len(key) == 2:
            return self.runs.get(key[0]) if isinstance(key[0], str) else None
        return None

    def _erred(self, active: _ActiveRun, key: Any) -> None:
        partition = active.keys.pop(key)
        task = self.scheduler.tasks[key]
        blame = task.exception_blame or task
        error = exception_of(blame.exception)
        if blame is task and isinstance(error, KilledWorker):
            # Dask fails the tasks of a dead worker one after the other, in one callback.
            address = error.last_worker.address
            if address not in self.deaths:
                self.loop.call_soon(self._judge_death, address)
            self.deaths.setdefault(address, []).append(_Death(active, key, partition, error))
            return
        text = f"{blame.exception_text}\n{blame.traceback_text}"
        run = active.coordinator.assignment.run
        failure = failure_of_task(run, partition, error, text, message=blame.exception_text)
        # A failure that cannot be inspected is never skipped.
        active.coordinator.record_failure(failure, error, fatal=error is None)

    def _judge_death(self, address: str) -> None:
        """End the runs whose tasks died with a worker, and name the task that was executing."""
        deaths = self.deaths.pop(address)
        for active in {death.active: None for death in deaths}:
            keys = {death.key: death.partition for death in deaths if death.active is active}
            # A task that only this death hit may have ended after the last heartbeat, before the
            # worker could report that.
            tasks = {key: self.scheduler.tasks.get(key) for key in active.keys}
            suspects = [key for key, task in tasks.items() if task and task.suspicious > 1]
            partitions = {**{key: active.keys[key] for key in suspects}, **keys}
            key = executing_keys(deaths[0].error, partitions, keys)[0]
            errors = {death.key: death.error for death in deaths}
            error = errors.get(key) or KilledWorker(
                key, deaths[0].error.last_worker, self.scheduler.allowed_failures
            )
            if active.keys.pop(key, None) is not None:
                self._release([key])
            run = active.coordinator.assignment.run
            failure = failure_of_task(run, partitions[key], error, "")
            # A partition that kills workers is never skipped.
            active.coordinator.record_failure(failure, error, fatal=True)
            self._withdraw(active)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Note the nanny of a worker."""
        self.nannies.add(scheduler.workers[worker])

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002 # Dask's signature
        """Note when a nanny lost its worker."""
        self.nannies.lose(worker, self.loop.time())

    def _release(self, keys: Any) -> None:
        """Release tasks that no process wants any more."""
        self.scheduler.client_releases_keys(keys, client=_OWNER)

    def _changed(self, name: str) -> None:
        """Check a run soon; called from the threads of the coordinator and from the loop."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed at shutdown
            self.loop.call_soon_threadsafe(self._check, name)

    def _check(self, name: str) -> None:
        active = self.runs.get(name)
        if active is None:
            return
        status = active.coordinator.status()
        if active.coordinator.stopping:
            self._withdraw(active)
        if not status.running and active.keys:
            # The workers cancel tasks that no client wants.
            remaining = list(active.keys)
            active.keys.clear()
            self._release(remaining)
        self.scheduler.log_event(
            "dasklake",
            {
                "run": active.coordinator.assignment.run,
                "version": status.version,
                "partitions": status.partitions,
                "of": status.of,
                "samples": status.committed,
                "failures": status.failures,
                "delayed": status.delayed,
                "running": status.running,
            },
        )

    def _withdraw(self, active: _ActiveRun) -> None:
        """Release the tasks of a stopped run that have not begun, and wait for the others."""
        if active.withdrawn:
            return
        active.withdrawn = True
        stuck = active.watch.stuck if active.watch else ()
        tasks = [self.scheduler.tasks[key] for key in active.keys if key in self.scheduler.tasks]
        running = {active.keys[t.key] for t in tasks if t.processing_on not in {None, *stuck}}
        waiting = {task.key for task in tasks if task.state != "processing" and task.who_wants}
        for key in waiting:
            del active.keys[key]
        _LOGGER.debug("%d running partitions of a stopped run are awaited", len(running))
        active.coordinator.drain(running)
        # A forced cancel would iterate over all tasks once for each task.
        self._release(waiting)

    async def before_close(self) -> None:
        """Commit complete partitions before the scheduler closes."""
        for active in self.runs.values():
            if active.watching is not None:
                active.watching.cancel()
            if active.coordinator.status().running:
                active.withdrawn = True  # no message of a running task arrives any more
                active.coordinator.stop("lost")
                active.coordinator.drain()
                await asyncio.to_thread(active.coordinator.join)

    def restart(self, scheduler: Scheduler) -> None:  # noqa: ARG002 # Dask's signature
        """End all runs as lost when the cluster is restarted."""
        for active in self.runs.values():
            active.keys.clear()
            active.coordinator.stop("lost")
            active.coordinator.drain()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002 # Dask's
        """End runs whose client left before their graph arrived."""
        for active in self.runs.values():
            if active.client == client and not active.owned:
                active.coordinator.stop("cancelled")
                active.coordinator.drain()
