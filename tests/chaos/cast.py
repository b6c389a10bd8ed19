"""The processes of a job: a scheduler, two workers and a client, killed and replaced."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.chaos.nursery import Child, Nursery

#: Workers, of one thread each.
WORKERS = 2

#: Targets of a stroke, from a single worker to everything. A frozen scheduler is not killed: another
#: one takes its run over, and then the first one wakes up.
VICTIMS = (
    "worker",
    "workers",
    "client",
    "scheduler",
    "scheduler and client",
    "frozen scheduler",
    "everything",
)

#: Seconds within which a killed process must have ended.
_GONE = 30.0


class Cast:
    """The processes of one job, each real and known by its pid.

    Parameters
    ----------
    nursery : Nursery
        Starts them.
    folder : Path
        Folder of their files.
    arguments : dict
        Arguments of the client.
    """

    def __init__(self, nursery: Nursery, folder: Path, arguments: dict[str, Any]) -> None:
        self._nursery = nursery
        self._folder = folder
        self._arguments = arguments
        self._count = itertools.count()
        self._file = folder
        self.scheduler: Child | None = None
        self.workers: list[Child] = []
        self.client: Child | None = None
        #: Processes of abandoned clusters, which may still run.
        self.orphans: list[Child] = []

    def complete(self) -> bool:
        """Start missing processes; return whether the client was started."""
        if self.scheduler is None:
            self._file = self._folder / f"scheduler-{next(self._count)}.json"
            where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
            self.scheduler = self._start("scheduler", [*where, *self._at()])
        while len(self.workers) < WORKERS:
            options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
            options += ["--host", "127.0.0.1", "--local-directory", str(self._folder)]
            self.workers.append(self._start("worker", [*options, *self._at()]))
        if self.client is not None:
            return False
        arguments = {**self._arguments, "scheduler_file": str(self._file)}
        self.client = self._start("client", [json.dumps(arguments)])
        return True

    def _at(self) -> list[str]:
        return ["--scheduler-file", str(self._file)]

    def _start(self, what: str, arguments: list[str]) -> Child:
        log = self._folder / f"{what}-{next(self._count)}.log"
        return self._nursery.start(what, arguments, log, self._folder)

    def strike(self, whom: str, which: int = 0) -> int:
        """Kill some of the processes and make sure that they are dead.

        Parameters
        ----------
        whom : str
            One of ``VICTIMS``.
        which : int, default 0
            The worker, if ``whom`` is a single one.

        Returns
        -------
        int
            Number of killed processes, without a client that had just ended.
        """
        clients = [self.client] if self.client else []
        schedulers = [self.scheduler] if self.scheduler else []
        if whom == "frozen scheduler":
            for scheduler in schedulers:
                os.kill(scheduler.pid, signal.SIGSTOP)
            self._abandon()
            return 0
        workers = [self.workers[which % WORKERS]] if whom == "worker" else self.workers
        victims = {
            "client": clients,
            "scheduler": schedulers,
            "scheduler and client": schedulers + clients,
            # The scheduler last: a worker that loses it may end by itself before it is killed.
            "everything": workers + clients + schedulers,
        }.get(whom, workers)
        end(victims)
        # Only clients end by themselves.
        assert all(each.code == -signal.SIGKILL for each in victims if each not in clients)
        self.workers = [each for each in self.workers if each not in victims]
        self.client = None if self.client in victims else self.client
        if self.scheduler in victims:
            self._abandon()
        if whom == "everything":
            end(self.orphans)
        return sum(each.code == -signal.SIGKILL for each in victims)

    def _abandon(self) -> None:
        """Leave the cluster as it is; the job continues with another one."""
        abandoned = [self.scheduler, self.client, *self.workers]
        self.orphans += [child for child in abandoned if child is not None]
        self.scheduler, self.client, self.workers = None, None, []

    def wake(self) -> None:
        """Continue frozen schedulers."""
        for child in self.orphans:
            if child.poll() is None:
                os.kill(child.pid, signal.SIGCONT)

    def close(self) -> None:
        """Kill all remaining processes."""
        end([*self.orphans, *self.workers])
        end([each for each in (self.scheduler, self.client) if each is not None])


def end(victims: Iterable[Child]) -> None:
    """Kill running processes, and wait until all of them have ended."""
    living = [victim for victim in victims if victim.poll() is None]
    for victim in living:
        victim.kill()
    deadline = time.monotonic() + _GONE
    while any(victim.poll() is None for victim in living):
        assert time.monotonic() < deadline, "a killed process still runs"
        time.sleep(0.001)
