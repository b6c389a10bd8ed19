"""Test the log with interleaved writers: every order of creates, random orders of all calls.

The storage loses responses and delays requests. After each schedule, these properties must hold:

- each version was created once and never changed, and names the one before it as its parent;
- what a version names for the first time was written after the version before it, under its own id;
- no version names a partition twice, and acknowledged data stays until an overwrite;
- no data of a closed or superseded epoch is committed;
- a resume without concurrent writers finishes the run, each partition exactly once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasklake._format import object_keys
from dasklake._format.segment import join_manifests
from dasklake._log.log import Log
from dasklake._log.run_entries import abort, begin, resume
from dasklake._log.run_writer import RunWriter
from dasklake._log.transactions import create_lake
from dasklake._model.commit import Commit, Kind, Plan
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake.exceptions import ConflictError, StoreError
from dasklake.testing.faults import LOSSES
from tests.support.flaky import Decide, Fault, FlakyStore, Step, Turns, every_schedule, quick_log
from tests.support.lakes import SCHEMA, failure

Writer = Callable[[], Any]
Scenario = Callable[["World"], Mapping[str, Writer]]
Gated = Callable[[str, str], bool]


def everything(_: str, __: str) -> bool:
    """Gate every operation."""
    return True


def creates(operation: str, _: str) -> bool:
    """Gate only creates: other calls run together with the call before them."""
    return operation == "create"


class Attempt(NamedTuple):
    """One attempt that a version names."""

    run: str
    partition: int
    epoch: int
    attempt: int


class World:
    """A lake in memory, its writers, and the commits that they got."""

    def __init__(self) -> None:
        self.store = FlakyStore()
        create_lake(Log(self.store), SCHEMA)
        #: The run, returned commit and attempts of each commit call.
        self.acknowledged: list[tuple[str, Commit, set[Attempt]]] = []

    def begin(self, run: str, partitions: int, *, overwrite: bool = False) -> RunWriter:
        """Begin a run."""
        log = quick_log(self.store)
        plan = Plan(partitions, None, "0" * 32, None, overwrite=overwrite)
        entry = begin(log, log.require_head(), run, plan)
        return RunWriter(log, run, 1, entry, SCHEMA)

    def commit(self, writer: RunWriter, partitions: Sequence[int]) -> None:
        """Commit some partitions with one commit; every second one has a failed sample."""
        receipts, failures = [], []
        for partition in partitions:
            chunk = ChunkRef(0, 3, 100, 50, 1)
            name = object_keys.new_id()
            inputs = 3 + partition % 2
            receipts.append(Receipt(writer.run, writer.epoch, partition, name, (chunk,), inputs))
            failures += [failure(writer.run, partition, 0)] * (partition % 2)
        commit = writer.commit(receipts, failures)
        written = {Attempt(r.run, r.partition, r.epoch, int(r.attempt, 16)) for r in receipts}
        self.acknowledged.append((writer.run, commit, written))

    def append(self, run: str, partitions: int, *, overwrite: bool = False, by: int = 1) -> Writer:
        """Return a writer that begins a run and commits its partitions, ``by`` at a time."""

        def write() -> None:
            writer = self.begin(run, partitions, overwrite=overwrite)
            for first in range(0, partitions, by):
                self.commit(writer, range(first, min(first + by, partitions)))

        return write

    def continue_run(self, writer: RunWriter, partitions: Sequence[int]) -> Writer:
        """Return a writer that continues a run that it has begun."""

        def write() -> None:
            for partition in partitions:
                self.commit(writer, [partition])

        return write

    def resume(self, run: str, *, take_over: bool = False) -> Writer:
        """Return a writer that resumes a run and commits missing partitions one by one."""

        def write() -> None:
            log = quick_log(self.store)
            head = log.require_head()
            if run not in head.runs:
                return
            entry = resume(log, head, run, take_over=take_over)
            state = entry.runs[run]
            if state.finished:
                return
            done = {a.partition for a in attempts(log, entry) if a.run == run}
            writer = RunWriter(log, run, state.epoch, entry, SCHEMA)
            for partition in sorted(set(range(state.plan.partitions)) - done):
                self.commit(writer, [partition])

        return write

    def abort(self, run: str) -> Writer:
        """Return a writer that closes the epochs of a run."""

        def write() -> None:
            log = quick_log(self.store)
            abort(log, log.require_head(), [run])

        return write

    def run(self, scenario: Scenario, decide: Decide, gated: Gated = everything) -> None:
        """Run writers to their ends, and check the results."""
        results = Turns(self.store, decide, gated).run(scenario(self))
        for name, result in results.items():
            # Only reads before the first write are not retried.
            assert result is None or isinstance(result, ConflictError | StoreError), (name, result)
            # Writers that do not concern each other never stop each other.
            assert not isinstance(result, ConflictError) or scenario not in PEACEFUL, result
        self.settle()
        self.audit()
        self.store.clear()

    def audit(self) -> None:
        """Check every property of a log."""
        log = Log(self.store)
        commits = list(log.walk(0))
        self._check_objects(commits)
        versions = [attempts(log, commit) for commit in commits]
        epochs: dict[str, tuple[int, int]] = {}
        seen: dict[str, set[Attempt]] = {}
        gone: set[Attempt] = set()
        for before, commit, had, has in zip(
            [None, *commits], commits, [set(), *versions], versions, strict=False
        ):
            check_runs(before, commit)
            assert not has & gone, "overwritten attempts are visible again"
            gone |= had - has
            check_entry(commit, has - had, epochs)
            check_lost(before, commit, had - has, seen)
            if commit.kind in (Kind.BEGIN, Kind.EPOCH):
                seen[commit.entry["run"]] = has
        for run, returned, written in self.acknowledged:
            attempts_of_version = versions[returned.version]
            assert commits[returned.version] == returned
            assert written <= attempts_of_version or returned.runs[run].finished

    def _check_objects(self, commits: Sequence[Commit]) -> None:
        order: dict[str, int] = {}
        for number, (operation, key, data) in enumerate(self.store.landed):
            if key.startswith("_lake/log/"):
                assert operation == "create"
                assert key not in order
                assert self.store.get(key) == data
            if operation != "delete":
                order.setdefault(key, number)
        keys = [object_keys.commit_key("main", commit.version) for commit in commits]
        for before, commit in pairwise(commits):
            for key_of, new in (
                (object_keys.segment_key, {*commit.segments} - {*before.segments}),
                (object_keys.failures_key, {*commit.failures} - {*before.failures}),
            ):
                for ref in new:
                    assert ref.name == commit.id
                    born = order[key_of(ref.name)]
                    assert order[keys[before.version]] < born < order[keys[commit.version]]

    def settle(self) -> None:
        """Check that resumes without concurrent writers finish every run."""
        log = quick_log(self.store)
        for run in log.require_head().runs:
            try:
                self.resume(run)()
            except ConflictError:
                assert log.require_head().runs[run].replaced
        head = log.require_head()
        visible = attempts(log, head)
        for run, state in head.runs.items():
            assert state.finished or state.replaced
            partitions = {a.partition for a in visible if a.run == run}
            if not state.replaced and all(not s.overwrote for s in head.runs.values()):
                assert partitions == set(range(state.plan.partitions))


def attempts(log: Log, commit: Commit) -> set[Attempt]:
    """Return the attempts that a version names; check that no partition occurs twice."""
    manifest = join_manifests([log.segment(ref) for ref in commit.segments])
    found = [
        Attempt(manifest.home[run].partition("/")[2], int(partition), int(epoch), int(attempt))
        for run, partition, epoch, attempt in zip(
            manifest.run, manifest.partition, manifest.epoch, manifest.attempt, strict=True
        )
    ]
    assert len({each[:2] for each in found}) == len(found), "a version names a partition twice"
    assert commit.totals.chunks == len(found)
    assert commit.totals.samples == 3 * len(found)
    assert commit.totals.failures == len(log.failures(commit)) == sum(p % 2 for _, p, *_ in found)
    return set(found)


def check_runs(before: Commit | None, commit: Commit) -> None:
    """Check that the run table never moves backwards, and that each parent is right."""
    assert commit.parent == (before.id if before else None)
    orders = [state.order for state in commit.runs.values()]
    assert len(set(orders)) == len(orders)
    for run, old in before.runs.items() if before else ():
        new = commit.runs[run]
        assert (new.plan, new.order) == (old.plan, old.order)
        for field in ("epoch", "closed", "finished", "replaced", "overwrote", "partitions"):
            assert getattr(new, field) >= getattr(old, field)
    for state in commit.runs.values():
        assert state.finished == (state.partitions == state.plan.partitions)


def check_entry(commit: Commit, new: set[Attempt], epochs: dict[str, tuple[int, int]]) -> None:
    """Check that only the newest open epoch adds attempts; record epochs and closings."""
    entry = commit.entry
    if commit.kind in (Kind.BEGIN, Kind.EPOCH):
        epoch, closed = epochs.get(entry["run"], (0, 0))
        assert (epoch == 0) == (commit.kind is Kind.BEGIN)
        assert entry["epoch"] == 1 + max(epoch, closed)
        epochs[entry["run"]] = (entry["epoch"], closed)
    elif commit.kind is Kind.ABORT:
        for run, upto in entry["closed"].items():
            assert upto == max(epochs[run])
            epochs[run] = (epochs[run][0], upto)
    if commit.kind in (Kind.DATA, Kind.OVERWRITE):
        epoch, closed = epochs[entry["run"]]
        assert entry["epoch"] == epoch > closed
        assert all(a.run == entry["run"] and closed < a.epoch <= epoch for a in new)
        assert new
    else:
        assert not new


def check_lost(
    before: Commit | None, commit: Commit, lost: set[Attempt], seen: Mapping[str, set[Attempt]]
) -> None:
    """Check that an overwrite removes only data it saw at its epoch, or of runs it stops."""
    run: str = commit.entry.get("run", "")
    if before is not None and commit.kind in (Kind.DATA, Kind.OVERWRITE):
        assert not before.runs[run].replaced
        assert (commit.kind is Kind.OVERWRITE) == (
            before.runs[run].plan.overwrite and not before.runs[run].overwrote
        )
    if commit.kind is Kind.OVERWRITE:
        assert lost <= seen[run]
        assert all(attempt.run != run for attempt in lost)
        assert all(s.finished or s.replaced for name, s in commit.runs.items() if name != run)
    else:
        assert not lost


def two_runs(world: World) -> Mapping[str, Writer]:
    """Race two runs from their beginning."""
    return {"A": world.append("R", 1), "B": world.append("S", 1)}


def three_runs(world: World) -> Mapping[str, Writer]:
    """Race three runs that have begun, one commit each."""
    runs = [world.begin(run, 1) for run in "RST"]
    return {writer.run: world.continue_run(writer, [0]) for writer in runs}


def run_and_resume(world: World) -> Mapping[str, Writer]:
    """Race a run that has begun and a resume of it that takes over."""
    writer = world.begin("R", 2)
    return {"A": world.continue_run(writer, [0, 1]), "B": world.resume("R", take_over=True)}


def two_resumes(world: World) -> Mapping[str, Writer]:
    """Race two resumes of a run that has committed one partition."""
    world.commit(world.begin("R", 3), [0])
    return {"B": world.resume("R"), "C": world.resume("R")}


def two_takeovers(world: World) -> Mapping[str, Writer]:
    """Race two resumes that take over from the first writer, which continues."""
    writer = world.begin("R", 3)
    world.commit(writer, [0])
    return {
        "A": world.continue_run(writer, [1]),
        "B": world.resume("R", take_over=True),
        "C": world.resume("R", take_over=True),
    }


def begun_twice(world: World) -> Mapping[str, Writer]:
    """Begin the same run twice."""
    return {"A": world.append("R", 2), "A2": world.append("R", 2)}


def one_entry_twice(world: World) -> Mapping[str, Writer]:
    """Lead the same epoch of the same run twice."""
    first = world.begin("R", 2)
    log = quick_log(world.store)
    second = RunWriter(log, "R", 1, first.head, SCHEMA)
    return {"A": world.continue_run(first, [0, 1]), "A2": world.continue_run(second, [0, 1])}


def run_and_abort(world: World) -> Mapping[str, Writer]:
    """Race a run, a resume that takes over, and a reset."""
    writer = world.begin("R", 2)
    return {
        "A": world.continue_run(writer, [0, 1]),
        "B": world.resume("R", take_over=True),
        "X": world.abort("R"),
    }


def overwrite_and_append(world: World) -> Mapping[str, Writer]:
    """Race a run that overwrites and one that appends."""
    world.append("old", 1)()
    return {"O": world.append("O", 2, overwrite=True), "A": world.append("R", 2)}


def overwrite_and_resume(world: World) -> Mapping[str, Writer]:
    """Race a run that overwrites, its resume, and one that appends."""
    world.append("old", 1)()
    over, other = world.begin("O", 2, overwrite=True), world.begin("R", 1)
    return {
        "O": world.continue_run(over, [0, 1]),
        "B": world.resume("O", take_over=True),
        "A": world.continue_run(other, [0]),
    }


#: Scenarios, how many operations are lost in every order, and in a long search.
SCENARIOS: list[tuple[Scenario, int, int]] = [
    (two_runs, 1, 2),
    (three_runs, 0, 1),
    (run_and_resume, 1, 2),
    (two_resumes, 1, 2),
    (two_takeovers, 0, 1),
    (begun_twice, 1, 2),
    (one_entry_twice, 1, 2),
    (run_and_abort, 0, 1),
    (overwrite_and_append, 0, 1),
    (overwrite_and_resume, 0, 1),
]
PEACEFUL = (two_runs, three_runs)
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"


@pytest.mark.parametrize(
    ("scenario", "faults"),
    [pytest.param(s, deep if DEEP else some, id=s.__name__) for s, some, deep in SCENARIOS],
)
def test_every_order_of_creates(scenario: Scenario, faults: int) -> None:
    """The properties hold in every order of creates, with lost responses and late requests."""
    tried = 0
    for schedule in every_schedule(faults):
        world = World()
        try:
            world.run(scenario, schedule, creates)
        except AssertionError as error:
            error.add_note("\n".join(schedule.trace))
            raise
        tried += 1
    assert tried > 1


#: Faults that a writer survives.
DRAWN = (Fault.NONE, Fault.LATE, *LOSSES)


class Drawn:
    """Chooses by drawn numbers, then in turn.

    Parameters
    ----------
    choices : sequence of int
        Indices of the next writers among the waiting ones.
    faults : mapping of int to Fault
        Faults by number of the operation.
    """

    def __init__(self, choices: Sequence[int], faults: Mapping[int, Fault]) -> None:
        self.choices = choices
        self.faults = faults
        self.trace: list[str] = []

    def __call__(self, steps: Sequence[Step]) -> tuple[int, Fault] | None:
        """Choose the next step."""
        number = len(self.trace)
        chosen = self.choices[number] if number < len(self.choices) else number
        if chosen % 5 == 0 and not any(step.writer for step in steps):
            return None
        index = chosen % len(steps)
        lossy = steps[index].writer and steps[index].operation != "delete"
        fault = self.faults.get(number, Fault.NONE) if lossy else Fault.NONE
        self.trace.append(f"{' '.join(steps[index])} {fault.value}")
        return index, fault


@settings(max_examples=10 * settings().max_examples)
@given(
    scenario=st.sampled_from([scenario for scenario, *_ in SCENARIOS]),
    choices=st.lists(st.integers(0, 11), max_size=120),
    faults=st.dictionaries(st.integers(0, 120), st.sampled_from(DRAWN), max_size=5),
)
def test_any_order_of_everything(
    scenario: Scenario, choices: list[int], faults: dict[int, Fault]
) -> None:
    """The properties hold if reads and listings fail too, in random orders."""
    world = World()
    decide = Drawn(choices, faults)
    try:
        world.run(scenario, decide)
    except AssertionError as error:
        error.add_note("\n".join(decide.trace))
        raise
