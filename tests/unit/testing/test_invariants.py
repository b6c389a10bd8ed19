"""Test that each invariant detects its violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dasklake._format import object_keys
from dasklake._format.documents import commit_bytes
from dasklake._log.log import Log
from dasklake.testing.faults import FaultStore
from dasklake.testing.invariants import (
    check_acknowledged,
    check_history,
    check_inputs,
    check_unchanged,
    read_history,
)
from tests.support.simulation import Simulation, samples


@pytest.fixture
def sim() -> Iterator[Simulation]:
    """Write a run of two partitions: versions 0 to 3."""
    sim = Simulation({"R": 2})
    sim.make()
    sim.write(sim.root, "R")
    yield sim
    sim.close()


def test_an_undamaged_lake_passes(sim: Simulation) -> None:
    """An undamaged lake passes repeated checks."""
    seen = check_history(sim.root)
    seen = check_history(sim.root, seen)
    check_acknowledged(seen, sim.acknowledged)
    check_inputs(seen, "main", "x", samples("R", 0) + samples("R", 1))


def drop(store: FaultStore, prefix: str) -> None:
    """Delete the first object under a prefix."""
    store.delete([store.walk(prefix)[0][0]])


def spoil(store: FaultStore, prefix: str) -> None:
    """Change the last byte of the first object under a prefix."""
    key = store.walk(prefix)[0][0]
    data = store.get(key)
    store.put(key, data[:-1] + bytes([data[-1] ^ 1]))


def rewrite(store: FaultStore, version: int, **changes: object) -> None:
    """Write a commit again, with other fields."""
    commit = Log(store).read(version)
    store.put(object_keys.commit_key("main", version), commit_bytes(replace(commit, **changes)))  # type: ignore[arg-type] # fields of any type


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: drop(s, "data"), "Cannot read|missing"),
        (lambda s: drop(s, "_lake/segments"), "Cannot read|missing"),
        (lambda s: drop(s, "_lake/log/main"), "gaps"),
        (lambda s: spoil(s, "data"), "damaged"),
        (lambda s: spoil(s, "_lake/segments"), "damaged"),
        (lambda s: spoil(s, "_lake/log/main"), "version 0"),
        (lambda s: rewrite(s, 2, parent="00" * 8), "predecessor"),
        (lambda s: rewrite(s, 3, id=Log(s).read(1).id), "same id"),
        (lambda s: rewrite(s, 3, runs={}), "forgets"),
        (lambda s: rewrite(s, 3, segments=()), "rows|counts"),
        (lambda s: rewrite(s, 2, segments=Log(s).read(3).segments), "rows|counts"),
    ],
)
def test_damage_is_found(
    sim: Simulation, damage: Callable[[FaultStore], None], message: str
) -> None:
    """Missing, damaged and inconsistent objects are named."""
    damage(sim.root)
    with pytest.raises(AssertionError, match=message):
        check_history(sim.root)


def test_changes_are_found(sim: Simulation) -> None:
    """A changed or missing version is detected by an earlier reader."""
    before = read_history(sim.root)
    rewrite(sim.root, 2, message="another")
    with pytest.raises(AssertionError, match="was changed"):
        check_unchanged(before, read_history(sim.root))
    before = read_history(sim.root)
    sim.root.delete([object_keys.commit_key("main", 3)])
    with pytest.raises(AssertionError, match="was deleted"):
        check_history(sim.root, before)


def test_lost_acknowledgements_are_found(sim: Simulation) -> None:
    """An acknowledged commit that is missing or changed is detected."""
    rewrite(sim.root, 3, message="another")
    with pytest.raises(AssertionError, match="another content"):
        check_acknowledged(read_history(sim.root), sim.acknowledged)
    sim.root.delete([object_keys.commit_key("main", 3)])
    with pytest.raises(AssertionError, match="is missing"):
        check_acknowledged(read_history(sim.root), sim.acknowledged)


def test_wrong_inputs_are_found(sim: Simulation) -> None:
    """Missing, duplicated and misplaced samples are detected."""
    seen = check_history(sim.root)
    right = samples("R", 0) + samples("R", 1)
    for wrong in (right[1:], [*right, right[0]], right[::-1]):
        with pytest.raises(AssertionError, match="version 3 of main"):
            check_inputs(seen, "main", "x", wrong)
