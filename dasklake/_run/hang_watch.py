"""Restart the workers of partitions that exceed ``partition_timeout``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Scheduler, rpc

from dasklake._dask import WorkerState
from dasklake._run.coordinator import Coordinator
from dasklake._write.failures import failure_of_task
from dasklake.exceptions import PartitionTimeoutError, RunFailedError

_LOGGER = logging.getLogger(__name__)

#: Longest time between two checks for tasks that hang, in seconds.
CHECK_SECONDS = 2.0

#: Seconds of silence after which a worker may hang that never reported its executing tasks; shorter
#: silence is normal while it starts.
_SILENCE_SECONDS = 10.0

#: Seconds in which a worker may close before its nanny kills it, and in which the nanny must do so.
_CLOSE_SECONDS, _KILL_SECONDS = 1.0, 30.0

#: Seconds within which a restarted worker is back.
_RESTART_SECONDS = 15.0

#: Seconds without any worker after which a run ends whose workers did not return.
_ALONE_SECONDS = 60.0


def _lost_worker_timeout() -> float:
    """Return the seconds after which a cluster checks for a worker that it lost."""
    return float(parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")))


class Nannies:
    """The nannies of a scheduler's workers, and when each of them last lost its worker."""

    def __init__(self) -> None:
        self._nanny_of: dict[str, str | None] = {}
        self._lost_at: dict[str, float] = {}
        self.restarting: set[WorkerState] = set()

    def add(self, worker: WorkerState) -> None:
        """Note the nanny of a new worker."""
        self._nanny_of[worker.address] = worker.nanny

    def lose(self, address: str, now: float) -> None:
        """Note when a nanny lost its worker."""
        horizon = _lost_worker_timeout() + CHECK_SECONDS
        self._lost_at = {n: lost for n, lost in self._lost_at.items() if now - lost < horizon}
        nanny = self._nanny_of.pop(address, None)
        if nanny:
            self._lost_at[nanny] = now

    def may_restart(self, worker: WorkerState, now: float) -> bool:
        """Return whether a worker that is restarted now would keep its nanny.

        Some time after a ``LocalCluster`` lost a worker, it checks once whether the nanny has a worker,
        and otherwise closes the nanny for good. The check fails also for a worker that was back in
        between and is restarting again.
        """
        if worker in self.restarting:
            return False
        lost = self._lost_at.get(worker.nanny or "")
        if lost is None:
            return True
        timeout = _lost_worker_timeout()
        return not timeout - _RESTART_SECONDS < now - lost < timeout + CHECK_SECONDS / 2


@dataclass(slots=True, eq=False)
class HangWatch:
    """The watch over the tasks of one run.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler.
    coordinator : Coordinator
        The run's coordinator.
    keys : dict of key to int
        The run's write tasks that are not settled yet, and their partitions; shared with the plugin.
    nannies : Nannies
        The nannies of all workers.
    release : callable
        Releases keys that no process wants any more.
    """

    scheduler: Scheduler
    coordinator: Coordinator
    keys: dict[Any, int]
    nannies: Nannies
    release: Callable[[list[Any]], object]
    #: Workers that hang and cannot be restarted: the tasks in their queues never run.
    stuck: set[WorkerState] = field(init=False, default_factory=set)
    #: How often each task took too long.
    _timeouts: Counter[Any] = field(init=False, default_factory=Counter)
    #: The partition for which a nanny restarts its worker, until the worker is back.
    _away: dict[str, int] = field(init=False, default_factory=dict)
    _alone_since: float | None = field(init=False, default=None)

    @property
    def limit(self) -> float:
        """Seconds that an attempt at a partition may take."""
        return self.coordinator.assignment.spec.partition_timeout or 0.0

    async def run(self) -> None:
        """Check for tasks that hang, until the run has ended; a failing check ends the run."""
        try:
            await self._end_hanging()
        except Exception as error:  # noqa: BLE001 # a background task has no caller
            text = f"The check for tasks that hang failed: {error!r}. Resume the run."
            self.coordinator.stop("failed", RunFailedError(text))

    async def _end_hanging(self) -> None:
        pause = min(self.limit / 4, CHECK_SECONDS)
        while self.coordinator.status().running:
            slept_at = time.time()
            await asyncio.sleep(pause)
            # While the scheduler itself was blocked, it did not hear from the workers either.
            blocked = max(0.0, time.time() - slept_at - pause)
            hanging = list(self._hanging(blocked))
            for error in await asyncio.gather(
                *(self._end_slow(worker, keys) for worker, keys in hanging), return_exceptions=True
            ):
                if error is not None:
                    # The worker left at this very moment; the next check sees the result.
                    _LOGGER.warning("A hanging worker could not be restarted: %r", error)
            self._end_alone()

    def _hanging(self, blocked: float) -> Iterator[tuple[WorkerState, list[Any]]]:
        """Yield the workers that exceed the limit with tasks of the run, and these tasks."""
        now = time.time() - blocked  # ``last_seen`` has the same clock
        for worker in self.scheduler.workers.values():
            silence = now - worker.last_seen
            ages = {task.key: age + silence for task, age in worker.executing.items()}
            # A worker may hang before it has reported its executing tasks.
            first = [task.key for task in worker.processing][: worker.nthreads]
            ages = {**dict.fromkeys(first, silence if silence > _SILENCE_SECONDS else 0.0), **ages}
            slow = [key for key, age in ages.items() if age > self.limit and key in self.keys]
            if slow and self.nannies.may_restart(worker, asyncio.get_running_loop().time()):
                yield worker, slow

    async def _end_slow(self, worker: WorkerState, keys: list[Any]) -> None:
        """Restart a worker whose tasks hang; the tasks are retried, or have failed."""
        self._timeouts.update(keys)
        partition = self.keys[keys[0]]
        for key in keys:
            if self._timeouts[key] > self.coordinator.assignment.spec.retries or not worker.nanny:
                self._fail(worker, key)
        if worker.nanny:
            _LOGGER.warning(
                "Restarting worker %s: partition %d took longer than %g s",
                worker.address,
                partition,
                self.limit,
            )
            self._away[worker.nanny] = partition
            self.nannies.restarting.add(worker)
            try:
                await self._restart(worker)
            finally:
                self.nannies.restarting.discard(worker)

    async def _restart(self, worker: WorkerState) -> None:
        """Have a worker's nanny replace it, and remove the worker in any case."""
        scheduler = self.scheduler
        # No task may be blamed for this death, and no task may be sent to the worker any more.
        stimulus = f"dasklake-partition-timeout-{time.time()}"
        scheduler.handle_worker_status_change("paused", worker, stimulus)
        for task in worker.processing:
            task.suspicious -= 1
        try:
            # Scheduler.restart_workers would keep the worker away for longer.
            async with rpc(worker.nanny, connection_args=scheduler.connection_args) as nanny:
                kill = nanny.kill(timeout=_CLOSE_SECONDS, reason=stimulus)
                await asyncio.wait_for(kill, _KILL_SECONDS)
        finally:
            if scheduler.workers.get(worker.address) is worker:
                await scheduler.remove_worker(worker.address, stimulus_id=stimulus)

    def _end_alone(self) -> None:
        """End a run whose restarted workers did not return."""
        workers = self.scheduler.workers.values()
        for nanny in self._away.keys() & {worker.nanny for worker in workers}:
            del self._away[nanny]
        now = asyncio.get_running_loop().time()
        self._alone_since = None if workers or not self._away else self._alone_since or now
        if self._alone_since is None or now - self._alone_since < _ALONE_SECONDS:
            return
        partition = next(iter(self._away.values()))
        text = (
            f"Partition {partition} took longer than partition_timeout ({self.limit:g} s). Its worker "
            f"was restarted, and the cluster has had no worker for {_ALONE_SECONDS:g} s. Check why "
            "the cluster lost its workers."
        )
        self._record(partition, text, fatal=True)

    def _fail(self, worker: WorkerState, key: Any) -> None:
        partition = self.keys.pop(key)
        text = (
            f"Partition {partition} took longer than partition_timeout ({self.limit:g} s) in "
            f"{self._timeouts[key]} attempt(s), the last one on worker {worker.address}"
        )
        if worker.nanny:
            text += ". Check its items, or allow more time."
        else:
            self.stuck.add(worker)
            text += (
                ", which has no nanny to restart it. Start workers with nannies, and stop this "
                "worker: it is still busy."
            )
        # Without a nanny, each skipped partition would cost a worker.
        self._record(partition, text, fatal=not worker.nanny)
        self.release([key])

    def _record(self, partition: int, text: str, *, fatal: bool) -> None:
        error = PartitionTimeoutError(text, seconds=self.limit, partition=partition)
        failure = failure_of_task(self.coordinator.assignment.run, partition, error, "")
        self.coordinator.record_failure(failure, error, fatal=fatal)
