"""Test a lake with writers, zombies, readers, resets, vacuums, tags, branches: a state machine.

Every process is real code that waits before each operation. The machine chooses the next process, its
number of operations, lost responses and crashes. After each step all invariants hold: no version
changes, all referenced objects exist, no partition is duplicated or lost, acknowledged data remain. A
pinned version reads the same until it expires. In the end a single process can finish every run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._read.reader import make_reader
from dasklake.exceptions import NotFoundError, VersionExpiredError
from dasklake.testing.faults import CRASHES, LOSSES, Fault, FaultStore
from tests.support.simulation import Simulation, one_thread_each

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Number of steps of a long search.
_MANY = 10_000

#: Maximum number of concurrent processes.
_MOST = 4

RUNS = {"R": 2, "S": 1, "T": 3, "F": 1, "O": 1, "P": 2}

#: Actions of a process; repeated ones are drawn more often.
KINDS = (
    *("write", "write", "write", "resume", "resume", "reset", "reset", "vacuum", "vacuum"),
    *("compact", "tag", "restore", "make branch", "delete branch", "read"),
)

#: Continuations of a process: it waits, runs to its end, meets a fault, or dies.
THEN = (*("wait",) * 8, *("end",) * 6, *LOSSES, Fault.LATE, Fault.SHORT, *CRASHES)

branches = st.sampled_from(["main", "main", "b"])
numbers = st.integers(0, 30)


class LakeMachine(RuleBasedStateMachine):
    """The processes of a lake, one operation at a time."""

    steps: ClassVar[int] = 0
    operations: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(one_thread_each())
        self.sim = Simulation(RUNS)
        self.sim.make()
        #: Versions pinned by readers, each with the samples read at that time.
        self.pinned: list[tuple[Commit, list[int]]] = []

    def some_version(self, number: int, branch: str) -> int:
        """Return a current or near future version of a branch."""
        return number % ((Log(self.sim.root, branch).head_version() or 0) + 2)

    @precondition(lambda self: len(self.sim.turns.waiting) < _MOST)
    @rule(
        kind=st.sampled_from(KINDS),
        run=st.sampled_from(list(RUNS)),
        branch=branches,
        number=numbers,
    )
    def start(self, kind: str, run: str, branch: str, number: int) -> None:
        """Start a process, up to its first operation."""
        LakeMachine.steps += 1
        sim, name = self.sim, f"p{LakeMachine.steps}"
        version = self.some_version(number, "main" if kind == "make branch" else branch)
        mode = "resume" if kind == "resume" else "overwrite" if run in "OP" else "append"
        processes: dict[str, Callable[[FaultStore], Any]] = {
            "write": lambda store: sim.write(store, run, mode, branch),
            "resume": lambda store: sim.write(store, run, mode, branch),
            "reset": sim.reset,
            "vacuum": sim.vacuum,
            "compact": sim.compact,
            "tag": lambda store: sim.tag(store, name, branch, version),
            "restore": lambda store: sim.restore(store, branch, version),
            "make branch": lambda store: sim.branch(store, "b", version),
            "delete branch": lambda store: sim.delete_branch(store, "b"),
            "read": lambda store: sim.read(store, branch),
        }
        sim.start(name, processes[kind])

    @initialize()
    def first(self) -> None:
        """Start two writers."""
        for run in "RS":
            self.start("write", run, "main", 0)

    @rule(number=numbers, branch=branches)
    def pin(self, number: int, branch: str) -> None:
        """Read a version now, to compare it later."""
        LakeMachine.steps += 1
        log = Log(self.sim.root, branch)
        try:
            commit = log.read(self.some_version(number, branch))
            self.pinned.append((commit, self.values(commit)))
        except NotFoundError:
            return

    def values(self, commit: Commit) -> list[int]:
        """Read all samples of a version."""
        reader = make_reader(Log(self.sim.root, commit.branch), commit)
        return [int(sample["x"]) for sample in reader.stream(["x"])]

    @rule()
    def read_again(self) -> None:
        """Check that pinned versions read the same unless they have expired."""
        LakeMachine.steps += 1
        history = self.sim.look()
        for commit, values in self.pinned:
            try:
                assert self.values(commit) == values
            except VersionExpiredError:
                assert history.is_expired(commit.branch, commit.version)

    @precondition(lambda self: self.sim.turns.waiting)
    @rule(number=numbers, operations=st.integers(1, 25), then=st.sampled_from(THEN))
    def act(self, number: int, operations: int, then: Fault | str) -> None:
        """Run operations of a process, and choose the fault of the next one."""
        LakeMachine.steps += 1
        waiting = list(self.sim.turns.waiting)
        name = waiting[number % len(waiting)]
        if then == "end":
            self.sim.rest({name: lambda _: None})
            return
        for _ in range(operations):
            self.sim.step(name)
        if isinstance(then, Fault):
            self.sim.step(name, then)

    @precondition(lambda self: self.sim.root.held)
    @rule(number=numbers)
    def arrive(self, number: int) -> None:
        """Deliver a delayed request."""
        LakeMachine.steps += 1
        self.sim.root.arrive(number % len(self.sim.root.held))

    @invariant()
    def whole(self) -> None:
        """Check all invariants."""
        self.sim.look()

    def teardown(self) -> None:
        """End all processes; then finish every run with a single process."""
        try:
            LakeMachine.operations += self.sim.steps
            self.sim.rest({name: lambda _: None for name in list(self.sim.turns.waiting)})
            self.sim.settle()
        finally:
            self.sim.close()
            self.stack.close()


def test_lake_stays_consistent() -> None:
    """A lake stays consistent under any order of operations and crashes."""
    LakeMachine.steps = LakeMachine.operations = 0
    chosen = settings(
        max_examples=100 if DEEP else 10,
        stateful_step_count=120 if DEEP else 40,
        print_blob=True,
    )
    while True:
        run_state_machine_as_test(LakeMachine, settings=chosen)
        if not DEEP or LakeMachine.steps >= _MANY:
            break
    print(f"{LakeMachine.steps} steps, {LakeMachine.operations} operations, 0 violations")  # noqa: T201 # the figure
