"""Lakes on a storage with injected faults, their histories, and coordinators of their runs."""

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
from dasklake._write.job import Outcome
from tests.support.flaky import FlakyStore
from tests.support.lakes import SCHEMA, SmallLake, failure

#: Prefix of the commits of the main branch.
LOG = "_lake/log/main"


@pytest.fixture
def flaky_store() -> Iterator[FlakyStore]:
    """Make an empty in-memory storage."""
    store = FlakyStore()
    yield store
    store.clear()


@pytest.fixture
def flaky_lake(flaky_store: FlakyStore) -> SmallLake:
    """Make an empty lake on the flaky storage."""
    return SmallLake(flaky_store)


def plan(partitions: int, inputs: int | None = None, *, overwrite: bool = False) -> Plan:
    """Make a plan."""
    return Plan(partitions, inputs, "0" * 32, None, overwrite=overwrite)


def add_entry(lake: SmallLake, kind: Kind) -> Commit:
    """Commit an entry of a kind, as other releases do."""
    log = Log(lake.store)

    def build(head: Commit, _: object, commit_id: str) -> Draft:
        return Draft(next_commit(head, commit_id, kind, "note"))

    commit = log.publish(log.require_head(), build)
    assert commit is not None
    return commit


def committed(lake: SmallLake, run: str = "run") -> list[int]:
    """Return the partitions of a run in the newest version, with repetitions."""
    manifest = Log(lake.store).manifest(lake.head)
    homes = [manifest.home[number] for number in manifest.run]
    rows = zip(homes, manifest.partition.tolist(), strict=True)
    return [partition for home, partition in rows if home == object_keys.home_of("main", run)]


#: Longer than any operation of these tests; reaching it is a failure.
PATIENCE = 20.0


class Lead:
    """A coordinator of a run, and the worker that delivers results to it.

    Parameters
    ----------
    lake : SmallLake
        The lake.
    partitions : int
        Number of partitions of the run.
    missing : tuple of int, optional
        Partitions to write; all if omitted.
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
        """Start the coordinator."""
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
        """Wait until a status condition is reached, without polling."""
        while not reached(status := self.coordinator.status()):
            self.changes.get(timeout=PATIENCE)
        return status

    def end(self) -> Status:
        """Wait until the coordinator ends."""
        status = self.coordinator.wait(PATIENCE)
        assert not status.running, "the coordinator did not end in time"
        self.coordinator.join()
        return status


MakeLead = Callable[..., Lead]


@pytest.fixture
def lead(flaky_lake: SmallLake) -> Iterator[MakeLead]:
    """Return a function that makes coordinators; stop all of them after the test."""
    leads: list[Lead] = []

    def make(partitions: int, **changes: Any) -> Lead:
        leads.append(Lead(flaky_lake, partitions, **changes))
        return leads[-1]

    yield make
    for lead_ in leads:
        if lead_.coordinator._threads:
            lead_.coordinator.stop("cancelled")
            lead_.coordinator.drain()
            lead_.coordinator._writer.log.stop.set()
            lead_.end()
