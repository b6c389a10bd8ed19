"""The log under writers that take turns: every order of their creates, and random ones of all else.

The storage loses answers, and lets requests arrive late. Whatever happens, afterwards

- each version was created once and never changed, and names the one before it as its parent;
- what a version names for the first time was written after the version before it, under its own id;
- no partition of a run is there twice, and what was acknowledged stays until somebody overwrites;
- nothing of a closed or superseded epoch is committed any more;
- a resume that is alone finishes what was begun, each partition exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasklake._format import layout
from dasklake._model.commit import Commit, Kind, Plan
from dasklake._model.receipt import ChunkRef, Receipt
from dasklake._store.log import Log
from dasklake._store.runs import RunWriter, abort, begin, create_lake, resume
from dasklake.exceptions import ConflictError, LakeExistsError
from tests.support.flaky import Fault, FlakyStore, Step, Turns, every_schedule, quick_log
from tests.support.lakes import SCHEMA, failure

Writer = Callable[[], Any]


class Attempt(NamedTuple):
    """What a version says of one attempt."""

    run: str
    partition: int
    epoch: int
    attempt: int


class World:
    """A lake in memory, its writers, and what they were told."""

    def __init__(self) -> None:
        self.store = FlakyStore()
        create_lake(Log(self.store), SCHEMA)
        #: What each commit call returned, and the attempts it was given.
        self.told: list[tuple[str, Commit, set[Attempt]]] = []

    def begin(self, run: str, partitions: int, *, overwrite: bool = False) -> RunWriter:
        """Begin a run."""
        log = quick_log(self.store)
        plan = Plan(partitions, None, "0" * 32, None, overwrite=overwrite)
        entry = begin(log, log.require_head(), run, plan)
        return RunWriter(log, run, 1, entry, SCHEMA, run)

    def commit(self, writer: RunWriter, partitions: Sequence[int]) -> None:
        """Commit some partitions with one commit; every second one has a failed sample."""
        receipts, failures = [], []
        for partition in partitions:
            chunk = ChunkRef(0, 3, 100, 50, 1)
            name = layout.new_id()
            inputs = 3 + partition % 2
            receipts.append(Receipt(writer.run, writer.epoch, partition, name, (chunk,), inputs))
            failures += [failure(writer.run, partition, 0)] * (partition % 2)
        made = writer.commit(receipts, failures)
        given = {Attempt(r.run, r.partition, r.epoch, int(r.attempt, 16)) for r in receipts}
        self.told.append((writer.run, made, given))

    def append(self, run: str, partitions: int, *, overwrite: bool = False, by: int = 1) -> Writer:
        """Return a writer that begins a run and commits its partitions, ``by`` at a time."""

        def write() -> None:
            writer = self.begin(run, partitions, overwrite=overwrite)
            for first in range(0, partitions, by):
                self.commit(writer, range(first, min(first + by, partitions)))

        return write

    def go_on(self, writer: RunWriter, partitions: Sequence[int]) -> Writer:
        """Return a writer that goes on with what it has begun."""

        def write() -> None:
            for partition in partitions:
                self.commit(writer, [partition])

        return write

    def resume(self, run: str, *, take_over: bool = False) -> Writer:
        """Return a writer that resumes a run and commits what is missing, one by one."""

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
            writer = RunWriter(log, run, state.epoch, entry, SCHEMA, run)
            for partition in sorted(set(range(state.plan.partitions)) - done):
                self.commit(writer, [partition])

        return write

    def abort(self, run: str) -> Writer:
        """Return a writer that closes the epochs of a run."""

        def write() -> None:
            log = quick_log(self.store)
            abort(log, log.require_head(), [run])

        return write

    def run(self, writers: Mapping[str, Writer], turns: Turns) -> dict[str, Any]:
        """Run writers to their ends, and look at what they have done."""
        results = turns.run(writers)
        for name, result in results.items():
            assert result is None or isinstance(result, ConflictError), (name, result)
        self.audit()
        self.settle()
        self.store.clear()
        return results

    def audit(self) -> None:
        """Check everything that has to hold of a log."""
        log = Log(self.store)
        commits = list(log.walk(0))
        self._check_objects(commits)
        versions = [attempts(log, commit) for commit in commits]
        known: dict[str, tuple[int, int]] = {}
        gone: set[Attempt] = set()
        for before, commit, had, has in zip(
            [None, *commits], commits, [set(), *versions], versions, strict=False
        ):
            check_runs(before, commit)
            assert not has & gone, "what was overwritten came back"
            gone |= had - has
            assert had <= has or commit.kind is Kind.OVERWRITE
            check_entry(commit, has - had, known)
        for run, made, given in self.told:
            there = versions[made.version]
            assert commits[made.version] == made
            assert given <= there or made.runs[run].finished

    def _check_objects(self, commits: Sequence[Commit]) -> None:
        place: dict[str, int] = {}
        for number, (operation, key, data) in enumerate(self.store.landed):
            if key.startswith("_lake/log/"):
                assert operation == "create"
                assert key not in place
                assert self.store.get(key) == data
            if operation != "delete":
                place.setdefault(key, number)
        keys = [layout.commit_key("main", commit.version) for commit in commits]
        for before, commit in zip(commits, commits[1:], strict=False):
            for key_of, new in (
                (layout.segment_key, {*commit.segments} - {*before.segments}),
                (layout.failures_key, {*commit.failures} - {*before.failures}),
            ):
                for ref in new:
                    assert ref.name == commit.id
                    born = place[key_of(ref.name)]
                    assert place[keys[before.version]] < born < place[keys[commit.version]]

    def settle(self) -> None:
        """Check that resumes that are alone finish every run."""
        log = quick_log(self.store)
        for run in log.require_head().runs:
            try:
                self.resume(run)()
            except ConflictError:
                assert log.require_head().runs[run].replaced
        self.audit()
        head = log.require_head()
        there = attempts(log, head)
        for run, state in head.runs.items():
            assert state.finished or state.replaced
            mine = {a.partition for a in there if a.run == run}
            if not state.replaced and all(not s.overwrote for s in head.runs.values()):
                assert mine == set(range(state.plan.partitions))


def attempts(log: Log, commit: Commit) -> set[Attempt]:
    """Return what a version names, each partition of a run once."""
    manifest = log.manifest(commit)
    found = [
        Attempt(manifest.home[run].partition("/")[2], int(partition), int(epoch), int(attempt))
        for run, partition, epoch, attempt in zip(
            manifest.run, manifest.partition, manifest.epoch, manifest.attempt, strict=True
        )
    ]
    assert len({each[:2] for each in found}) == len(found), "a partition is there twice"
    assert commit.totals.chunks == len(found)
    assert commit.totals.samples == 3 * len(found)
    assert commit.totals.failures == len(log.failures(commit)) == sum(p % 2 for _, p, *_ in found)
    return set(found)


def check_runs(before: Commit | None, commit: Commit) -> None:
    """Check that the run table only moves forwards, and that the chain is whole."""
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


def check_entry(
    commit: Commit, new: set[Attempt], known: dict[str, tuple[int, int]]
) -> None:
    """Check that only the newest epoch that is not closed adds anything; note what changes."""
    entry = commit.entry
    if commit.kind in (Kind.BEGIN, Kind.EPOCH):
        epoch, closed = known.get(entry["run"], (0, 0))
        assert (epoch == 0) == (commit.kind is Kind.BEGIN)
        assert entry["epoch"] == 1 + max(epoch, closed)
        known[entry["run"]] = (entry["epoch"], closed)
    elif commit.kind is Kind.ABORT:
        for run, upto in entry["closed"].items():
            assert upto == max(known[run])
            known[run] = (known[run][0], upto)
    if commit.kind in (Kind.DATA, Kind.OVERWRITE):
        epoch, closed = known[entry["run"]]
        assert entry["epoch"] == epoch > closed
        assert all(a.run == entry["run"] and closed < a.epoch <= epoch for a in new)
        assert new
    else:
        assert not new


def creates(operation: str, _: str) -> bool:
    """Gate creates alone: all else goes on at once with what came before it."""
    return operation == "create"


Scenario = Callable[[World], Mapping[str, Writer]]


def two_runs(world: World) -> Mapping[str, Writer]:
    """Two runs of two partitions."""
    return {"A": world.append("R", 2), "B": world.append("S", 2, by=2)}


def three_runs(world: World) -> Mapping[str, Writer]:
    """Three runs that have begun, one commit each."""
    runs = [world.begin(run, 1) for run in "RST"]
    return {writer.run: world.go_on(writer, [0]) for writer in runs}


def run_and_resume(world: World) -> Mapping[str, Writer]:
    """A run that has begun, and a resume of it that takes over."""
    writer = world.begin("R", 2)
    return {"A": world.go_on(writer, [0, 1]), "B": world.resume("R", take_over=True)}


def two_resumes(world: World) -> Mapping[str, Writer]:
    """A run with one partition, and two resumes of it."""
    world.commit(world.begin("R", 3), [0])
    return {"B": world.resume("R"), "C": world.resume("R")}


def begun_twice(world: World) -> Mapping[str, Writer]:
    """The same run begun twice."""
    return {"A": world.append("R", 2), "A2": world.append("R", 2)}


def one_entry_twice(world: World) -> Mapping[str, Writer]:
    """Two coordinators of the same epoch of the same run."""
    first = world.begin("R", 2)
    log = quick_log(world.store)
    second = RunWriter(log, "R", 1, first.known, SCHEMA, "R")
    return {"A": world.go_on(first, [0, 1]), "A2": world.go_on(second, [1, 0])}


def run_and_abort(world: World) -> Mapping[str, Writer]:
    """A run, a resume that takes over, and a reset that closes what it finds."""
    writer = world.begin("R", 2)
    return {
        "A": world.go_on(writer, [0, 1]),
        "B": world.resume("R", take_over=True),
        "X": world.abort("R"),
    }


def overwrite_and_append(world: World) -> Mapping[str, Writer]:
    """A run that overwrites, and one that appends."""
    world.append("old", 1)()
    return {"O": world.append("O", 2, overwrite=True), "A": world.append("R", 2)}


def overwrite_and_resume(world: World) -> Mapping[str, Writer]:
    """A run that overwrites, its resume, and one that appends."""
    world.append("old", 1)()
    over, other = world.begin("O", 2, overwrite=True), world.begin("R", 1)
    return {
        "O": world.go_on(over, [0, 1]),
        "B": world.resume("O", take_over=True),
        "A": world.go_on(other, [0]),
    }


SCENARIOS = [
    (two_runs, 1),
    (three_runs, 1),
    (run_and_resume, 2),
    (two_resumes, 1),
    (begun_twice, 1),
    (one_entry_twice, 2),
    (run_and_abort, 0),
    (overwrite_and_append, 0),
    (overwrite_and_resume, 0),
]


@pytest.mark.parametrize(("scenario", "faults"), SCENARIOS, ids=lambda x: getattr(x, "__name__", x))
def test_every_order_of_creates(scenario: Scenario, faults: int) -> None:
    """In every order of creates, with answers lost and requests late, the log stays whole."""
    tried = 0
    for schedule in every_schedule(faults):
        world = World()
        try:
            world.run(scenario(world), Turns(world.store, schedule, creates))
        except AssertionError as error:
            error.add_note("\n".join(schedule.told))
            raise
        tried += 1
    assert tried > 1
    print(tried)
