"""Writes that end early: raised errors, committed samples and skipped failures."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import (
    PermissionDeniedError,
    SampleError,
    StoreError,
    TooManyFailuresError,
    TransformError,
)
from tests.support._work import note
from tests.support.clusters import Front, Stage

SCHEMA = dasklake.Schema({"x": dasklake.TensorSpec(dtype="int64", shape=())})

#: The failing item, of 100 items in partitions of 10.
BAD = 45


def hundred() -> Any:
    """Return the input bag."""
    return db.from_sequence(range(100), npartitions=10)


class UnportableError(Exception):
    """An error that cannot be pickled."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


def picky(x: int) -> dict[str, Any]:
    """Make a sample; fail at the bad item."""
    if x == BAD:
        raise ValueError("bad item")
    return {"x": x}


def values(lake: dasklake.Lake) -> list[int]:
    """Return the values of a lake."""
    return [int(row["x"]) for row in lake]


def check_whole_partitions(lake: dasklake.Lake, processed: int) -> None:
    """Check that a lake holds complete partitions in order, without that of the bad item."""
    committed = values(lake)
    assert len(committed) == processed
    tens = sorted({x // 10 for x in committed})
    assert committed == [x for ten in tens for x in range(10 * ten, 10 * ten + 10)]
    assert BAD // 10 not in tens


def test_bad_item_ends_the_run(front: Front, tmp_path: Path) -> None:
    """A failing item ends the run with an error that names it; complete partitions are committed."""
    with pytest.raises(TransformError) as caught:
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=picky, checkpoint_every=10)
    error = caught.value
    assert (error.index, error.item, error.partition, error.position) == (45, "45", 4, 5)
    assert isinstance(error.__cause__, ValueError)
    assert str(error.__cause__) == "bad item"
    text = str(error)
    assert "Transform failed at index 45 of the input data on the item: 45" in text
    assert "ValueError: bad item" in text
    assert f"Last checkpoint: {error.samples_processed} samples committed" in text
    assert "mode='resume'" in text
    assert "on_error='skip'" in text
    # The earlier partitions had started before and are committed.
    assert error.samples_processed >= 40 - 10
    check_whole_partitions(dasklake.open(tmp_path), error.samples_processed)
    assert set(range(30)) <= set(values(dasklake.open(tmp_path)))


def test_run_resumes_with_a_fixed_function(front: Front, tmp_path: Path) -> None:
    """A run that ended with a faulty function resumes with a fixed one after its last commit."""
    arguments = {"schema": SCHEMA, "mode": "resume", "run": "job", "checkpoint_every": 10}
    with pytest.raises(TransformError):
        front.write(hundred(), tmp_path, transform=picky, **arguments)
    before = len(dasklake.open(tmp_path))
    report = front.write(hundred(), tmp_path, transform=lambda x: {"x": x}, **arguments)
    assert before >= 30
    assert report.samples == 100
    assert values(dasklake.open(tmp_path)) == list(range(100))


def test_bad_item_is_skipped(front: Front, tmp_path: Path) -> None:
    """With ``on_error="skip"`` 99 items become rows, and the failure names the bad item."""
    report = front.write(hundred(), tmp_path, schema=SCHEMA, transform=picky, on_error="skip")
    assert (report.samples, report.failures) == (99, 1)
    lake = dasklake.open(tmp_path)
    assert lake.is_complete
    assert values(lake) == [x for x in range(100) if x != BAD]
    (row,) = lake.failures().to_dict("records")
    assert (row["partition"], row["position"], row["index"], row["item"]) == (4, 5, 45, "45")
    assert (row["exception"], row["message"]) == ("ValueError", "bad item")
    assert "in picky" in row["traceback"]


def unportable(x: int) -> dict[str, Any]:
    """Make a sample; the bad item raises an error that cannot be pickled."""
    if x == BAD:
        raise UnportableError(7, "no")
    return {"x": x}


def test_error_that_cannot_be_pickled_ends_the_run(front: Front, tmp_path: Path) -> None:
    """An exception that cannot be pickled ends the run, and its text is reported."""
    with pytest.raises(TransformError, match=r"UnportableError: no \(7\)") as caught:
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=unportable)
    assert caught.value.index == BAD


def misfit(x: int) -> dict[str, Any]:
    """Make a sample; the value of the bad item is not a number."""
    return {"x": "no number" if x == BAD else x}


def test_error_of_a_misfit_names_tensor_and_item(front: Front, tmp_path: Path) -> None:
    """An error of a value that does not fit its tensor names the tensor and the item."""
    with pytest.raises(TransformError, match="'x'") as caught:
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=misfit)
    assert (caught.value.index, caught.value.position) == (45, 5)
    assert isinstance(caught.value.__cause__, SampleError)


def hopeless(x: int) -> dict[str, Any]:
    """Fail at every item."""
    raise ValueError(f"bad item {x}")


@pytest.mark.parametrize("front", ["scheduler", "client"], indirect=True)
def test_run_does_not_wait_for_failed_partitions(front: Front, tmp_path: Path) -> None:
    """A run that ends waits for running partitions, but not for failed ones."""
    began = time.monotonic()
    with pytest.raises(TransformError, match="bad item"):
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=hopeless)
    assert time.monotonic() - began < 30


def failing_upstream(x: int) -> dict[str, Any]:
    """Make a sample before the write."""
    return picky(x)


def pairs(x: int) -> list[dict[str, Any]]:
    """Make two samples of an item."""
    return [picky(x), picky(x)]


def generate(items: Iterator[int]) -> Iterator[dict[str, Any]]:
    """Make samples one by one."""
    for x in items:
        yield picky(x)


def zipped(pair: tuple[int, int]) -> dict[str, Any]:
    """Make a sample of one item of each of two bags."""
    return picky(pair[1])


def frame_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a partition; fail at that of the bad item."""
    if BAD in frame["x"].to_numpy():
        raise ValueError("bad item")
    return frame


def array_rows(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a block; fail at that of the bad item."""
    if BAD in block:
        raise ValueError("bad item")
    return block


def frame_of_hundred() -> Any:
    """Return the input as a DataFrame."""
    return dd.from_pandas(pd.DataFrame({"x": np.arange(100)}), npartitions=10)


def row_to_sample(row: dict[str, Any]) -> dict[str, Any]:
    """Make a sample of a row."""
    return picky(int(row["x"]))


#: Cases: the collection, its transform, rows lost with the bad item, rows per item.
TABLE: dict[str, tuple[Callable[[], Any], Any, int, int]] = {
    "transform": (hundred, picky, 1, 1),
    "map": (lambda: hundred().map(failing_upstream), None, 10, 1),
    "flatten": (lambda: hundred().map(pairs).flatten(), None, 20, 2),
    "generator": (lambda: hundred().map_partitions(generate), None, 10, 1),
    "zip": (lambda: db.zip(hundred(), hundred()), zipped, 1, 1),
    "zip upstream": (lambda: db.zip(hundred(), hundred()).map(zipped), None, 10, 1),
    "frame": (frame_of_hundred, row_to_sample, 1, 1),
    "frame upstream": (lambda: frame_of_hundred().map_partitions(frame_rows), None, 10, 1),
    "array": (lambda: da.arange(100, chunks=10), picky, 1, 1),
    "array upstream": (
        lambda: da.arange(100, chunks=10).map_blocks(array_rows, dtype="int64"),
        None,
        10,
        1,
    ),
}


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("front", ["sync", "scheduler"], indirect=True)
def test_rows_and_failures_account_for_every_input(front: Front, tmp_path: Path, case: str) -> None:
    """A transform failure skips one sample; an upstream failure skips the whole partition."""
    collection, transform, lost, rows_per_item = TABLE[case]
    report = front.write(
        collection(), tmp_path, schema=SCHEMA, transform=transform, on_error="skip"
    )
    assert (report.samples, report.failures) == (100 * rows_per_item - lost, 1)
    lake = dasklake.open(tmp_path)
    assert lake.is_complete
    gone = {BAD} if lost == 1 else set(range(40, 50))
    assert values(lake) == [x for x in range(100) if x not in gone for _ in range(rows_per_item)]
    (row,) = lake.failures().to_dict("records")
    assert (row["exception"], row["message"], row["partition"]) == ("ValueError", "bad item", 4)
    assert pd.isna(row["position"]) == (lost > 1)


def test_upstream_failure_skips_only_the_joined_partition(front: Front, tmp_path: Path) -> None:
    """Only the partition joined from the failed one is skipped."""
    joined = hundred().map(failing_upstream).repartition(5)
    report = front.write(joined, tmp_path, schema=SCHEMA, on_error="skip")
    assert (report.samples, report.failures, report.partitions) == (80, 1, 5)
    lake = dasklake.open(tmp_path)
    assert lake.is_complete
    assert values(lake) == [x for x in range(100) if not 40 <= x < 60]
    assert lake.failures()["partition"].tolist() == [2]


@pytest.mark.parametrize("case", TABLE)
def test_upstream_failure_ends_the_run(tmp_path: Path, case: str) -> None:
    """Without skipping, the same failures end the run and name the partition and any known item."""
    collection, transform, lost, rows_per_item = TABLE[case]
    with pytest.raises(TransformError, match="ValueError: bad item") as caught:
        Front("sync").write(collection(), tmp_path, schema=SCHEMA, transform=transform)
    assert caught.value.partition == 4
    assert caught.value.position == (5 if lost == 1 else None)
    # Input samples are the items of the collection.
    assert caught.value.samples_processed == 40 * rows_per_item
    assert values(dasklake.open(tmp_path)) == [x for x in range(40) for _ in range(rows_per_item)]


def interrupting(x: int, folder: str, kind: str) -> dict[str, Any]:
    """Make a sample; interrupt the process at the bad item."""
    note(folder, str(x))
    if x == BAD:
        raise KeyboardInterrupt if kind == "KeyboardInterrupt" else SystemExit(3)
    return {"x": x}


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit"])
def test_interrupt_in_the_function_ends_the_run(front: Front, stage: Stage, kind: str) -> None:
    """Ctrl-C and ``sys.exit`` in the user's function end the run once, and are raised."""
    expected = KeyboardInterrupt if kind == "KeyboardInterrupt" else SystemExit
    with pytest.raises(expected):
        front.write(
            hundred(),
            stage.url,
            schema=SCHEMA,
            transform=interrupting,
            transform_kwargs={"folder": str(stage.folder), "kind": kind},
            checkpoint_every=10,
        )
    assert stage.executions()[BAD] == 1
    lake = dasklake.open(stage.url)
    assert len(lake) >= 30
    check_whole_partitions(lake, len(lake))
    if front.client is not None:
        # The worker still works.
        assert len(front.client.scheduler_info()["workers"]) == 2
        assert front.client.submit(sum, [1, 2]).result(30) == 3


def pressing(x: int) -> dict[str, Any]:
    """Make a sample; send Ctrl-C at the bad item."""
    if x == BAD:
        signal.raise_signal(signal.SIGINT)
    return {"x": x}


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_ctrl_c_ends_a_local_run(tmp_path: Path, scheduler: str) -> None:
    """Ctrl-C ends a local run; complete partitions are committed, and the error explains the resume."""
    arguments = {"schema": SCHEMA, "mode": "resume", "run": "job", "checkpoint_every": 10}
    with pytest.raises(KeyboardInterrupt, match=r"samples committed.*mode='resume', run='job'"):
        Front(scheduler).write(hundred(), tmp_path, transform=pressing, **arguments)
    committed = values(dasklake.open(tmp_path))
    assert len(committed) < 100
    assert set(range(30)) <= set(committed)
    Front(scheduler).write(hundred(), tmp_path, transform=lambda x: {"x": x}, **arguments)
    assert values(dasklake.open(tmp_path)) == list(range(100))


def wrong_key(x: int) -> dict[str, Any]:
    """Make a sample with another schema."""
    return {"y": x}


def test_error_in_every_sample_fails_the_write(front: Front, tmp_path: Path) -> None:
    """An error in every sample fails the write instead of writing an empty lake."""
    with pytest.raises(TooManyFailuresError, match="100 of 100 samples failed"):
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=wrong_key, on_error="skip")
    assert len(dasklake.open(tmp_path)) == 0


def every_tenth_fails(x: int) -> dict[str, Any]:
    """Make a sample; one of ten fails."""
    if x % 10 == 3:
        raise ValueError("bad item")
    return {"x": x}


@pytest.mark.parametrize(("most", "ends"), [(9, True), (10, False), (None, False)])
def test_count_of_failures_is_limited(tmp_path: Path, most: int | None, *, ends: bool) -> None:
    """One failure above a ``max_failures`` count ends the run; None disables the limit."""
    write = partial(
        Front("sync").write,
        hundred(),
        tmp_path,
        schema=SCHEMA,
        transform=every_tenth_fails,
        on_error="skip",
        max_failures=most,
    )
    if ends:
        with pytest.raises(TooManyFailuresError, match="10 of 100 samples failed"):
            write()
    else:
        assert (write().samples, len(dasklake.open(tmp_path).failures())) == (90, 10)


def fifty_fail(x: int) -> dict[str, Any]:
    """Make a sample; fifty of one partition fail."""
    if 500 <= x < 550:
        raise ValueError("bad item")
    return {"x": x}


def test_share_of_failures_is_limited(tmp_path: Path) -> None:
    """A ``max_failures`` share is ignored for fewer than 1,000 samples, and then ends the run."""
    bag = db.from_sequence(range(3000), npartitions=30)
    with pytest.raises(TooManyFailuresError, match="50 of 1000 samples failed"):
        Front("sync").write(bag, tmp_path, schema=SCHEMA, transform=fifty_fail, on_error="skip")
    # A partition with failures is left to a resume with a fixed function.
    assert values(dasklake.open(tmp_path)) == [*range(500), *range(600, 1000)]


def many_failures(x: int) -> dict[str, Any]:
    """Make a sample; nearly all of one partition fail."""
    if 41 <= x < 60:
        raise ValueError(f"bad item {x}")
    return {"x": x}


def test_many_failures_of_one_partition_are_all_listed(front: Front, tmp_path: Path) -> None:
    """Failures beyond the capacity of a receipt are all listed, once each."""
    report = front.write(
        hundred(),
        tmp_path,
        schema=SCHEMA,
        transform=many_failures,
        on_error="skip",
        max_failures=None,
        checkpoint_every=20,
    )
    assert (report.samples, report.failures) == (81, 19)
    failures = dasklake.open(tmp_path).failures()
    assert sorted(failures["index"]) == list(range(41, 60))
    assert sorted(failures["message"]) == [f"bad item {x}" for x in range(41, 60)]


def out_of(x: int, folder: str, error: type[Exception]) -> dict[str, Any]:
    """Make a sample; raise a machine or storage error at the bad item."""
    note(folder, str(x))
    if x == BAD:
        raise error("the machine says no")
    return {"x": x}


@pytest.mark.parametrize(
    ("error", "raised", "tries"),
    [
        (MemoryError, TransformError, 2),
        (PermissionError, TransformError, 2),
        (StoreError, StoreError, 2),
        # Credential errors are not retried.
        (PermissionDeniedError, PermissionDeniedError, 1),
    ],
)
@pytest.mark.parametrize("front", ["threads", "scheduler"], indirect=True)
def test_errors_that_are_never_skipped(
    front: Front, stage: Stage, error: type[Exception], raised: type[Exception], tries: int
) -> None:
    """Machine and storage errors are never skipped: they are retried, then raised."""
    with pytest.raises(raised, match="the machine says no"):
        front.write(
            hundred(),
            stage.url,
            schema=SCHEMA,
            transform=out_of,
            transform_kwargs={"folder": str(stage.folder), "error": error},
            on_error="skip",
            max_failures=None,
            options={"retries": 1},
        )
    assert stage.executions()[BAD] == tries
    lake = dasklake.open(stage.url)
    assert len(lake.failures()) == 0
    check_whole_partitions(lake, len(lake))
