"""Tests of expiry and fences."""

from __future__ import annotations

import pytest

from dasklake._log.expiry import expire, fence, find_expirable
from dasklake._log.log import Log
from dasklake._log.refs import create_branch, delete_branch, tag, untag
from dasklake._log.run_entries import abort
from dasklake._model.commit import Kind
from dasklake.exceptions import ConflictError
from tests.support.flaky import FlakyStore
from tests.support.lakes import SmallLake


def keep_none(*_: object) -> bool:
    """Keep nothing for its age."""
    return False


def write(lake: SmallLake, run: str) -> int:
    """Write a run of one partition; its version."""
    writer = lake.begin(run, 1)
    return writer.commit([lake.write(writer, 0)], []).version


def test_expire_names_all_but_what_is_kept(flaky_lake: SmallLake) -> None:
    """All versions expire but heads, tagged versions, sources of branches and kept ones."""
    versions = [write(flaky_lake, f"run{n}") for n in range(4)]
    tag(flaky_lake.log, flaky_lake.head, "first", "main", versions[0])
    create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", versions[1]))
    branch = SmallLake(flaky_lake.store, "b")
    other = write(branch, "run0")
    head = flaky_lake.head
    made = expire(flaky_lake.log, head, lambda log, v: (log.branch, v) == ("main", versions[2]))
    assert (made.kind, made.version) == (Kind.EXPIRE, head.version + 1)
    kept = {*versions[:3], head.version}
    assert set(made.expired["main"]) == set(range(head.version)) - kept
    assert set(made.expired["b"]) == set(range(other))
    assert (made.segments, made.totals, made.runs) == (head.segments, head.totals, head.runs)
    again = expire(flaky_lake.log, made, keep_none)
    assert again.entry["expired"] == {
        "main": ((versions[2], versions[2] + 1), (head.version, head.version + 1))
    }
    assert set(again.expired["main"]) == {*made.expired["main"], versions[2], head.version}


def test_h11_a_tag_that_came_in_between_is_kept(
    flaky_lake: SmallLake, flaky_store: FlakyStore
) -> None:
    """H11: an expire that loses a race to a tag, branch or commit leaves their versions out."""
    first, second, third = (write(flaky_lake, f"run{n}") for n in range(3))

    def meddle() -> None:
        tag(Log(flaky_store), flaky_lake.head, "t", "main", first)
        create_branch(Log(flaky_store), flaky_lake.head, "b", ("main", second))
        write(flaky_lake, "run3")

    flaky_store.at("create", meddle, "_lake/log/main")
    newest = flaky_lake.head
    made = expire(flaky_lake.log, newest, keep_none)
    assert {first, second, made.version - 1}.isdisjoint(made.expired["main"])
    assert {third, newest.version} <= {*made.expired["main"], third}


def test_untagged_versions_expire(flaky_lake: SmallLake) -> None:
    """A version whose tag was removed may expire."""
    version = write(flaky_lake, "run")
    tag(flaky_lake.log, flaky_lake.head, "t", "main", version)
    assert version not in find_expirable(flaky_lake.head, {"main": flaky_lake.log})["main"]
    untag(flaky_lake.log, flaky_lake.head, "t")
    assert version in find_expirable(flaky_lake.head, {"main": flaky_lake.log})["main"]


def test_fence_makes_writers_look(flaky_lake: SmallLake) -> None:
    """A fence adds only a version: a writer that loses to it writes its segment again."""
    writer = flaky_lake.begin("run", 1)
    head = flaky_lake.head
    made = fence(flaky_lake.log, head)
    assert (made.kind, made.version) == (Kind.FENCE, head.version + 1)
    assert (made.segments, made.runs, made.totals) == (head.segments, head.runs, head.totals)
    done = writer.commit([flaky_lake.write(writer, 0)], [])
    assert done.version == made.version + 1


def test_a_deleted_branch_is_left_alone(flaky_lake: SmallLake) -> None:
    """Neither a fence nor an abort is committed to a deleted branch."""
    version = write(flaky_lake, "run")
    create_branch(flaky_lake.log, flaky_lake.head, "b", ("main", version))
    branch = SmallLake(flaky_lake.store, "b")
    writer = branch.begin("run", 2)
    last = delete_branch(flaky_lake.log, flaky_lake.head, "b")
    assert fence(branch.log, last).id == last.id
    assert abort(branch.log, last, ["run"]) is None
    with pytest.raises(ConflictError, match="deleted"):
        branch.begin("other", 1)
    with pytest.raises(ConflictError, match="closed"):
        writer.commit([branch.write(writer, 0)], [])
    assert branch.head.id == last.id
    made = expire(flaky_lake.log, flaky_lake.head, keep_none)
    assert set(made.expired["b"]) == set(range(last.version + 1))
