"""Replay the counterexamples of the commit protocol against the real code.

Each test plays the trace that breaks an invariant if one rule is missing. The table of
`docs/design/002-commit-protocol.md` lists the traces by the same names, and `tests/mutants` removes
the rules from the code to check that these tests fail. A, B, C are writers of run R in the order in
which they began, S and O other runs, X a reset, V a vacuum, D the deletion of a branch. b is a second
branch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from dasklake._log.log import Log
from dasklake._log.refs import create_branch, restore
from dasklake._log.run_entries import begin, resume
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import RunState
from dasklake._model.receipt import Receipt
from dasklake._run.progress import CheckpointInterval, MaxFailures, RunProgress
from dasklake.exceptions import (
    ConflictError,
    LakeExistsError,
    RunAbortedError,
    RunSupersededError,
    VersionExpiredError,
)
from dasklake.testing.faults import Fault, FaultStore
from tests.support.flaky import quick_log
from tests.support.simulation import SCHEMA, Simulation, one_thread_each, samples

LOG = "_lake/log/main"
DATA = "data/"


@pytest.fixture
def sim() -> Iterator[Simulation]:
    """Make an empty lake; check all invariants after the test."""
    sim = Simulation({"R": 2, "S": 1, "O": 1, "L": 20, "T": 20})
    with one_thread_each(), closing(sim):
        sim.make()
        yield sim
        sim.look()
        sim.settle()


def writes(sim: Simulation, run: str, mode: str = "append", branch: str = "main") -> Any:
    """Return a process that writes a run."""
    return lambda store: sim.write(store, run, mode, branch)


def first_writer(sim: Simulation, run: str = "R") -> RunWriter:
    """Begin a run by hand."""
    log = quick_log(sim.root)
    entry = begin(log, log.require_head(), run, sim.request(run, "append").plan)
    return RunWriter(log, run, 1, entry, SCHEMA)


def next_writer(sim: Simulation, run: str = "R") -> RunWriter:
    """Begin the next epoch of a run by hand."""
    log = quick_log(sim.root)
    entry = resume(log, log.require_head(), run)
    return RunWriter(log, run, entry.runs[run].epoch, entry, SCHEMA)


def write(sim: Simulation, writer: RunWriter, partition: int) -> Receipt:
    """Write the chunks of a partition."""
    return sim.chunks(sim.root, writer, partition)


def commit(sim: Simulation, writer: RunWriter, *receipts: Receipt) -> None:
    """Commit receipts."""
    sim.commit(sim.root, writer, receipts)


def run_state(sim: Simulation, run: str = "R") -> RunState:
    """Return the state of a run in the newest version."""
    return Log(sim.root).require_head().runs[run]


def values(sim: Simulation, branch: str = "main") -> list[int]:
    """Return the samples of the newest version."""
    return sim.read(sim.root, branch)


def replaced_twice(sim: Simulation) -> None:
    """Write a run and overwrite the lake twice. Version 2 holds the first run."""
    sim.partitions |= {"Z": 1, "P": 1}
    sim.write(sim.root, "Z")
    sim.write(sim.root, "O", "overwrite")
    sim.write(sim.root, "P", "overwrite")


def emptied(sim: Simulation) -> None:
    """Overwrite the initial content of branch b."""
    sim.write(sim.root, "S", "overwrite", "b")


class TestReset:
    """Resets concurrent with writers that were paused (rule 18)."""

    def test_h1(self, sim: Simulation) -> None:
        """H1: chunks that a resume writes after the abort and commits later are not deleted."""
        first = first_writer(sim)
        write(sim, first, 0)
        sim.start("X", sim.reset)
        sim.until("X", "create", LOG)
        sim.step("X")
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG, skip=1)
        sim.until("X", "delete", DATA)
        sim.end("B")
        sim.end("X")
        sim.look()
        assert run_state(sim).finished

    def test_h2(self, sim: Simulation) -> None:
        """H2: an abort that loses a race closes all epochs of the head it lands on."""
        write(sim, first_writer(sim), 0)
        sim.start("X", sim.reset)
        sim.until("X", "create", LOG)
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG, skip=1)
        sim.end("X")
        with pytest.raises(RunAbortedError):
            sim.end("B")
        sim.look()
        assert run_state(sim).closed == 2

    def test_h3(self, sim: Simulation) -> None:
        """H3: objects that only an older version names stay."""
        writer = first_writer(sim)
        commit(sim, writer, write(sim, writer, 0))
        sim.write(sim.root, "O", "overwrite")
        sim.reset(sim.root)
        sim.look()
        assert values(sim) == samples("O", 0)

    def test_h10(self, sim: Simulation) -> None:
        """H10: the abort of a run goes to the log of its home branch, where the run sees it."""
        log = quick_log(sim.root)
        create_branch(log, log.require_head(), "b", ("main", 0))
        sim.start("A", writes(sim, "R", branch="b"))
        sim.until("A", "create", "_lake/log/b", skip=1)
        sim.start("X", sim.reset)
        sim.until("X", "delete", DATA)
        with pytest.raises(RunAbortedError):
            sim.end("A")
        sim.end("X")

    def test_h24(self, sim: Simulation) -> None:
        """H24: versions of a branch that a vacuum expires, but has not fenced yet, still count."""
        log = quick_log(sim.root)
        create_branch(log, log.require_head(), "b", ("main", 0))
        branch = quick_log(sim.root, "b")
        entry = begin(branch, branch.require_head(), "R", sim.request("R", "append").plan)
        writer = RunWriter(branch, "R", 1, entry, SCHEMA)
        commit(sim, writer, write(sim, writer, 0))
        restored = branch.require_head().version
        emptied(sim)
        sim.start("X", sim.reset)
        sim.until("X", "create", "_lake/log/b")
        sim.step("X")
        sim.start("T", lambda store: sim.restore(store, "b", restored))
        sim.until("T", "create", "_lake/log/b")
        sim.start("V", sim.vacuum)
        sim.until("V", "create", LOG)
        sim.step("V")
        sim.end("X")
        sim.end("T")
        sim.look()
        assert values(sim, "b") == samples("R", 0)
        sim.end("V")
        sim.vacuum(sim.root)
        sim.reset(sim.root)  # the segments of expired versions are gone now


class TestResume:
    """Concurrent resumes, and resumes of runs that have ended (rules 14 to 17)."""

    def test_h4(self, sim: Simulation) -> None:
        """H4: the missing partitions are computed from the version of the resume's own entry."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "create", LOG, skip=1)
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG)
        sim.step("A")
        sim.end("B")
        sim.look()
        sim.end("A")
        assert values(sim) == samples("R", 0) + samples("R", 1)

    def test_h5(self, sim: Simulation) -> None:
        """H5: of two concurrent resumes, one continues and the other stops."""
        first_writer(sim)
        for name in "BC":
            sim.start(name, writes(sim, "R", "resume"))
            sim.until(name, "create", LOG)
        sim.step("B")
        with pytest.raises(RunSupersededError):
            sim.end("C")
        sim.end("B")
        assert run_state(sim).epoch == 2

    def test_h5_taken_over(self, sim: Simulation) -> None:
        """H5: a resume that takes over after a lost race gets an epoch of its own."""
        first = first_writer(sim)
        log = quick_log(sim.root)
        head = log.require_head()
        second = next_writer(sim)
        entry = resume(log, head, "R", take_over=True)
        third = RunWriter(log, "R", entry.runs["R"].epoch, entry, SCHEMA)
        assert (second.epoch, third.epoch) == (2, 3)
        commit(sim, third, write(sim, third, 0))
        for writer in (first, second):
            with pytest.raises(RunSupersededError):
                commit(sim, writer, write(sim, writer, 0))

    def test_h6(self, sim: Simulation) -> None:
        """H6: the next epoch does not accept a receipt of a closed epoch."""
        first = first_writer(sim)
        stale = write(sim, first, 0)
        sim.start("X", sim.reset)
        sim.until("X", "create", LOG)
        sim.step("X")
        second = next_writer(sim)
        sim.until("X", "delete", DATA)
        second.commit([stale], [])
        sim.end("X")
        sim.look()
        assert run_state(sim).partitions == 0

    def test_zombie(self, sim: Simulation) -> None:
        """A zombie stops at the next epoch of its run, even if that epoch has no commit."""
        first = first_writer(sim)
        sent = write(sim, first, 0)
        second = next_writer(sim)
        with pytest.raises(RunSupersededError):
            commit(sim, first, sent)
        commit(sim, second, write(sim, second, 0))

    @pytest.mark.parametrize("name", ["R", "S"])
    def test_h16(self, sim: Simulation, name: str) -> None:
        """H16: a resume does not bring back overwritten rows, whether the run is finished or not."""
        sim.start("A", writes(sim, name))
        sim.until("A", "create", LOG, skip=1)
        sim.step("A")
        sim.write(sim.root, "O", "overwrite")
        before = Log(sim.root).require_head()
        if name == "S":
            sim.write(sim.root, name, "resume")
            assert resume(quick_log(sim.root), before, name) == before
        else:
            with pytest.raises(ConflictError):
                sim.write(sim.root, name, "resume")
            with pytest.raises(ConflictError):
                sim.end("A")
        assert Log(sim.root).require_head() == before
        assert values(sim) == samples("O", 0)

    def test_closed_epochs(self, sim: Simulation) -> None:
        """Chunks of a closed epoch are not recovered."""
        first = first_writer(sim)
        write(sim, first, 0)
        sim.start("X", sim.reset)
        sim.until("X", "delete", DATA)
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG, skip=1)
        sim.end("X")
        sim.end("B")
        sim.look()

    def test_incomplete_attempts(self, sim: Simulation) -> None:
        """Only an attempt with all its chunks is recovered."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "put", DATA, skip=1)
        sim.write(sim.root, "R", "resume")
        sim.look()
        sim.end("A")


class TestBegin:
    """Runs that begin concurrently (rules 8, 9, 11, 25)."""

    def test_h7(self, sim: Simulation) -> None:
        """H7: a writer stops if another process has begun its run."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "create", LOG)
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG, skip=2)
        with pytest.raises(LakeExistsError):
            sim.end("A")
        sim.end("B")

    def test_h7b(self, sim: Simulation) -> None:
        """H7b: of two coordinators of an epoch, the first to commit continues, the other stops."""
        first = first_writer(sim)
        again = RunWriter(quick_log(sim.root), "R", 1, first.head, SCHEMA)
        commit(sim, first, write(sim, first, 0))
        with pytest.raises(RunSupersededError):
            commit(sim, again, write(sim, again, 0))

    def test_h20(self, sim: Simulation) -> None:
        """H20: two runs that begin concurrently have different order numbers."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "create", LOG)
        sim.start("B", writes(sim, "S"))
        sim.end("B")
        sim.end("A")
        sim.look()
        assert values(sim) == samples("S", 0) + samples("R", 0) + samples("R", 1)

    def test_h23(self, sim: Simulation) -> None:
        """H23: a storage probe does not collide with a concurrent or a crashed one."""
        sim.start("A", lambda store: store.probe())
        sim.until("A", "create", skip=1)
        sim.start("B", lambda store: store.probe())
        sim.step("A", Fault.CRASH_BEFORE)
        sim.end("B")
        sim.root.probe()


class TestReplacing:
    """Overwrites and restores concurrent with writers (rules 6, 9, 12)."""

    def test_h13(self, sim: Simulation) -> None:
        """H13: a restore does not reopen epochs that a reset closed."""
        first = first_writer(sim)
        commit(sim, first, write(sim, first, 0))
        write(sim, first, 1)
        sim.start("X", sim.reset)
        sim.until("X", "delete", DATA)
        log = quick_log(sim.root)
        restore(log, log.require_head(), 2)
        sim.start("B", writes(sim, "R", "resume"))
        with pytest.raises(ConflictError):
            sim.end("B")
        sim.end("X")
        sim.look()
        assert run_state(sim).closed == 1

    def test_h14(self, sim: Simulation) -> None:
        """H14: a restore ends concurrent runs, so that none reports success without its rows."""
        first = first_writer(sim)
        commit(sim, first, write(sim, first, 0))
        log = quick_log(sim.root)
        restore(log, log.require_head(), 0)
        with pytest.raises(ConflictError):
            commit(sim, first, write(sim, first, 1))
        assert values(sim) == []

    def test_h15(self, sim: Simulation) -> None:
        """H15: an overwrite never replaces rows that were acknowledged after it began."""
        sim.start("O", writes(sim, "O", "overwrite"))
        sim.until("O", "create", LOG, skip=1)
        sim.write(sim.root, "S")
        with pytest.raises(ConflictError):
            sim.end("O")
        assert values(sim) == samples("S", 0)

    def test_h15b(self, sim: Simulation) -> None:
        """H15b: a resume of an overwrite does not overwrite again."""
        sim.partitions["O"] = 2
        sim.start("O", writes(sim, "O", "overwrite"))
        sim.until("O", "create", LOG, skip=2)
        sim.step("O", Fault.CRASH_BEFORE)
        sim.write(sim.root, "S")
        sim.write(sim.root, "O", "resume")
        assert values(sim) == samples("O", 0) + samples("O", 1) + samples("S", 0)


class TestVacuum:
    """Vacuums concurrent with writers that were paused (rules 5, 7, 19, 20, 22 to 24)."""

    @pytest.fixture(autouse=True)
    def something_to_delete(self, sim: Simulation) -> None:
        """Overwrite the lake twice, so that a vacuum has objects to delete."""
        replaced_twice(sim)

    @pytest.fixture
    def branched(self, sim: Simulation) -> None:
        """Create a second branch from the overwritten version."""
        log = quick_log(sim.root)
        create_branch(log, log.require_head(), "b", ("main", 2))

    def test_h8(self, sim: Simulation) -> None:
        """H8: of a reset run, only objects of closed epochs are deleted."""
        first = first_writer(sim)
        write(sim, first, 0)
        sim.reset(sim.root)
        sim.start("B", writes(sim, "R", "resume"))
        sim.until("B", "create", LOG, skip=1)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("B")
        sim.end("V")
        sim.look()

    @pytest.mark.usefixtures("branched")
    def test_h9(self, sim: Simulation) -> None:
        """H9: a writer on another branch writes its segment again after the fence there."""
        sim.start("A", writes(sim, "R", branch="b"))
        sim.until("A", "create", "_lake/log/b", skip=1)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("A")
        sim.end("V")
        sim.look()

    @pytest.mark.usefixtures("branched")
    def test_h9b(self, sim: Simulation) -> None:
        """H9b: a tag of a version on another branch collides on main with the vacuum's expire."""
        sim.write(sim.root, "R", branch="b")
        sim.start("T", lambda store: sim.tag(store, "t", "b", 1))
        sim.until("T", "create", LOG)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        with pytest.raises(VersionExpiredError):
            sim.end("T")
        sim.end("V")

    @pytest.mark.usefixtures("branched")
    def test_h9c(self, sim: Simulation) -> None:
        """H9c: a vacuum expires versions before it fences, so that later commits see the expiry."""
        emptied(sim)
        sim.start("V", sim.vacuum)
        sim.until("V", "create")
        sim.step("V")
        sim.start("T", lambda store: sim.restore(store, "b", 0))
        sim.until("T", "create", "_lake/log/b")
        sim.until("V", "delete")
        with pytest.raises(VersionExpiredError):
            sim.end("T")
        sim.end("V")

    @pytest.mark.usefixtures("branched")
    def test_h10b(self, sim: Simulation) -> None:
        """H10b: a vacuum treats a run as closed only if the log of its home branch closes it."""
        sim.start("A", writes(sim, "R", branch="b"))
        sim.until("A", "create", "_lake/log/b", skip=1)
        sim.start("X", sim.reset)
        sim.until("X", "create")
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("A")
        sim.end("V")
        sim.end("X")
        sim.look()

    @pytest.mark.usefixtures("branched")
    def test_h10c(self, sim: Simulation) -> None:
        """H10c: runs of the same name on two branches are different runs."""
        sim.write(sim.root, "R")
        sim.start("B", writes(sim, "R", branch="b"))
        sim.until("B", "create", "_lake/log/b", skip=1)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("B")
        sim.end("V")
        sim.look()

    def test_h11(self, sim: Simulation) -> None:
        """H11: a tag that loses a race to a vacuum checks its version again."""
        sim.start("T", lambda store: sim.tag(store, "t", "main", 2))
        sim.until("T", "create", LOG)
        sim.vacuum(sim.root)
        with pytest.raises(VersionExpiredError):
            sim.end("T")

    def test_h11_mirrored(self, sim: Simulation) -> None:
        """H11: a vacuum that loses a race to a tag keeps the tagged version."""
        sim.start("V", sim.vacuum)
        sim.until("V", "create", LOG)
        sim.tag(sim.root, "t", "main", 2)
        sim.end("V")
        assert not sim.look().is_expired("main", 2)

    def test_h12(self, sim: Simulation) -> None:
        """H12: a restore that loses a race to a vacuum checks its version again."""
        sim.start("T", lambda store: sim.restore(store, "main", 2))
        sim.until("T", "create", LOG)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        with pytest.raises(VersionExpiredError):
            sim.end("T")
        sim.end("V")

    @pytest.mark.usefixtures("branched")
    def test_h12_branch(self, sim: Simulation) -> None:
        """H12: the same on another branch, where only a fence was committed concurrently."""
        emptied(sim)
        sim.start("T", lambda store: sim.restore(store, "b", 0))
        sim.until("T", "create", "_lake/log/b")
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        with pytest.raises(VersionExpiredError):
            sim.end("T")
        sim.end("V")

    def test_h17(self, sim: Simulation) -> None:
        """H17: a merged segment from a lost race is never named."""
        sim.start("A", writes(sim, "L"))
        sim.until("A", "create", LOG, skip=15)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("A")
        sim.end("V")
        sim.look()

    def test_h17b(self, sim: Simulation) -> None:
        """H17b: a writer whose merge misses a segment that a vacuum deleted has lost a race."""
        sim.start("A", writes(sim, "L"))
        sim.until("A", "get", "_lake/segments")
        sim.write(sim.root, "S")
        sim.vacuum(sim.root)
        sim.end("A")
        sim.look()
        assert run_state(sim, "L").finished

    def test_h21(self, sim: Simulation) -> None:
        """H21: reading an expired version raises VersionExpiredError, not CorruptionError."""
        log = Log(sim.root)
        old = log.read(2)
        sim.vacuum(sim.root)
        with pytest.raises(VersionExpiredError):
            Log(sim.root).manifest(old)

    @pytest.mark.usefixtures("branched")
    def test_h22(self, sim: Simulation) -> None:
        """H22: the newest version of a branch expires only after its log is closed."""
        sim.start("A", writes(sim, "R", branch="b"))
        sim.until("A", "create", "_lake/log/b", skip=1)
        sim.start("D", lambda store: sim.delete_branch(store, "b"))
        sim.until("D", "create", "_lake/log/b")
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("A")
        sim.end("V")
        sim.look()
        sim.end("D")

    @pytest.mark.usefixtures("branched")
    def test_h25(self, sim: Simulation) -> None:
        """H25: a vacuum ignores what another vacuum has expired, but not fenced yet."""
        sim.write(sim.root, "S", "overwrite", "b")
        restored = quick_log(sim.root, "b").require_head().version
        sim.start("V", sim.vacuum)
        sim.until("V", "create", "_lake/log/b")
        sim.step("V")
        sim.partitions["Q"] = 1
        sim.write(sim.root, "Q", "overwrite", "b")
        sim.start("T", lambda store: sim.restore(store, "b", restored))
        sim.until("T", "create", "_lake/log/b")
        sim.start("U", sim.vacuum)
        sim.until("U", "create", LOG)
        sim.step("U")
        sim.end("V")
        sim.end("T")
        sim.look()
        assert values(sim, "b") == samples("S", 0)
        sim.end("U")


class TestDoubt:
    """Creates with a lost or late response, and objects of lost races (rules 2 and 3)."""

    def test_read_back(self, sim: Simulation) -> None:
        """A commit whose response was lost is read back and succeeds."""
        sim.start("A", writes(sim, "R"))
        for _ in range(3):
            sim.until("A", "create", LOG)
            sim.step("A", Fault.AFTER)
        sim.end("A")
        assert run_state(sim).finished

    def test_h18(self, sim: Simulation) -> None:
        """H18: the name of an object from a lost race is never used again."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "put", "_lake/segments")
        sim.write(sim.root, "S")
        sim.end("A")
        sim.look()

    def test_new_id_on_rebase(self, sim: Simulation) -> None:
        """Objects that are named after a lost race are written after it, under a new name."""
        replaced_twice(sim)
        sim.start("A", writes(sim, "R"))
        sim.until("A", "create", LOG, skip=1)
        sim.start("V", sim.vacuum)
        sim.until("V", "delete")
        sim.end("A")
        sim.end("V")
        sim.look()

    def test_h19(self, sim: Simulation) -> None:
        """H19: a late create that lands before its retry is one commit."""
        sim.start("A", writes(sim, "R"))
        sim.until("A", "create", LOG, skip=1)
        sim.step("A", Fault.LATE)
        sim.until("A", "create", LOG)
        sim.root.arrive()
        sim.end("A")
        sim.look()
        assert values(sim) == samples("R", 0) + samples("R", 1)

    def test_h19b(self, sim: Simulation) -> None:
        """H19b: the content of a create does not change between its retries."""
        writer = first_writer(sim)
        receipts = [write(sim, writer, 0)]
        more = write(sim, writer, 1)

        def commit_all(store: FaultStore) -> None:
            log = quick_log(store)
            own = RunWriter(log, "R", 1, writer.head, SCHEMA)
            sim.acknowledged.append((own.commit(receipts, []), tuple(receipts[:1])))

        sim.start("A", commit_all)
        sim.until("A", "create", LOG)
        sim.step("A", Fault.LATE)
        receipts.append(more)
        sim.until("A", "create", LOG)
        sim.root.arrive()
        sim.end("A")
        sim.look()
        assert run_state(sim).partitions == 1

    def test_rebase_reads_every_commit(self, sim: Simulation) -> None:
        """A rebasing writer sees the commit that ends its epoch, even if later commits follow."""
        first = first_writer(sim)
        sent = write(sim, first, 0)
        next_writer(sim)
        sim.write(sim.root, "S")
        with pytest.raises(RunSupersededError):
            commit(sim, first, sent)

    def test_receipt_twice(self, sim: Simulation) -> None:
        """A repeated receipt, or a second receipt of a partition, is committed once."""
        writer = first_writer(sim)
        progress = RunProgress(
            [0, 1], CheckpointInterval(), MaxFailures(share=None), writer.state, time.monotonic()
        )
        receipts = [write(sim, writer, partition) for partition in (0, 0, 1)]
        for receipt in (receipts[0], receipts[0], receipts[1], receipts[2], receipts[2]):
            progress.received(receipt)
        commit(sim, writer, *progress.take().receipts)
        sim.look()
        assert values(sim) == samples("R", 0) + samples("R", 1)

    def test_merged_and_named(self, sim: Simulation) -> None:
        """A merged segment is named in place of its parts."""
        sim.write(sim.root, "L")
        sim.look()
        assert len(values(sim)) == 60
