"""Each invariant finds what breaks it."""

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


def test_a_sound_lake(sim: Simulation) -> None:
    """A sound lake passes, at once and again."""
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
    store.put(object_keys.commit_key("main", version), commit_bytes(replace(commit, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "words"),
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
def test_damage_is_found(sim: Simulation, damage: Callable[[FaultStore], None], words: str) -> None:
    """What is missing, damaged or does not follow is named."""
    damage(sim.root)
    with pytest.raises(AssertionError, match=words):
        check_history(sim.root)


def test_changes_are_found(sim: Simulation) -> None:
    """A version that changes, or goes, is found by who saw it before."""
    before = read_history(sim.root)
    rewrite(sim.root, 2, message="another")
    with pytest.raises(AssertionError, match="was changed"):
        check_unchanged(before, read_history(sim.root))
    before = read_history(sim.root)
    sim.root.delete([object_keys.commit_key("main", 3)])
    with pytest.raises(AssertionError, match="was deleted"):
        check_history(sim.root, before)


def test_lost_acknowledgements_are_found(sim: Simulation) -> None:
    """A commit that somebody was told of, and that is not there or not that, is found."""
    rewrite(sim.root, 3, message="another")
    with pytest.raises(AssertionError, match="another content"):
        check_acknowledged(read_history(sim.root), sim.acknowledged)
    sim.root.delete([object_keys.commit_key("main", 3)])
    with pytest.raises(AssertionError, match="is missing"):
        check_acknowledged(read_history(sim.root), sim.acknowledged)


def test_wrong_inputs_are_found(sim: Simulation) -> None:
    """Samples that are missing, doubled or in another place are found."""
    seen = check_history(sim.root)
    right = samples("R", 0) + samples("R", 1)
    for wrong in (right[1:], [*right, right[0]], right[::-1]):
        with pytest.raises(AssertionError, match="version 3 of main"):
            check_inputs(seen, "main", "x", wrong)
