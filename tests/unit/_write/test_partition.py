"""A write task and its storage: what is sent again, what ends the run, and what is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dasklake._storage.store import ObjectStore
from dasklake._write import partition, retrying
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.partition import Job, Outcome, PartMaker, write_partition
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
    """Takes outcomes; says that it is over after so many questions."""

    patience: int = 1 << 30
    outcomes: list[Outcome] = field(default_factory=list)

    def __call__(self, outcome: Outcome) -> None:
        """Take one."""
        self.outcomes.append(outcome)

    def stopped(self) -> bool:
        """Whether it is over."""
        self.patience -= 1
        return self.patience < 0


class Writing:
    """A write task over a storage that fails; the calls of its function are counted."""

    def __init__(self, lake: SmallLake, **changes: Any) -> None:
        writer = lake.begin("run", 1)
        location = RunLocation(lake.store, writer.home, "run", 1)
        entry = (writer.head.version, writer.head.id)
        self.made: list[int] = []
        self.job = Job(location, entry, SCHEMA, "bag", transform=self.make, **changes)

    def make(self, x: int) -> dict[str, Any]:
        """Make a sample."""
        self.made.append(x)
        return {"x": x}

    def write(self, deliver: Delivered) -> Outcome | None:
        """Write the partition."""
        maker = PartMaker("part", None)
        write_partition(self.job, 0, 0, deliver, (maker,), {"part": [1, 2, 3]})
        return deliver.outcomes[0] if deliver.outcomes else None


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bytes]]:
    """Let the storage raise errors instead of writing chunks; what was sent is noted."""

    def refusing(*errors: Exception) -> list[bytes]:
        left, sent, put = list(errors), list[bytes](), ObjectStore.put

        def fail(store: ObjectStore, key: str, data: Any) -> None:
            if key.startswith(DATA):
                sent.append(bytes(data))
                if left:
                    raise left.pop(0)
            put(store, key, data)

        monkeypatch.setattr(ObjectStore, "put", fail)
        return sent

    return refusing


def test_chunk_is_sent_again(flaky_lake: SmallLake, refuse: Callable[..., list[bytes]]) -> None:
    """While the storage fails the same bytes are sent again, and nothing is computed again."""
    sent = refuse(StoreError("busy"), StoreError("busy"))
    writing = Writing(flaky_lake)
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert outcome.receipt is not None
    assert writing.made == [1, 2, 3]
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_entry_is_looked_up_again(flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
    """The epoch's entry, which a task reads first, is asked for again too."""
    partition._check_shared.cache_clear()
    writing = Writing(flaky_lake)
    flaky_store.fail("get", Fault.BEFORE, "_lake/log")
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert outcome.receipt is not None


@pytest.mark.parametrize("kind", [PermissionDeniedError, StorageFullError, LakeNotSharedError])
@pytest.mark.parametrize("retries", [None, 3])
def test_refusal_ends_the_run(
    flaky_lake: SmallLake,
    refuse: Callable[..., list[bytes]],
    kind: type[StoreError],
    retries: int | None,
) -> None:
    """What the storage refuses for good is neither sent again nor computed again."""
    sent = refuse(kind("no"))
    writing = Writing(flaky_lake, retries=retries)
    outcome = writing.write(Delivered())
    assert outcome is not None
    assert isinstance(outcome.error, kind)
    assert (writing.made, len(sent)) == ([1, 2, 3], 1)


def test_same_error_of_the_function(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]]
) -> None:
    """The same error out of the user's function says nothing of our storage: it is raised to Dask."""
    writing = Writing(flaky_lake)

    def fail(x: int) -> dict[str, Any]:
        raise StorageFullError(f"item {x}")

    object.__setattr__(writing.job, "transform", fail)
    with pytest.raises(StorageFullError, match="item 1"):
        writing.write(Delivered())


def test_patience_has_an_end(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the attempt has failed: Dask tries the task again."""
    monkeypatch.setattr(retrying, "_PATIENCE", 0.0)
    refuse(StoreError("busy"))
    with pytest.raises(StoreError, match="busy"):
        Writing(flaky_lake).write(Delivered())


@pytest.mark.parametrize("retries", [None, 3])
def test_nobody_waits_any_more(
    flaky_lake: SmallLake, refuse: Callable[..., list[bytes]], retries: int | None
) -> None:
    """A task whose run has ended stops to ask a failing storage, and is not tried again."""
    sent = refuse(*(StoreError("busy") for _ in range(1000)))
    writing = Writing(flaky_lake, retries=retries)
    deliver = Delivered(patience=4)
    if retries is None:
        with pytest.raises(StoreError, match="busy"):
            writing.write(deliver)
    else:
        outcome = writing.write(deliver)
        assert outcome is not None
        assert isinstance(outcome.error, StoreError)
    assert len(sent) < 10
    assert writing.made == [1, 2, 3]


def test_nothing_to_do(flaky_lake: SmallLake) -> None:
    """A task that begins when the run has ended does nothing."""
    writing = Writing(flaky_lake)
    assert writing.write(Delivered(patience=0)) is None
    assert writing.made == []
