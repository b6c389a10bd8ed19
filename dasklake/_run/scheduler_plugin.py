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
import logging
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Scheduler, SchedulerPlugin, get_worker, rpc
from distributed.protocol.pickle import dumps, loads
from distributed.protocol.serialize import Serialize, deserialize
from distributed.scheduler import KilledWorker, WorkerState
from distributed.worker import Worker

from dasklake._run.coordinator import Coordinator
from dasklake._write.failures import failure_of_task
from dasklake._write.partition import Outcome
from dasklake.exceptions import LakeError, PartitionTimeoutError, RunFailedError

__all__ = ["CheckpointPlugin", "TaskDeliver"]

#: Name of our entry in a task's metadata.
_METADATA = "dasklake"

#: Dask's own client for tasks whose results nobody holds.
_ADOPTER = "fire-and-forget"

#: Seconds a wait call stays on the scheduler before it answers "still running".
_LONG_POLL = 0.5

#: Runs that are remembered after their end.
_REMEMBERED = 16

_LOGGER = logging.getLogger("distributed.dasklake")

#: Longest time, in seconds, between two looks for tasks that hang.
_LOOK = 2.0

#: Seconds of silence after which a worker may hang that never said what it had begun; less is
#: normal while it starts.
_SILENCE = 10.0

#: Seconds in which a worker may close before its nanny kills it, and in which that has to be done.
_CLOSE, _KILL = 1.0, 30.0

#: Seconds within which a worker that was restarted is back.
_AWAY = 15.0

#: Seconds without any worker after which a run ends whose workers did not come back.
_ALONE = 60.0


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
        """Whether the scheduler has taken the task back while it runs."""
        worker: Worker = get_worker()
        task = worker.state.tasks.get(worker.get_current_task())
        return task is None or task.state == "cancelled"


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
        if isinstance(found, Serialize):  # from a worker in the scheduler's process
            found = found.data
        elif not isinstance(
            found, bytes
        ):  # as the scheduler's own errors are, such as KilledWorker
            found = deserialize(found.header, found.frames)
        # A worker sends what it has pickled itself.
        found = loads(found) if isinstance(found, bytes) else found
    except Exception:  # noqa: BLE001 # the class may not exist on the scheduler
        return None
    return found if isinstance(found, BaseException) else None


def _patience() -> float:
    """Return the seconds after which a cluster looks for a worker that it lost."""
    return float(parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")))


@dataclass(slots=True, eq=False)
class _Active:
    """A run on this scheduler."""

    coordinator: Coordinator
    owner: str
    keys: dict[Any, int] = field(default_factory=dict)
    adopted: bool = False
    taken_back: bool = False
    #: How often each task took too long.
    slow: Counter[Any] = field(default_factory=Counter)
    #: Workers that hang and that nobody restarts: what waits in their queues never runs.
    stuck: set[WorkerState] = field(default_factory=set)
    watching: asyncio.Task[None] | None = None
    #: By nanny, why a worker was restarted that has not come back yet; and since when none is left.
    away: dict[str, Any] = field(default_factory=dict)
    alone: float | None = None


class CheckpointPlugin(SchedulerPlugin):
    """Coordinates the runs of a cluster; registered once, never unregistered in mid-run."""

    name = "dasklake"
    idempotent = True

    def __init__(self) -> None:
        self.runs: dict[str, _Active] = {}
        #: The nannies of workers, and when each of them last lost one.
        self.nannies: dict[str, str | None] = {}
        self.lost: dict[str, float] = {}
        self.restarting: set[WorkerState] = set()
        self.scheduler: Scheduler
        self.loop: asyncio.AbstractEventLoop

    async def start(self, scheduler: Scheduler) -> None:
        """Open the calls that clients make."""
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
        """Say which run of a lake is being written here: the named one, or the only one."""
        found = [
            {"name": name, "run": active.coordinator.assignment.run}
            for name, active in self.runs.items()
            if active.coordinator.assignment.location.store.url == url
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
            self.runs[name] = active = _Active(coordinator, owner)
            if owner not in self.scheduler.clients:
                # It died while the coordinator started, and nobody else will send the graph.
                coordinator.stop("cancelled")
                coordinator.drain()
            if coordinator.assignment.spec.partition_timeout is not None:
                active.watching = asyncio.create_task(self._watch(active))
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
                if active.coordinator.stopping:
                    active.keys.clear()  # its client was quicker to end it than its graph to arrive
                else:
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
        coordinator.record_failure(failure, error, fatal=fatal)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Note who looks after a worker."""
        self.nannies[worker] = scheduler.workers[worker].nanny

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002 # Dask's signature
        """Note when a nanny lost its worker."""
        now, patience = self.loop.time(), _patience()
        self.lost = {n: when for n, when in self.lost.items() if now - when < patience + _LOOK}
        nanny = self.nannies.pop(worker, None)
        if nanny:
            self.lost[nanny] = now

    async def _watch(self, active: _Active) -> None:
        """End what hangs, until the run has ended; without this look it might wait for ever."""
        try:
            await self._end_hanging(active)
        except Exception as error:  # noqa: BLE001 # a task has nobody to raise to
            told = f"The look for tasks that hang failed: {error!r}. Resume the run."
            active.coordinator.stop("failed", RunFailedError(told))
            self._take_back(active)

    async def _end_hanging(self, active: _Active) -> None:
        limit = active.coordinator.assignment.spec.partition_timeout or 0.0
        pause = min(limit / 4, _LOOK)
        while active.coordinator.status().running:
            asleep = time.time()
            await asyncio.sleep(pause)
            # While the scheduler itself was held up, it did not hear the workers either.
            late = max(0.0, time.time() - asleep - pause)
            hanging = list(self._hanging(active, limit, late))
            ends = (self._end_slow(active, *each, limit) for each in hanging)
            for error in await asyncio.gather(*ends, return_exceptions=True):
                if error is not None:
                    # A worker that goes by itself at this very moment: looked at again next time.
                    _LOGGER.warning("A worker that hangs could not be restarted: %r", error)
            self._end_alone(active, limit)

    def _hanging(
        self, active: _Active, limit: float, late: float
    ) -> Iterator[tuple[WorkerState, list[Any]]]:
        """Yield the workers that have been busy with one of the run's tasks for too long."""
        now = time.time() - late  # as Dask notes when it last heard of a worker
        for worker in self.scheduler.workers.values():
            silent = now - worker.last_seen
            ages = {task.key: age + silent for task, age in worker.executing.items()}
            # A worker may hang so thoroughly that it never said what it had begun.
            first = [task.key for task in worker.processing][: worker.nthreads]
            ages = {**dict.fromkeys(first, silent if silent > _SILENCE else 0.0), **ages}
            slow = [key for key, age in ages.items() if age > limit and key in active.keys]
            if slow and self._may_restart(worker):
                yield worker, slow

    def _may_restart(self, worker: WorkerState) -> bool:
        """Whether a worker that is restarted now would keep its nanny.

        A ``LocalCluster`` and its like look once for a worker that was lost, some time afterwards,
        and close its nanny for good if there is none at that moment: also if it has been back in
        between, and is away only because it is restarted again.
        """
        if worker in self.restarting:
            return False
        patience, lost = _patience(), self.lost.get(worker.nanny or "")
        since = None if lost is None else self.loop.time() - lost
        return since is None or not patience - _AWAY < since < patience + _LOOK / 2

    async def _end_slow(
        self, active: _Active, worker: WorkerState, keys: list[Any], limit: float
    ) -> None:
        """Restart a worker whose tasks hang; they are tried again, or have failed."""
        assignment = active.coordinator.assignment
        active.slow.update(keys)
        partition = active.keys[keys[0]]
        for key in keys:
            tries = active.slow[key]
            if tries > assignment.spec.retries or not worker.nanny:
                self._fail_slow(active, worker, key, limit)
        if worker.nanny:
            active.away[worker.nanny] = partition
            self.restarting.add(worker)
            try:
                await self._restart(worker)
            finally:
                self.restarting.discard(worker)

    async def _restart(self, worker: WorkerState) -> None:
        """Have a worker's nanny replace it, and forget the worker however that goes."""
        scheduler = self.scheduler
        # It is we who end the worker: no task shall be blamed for its death, nor sent there any more.
        stimulus = f"dasklake-partition-timeout-{time.time()}"
        scheduler.handle_worker_status_change("paused", worker, stimulus)
        for task in worker.processing:
            task.suspicious -= 1
        try:
            # Not Scheduler.restart_workers: there the worker is away for longer than need be.
            async with rpc(worker.nanny, connection_args=scheduler.connection_args) as nanny:
                await asyncio.wait_for(nanny.kill(timeout=_CLOSE, reason=stimulus), _KILL)
        finally:
            if scheduler.workers.get(worker.address) is worker:
                await scheduler.remove_worker(worker.address, stimulus_id=stimulus)

    def _end_alone(self, active: _Active, limit: float) -> None:
        """End a run whose workers were restarted, and none came back."""
        workers = self.scheduler.workers.values()
        for nanny in active.away.keys() & {worker.nanny for worker in workers}:
            del active.away[nanny]
        now = self.loop.time()
        active.alone = None if workers or not active.away else active.alone or now
        if active.alone is None or now - active.alone < _ALONE:
            return
        partition = next(iter(active.away.values()))
        text = (
            f"Partition {partition} took longer than partition_timeout ({limit:g} s), its worker was "
            f"restarted, and there has been no worker for {_ALONE:g} s since. Look at why the "
            "cluster lost its workers."
        )
        error = PartitionTimeoutError(text, seconds=limit, partition=partition)
        failure = failure_of_task(active.coordinator.assignment.run, partition, error, "")
        active.coordinator.record_failure(failure, error, fatal=True)

    def _fail_slow(self, active: _Active, worker: WorkerState, key: Any, limit: float) -> None:
        coordinator = active.coordinator
        partition = active.keys.pop(key)
        text = (
            f"Partition {partition} took longer than partition_timeout ({limit:g} s) in "
            f"{active.slow[key]} attempt(s), at last on worker {worker.address}"
        )
        if worker.nanny:
            text += ". Look at its items, or allow more time."
        else:
            active.stuck.add(worker)
            text += (
                ", which has no nanny that could restart it. Start workers with nannies, and end "
                "this one: it is still busy."
            )
        error = PartitionTimeoutError(text, seconds=limit, partition=partition)
        failure = failure_of_task(coordinator.assignment.run, partition, error, "")
        # Without a nanny each one that is skipped would cost a worker.
        coordinator.record_failure(failure, error, fatal=not worker.nanny)
        self.scheduler.client_releases_keys([key], client=_ADOPTER)

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
        if not status.running and active.keys:
            # Nobody waits for what still runs: it is told so.
            left = list(active.keys)
            active.keys.clear()
            self.scheduler.client_releases_keys(left, client=_ADOPTER)
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

    def _take_back(self, active: _Active) -> None:
        """Take back the tasks of a stopped run that have not begun, and wait for the others."""
        if active.taken_back:
            return
        active.taken_back = True
        tasks = [self.scheduler.tasks[key] for key in active.keys if key in self.scheduler.tasks]
        running = {
            active.keys[t.key] for t in tasks if t.processing_on not in {None, *active.stuck}
        }
        waiting = {task.key for task in tasks if task.state != "processing" and task.who_wants}
        for key in waiting:
            del active.keys[key]
        active.coordinator.drain(running)
        # Nobody else wants them. (A forced cancel would go through all of them once for each.)
        self.scheduler.client_releases_keys(waiting, client=_ADOPTER)

    async def before_close(self) -> None:
        """Commit what is complete before the scheduler goes."""
        for active in self.runs.values():
            if active.watching is not None:
                active.watching.cancel()
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
