"""Measure the response time of the scheduler while a commit takes two seconds."""

from __future__ import annotations

import statistics
import threading
import time
from functools import partialmethod
from typing import Any, Self
from unittest import mock

from distributed import Client

import dasklake
from dasklake._log.log import Log
from tests.benchmarks.common import RECORDS, cluster, load, scratch

SECONDS = 2.0
PARTITIONS = 60


def main() -> None:
    """Print the longest response time of the scheduler during quick and slow commits."""
    source = load()
    bag = source.bag(PARTITIONS)
    publish = Log.publish
    commits: list[tuple[float, float]] = []

    def held(*args: Any, seconds: float, **kwargs: Any) -> Any:
        began = time.perf_counter()
        time.sleep(seconds)
        try:
            return publish(*args, **kwargs)
        finally:
            commits.append((began, time.perf_counter()))

    with cluster() as client, scratch() as folder:
        for seconds in (0.0, SECONDS):
            commits.clear()
            # The scheduler of a local cluster runs in this process.
            slow = partialmethod(held, seconds=seconds)
            with mock.patch.object(Log, "publish", slow), _Prober(client) as prober:
                dasklake.to_lake(
                    bag, f"{folder}/{seconds}", schema=source.schema, checkpoint_every=RECORDS // 5
                )
            spans = list(commits)
            beside = [
                end - began
                for began, end in prober.calls
                if any(began < last and end > first for first, last in spans)
            ]
            apart = [end - began for began, end in prober.calls]
            print(
                f"commits held {seconds:.0f} s: {len(spans)} entries; {len(beside)} calls beside "
                f"them, worst {1000 * max(beside, default=0):.0f} ms (goal 100 ms); of all "
                f"{len(apart)} calls median {1000 * statistics.median(apart):.1f} ms, worst "
                f"{1000 * max(apart):.0f} ms"
            )


class _Prober:
    """Calls the scheduler continuously, from a separate client."""

    def __init__(self, client: Client) -> None:
        self.calls: list[tuple[float, float]] = []
        self._address = client.scheduler_info()["address"]
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._probe)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _probe(self) -> None:
        with Client(self._address, set_as_default=False) as client:
            while not self._done.wait(0.01):
                began = time.perf_counter()
                client.ncores()
                self.calls.append((began, time.perf_counter()))
