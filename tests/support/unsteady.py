"""Lakes on a storage that can be told to fail, their histories, and coordinators of their runs."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dasklake._format import object_keys
from dasklake._log.log import Draft, Log
from dasklake._log.transactions import next_commit
from dasklake._model.commit import Commit, Kind, Plan
from dasklake._run.coordinator import Coordinator, Status
from dasklake._run.progress import MaxFailures
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.partition import Outcome
from tests.support.flaky import FlakyStore
from tests.support.lakes import SCHEMA, SmallLake, failure

#: Where the commits of the main branch are.
LOG = "_lake/log/main"


@pytest.fixture
def flaky_store() -> Iterator[FlakyStore]:
    """Make an empty storage in memory."""
    store = FlakyStore()
    yield store
    store.clear()


@pytest.fixture
def flaky_lake(flaky_store: FlakyStore) -> SmallLake:
    """Make an empty lake on it."""
    return SmallLake(flaky_store)


def plan(partitions: int, inputs: int | None = None, *, overwrite: bool = False) -> Plan:
    """Make a plan."""
    return Plan(partitions, inputs, "0" * 32, None, overwrite=overwrite)


def add_entry(lake: SmallLake, kind: Kind) -> Commit:
    """Commit an entry of some kind, as other releases do."""
    log = Log(lake.store)

    def build(head: Commit, _: object, commit_id: str) -> Draft:
        return Draft(next_commit(head, commit_id, kind, "note"))

    made = log.publish(log.require_head(), build)
    assert made is not None
    return made


def committed(lake: SmallLake, run: str = "run") -> list[int]:
    """Return the partitions of a run in the newest version, as often as they are there."""
    manifest = Log(lake.store).manifest(lake.head)
    homes = [manifest.home[number] for number in manifest.run]
    found = zip(homes, manifest.partition.tolist(), strict=True)
    return [partition for home, partition in found if home == object_keys.home_of("main", run)]


#: Longer than anything here takes; who waits that long has found a mistake.
PATIENCE = 20.0


class Lead:
    """A coordinator of a run, and the worker that feeds it.

    Parameters
    ----------
    lake : SmallLake
        The lake.
    partitions : int
        Partitions of the run.
    missing : tuple of int, optional
        Partitions to write; left out, all of them.
    **changes : object
        Fields of the specification.
    """

    def __init__(
        self,
        lake: SmallLake,
        partitions: int,
        *,
        missing: tuple[int, ...] | None = None,
        **changes: Any,
    ) -> None:
        self.lake = lake
        self.writer = lake.begin("run", partitions)
        self.changes = queue.SimpleQueue[None]()
        limit = MaxFailures(share=None)
        spec = replace(RunSpec("append", "run", SCHEMA, partitions, max_failures=limit), **changes)
        location = RunLocation(lake.store, "main/run", "run", 1)
        entry = self.writer.head
        missing = tuple(range(partitions)) if missing is None else missing
        self.assignment = Assignment(spec, location, entry, missing)
        self.coordinator = Coordinator(self.assignment, lambda: self.changes.put(None))

    def start(self) -> Lead:
        """Start it."""
        self.coordinator.start()
        return self

    def write(self, *partitions: int, failures: int = 0) -> None:
        """Write partitions and deliver their receipts."""
        for partition in partitions:
            receipt = self.lake.write(self.writer, partition, failures=failures)
            self.coordinator.deliver(Outcome(receipt))

    def fail(self, partition: int, error: Exception) -> None:
        """Deliver the outcome of a write task that failed."""
        self.coordinator.deliver(Outcome(None, failure("run", partition, 3), error))

    def until(self, reached: Callable[[Status], bool]) -> Status:
        """Wait until the status is as it should be; never by the clock."""
        while not reached(status := self.coordinator.status()):
            self.changes.get(timeout=PATIENCE)
        return status

    def end(self) -> Status:
        """Wait for the end."""
        status = self.coordinator.wait(PATIENCE)
        assert not status.running, "it never ended"
        self.coordinator.join()
        return status


MakeLead = Callable[..., Lead]


@pytest.fixture
def lead(flaky_lake: SmallLake) -> Iterator[MakeLead]:
    """Make coordinators, and see to it that none outlives the test."""
    made: list[Lead] = []

    def make(partitions: int, **changes: Any) -> Lead:
        made.append(Lead(flaky_lake, partitions, **changes))
        return made[-1]

    yield make
    for each in made:
        if each.coordinator._threads:
            each.coordinator.stop("cancelled")
            each.coordinator.drain()
            each.coordinator._writer.log.stop.set()
            each.end()
