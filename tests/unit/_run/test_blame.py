"""The task that killed a worker is told apart from those that waited on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from distributed.scheduler import KilledWorker

from dasklake._run.blame import executing_keys

KEYS = {("run", f"{number}"): number for number in range(20)}
TEN, ELEVEN, TWELVE = (("run", f"{number}") for number in (10, 11, 12))


def death(executing: list[Any], threads: int = 1) -> KilledWorker:
    """Return Dask's error about a worker that died."""
    worker = SimpleNamespace(
        address="tcp://127.0.0.1:1", executing=dict.fromkeys(executing, 1.0), nthreads=threads
    )
    return KilledWorker(TEN, worker, 0)  # type: ignore[arg-type] # as much of a worker as is read


def test_a_task_of_the_last_heartbeat_was_executing() -> None:
    """The heartbeat names the executing task, whichever of the tasks Dask failed."""
    assert executing_keys(death([ELEVEN]), KEYS, [TEN, ELEVEN]) == [ELEVEN]
    assert executing_keys(death([TEN]), KEYS, [ELEVEN]) == [TEN]


def test_without_a_heartbeat_the_first_partitions_were_executing() -> None:
    """Tasks begin in the order of their partitions, one for each thread."""
    failed = [TWELVE, ELEVEN, TEN]
    assert executing_keys(death([]), KEYS, failed) == [TEN]
    assert executing_keys(death([], threads=2), KEYS, failed) == [TEN, ELEVEN]
    assert executing_keys(death([TWELVE], threads=2), KEYS, failed) == [TWELVE, TEN]


def test_a_finished_task_of_an_old_heartbeat_is_not_blamed() -> None:
    """A task that is settled has finished before the death, and so has that of another run."""
    pending = {key: number for key, number in KEYS.items() if key != TEN}
    assert executing_keys(death([TEN, "other"]), pending, [ELEVEN]) == [ELEVEN]
