"""How long the scheduler keeps others waiting while a commit takes two seconds."""

from __future__ import annotations

import threading
import time
from typing import Any, Self
from unittest import mock

from distributed import Client

import dasklake
from dasklake._store.log import Log
from tests.benchmarks.common import cluster, load, scratch

SECONDS = 2.0
PARTITIONS = 60


def main() -> None:
    """Print the longest answer of the scheduler, without and with a slow commit."""
    source = load()
    bag = source.bag(PARTITIONS)
    publish = Log.publish

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(SECONDS)
        return publish(*args, **kwargs)

    with cluster() as client, scratch() as folder:
        for name, replacement in (("as it is", publish), (f"+ {SECONDS:.0f} s", slow)):
            # The scheduler of a local cluster lives in this process.
            with mock.patch.object(Log, "publish", replacement), _Prober(client) as prober:
                report = dasklake.to_lake(
                    bag, f"{folder}/{name}", schema=source.schema, checkpoint_every=1_000
                )
            answers = sorted(prober.answers)
            print(
                f"commit {name:9s}: {report.commits} commits, {len(answers)} calls, median "
                f"{1000 * answers[len(answers) // 2]:.1f} ms, worst {1000 * answers[-1]:.0f} ms "
                "(goal 100 ms)"
            )


class _Prober:
    """Calls the scheduler all the time, from a client of its own."""

    def __init__(self, client: Client) -> None:
        self.answers: list[float] = []
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
                self.answers.append(time.perf_counter() - began)
