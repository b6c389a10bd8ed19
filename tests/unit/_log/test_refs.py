"""Tests of tags, branches and restores, and of commits between their steps."""

from __future__ import annotations

import pytest

from dasklake._log.expiry import expire, fence
from dasklake._log.log import Log
from dasklake._log.refs import create_branch, delete_branch, restore, tag, untag
from dasklake._model.commit import Commit, Kind
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    VersionExpiredError,
    VersionNotFoundError,
)
from dasklake.testing.faults import Crash, Fault
from tests.support.flaky import FlakyStore
from tests.support.lakes import SmallLake


def write(lake: SmallLake, run: str, partitions: int = 1) -> Commit:
    """Write the first partition of a run."""
    writer = lake.begin(run, partitions)
    return writer.commit([lake.write(writer, 0)], [])


def expire_all(lake: SmallLake) -> Commit:
    """Expire all expirable versions, as a vacuum does."""
    main = SmallLake(lake.store)
    made = expire(main.log, main.head, lambda *_: False)
    for name in made.branches:
        log = Log(lake.store, name)
        fence(log, log.require_head())
    return made


def branch_of(lake: SmallLake, name: str, version: int) -> SmallLake:
    """Create a branch."""
    create_branch(lake.log, lake.head, name, ("main", version))
    return SmallLake(lake.store, name)


class TestTags:
    """Tags."""

    def test_tag_and_untag(self, flaky_lake: SmallLake) -> None:
        """A tag names one version until it is removed, and changes nothing else."""
        done = write(flaky_lake, "run")
        made = tag(flaky_lake.log, done, "v1", "main", done.version)
        assert (made.kind, dict(made.tags)) == (Kind.TAG, {"v1": ["main", done.version]})
        assert (made.segments, made.runs) == (done.segments, done.runs)
        with pytest.raises(ConflictError, match="'v1' already exists"):
            tag(flaky_lake.log, made, "v1", "main", 0)
        gone = untag(flaky_lake.log, made, "v1")
        assert dict(gone.tags) == {}
        with pytest.raises(VersionNotFoundError, match="Tag 'v1' does not exist"):
            untag(flaky_lake.log, gone, "v1")

    def test_h11_not_on_what_expired_meanwhile(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H11: a tag that loses a race to an expire of its version is refused."""
        first = write(flaky_lake, "one")
        write(flaky_lake, "two")
        flaky_store.at("create", lambda: expire_all(flaky_lake), "_lake/log/main")
        with pytest.raises(VersionExpiredError):
            tag(flaky_lake.log, flaky_lake.head, "t", "main", first.version)
        assert flaky_lake.head.kind is Kind.EXPIRE

    @pytest.mark.parametrize("target", [("main", 99), ("main", -1), ("none", 0)])
    def test_no_such_version(self, flaky_lake: SmallLake, target: tuple[str, int]) -> None:
        """A tag of a missing version, or with an invalid name, is refused."""
        with pytest.raises(VersionNotFoundError):
            tag(flaky_lake.log, flaky_lake.head, "t", *target)
        with pytest.raises(InvalidInputError):
            tag(flaky_lake.log, flaky_lake.head, "a/b", "main", 0)


class TestBranches:
    """Branches."""

    def test_a_branch_begins_with_its_source(self, flaky_lake: SmallLake) -> None:
        """A branch starts with its source's content, without runs, and is independent."""
        first = write(flaky_lake, "one")
        write(flaky_lake, "two")
        own = branch_of(flaky_lake, "b", first.version)
        start = own.head
        assert (start.version, start.kind, dict(start.runs)) == (0, Kind.BRANCH, {})
        assert (start.segments, start.totals) == (first.segments, first.totals)
        assert flaky_lake.head.branches["b"]["source"] == ["main", first.version]
        later = write(own, "one")
        assert later.totals.samples == 2 * first.totals.samples
        # Its rows follow those that the branch began with.
        manifest = Log(flaky_lake.store, "b").manifest(later)
        assert manifest.order.tolist() == [0, 1]
        assert [manifest.home[n] for n in manifest.run] == ["main/one", "b/one"]
        assert flaky_lake.head.totals.samples == 2 * first.totals.samples

    def test_cut_short(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """If only the entry on main exists, the next call creates the same first version."""
        first = write(flaky_lake, "one")
        created = flaky_lake.log

        def end() -> None:
            raise Crash

        flaky_store.at("create", end, "_lake/log/b")
        with pytest.raises(Crash):
            create_branch(created, flaky_lake.head, "b", ("main", first.version))
        assert Log(flaky_store, "b").head() is None
        write(flaky_lake, "two")
        made = create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert made.totals == first.totals
        assert [c.kind for c in flaky_lake.log.walk(0)].count(Kind.BRANCH) == 1

    def test_lost_answer(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A first version whose response is lost is recognised by its id."""
        first = write(flaky_lake, "one")
        flaky_store.fail("create", Fault.AFTER, "_lake/log/b")
        made = create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert (made.version, made.totals) == (0, first.totals)

    def test_refusals(self, flaky_lake: SmallLake) -> None:
        """A taken name, main itself and missing sources are refused."""
        first = write(flaky_lake, "one")
        branch_of(flaky_lake, "b", first.version)
        for name, version, error in [
            ("b", 0, ConflictError),
            ("main", 0, InvalidInputError),
            ("c", 99, VersionNotFoundError),
        ]:
            with pytest.raises(error):
                create_branch(flaky_lake.log, flaky_lake.head, name, ("main", version))
        with pytest.raises(VersionNotFoundError, match="Branch 'c' does not exist"):
            delete_branch(flaky_lake.log, flaky_lake.head, "c")
        with pytest.raises(InvalidInputError):
            delete_branch(flaky_lake.log, flaky_lake.head, "main")

    def test_h11_not_from_what_expired_meanwhile(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """H11: a branch that loses a race to an expire of its source is refused and not begun."""
        first = write(flaky_lake, "one")
        write(flaky_lake, "two")
        flaky_store.at("create", lambda: expire_all(flaky_lake), "_lake/log/main")
        with pytest.raises(VersionExpiredError):
            create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert Log(flaky_store, "b").head() is None

    def test_h22_deleted_and_made_again(self, flaky_lake: SmallLake) -> None:
        """H22: a deleted branch stops its writers, and continues its numbering when recreated."""
        first = write(flaky_lake, "one")
        own = branch_of(flaky_lake, "b", first.version)
        zombie = own.begin("run", 2)
        receipt = own.write(zombie, 0)
        last = delete_branch(flaky_lake.log, flaky_lake.head, "b")
        assert (last.kind, "b" in flaky_lake.head.branches) == (Kind.CLOSED, False)
        with pytest.raises(ConflictError, match="closed"):
            zombie.commit([receipt], [])
        again = create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert (again.version, again.parent) == (last.version + 1, last.id)
        assert again.totals == first.totals
        with pytest.raises(ConflictError):
            zombie.commit([receipt], [])
        # Its leftovers lie under the same prefix: a run of that name would adopt them.
        assert again.runs["run"].replaced
        with pytest.raises(ConflictError, match="cannot be continued"):
            own.resume("run")
        assert write(own, "new").runs["new"].order > first.runs["one"].order

    def test_deletion_cut_short(self, flaky_lake: SmallLake, flaky_store: FlakyStore) -> None:
        """A deletion that ended between its two commits is completed by the next one."""
        first = write(flaky_lake, "one")
        own = branch_of(flaky_lake, "b", first.version)

        def end() -> None:
            raise Crash

        flaky_store.at("create", end, "_lake/log/b")
        with pytest.raises(Crash):
            delete_branch(flaky_lake.log, flaky_lake.head, "b")
        with pytest.raises(ConflictError, match="Delete it again"):
            create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert own.head.version == 0
        last = delete_branch(flaky_lake.log, flaky_lake.head, "b")
        assert (last.kind, last.id) == (Kind.CLOSED, own.head.id)

    def test_late_deletion_spares_the_next_branch(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """A paused deletion does not close a branch that was recreated concurrently."""
        first = write(flaky_lake, "one")
        own = branch_of(flaky_lake, "b", first.version)

        def meddle() -> None:
            delete_branch(Log(flaky_store), flaky_lake.head, "b")
            create_branch(Log(flaky_store), flaky_lake.head, "b", ("main", first.version))

        flaky_store.at("create", meddle, "_lake/log/b")
        last = delete_branch(flaky_lake.log, flaky_lake.head, "b")
        assert last.version == own.head.version - 1
        assert own.head.kind is Kind.BRANCH
        assert write(own, "run").version == own.head.version

    def test_nothing_is_made_after_a_deletion(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore
    ) -> None:
        """A paused creation finds the first version that a concurrent deletion created."""
        first = write(flaky_lake, "one")
        flaky_store.at(
            "create",
            lambda: delete_branch(Log(flaky_store), flaky_lake.head, "b"),
            "_lake/log/b",
        )
        made = create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", first.version))
        assert made.version == 0
        log = Log(flaky_store, "b")
        assert [commit.kind for commit in log.walk(0)] == [Kind.BRANCH, Kind.CLOSED]


class TestRestore:
    """Restores."""

    def test_content_comes_back_marks_do_not(self, flaky_lake: SmallLake) -> None:
        """H13: the content is that of the version; run table and expiry are those of the head."""
        writer = flaky_lake.begin("run", 2)
        first = writer.commit([flaky_lake.write(writer, 0)], [])
        write(flaky_lake, "two")
        tag(flaky_lake.log, flaky_lake.head, "t", "main", first.version)
        flaky_lake.resume("run")
        head = flaky_lake.head
        made = restore(flaky_lake.log, head, first.version)
        assert (made.segments, made.totals) == (first.segments, first.totals)
        assert dict(made.tags) == dict(head.tags)
        assert made.runs["run"].epoch == 2
        assert made.runs["run"].replaced
        assert made.runs["two"] == head.runs["two"]

    def test_h14_writers_stop(self, flaky_lake: SmallLake) -> None:
        """H14: a restore stops a writer, and its run cannot be resumed."""
        writer = flaky_lake.begin("run", 2)
        writer.commit([flaky_lake.write(writer, 0)], [])
        restore(flaky_lake.log, flaky_lake.head, 0)
        with pytest.raises(ConflictError, match="restore"):
            writer.commit([flaky_lake.write(writer, 1)], [])
        with pytest.raises(ConflictError):
            flaky_lake.resume("run")
        assert flaky_lake.head.totals.samples == 0

    @pytest.mark.parametrize("branch", ["main", "b"])
    def test_h12_not_what_expired_meanwhile(
        self, flaky_lake: SmallLake, flaky_store: FlakyStore, branch: str
    ) -> None:
        """H12, H9c: a restore that loses a race to an expire or a fence reads the expiry again."""
        start = write(flaky_lake, "one")
        lake = flaky_lake if branch == "main" else branch_of(flaky_lake, "b", start.version)
        first = write(lake, "two")
        write(lake, "three")
        flaky_store.at("create", lambda: expire_all(lake), f"_lake/log/{branch}")
        with pytest.raises(VersionExpiredError):
            restore(lake.log, lake.head, first.version)
        assert lake.head.kind in (Kind.EXPIRE, Kind.FENCE)

    def test_no_such_version(self, flaky_lake: SmallLake) -> None:
        """A missing version cannot be restored."""
        with pytest.raises(VersionNotFoundError):
            restore(flaky_lake.log, flaky_lake.head, 7)
