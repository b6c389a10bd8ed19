"""The scheduler plugin: receipts ride in on task completions, commits go out beside the event loop.

On the scheduler, :class:`CheckpointPlugin` gives each run a :class:`Coordinator`; on the workers,
:class:`TaskDeliver` puts the outcome of a write task where the plugin finds it.

::

    worker                           scheduler                               storage
    write task ── chunk ──────────────────────────────────────────────────▶ data/…
        └─ receipt in task metadata ─▶ transition() ─▶ Coordinator.deliver
                                                        └─ own thread ─────▶ _lake/log/…
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

from distributed import Scheduler, SchedulerPlugin, get_worker
from distributed.protocol.pickle import dumps, loads
from distributed.protocol.serialize import deserialize
from distributed.scheduler import KilledWorker
from distributed.worker import Worker

from dasklake._write.coordinator import Coordinator
from dasklake._write.failure import failure_of_task
from dasklake._write.partition import Outcome
from dasklake.exceptions import LakeError, RunFailedError

__all__ = ["CheckpointPlugin", "TaskDeliver"]

#: Name of our entry in a task's metadata.
_METADATA = "dasklake"

#: Dask's own client for tasks whose results nobody holds.
_ADOPTER = "fire-and-forget"

#: Seconds a wait call stays on the scheduler before it answers "still running".
_LONG_POLL = 0.5

#: Runs that are remembered after their end.
_REMEMBERED = 16


class TaskDeliver:
    """Attaches an outcome to the task that is running, to arrive with its completion.

    One message carries both, so a completion without receipt cannot happen.
    """

    def __call__(self, outcome: Outcome) -> None:
        """Attach it."""
        worker: Worker = get_worker()
        task = worker.state.tasks[worker.get_current_task()]
        task.metadata[_METADATA] = _packed(outcome)

    def stopped(self) -> bool:
        """Return False: the scheduler takes tasks back by itself."""
        return False


def _packed(outcome: Outcome) -> tuple[bytes, bytes]:
    """Return an outcome as bytes; its error apart, whose class may not exist on the scheduler."""
    try:
        error = dumps(outcome.error)
        loads(error)
    except Exception:  # noqa: BLE001 # any error of any user's exception class
        error = b""
    return dumps(outcome._replace(error=None)), error


def _unpacked(packed: tuple[bytes, bytes]) -> Outcome:
    outcome: Outcome = loads(packed[0])
    try:
        error = loads(packed[1])
    except Exception:  # noqa: BLE001 # its class is not known here; its text travels in the failure
        told = outcome.failure
        error = RunFailedError(f"{told.exception}: {told.message}" if told else "")
    return outcome._replace(error=error)


def _error_of(exception: Any) -> BaseException | None:
    """Return the exception of a task that erred; None where it cannot be loaded here."""
    try:
        found = exception
        if not isinstance(found, bytes):  # as the scheduler's own errors are, such as KilledWorker
            found = deserialize(found.header, found.frames)
        # A worker sends what it has pickled itself.
        found = loads(found) if isinstance(found, bytes) else found
    except Exception:  # noqa: BLE001 # the class may not exist on the scheduler
        return None
    return found if isinstance(found, BaseException) else None


@dataclass(slots=True, eq=False)
class _Active:
    """A run on this scheduler."""

    coordinator: Coordinator
    owner: str
    keys: dict[Any, int] = field(default_factory=dict)
    adopted: bool = False
    taken_back: bool = False


class CheckpointPlugin(SchedulerPlugin):
    """Coordinates the runs of a cluster; registered once, never unregistered in mid-run."""

    name = "dasklake"
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, _Active] = {}
        self.scheduler: Scheduler
        self.loop: asyncio.AbstractEventLoop

    async def start(self, scheduler: Scheduler) -> None:
        """Open the calls that clients make."""
        self.scheduler = scheduler
        self.loop = asyncio.get_running_loop()
        scheduler.handlers |= {
            "dasklake_find": self.find,
            "dasklake_open": self.open,
            "dasklake_wait": self.wait,
            "dasklake_stop": self.stop,
        }

    async def find(self, url: str, run: str | None) -> dict[str, str] | None:
        """Say which run of a lake is being written here: the named one, or the only one."""
        found = [
            {"name": name, "run": active.coordinator.assignment.run}
            for name, active in self.runs.items()
            if active.coordinator.assignment.store.url == url
            and run in (None, active.coordinator.assignment.run)
            and active.adopted
            and active.coordinator.status().running
        ]
        return found[0] if len(found) == 1 else None

    async def open(self, name: str, assignment: bytes, owner: str) -> dict[str, Any]:
        """Give a run its coordinator; a second call for the same run is a no-op."""
        self._forget()
        if name not in self.runs:
            coordinator = Coordinator(loads(assignment), lambda: self._changed(name))
            try:
                await asyncio.to_thread(coordinator.start)
            except LakeError as error:
                return {"error": dumps(error)}
            self.runs[name] = _Active(coordinator, owner)
        return {}

    def _forget(self) -> None:
        """Drop runs that ended long ago; the newest may still have a client that asks."""
        ended = [n for n, a in self.runs.items() if not a.coordinator.status().running]
        for name in ended[:-_REMEMBERED]:
            del self.runs[name]

    async def wait(self, name: str) -> dict[str, Any]:
        """Answer when the run has ended, or a little later that it has not."""
        active = self.runs.get(name)
        if active is None:
            return {"unknown": True}
        status = await asyncio.to_thread(active.coordinator.wait, _LONG_POLL)
        return {"adopted": active.adopted, "status": dumps(status)}

    async def stop(self, name: str, kind: str) -> None:
        """End a run early; what is complete is committed."""
        active = self.runs.get(name)
        if active is not None:
            active.coordinator.stop(kind)
            self._take_back(active)

    def update_graph(
        self, scheduler: Scheduler, *, client: str, tasks: list[Any], **_: Any
    ) -> None:
        """Adopt the write tasks of a run, so that nobody holds their results."""
        for key in tasks:
            active = self._run_of(key)
            if active is not None:
                active.keys[key] = key[1]
        for active in self.runs.values():
            if active.keys and not active.adopted:
                keys = list(active.keys)
                scheduler.client_desires_keys(keys, client=_ADOPTER)
                # At once: what a client held would be computed again when a worker dies.
                scheduler.client_releases_keys(keys, client=client)
                active.adopted = True

    def transition(self, key: Any, start: Any, finish: Any, *_: Any, **kwargs: Any) -> None:  # noqa: ARG002 # Dask's signature
        """Take receipts and errors in."""
        active = self._run_of(key) if self.runs else None
        if active is None or key not in active.keys:
            return
        if finish == "memory":
            data = (kwargs.get("metadata") or {}).get(_METADATA)
            if data is not None:
                del active.keys[key]
                active.coordinator.deliver(_unpacked(data))
        elif finish == "erred":
            del active.keys[key]
            self._erred(active.coordinator, key)
        elif finish == "forgotten":
            active.coordinator.stop("lost")
        if active.coordinator.stopping:
            self.loop.call_soon(self._take_back, active)

    def _run_of(self, key: Any) -> _Active | None:
        if isinstance(key, tuple) and len(key) == 2:
            return self.runs.get(key[0]) if isinstance(key[0], str) else None
        return None

    def _erred(self, coordinator: Coordinator, key: Any) -> None:
        task = self.scheduler.tasks[key]
        blame = task.exception_blame or task
        error = _error_of(blame.exception)
        text = f"{blame.exception_text}\n{blame.traceback_text}"
        failure = failure_of_task(
            coordinator.assignment.run, key[1], error, text, message=blame.exception_text
        )
        # What cannot be looked at is nobody's to skip.
        fatal = error is None or isinstance(error, KilledWorker)
        coordinator.lose(failure, error, fatal=fatal)

    def _changed(self, name: str) -> None:
        """Look at a run soon; called from the coordinator's threads and ours."""
        with contextlib.suppress(RuntimeError):  # the loop may be closed at shutdown
            self.loop.call_soon_threadsafe(self._look, name)

    def _look(self, name: str) -> None:
        active = self.runs.get(name)
        if active is None:
            return
        status = active.coordinator.status()
        if active.coordinator.stopping:
            self._take_back(active)
        self.scheduler.log_event(
            "dasklake",
            {
                "run": active.coordinator.assignment.run,
                "version": status.version,
                "partitions": status.partitions,
                "of": status.of,
                "samples": status.committed,
                "failures": status.failures,
                "running": status.running,
            },
        )

    def _take_back(self, active: _Active) -> None:
        """Take back the tasks of a stopped run that have not begun, and wait for the others."""
        if active.taken_back:
            return
        active.taken_back = True
        tasks = [self.scheduler.tasks[key] for key in active.keys if key in self.scheduler.tasks]
        running = {active.keys[task.key] for task in tasks if task.state == "processing"}
        waiting = {task.key for task in tasks if task.state != "processing" and task.who_wants}
        for key in waiting:
            del active.keys[key]
        active.coordinator.drain(running)
        # Nobody else wants them. (A forced cancel would go through all of them once for each.)
        self.scheduler.client_releases_keys(waiting, client=_ADOPTER)

    async def before_close(self) -> None:
        """Commit what is complete before the scheduler goes."""
        for active in self.runs.values():
            if active.coordinator.status().running:
                active.taken_back = True  # the tasks that run will not be heard any more
                active.coordinator.stop("lost")
                active.coordinator.drain()
                await asyncio.to_thread(active.coordinator.join)

    def restart(self, scheduler: Scheduler) -> None:  # noqa: ARG002 # Dask's signature
        """Say that runs are lost when somebody restarts the cluster."""
        for active in self.runs.values():
            active.keys.clear()
            active.coordinator.stop("lost")
            active.coordinator.drain()

    def remove_client(self, scheduler: Scheduler, client: str) -> None:  # noqa: ARG002 # Dask's
        """Give up runs whose client went away before their graph arrived."""
        for active in self.runs.values():
            if active.owner == client and not active.adopted:
                active.coordinator.stop("cancelled")
                active.coordinator.drain()
