"""Test a write task on failing storage: retries, permanent refusals and cancellation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dasklake._storage.store import ObjectStore
from dasklake._storage.store_limits import StoreLimits
from dasklake._write import partition
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.job import Job, Outcome, PartMaker
from dasklake._write.partition import write_partition
from dasklake.exceptions import (
    LakeNotSharedError,
    PermissionDeniedError,
    StorageFullError,
    StoreError,
)
from tests.support.flaky import Fault, FlakyStore
from tests.support.lakes import SCHEMA, SmallLake

DATA = "data/main/run"


@dataclass
class Delivered:
    """Collect outcomes; report the end of the run after a number of checks."""

    checks: int = 1 << 30
    outcomes: list[Outcome] = field(default_factory=list)

    def __call__(self, outcome: Outcome) -> None:
        """Collect an outcome."""
        self.outcomes.append(outcome)

    def stopped(self) -> bool:
        """Return whether the run has ended."""
        self.checks -= 1
        return self.checks < 0


class Writing:
    """A write task whose transform records its calls."""

    def __init__(self, lake: SmallLake, **changes: Any) -> None:
        writer = lake.begin("run", 1)
        location = RunLocation(lake.store, writer.home, "run", 1)
        entry = (writer.head.version, writer.head.id)
        self.calls: list[int] = []
        self.job = Job(location, entry, SCHEMA, "bag", transform=self.make, **changes)

    def make(self, x: int) -> dict[str, Any]:
        """Return a sample."""
        self.calls.append(x)
        return {"x": x}

    def write(self, deliver: Delivered) -> Outcome | None:
        """Write the partition."""
        maker = PartMaker("part", None)
        write_partition(self.job, 0, 0, deliver, (maker,), {"part": [1, 2, 3]})
        return deliver.outcomes[0] if deliver.outcomes else None


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bytes]]:
    """Return a function that makes the next writes of chunks fail, and records all of them."""

    def refusing(*errors: Exception) -> list[bytes]:
        remaining, sent, put = list(errors), list[bytes](), ObjectStore.put

        def fail(store: ObjectStore, key: str, data: Any) -> None:
            if key.startswith(DATA):
                sent.append(bytes(data))
                if remaining:
                    raise remaining.pop(0)
            put(store, key, data)

        monkeypatch.setattr(ObjectStore, "put", fail)
        return sent

    return refusing


def test_failed_writes_of_chunks_are_retried(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]]
) -> None:
    """Retries write the same bytes, and do not call the transform again."""
    sent = refuse(StoreError("busy"), StoreError("busy"))
    writing = Writing(flaky_lake)
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert outcome.receipt is not None
    assert writing.calls == [1, 2, 3]
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_failed_reads_of_the_entry_are_retried(
    flaky_lake: SmallLake, flaky_store: FlakyStore
) -> None:
    """Reading the commit that began the epoch is retried too."""
    partition._check_shared.cache_clear()
    writing = Writing(flaky_lake)
    flaky_store.fail("get", Fault.BEFORE, "_lake/log")
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert outcome.receipt is not None


@pytest.mark.parametrize("kind", [PermissionDeniedError, StorageFullError, LakeNotSharedError])
@pytest.mark.parametrize("retries", [None, 3])
def test_permanent_refusal_ends_the_run(
    flaky_lake: SmallLake,
    refuse: Callable[..., list[bytes]],
    kind: type[StoreError],
    retries: int | None,
) -> None:
    """A permanent refusal is not retried, and the partition is not computed again."""
    sent = refuse(kind("no"))
    writing = Writing(flaky_lake, retries=retries)
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert isinstance(outcome.error, kind)
    assert (writing.calls, len(sent)) == ([1, 2, 3], 1)


def test_same_error_from_the_transform_is_raised(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]]
) -> None:
    """The same error from the user's function is not a refusal by the lake's storage."""
    writing = Writing(flaky_lake)

    def fail(x: int) -> dict[str, Any]:
        raise StorageFullError(f"item {x}")

    object.__setattr__(writing.job, "transform", fail)
    with pytest.raises(StorageFullError, match="item 1"):
        writing.write(Delivered())


def test_retries_are_bounded(flaky_lake: SmallLake, refuse: Callable[..., list[bytes]]) -> None:
    """After the retry time the attempt fails, and Dask retries the task."""
    flaky_lake.store.limits = StoreLimits(write_seconds=0.0)
    refuse(StoreError("busy"))
    with pytest.raises(StoreError, match="busy"):
        Writing(flaky_lake).write(Delivered())


@pytest.mark.parametrize("retries", [None, 3])
def test_retries_stop_when_the_run_has_ended(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]], retries: int | None
) -> None:
    """A task stops its retries when its run has ended, and is not attempted again."""
    sent = refuse(*(StoreError("busy") for _ in range(1000)))
    writing = Writing(flaky_lake, retries=retries)
    deliver = Delivered(checks=4)
    if retries is None:
        with pytest.raises(StoreError, match="busy"):
            writing.write(deliver)
    else:
        outcome = writing.write(deliver)
        assert outcome is not None
        assert isinstance(outcome.error, StoreError)
    assert len(sent) < 10
    assert writing.calls == [1, 2, 3]


def test_task_of_an_ended_run_does_nothing(flaky_lake: SmallLake) -> None:
    """A task that starts after the end of the run does nothing."""
    writing = Writing(flaky_lake)
    assert writing.write(Delivered(checks=0)) is None
    assert writing.calls == []
