"""Retries of failed items: each item succeeds once, on every front and after interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    TransformError,
    VersionNotFoundError,
)
from tests.support.clusters import Front

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
TEXTS = [str(n) for n in range(100)]
BAD = (7, 8, 45, 99)
for position in BAD:
    TEXTS[position] += " bad"


def parse(text: str) -> dict[str, int]:
    """Parse a number; fail on other text."""
    return {"x": int(text)}


def fixed(text: str, but: str = "") -> dict[str, int]:
    """Parse the items that ``parse`` cannot, except those that contain ``but``."""
    if but and but in text:
        raise ValueError(text)
    return {"x": 1000 + int(text.removesuffix(" bad"))}


def write(url: str, items: list[Any], run: str = "run", transform: Any = parse) -> dasklake.Lake:
    """Write a run of ten partitions."""
    with dask.config.set(scheduler="threads"):
        dasklake.to_lake(
            db.from_sequence(items, npartitions=10),
            url,
            schema=SCHEMA,
            transform=transform,
            on_error="skip",
            max_failures=None,
            mode="append",
            run=run,
        )
    return dasklake.open(url)


def test_each_item_is_retried_once(front: Front, tmp_path: Path) -> None:
    """Each retry processes the failures of the last one, until none remains."""
    lake = write(str(tmp_path / "lake"), TEXTS)
    assert lake.failures()["value"].tolist() == [f'"{TEXTS[n]}"' for n in BAD]
    arguments: dict[str, Any] = {"options": front.options()}
    if front.client is not None:
        arguments["coordinator"] = front.name
    first = lake.retry_failures(fixed, transform_kwargs={"but": "5"}, **arguments)
    assert first is not None
    assert (first.run, first.samples, first.failures) == ("run-retry-1", 3, 1)
    assert lake["x"][96:].tolist() == [1007, 1008, 1099]
    second = lake.retry_failures(fixed, **arguments)
    assert second is not None
    assert (second.run, second.samples, second.failures) == ("run-retry-2", 1, 0)
    assert lake.retry_failures(fixed, **arguments) is None
    assert lake["x"][96:].tolist() == [1007, 1008, 1099, 1045]
    assert len(lake.failures()) == 5


def test_interrupted_retry_is_resumed(tmp_path: Path) -> None:
    """An interrupted retry resumes as the same run, and appends nothing twice."""
    lake = write(str(tmp_path / "lake"), TEXTS)
    with dask.config.set(scheduler="sync"):
        with pytest.raises(TransformError):
            lake.retry_failures(fixed, transform_kwargs={"but": "45"}, on_error="raise")
        done = len(lake.refresh()) - 96
        assert done == 2
        report = lake.retry_failures(fixed)
    assert report is not None
    assert (report.run, report.samples) == ("run-retry-1", 4)
    assert lake["x"][96:].tolist() == [1007, 1008, 1045, 1099]


def test_items_of_a_failed_partition_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a whole partition of a retry fails, the next retry processes all of its items."""
    monkeypatch.setattr("dasklake._api.retry_failures._PARTITIONS", 2)
    lake = write(str(tmp_path / "lake"), TEXTS)
    real: Any = db.from_sequence

    def broken(items: list[str], **kwargs: Any) -> Any:
        def fail(part: list[str]) -> list[str]:
            if "8 bad" in part:
                raise ValueError("the whole partition")
            return list(part)

        return real(items, **kwargs).map_partitions(fail)

    with dask.config.set(scheduler="sync"):
        with monkeypatch.context() as patch:
            patch.setattr("dasklake._api.retry_failures.db.from_sequence", broken)
            first = lake.retry_failures(fixed)
        assert first is not None
        assert (first.samples, first.failures) == (2, 1)
        second = lake.retry_failures(fixed)
    assert second is not None
    assert (second.samples, second.failures) == (2, 0)
    assert lake["x"][96:].tolist() == [1045, 1099, 1007, 1008]


def read_pair(pair: Any) -> dict[str, Any]:
    """Read a pair; fail for two of the pairs."""
    if pair[0] in (3, 12):
        raise ValueError(pair)
    return {"x": pair[0]}


def test_items_without_a_stored_value_come_from_the_user(tmp_path: Path) -> None:
    """Items that JSON cannot store exactly are provided by the user, by index or by a function."""
    pairs = [(n, np.float32(n)) for n in range(20)]
    lake = write(str(tmp_path / "lake"), pairs, transform=read_pair)
    assert lake.failures()["value"].isna().all()
    with pytest.raises(InvalidInputError, match=r"Item \(3, .*index 3.*was not kept"):
        lake.retry_failures(read_pair)
    with pytest.raises(InvalidInputError, match="is not in items"):
        lake.retry_failures(read_pair, items=pairs[:5])
    with dask.config.set(scheduler="sync"):
        lake.retry_failures(
            lambda pair: {"x": 100 // (pair[0] - 3)}, items=lambda row: pairs[row["index"]]
        )
        assert lake["x"][18:].tolist() == [11]
        # By the index in the input of the first run, not in that of the retry.
        lake.retry_failures(lambda pair: {"x": 100 + pair[0]}, items=pairs)
    assert lake["x"][18:].tolist() == [11, 103]


def test_several_failed_runs_need_a_name(tmp_path: Path) -> None:
    """With several failed runs a name is required; runs whose failures were all retried do not count."""
    url = str(tmp_path / "lake")
    write(url, TEXTS, "one")
    lake = write(url, TEXTS[:50], "two")
    with pytest.raises(InvalidInputError, match="'one', 'two'"):
        lake.retry_failures(fixed)
    with pytest.raises(VersionNotFoundError, match="Its runs: 'one', 'two'"):
        lake.retry_failures(fixed, run="three")
    with pytest.raises(InvalidInputError, match="mode cannot be given"):
        lake.retry_failures(fixed, run="one", mode="create")
    with dask.config.set(scheduler="sync"):
        first = lake.retry_failures(fixed, run="one")
        second = lake.retry_failures(fixed)
    assert [report and (report.run, report.samples) for report in (first, second)] == [
        ("one-retry-1", 4),
        ("two-retry-1", 3),
    ]
    assert lake.retry_failures(fixed) is None
    assert lake.retry_failures(fixed, run="one-retry-1") is None


def test_an_unfinished_run_must_be_finished_first(tmp_path: Path) -> None:
    """Failures of an unfinished run are not final, so the run must be finished first."""
    with dask.config.set(scheduler="sync"), pytest.raises(dasklake.exceptions.TooManyFailuresError):
        dasklake.to_lake(
            db.from_sequence(TEXTS, npartitions=10),
            str(tmp_path / "lake"),
            schema=SCHEMA,
            transform=parse,
            on_error="skip",
            max_failures=2,
            checkpoint_every=1,
            run="run",
        )
    lake = dasklake.open(str(tmp_path / "lake"))
    with pytest.raises(ConflictError, match="Finish it with mode='resume'"):
        lake.retry_failures(fixed, run="run")


def test_failed_partitions_without_items_are_reported(tmp_path: Path) -> None:
    """A partition that failed as a whole has no known items: a message reports it, and other items are retried."""

    def fail(part: list[str]) -> list[str]:
        if "50" in part:
            raise ValueError("the whole partition")
        return list(part)

    url = str(tmp_path / "lake")
    with dask.config.set(scheduler="sync"):
        dasklake.to_lake(
            db.from_sequence(TEXTS, npartitions=10).map_partitions(fail),
            url,
            schema=SCHEMA,
            transform=parse,
            on_error="skip",
            max_failures=None,
            run="run",
        )
        lake = dasklake.open(url)
        with pytest.warns(UserWarning, match="1 partitions of run 'run' failed as a whole"):
            report = lake.retry_failures(fixed)
    assert report is not None
    assert report.samples == 4
