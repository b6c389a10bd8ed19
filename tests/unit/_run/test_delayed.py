"""``compute=False``: a Delayed that begins, writes and commits when it is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest

import dasklake
from dasklake._log.log import Log
from dasklake._log.run_entries import begin
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import Kind, Plan
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    LakeExistsError,
    StoreError,
    TooManyFailuresError,
    TransformError,
)

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


def same(item: dict[str, int]) -> dict[str, int]:
    """Return a sample unchanged."""
    return item


def lazy(
    path: Path,
    partitions: int,
    transform: Callable[..., Any] = same,
    **options: Any,
) -> Any:
    """Return a write of one sample in each partition."""
    bag = db.from_sequence([{"x": n} for n in range(partitions)], npartitions=partitions)
    return dasklake.to_lake(
        bag, path / "lake", schema=SCHEMA, transform=transform, compute=False, run="run", **options
    )


def compute(delayed: Any) -> Any:
    """Compute in this thread."""
    return delayed.compute(scheduler="sync")


def kinds(path: Path) -> list[Kind]:
    """Return the kinds of all commits."""
    return [commit.kind for commit in Log(ObjectStore(path / "lake")).walk(0)]


def test_nothing_happens_before(tmp_path: Path) -> None:
    """Making the Delayed has no effect; computing it begins, writes and commits once."""
    delayed = lazy(tmp_path, 3)
    assert list(tmp_path.iterdir()) == []
    report = compute(delayed)
    assert (report.run, report.samples, report.partitions) == ("run", 3, 3)
    assert kinds(tmp_path) == [Kind.INIT, Kind.BEGIN, Kind.DATA]
    assert [sample["x"] for sample in dasklake.open(tmp_path / "lake")] == [0, 1, 2]


def test_gathered_by_a_tree(tmp_path: Path) -> None:
    """No task takes the outcomes of many others, whatever the number of partitions."""
    delayed = lazy(tmp_path, 150)
    graph = dict(delayed.__dask_graph__())
    assert max(len(getattr(node, "dependencies", ())) for node in graph.values()) <= 64
    assert compute(delayed).samples == 150
    assert kinds(tmp_path) == [Kind.INIT, Kind.BEGIN, Kind.DATA]


def test_computed_again(tmp_path: Path) -> None:
    """If it is computed again, it finds the run finished, commits nothing and calls nothing."""
    seen: list[int] = []

    def note(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["x"])
        return item

    delayed = lazy(tmp_path, 2, note)
    first, second = compute(delayed), compute(delayed)
    assert (first.version, first.samples) == (second.version, second.samples) == (2, 2)
    assert sorted(seen) == [0, 1]
    assert len(kinds(tmp_path)) == 3


def test_computed_after_a_failure(tmp_path: Path) -> None:
    """If it is computed again after a failure, it continues with the missing partitions."""
    broken = [1]
    seen: list[int] = []

    def check(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["x"])
        if item["x"] in broken:
            raise ValueError("bad")
        return item

    delayed = lazy(tmp_path, 3, check)
    with pytest.raises(TransformError, match="index 1") as caught:
        compute(delayed)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.samples_processed == 2
    broken.clear()
    seen.clear()
    assert compute(delayed).samples == 3
    assert seen == [1]
    assert kinds(tmp_path)[2:] == [Kind.DATA, Kind.EPOCH, Kind.DATA]


def test_uncommitted_partitions_are_recovered(tmp_path: Path) -> None:
    """Partitions written by a computation that died before its commit are not computed again."""
    seen: list[int] = []

    def note(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["x"])
        return item

    delayed = lazy(tmp_path, 2, note)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunWriter, "commit", _die)
        with pytest.raises(StoreError, match="died"):
            compute(delayed)
    assert compute(delayed).samples == 2
    assert sorted(seen) == [0, 1]
    assert kinds(tmp_path) == [Kind.INIT, Kind.BEGIN, Kind.EPOCH, Kind.DATA]


def _die(*_: object) -> None:
    raise StoreError("died. Try again.")


def test_skipping(tmp_path: Path) -> None:
    """Failures are skipped, stored and limited as in any other write."""

    def check(item: dict[str, int]) -> dict[str, int]:
        if item["x"] % 2:
            raise ValueError("bad")
        return item

    report = compute(lazy(tmp_path, 4, check, on_error="skip", max_failures=2))
    assert (report.samples, report.failures) == (2, 2)
    with pytest.raises(TooManyFailuresError):
        compute(lazy(tmp_path / "more", 4, check, on_error="skip", max_failures=1))


def test_interrupted(tmp_path: Path) -> None:
    """An exception that ends the process in the user's function is raised; complete work is kept."""

    def leave(item: dict[str, int]) -> dict[str, int]:
        if item["x"] == 2:
            raise SystemExit(3)
        return item

    with pytest.raises(SystemExit):
        compute(lazy(tmp_path, 3, leave))
    assert len(dasklake.open(tmp_path / "lake")) == 2


def test_lake_created_before_the_computation(tmp_path: Path) -> None:
    """A lake that another process created before the computation is not overwritten."""
    delayed = lazy(tmp_path, 2)
    bag = db.from_sequence([{"x": 7}], npartitions=1)
    options = dasklake.WriteOptions(scheduler="sync")
    dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, run="other", options=options)
    with pytest.raises(LakeExistsError):
        compute(delayed)
    assert len(dasklake.open(tmp_path / "lake")) == 1


def test_name_is_taken(tmp_path: Path) -> None:
    """A new run with an existing name is an error at once."""
    compute(lazy(tmp_path, 1))
    with pytest.raises(LakeExistsError, match="'run'"):
        lazy(tmp_path, 1, mode="append")


def test_another_run_of_that_name(tmp_path: Path) -> None:
    """A run of the same name over another input, begun in the meantime, is a mismatch."""
    delayed = lazy(tmp_path, 2, mode="append")
    bag = db.from_sequence([{"x": 7}], npartitions=1)
    options = dasklake.WriteOptions(scheduler="sync")
    dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, run="first", options=options)
    log = Log(ObjectStore(tmp_path / "lake"))
    begin(log, log.require_head(), "run", Plan(5, None, "0" * 32, None))
    with pytest.raises(dasklake.exceptions.PlanMismatchError):
        compute(delayed)
