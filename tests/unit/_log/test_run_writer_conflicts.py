"""Runs that meet others: what ends a turn, resumes, aborts, overwrites.

The counterexamples of the commit protocol are replayed by their names.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dasklake._log.log import Log
from dasklake._log.run_entries import abort, begin, resume
from dasklake._log.run_writer import RunWriter
from dasklake._maintenance.reset import reset
from dasklake._model.commit import Kind
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import (
    ConflictError,
    RunAbortedError,
    RunSupersededError,
)
from tests.support.flaky import Fault, FlakyStore
from tests.support.lakes import SCHEMA, SmallLake, failure
from tests.support.unsteady import LOG, add_entry, committed, plan

OTHER = Schema({"y": TensorSpec(dtype="float64", shape=())})


class TestTurnEnds:
    """Commits that end an epoch."""

    def test_h7b_two_of_one_epoch(self, flaky_lake: SmallLake) -> None:
        """H7b: of two coordinators of an epoch, only the first to commit continues."""
        first = flaky_lake.begin("run", 2)
        second = RunWriter(Log(flaky_lake.store), "run", 1, first.head, SCHEMA)
        first.commit([flaky_lake.write(first, 0)], [])
        with pytest.raises(RunSupersededError, match="taken over"):
            second.commit([flaky_lake.write(second, 0)], [])
        first.commit([flaky_lake.write(first, 1)], [])
        assert committed(flaky_lake) == [0, 1]

    def test_newer_epoch(self, flaky_lake: SmallLake) -> None:
        """A zombie stops at the next epoch of its run, even if that epoch has no commit."""
        zombie = flaky_lake.begin("run", 2)
        flaky_lake.resume("run")
        with pytest.raises(RunSupersededError):
            zombie.commit([flaky_lake.write(zombie, 0)], [])
        with pytest.raises(RunSupersededError):
            zombie.commit([flaky_lake.write(zombie, 0)], [])
        assert committed(flaky_lake) == []

    def test_found_among_others(self, flaky_lake: SmallLake) -> None:
        """The commit that ends an epoch is found between other commits."""
        zombie, other = flaky_lake.begin("run", 2), flaky_lake.begin("other", 3)
        other.commit([flaky_lake.write(other, 0)], [])
        flaky_lake.resume("run")
        other.commit([flaky_lake.write(other, 1)], [])
        with pytest.raises(RunSupersededError):
            zombie.commit([flaky_lake.write(zombie, 0)], [])

    @pytest.mark.parametrize("kind", [Kind.RESTORE, Kind.CLOSED])
    def test_replaced_content(self, flaky_lake: SmallLake, kind: Kind) -> None:
        """A restore, or the deletion of the branch, ends every run."""
        writer = flaky_lake.begin("run", 2)
        add_entry(flaky_lake, kind)
        with pytest.raises(ConflictError, match=f"{kind}.*new run name"):
            writer.commit([flaky_lake.write(writer, 0)], [])

    @pytest.mark.parametrize("kind", [Kind.FENCE, Kind.EXPIRE, Kind.TAG, Kind.BRANCH])
    def test_others_do_not_matter(self, flaky_lake: SmallLake, kind: Kind) -> None:
        """Entries of other runs are passed over."""
        writer = flaky_lake.begin("run", 1)
        add_entry(flaky_lake, kind)
        assert writer.commit([flaky_lake.write(writer, 0)], []).runs["run"].finished

    def test_finished_by_another(self, flaky_lake: SmallLake) -> None:
        """Finding the run finished is a success that returns that version (rule 13)."""
        zombie = flaky_lake.begin("run", 2)
        other = flaky_lake.resume("run")
        other.commit([flaky_lake.write(other, p) for p in (0, 1)], [])
        flaky_lake.begin("next", 1)
        found = zombie.commit([flaky_lake.write(zombie, 0)], [])
        assert found == flaky_lake.head
        assert zombie.state.finished
        assert committed(flaky_lake) == [0, 1]

    def test_finished_twice(self, flaky_lake: SmallLake) -> None:
        """A repeated commit, as of a task that runs again, returns the first one."""
        first = flaky_lake.begin("run", 1)
        entry = first.head
        made = first.commit([flaky_lake.write(first, 0)], [])
        again = RunWriter(Log(flaky_lake.store), "run", 1, entry, SCHEMA)
        assert again.commit([flaky_lake.write(again, 0)], []) == made
        assert committed(flaky_lake) == [0]


class TestResume:
    """Epoch entries."""

    def test_entry(self, flaky_lake: SmallLake) -> None:
        """The entry raises the epoch, keeps the order, and carries the committed rows."""
        writer = flaky_lake.begin("run", 3)
        flaky_lake.begin("other", 1)
        writer.commit([flaky_lake.write(writer, 1)], [])
        entry = resume(Log(flaky_lake.store), flaky_lake.head, "run")
        assert (entry.kind, entry.entry) == (Kind.EPOCH, {"run": "run", "epoch": 2})
        assert entry.runs["run"] == replace(writer.state, epoch=2)
        assert entry.segments == writer.head.segments
        assert resume(Log(flaky_lake.store), entry, "run").runs["run"].epoch == 3

    def test_h5_two_resumes(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H5: of two concurrent resumes one wins, and the other stops."""
        flaky_lake.begin("run", 2)
        winners: list[RunWriter] = []
        flaky_store.at("create", lambda: winners.append(flaky_lake.resume("run")), LOG)
        with pytest.raises(RunSupersededError, match="just resumed"):
            resume(Log(flaky_store), flaky_lake.head, "run")
        winners[0].commit([flaky_lake.write(winners[0], 0)], [])
        assert committed(flaky_lake) == [0]

    def test_h5_taken_over(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H5: a resume that takes over has its own epoch, which ends the other one."""
        flaky_lake.begin("run", 2)
        others: list[RunWriter] = []
        flaky_store.at("create", lambda: others.append(flaky_lake.resume("run")), LOG)
        entry = resume(Log(flaky_store), flaky_lake.head, "run", take_over=True)
        assert (others[0].epoch, entry.runs["run"].epoch) == (2, 3)
        with pytest.raises(RunSupersededError):
            others[0].commit([flaky_lake.write(others[0], 1)], [])

    def test_h16_finished(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """H16: a resume of a finished run commits nothing, even if its rows were replaced."""
        writer = flaky_lake.begin("run", 1)
        head = flaky_lake.head
        writer.commit([flaky_lake.write(writer, 0)], [])
        over = flaky_lake.begin("over", 1, overwrite=True)
        over.commit([flaky_lake.write(over, 0)], [])
        before = flaky_lake.head
        for known in (before, head):
            assert resume(Log(flaky_store), known, "run") == before
        assert flaky_lake.head == before
        assert committed(flaky_lake) == []

    def test_h16_overwritten(self, flaky_lake: SmallLake) -> None:
        """H16: a run that was overwritten before it finished cannot be resumed."""
        flaky_lake.begin("run", 2)
        over = flaky_lake.begin("over", 1, overwrite=True)
        over.commit([flaky_lake.write(over, 0)], [])
        assert flaky_lake.head.runs["run"].replaced
        with pytest.raises(ConflictError, match="new run name"):
            flaky_lake.resume("run")
        assert flaky_lake.head.runs["run"].epoch == 1


class TestAbort:
    """Aborts."""

    def test_entry(self, flaky_lake: SmallLake) -> None:
        """An abort closes the newest epoch of each given unfinished run, and of no other run."""
        flaky_lake.begin("once", 2)
        flaky_lake.begin("twice", 2)
        flaky_lake.resume("twice")
        flaky_lake.begin("spared", 1)
        done = flaky_lake.begin("done", 1)
        done.commit([flaky_lake.write(done, 0)], [])
        made = abort(
            Log(flaky_lake.store), flaky_lake.head, ["twice", "once", "done", "unknown", "once"]
        )
        assert made is not None
        assert (made.kind, made.entry) == (Kind.ABORT, {"closed": {"once": 1, "twice": 2}})
        closed = {run: state.closed for run, state in made.runs.items()}
        assert closed == {"once": 1, "twice": 2, "spared": 0, "done": 0}

    def test_nothing_left(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """If every run is finished by the time of the commit, nothing is committed."""
        writer = flaky_lake.begin("run", 1)
        receipt = flaky_lake.write(writer, 0)
        flaky_store.at("create", lambda: writer.commit([receipt], []), LOG)
        assert abort(Log(flaky_store), flaky_lake.head, ["run"]) is None
        assert abort(Log(flaky_store), flaky_lake.head, ["run"]) is None
        assert flaky_lake.head.kind is Kind.DATA

    def test_answer_lost(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """An abort whose response is lost is returned."""
        flaky_lake.begin("run", 1)
        flaky_store.fail("create", Fault.AFTER, LOG)
        assert abort(Log(flaky_store), flaky_lake.head, ["run"]) == flaky_lake.head

    def test_h1_objects_of_the_next_epoch(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H1: chunks that a resume writes after the abort are not deleted by that reset."""
        first = flaky_lake.begin("run", 2)
        lost = flaky_lake.write(first, 0)
        written: list[tuple[RunWriter, Receipt]] = []

        def go_on() -> None:
            writer = flaky_lake.resume("run")
            written.append((writer, flaky_lake.write(writer, 1)))

        flaky_store.at("walk", go_on, "data/", skip=1)
        report = reset(flaky_store, Log(flaky_store))
        assert set(report.objects) == flaky_lake.keys(lost)
        [(writer, receipt)] = written
        writer.commit([receipt], [])
        assert flaky_lake.keys(receipt) <= flaky_lake.objects()

    def test_h2_epoch_before_the_abort(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H2: an abort that loses a race closes all epochs of the head it lands on."""
        flaky_lake.begin("run", 2)
        seen: list[RunWriter] = []
        flaky_store.at("create", lambda: seen.append(flaky_lake.resume("run")), LOG)
        made = abort(Log(flaky_store), flaky_lake.head, ["run"])
        assert made is not None
        assert made.entry == {"closed": {"run": 2}}
        with pytest.raises(RunAbortedError, match="reset"):
            seen[0].commit([flaky_lake.write(seen[0], 0)], [])
        assert flaky_lake.resume("run").epoch == 3

    def test_h6_receipts_of_a_closed_epoch(self, flaky_lake: SmallLake) -> None:
        """H6: a receipt of a closed epoch is not committed by a later one."""
        first = flaky_lake.begin("run", 2)
        stale = flaky_lake.write(first, 0)
        abort(Log(flaky_lake.store), flaky_lake.head, ["run"])
        second = flaky_lake.resume("run")
        made = second.commit([stale, flaky_lake.write(second, 1)], [failure("run", 0, 0)])
        assert committed(flaky_lake) == [1]
        assert (made.runs["run"].partitions, made.runs["run"].failures) == (1, 0)
        assert not made.runs["run"].finished

    def test_receipts_of_an_open_epoch(self, flaky_lake: SmallLake) -> None:
        """A receipt of an earlier epoch that is not closed is accepted."""
        first = flaky_lake.begin("run", 2)
        early = flaky_lake.write(first, 0)
        second = flaky_lake.resume("run")
        assert second.commit([early, flaky_lake.write(second, 1)], []).runs["run"].finished
        assert committed(flaky_lake) == [0, 1]


class TestOverwrite:
    """Overwrites."""

    def test_replaces_once(self, flaky_lake: SmallLake) -> None:
        """The first data commit replaces rows, failures, totals and schema; later ones add."""
        old = flaky_lake.begin("old", 1)
        old.commit([flaky_lake.write(old, 0)], [failure("old", 0, 0)])
        entry = begin(flaky_lake.log, flaky_lake.head, "new", plan(2, overwrite=True))
        assert entry.totals.samples == 3
        writer = RunWriter(Log(flaky_lake.store), "new", 1, entry, OTHER)
        first = writer.commit([flaky_lake.write(writer, 1)], [])
        assert (first.kind, first.schema, first.failures) == (Kind.OVERWRITE, OTHER, ())
        assert (first.totals.samples, first.totals.failures) == (3, 0)
        assert committed(flaky_lake, "old") == []
        second = writer.commit([flaky_lake.write(writer, 0)], [])
        assert (second.kind, second.totals.samples) == (Kind.DATA, 6)
        assert second.runs["new"].finished
        assert not second.runs["old"].replaced

    def test_h15_data_it_never_saw(self, flaky_lake: SmallLake) -> None:
        """H15: an overwrite never replaces rows that were acknowledged after it began."""
        over, other = flaky_lake.begin("over", 1, overwrite=True), flaky_lake.begin("other", 2)
        other.commit([flaky_lake.write(other, 0)], [])
        with pytest.raises(ConflictError, match="about to overwrite"):
            over.commit([flaky_lake.write(over, 0)], [])
        other.commit([flaky_lake.write(other, 1)], [])
        assert committed(flaky_lake, "other") == [0, 1]

    def test_h15b_resumed(self, flaky_lake: SmallLake) -> None:
        """H15b: a resume does not overwrite rows that its run or another added since."""
        over = flaky_lake.begin("over", 3, overwrite=True)
        over.commit([flaky_lake.write(over, 0)], [])
        other = flaky_lake.begin("other", 1)
        other.commit([flaky_lake.write(other, 0)], [])
        again = flaky_lake.resume("over")
        again.commit([flaky_lake.write(again, 1)], [])
        again.commit([flaky_lake.write(again, 2)], [])
        assert (committed(flaky_lake, "over"), committed(flaky_lake, "other")) == ([0, 1, 2], [0])

    def test_resumed_before_it_replaced(self, flaky_lake: SmallLake) -> None:
        """A run that crashed before its first commit overwrites when it is resumed."""
        old = flaky_lake.begin("old", 1)
        old.commit([flaky_lake.write(old, 0)], [])
        flaky_lake.begin("over", 1, overwrite=True)
        again = flaky_lake.resume("over")
        assert again.commit([flaky_lake.write(again, 0)], []).kind is Kind.OVERWRITE
        assert committed(flaky_lake, "old") == []

    def test_ends_the_others(self, flaky_lake: SmallLake) -> None:
        """An overwrite ends concurrent runs, whether or not they have committed data."""
        begun, going = flaky_lake.begin("begun", 2), flaky_lake.begin("going", 2)
        going.commit([flaky_lake.write(going, 0)], [])
        over = flaky_lake.begin("over", 2, overwrite=True)
        over.commit([flaky_lake.write(over, 0)], [])
        states = flaky_lake.head.runs
        assert (states["begun"].replaced, states["going"].replaced) == (True, True)
        for writer in (begun, going):
            with pytest.raises(ConflictError, match="replaced the lake's content"):
                writer.commit([flaky_lake.write(writer, 1)], [])
        assert over.commit([flaky_lake.write(over, 1)], []).runs["over"].finished
