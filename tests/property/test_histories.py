"""Test small histories exhaustively: any process ends or loses a response at any operation.

A history is a sequence of processes. Faults are injected at every operation of each process: the
process crashes before, during or after it; the request or its response is lost, late or refused; or
the process pauses there, all other processes run to their ends, and it continues as a zombie. In a
long search two processes pause or crash at every pair of their operations. The invariants hold at
each of these moments and afterwards. A single process can then finish every run, each sample once.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

from dasklake.testing.faults import CRASHES, LOSSES, Fault, FaultStore
from tests.support.simulation import Simulation, Slice, one_thread_each

Process = Callable[[Simulation, FaultStore], Any]
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"


class Tale(NamedTuple):
    """A history.

    Attributes
    ----------
    processes : mapping of str to callable
        The processes, in order.
    pairs : tuple of (str, str)
        Processes that pause at every pair of operations in a long search.
    partitions : mapping of str to int
        Number of partitions by run.
    exists : bool
        True if the lake exists from the start.
    """

    processes: Mapping[str, Process]
    pairs: tuple[tuple[str, str], ...] = ()
    partitions: Mapping[str, int] = {"R": 2, "S": 1, "O": 1, "F": 1}
    exists: bool = True


def writes(run: str, mode: str = "append") -> Process:
    """Return a process that writes a run."""
    return lambda sim, store: sim.write(store, run, mode)


def resets(*, force: bool = False) -> Process:
    """Return a process that resets."""
    return lambda sim, store: sim.reset(store, force=force)


def vacuums(sim: Simulation, store: FaultStore) -> None:
    """Expire old versions and delete unneeded objects."""
    sim.vacuum(store)


def reads(sim: Simulation, store: FaultStore) -> Any:
    """Read the newest version."""
    return sim.read(store)


TALES = {
    "one writer": Tale(
        {"A": writes("R", "resume"), "B": writes("R", "resume")},
        pairs=(("A", "B"),),
        partitions={"R": 2},
        exists=False,
    ),
    "writer, reset, resume": Tale(
        {"A": writes("R"), "X": resets(), "B": writes("R", "resume")},
        pairs=(("A", "X"), ("X", "B"), ("A", "B")),
    ),
    "writer, resume, reset": Tale(
        {"A": writes("R"), "B": writes("R", "resume"), "X": resets()},
        pairs=(("A", "B"), ("B", "X"), ("A", "X")),
    ),
    "two writers, reset, resume": Tale(
        {
            "A": writes("R"),
            "S": writes("S"),
            "X": resets(),
            "B": writes("R", "resume"),
            "r": reads,
        },
        pairs=(("A", "S"),),
    ),
    "two resumes, two resets": Tale(
        {
            "A": writes("R"),
            "B": writes("R", "resume"),
            "X": resets(),
            "C": writes("R", "resume"),
            "Y": resets(),
        },
        partitions={"R": 1},
    ),
    "overwrite beside a writer": Tale(
        {
            "S": writes("S"),
            "O": writes("O", "overwrite"),
            "A": writes("R"),
            "B": writes("O", "resume"),
            "X": resets(),
        },
        pairs=(("O", "A"),),
    ),
    "vacuum beside writers": Tale(
        {
            "S": writes("S"),
            "O": writes("O", "overwrite"),
            "A": writes("R"),
            "V": vacuums,
            "B": writes("R", "resume"),
            "W": vacuums,
        },
        pairs=(("A", "V"), ("O", "V")),
    ),
    "vacuum beside tags and restores": Tale(
        {
            "S": writes("S"),
            "O": writes("O", "overwrite"),
            "t": lambda sim, store: sim.tag(store, "t", "main", 2),
            "T": lambda sim, store: sim.restore(store, "main", 2),
            "V": vacuums,
            "r": reads,
        },
        pairs=(("t", "V"), ("T", "V")),
    ),
    "a branch, a vacuum, a reset": Tale(
        {
            "S": writes("S"),
            "c": lambda sim, store: sim.branch(store, "b", 2),
            "O": writes("O", "overwrite"),
            "A": lambda sim, store: sim.write(store, "R", branch="b"),
            "X": resets(),
            "V": vacuums,
            "d": lambda sim, store: sim.delete_branch(store, "b"),
            "W": vacuums,
        },
        pairs=(("A", "V"), ("A", "d"), ("c", "V"), ("d", "W")),
        partitions={"R": 1, "S": 1, "O": 1},
    ),
    "compaction": Tale(
        {
            "S": writes("S"),
            "A": writes("R"),
            "C": lambda sim, store: sim.compact(store),
            "D": lambda sim, store: sim.compact(store),
            "V": vacuums,
            "X": resets(),
        },
        pairs=(("C", "D"), ("C", "V"), ("C", "X"), ("A", "C")),
    ),
    "failures": Tale(
        {"A": writes("F"), "X": resets(), "B": writes("F", "resume")},
        partitions={"F": 2},
    ),
}


class Schedule(NamedTuple):
    """One execution of a history."""

    tale: str
    slices: tuple[Slice, ...]
    #: The paused process that continues first.
    first: str = ""


def singles(tale: str) -> Iterator[Schedule]:
    """Yield every operation of every process with every fault."""
    faults = [*CRASHES, *LOSSES, Fault.LATE, Fault.SHORT, None]
    for name in TALES[tale].processes:
        for number in range(length(tale, name)):
            for fault in faults:
                yield Schedule(tale, (Slice(name, number, fault),))


def doubles(tale: str) -> Iterator[Schedule]:
    """Yield every pair of operations at which two processes pause or end."""
    for one, two in TALES[tale].pairs:
        lengths = [range(length(tale, name, cut=True)) for name in (one, two)]
        positions = itertools.product(*lengths)
        for a, b in positions:
            for fault in (Fault.CRASH_AFTER, None):
                yield Schedule(tale, (Slice(one, a), Slice(two, b, fault)), one)
            yield Schedule(tale, (Slice(one, a), Slice(two, b)), two)


_LENGTHS: dict[tuple[str, str, bool], int] = {}


def length(tale: str, name: str, *, cut: bool = False) -> int:
    """Return the number of operations of a process after its predecessors; the maximum if those may end early."""
    if (tale, name, cut) in _LENGTHS:
        return _LENGTHS[tale, name, cut]
    counts = []
    for share in (0.0, 0.5, 0.8, 1.0) if cut else (1.0,):
        sim = Simulation(TALES[tale].partitions)
        if TALES[tale].exists:
            sim.make()
        processes = bound(tale, sim)
        for other in itertools.takewhile(lambda earlier: earlier != name, processes):
            steps = int(share * length(tale, other))
            if share == 1.0:
                sim.rest({other: processes[other]})
            elif steps:
                sim.play(processes, [Slice(other, steps, Fault.CRASH_AFTER)])
        sim.steps = 0
        sim.rest({name: processes[name]})
        counts.append(sim.steps)
        sim.close()
    _LENGTHS[tale, name, cut] = max(counts)
    return max(counts)


def bound(tale: str, sim: Simulation) -> dict[str, Callable[[FaultStore], Any]]:
    """Return the processes of a history over a simulation."""
    return {name: partial(process, sim) for name, process in TALES[tale].processes.items()}


def run(schedule: Schedule) -> bool:
    """Execute a history once and check it; return False if the execution is impossible."""
    tale = TALES[schedule.tale]
    sim = Simulation(tale.partitions)
    processes = bound(schedule.tale, sim)
    try:
        if tale.exists:
            sim.make()
        stopped = {part.name for part in schedule.slices}
        first = schedule.slices[0].name
        earlier = dict(itertools.takewhile(lambda item: item[0] != first, processes.items()))
        sim.rest(earlier)
        if not sim.play(processes, schedule.slices):
            return False
        sim.rest({name: process for name, process in processes.items() if name not in stopped})
        sim.look()
        order = sorted(stopped, key=lambda name: name != schedule.first)
        sim.rest({name: processes[name] for name in order})
        sim.settle()
    except AssertionError as error:
        error.add_note(repr(schedule))
        raise
    finally:
        sim.close()
    return True


#: Number of schedules of each history in a short search.
_SOME = 24

#: Number of executed schedules by history.
TRIED: dict[str, int] = {}


@pytest.mark.parametrize("tale", TALES)
def test_every_operation(tale: str) -> None:
    """With faults in one or two operations, no sample is lost or repeated, and no process blocks."""
    with one_thread_each():
        schedules = [*singles(tale), *doubles(tale)]
        if not DEEP:
            random.Random(tale).shuffle(schedules)  # noqa: S311 # a seeded choice
        # After predecessors that ended early, a process may end before it reaches an operation.
        exist = (run(schedule) for schedule in schedules)
        TRIED[tale] = sum(itertools.islice(filter(None, exist), None if DEEP else _SOME))
    print(f"{tale}: {TRIED[tale]} of {len(schedules)} schedules")  # noqa: T201 # the figure
    assert TRIED[tale] >= (len(schedules) / 3 if DEEP else _SOME)


if DEEP:

    def test_thousands_of_schedules() -> None:
        """A long search covers more executions."""
        if TRIED.keys() == TALES.keys():
            print(f"{sum(TRIED.values())} schedules, 0 violations")  # noqa: T201 # the figure
            assert sum(TRIED.values()) > 8_000
