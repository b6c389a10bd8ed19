"""How a write ends early: what is raised, what is kept, and what is skipped instead."""

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

#: The item that fails, of 100 in partitions of 10.
BAD = 45


def hundred() -> Any:
    """Return the input."""
    return db.from_sequence(range(100), npartitions=10)


class UnportableError(Exception):
    """An error that cannot be pickled, as many cannot."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why} ({code})")


def picky(x: int) -> dict[str, Any]:
    """Make a sample; not of the bad item."""
    if x == BAD:
        raise ValueError("bad item")
    return {"x": x}


def values(lake: dasklake.Lake) -> list[int]:
    """Return what a lake holds."""
    return [int(row["x"]) for row in lake]


def check_whole_partitions(lake: dasklake.Lake, processed: int) -> None:
    """Check that a lake holds whole partitions of ten, in order, not that of the bad item."""
    found = values(lake)
    assert len(found) == processed
    tens = sorted({x // 10 for x in found})
    assert found == [x for ten in tens for x in range(10 * ten, 10 * ten + 10)]
    assert BAD // 10 not in tens


def test_bad_item_ends_the_run(front: Front, tmp_path: Path) -> None:
    """A failing item ends the run with an error that names it; what was complete is committed."""
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
    # The partitions before it were begun before it, and are kept.
    assert error.samples_processed >= 40 - 10
    check_whole_partitions(dasklake.open(tmp_path), error.samples_processed)
    assert set(range(30)) <= set(values(dasklake.open(tmp_path)))


def test_resume_after_the_function_was_mended(front: Front, tmp_path: Path) -> None:
    """A run that a bad function ended goes on with a good one, from what is committed."""
    arguments = {"schema": SCHEMA, "mode": "resume", "run": "job", "checkpoint_every": 10}
    with pytest.raises(TransformError):
        front.write(hundred(), tmp_path, transform=picky, **arguments)
    before = len(dasklake.open(tmp_path))
    report = front.write(hundred(), tmp_path, transform=lambda x: {"x": x}, **arguments)
    assert before >= 30
    assert report.samples == 100
    assert values(dasklake.open(tmp_path)) == list(range(100))


def test_bad_item_is_skipped(front: Front, tmp_path: Path) -> None:
    """With ``on_error="skip"`` 99 items are rows, and one is a failure that names it."""
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
    """Make a sample; the bad item fails with an error that cannot travel."""
    if x == BAD:
        raise UnportableError(7, "no")
    return {"x": x}


def test_error_that_cannot_travel(front: Front, tmp_path: Path) -> None:
    """An exception that does not survive pickling ends the run as any other, with its text."""
    with pytest.raises(TransformError, match=r"UnportableError: no \(7\)") as caught:
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=unportable)
    assert caught.value.index == BAD


def misfit(x: int) -> dict[str, Any]:
    """Make a sample; the bad item's is no number."""
    return {"x": "no number" if x == BAD else x}


def test_sample_that_does_not_fit(front: Front, tmp_path: Path) -> None:
    """A value that does not fit its tensor names the tensor and the item."""
    with pytest.raises(TransformError, match="'x'") as caught:
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=misfit)
    assert (caught.value.index, caught.value.position) == (45, 5)
    assert isinstance(caught.value.__cause__, SampleError)


def hopeless(x: int) -> dict[str, Any]:
    """Make no sample at all."""
    raise ValueError(f"bad item {x}")


@pytest.mark.parametrize("front", ["scheduler", "client"], indirect=True)
def test_all_that_runs_fails_too(front: Front, tmp_path: Path) -> None:
    """A run that ends waits for what runs, but not for partitions that have failed meanwhile."""
    began = time.monotonic()
    with pytest.raises(TransformError, match="bad item"):
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=hopeless)
    assert time.monotonic() - began < 30


def failing_upstream(x: int) -> dict[str, Any]:
    """Make a sample upstream of the write."""
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
    """Pass a partition on; not that of the bad item."""
    if BAD in frame["x"].to_numpy():
        raise ValueError("bad item")
    return frame


def array_rows(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pass a block on; not that of the bad item."""
    if BAD in block:
        raise ValueError("bad item")
    return block


def frame_of_hundred() -> Any:
    """Return the input as a DataFrame."""
    return dd.from_pandas(pd.DataFrame({"x": np.arange(100)}), npartitions=10)


def row_to_sample(row: dict[str, Any]) -> dict[str, Any]:
    """Make a sample of a row."""
    return picky(int(row["x"]))


#: What is written: the collection, its transform, rows lost with the bad item, rows for each item.
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
    """Skipped: a sample where we call the function, a whole partition where the failure is before."""
    collection, transform, lost, each = TABLE[case]
    report = front.write(
        collection(), tmp_path, schema=SCHEMA, transform=transform, on_error="skip"
    )
    assert (report.samples, report.failures) == (100 * each - lost, 1)
    lake = dasklake.open(tmp_path)
    assert lake.is_complete
    gone = {BAD} if lost == 1 else set(range(40, 50))
    assert values(lake) == [x for x in range(100) if x not in gone for _ in range(each)]
    (row,) = lake.failures().to_dict("records")
    assert (row["exception"], row["message"], row["partition"]) == ("ValueError", "bad item", 4)
    assert pd.isna(row["position"]) == (lost > 1)


def test_failure_in_what_partitions_are_joined_from(front: Front, tmp_path: Path) -> None:
    """Skipped: the partition that was joined from the one that failed, and nothing else."""
    joined = hundred().map(failing_upstream).repartition(5)
    report = front.write(joined, tmp_path, schema=SCHEMA, on_error="skip")
    assert (report.samples, report.failures, report.partitions) == (80, 1, 5)
    lake = dasklake.open(tmp_path)
    assert lake.is_complete
    assert values(lake) == [x for x in range(100) if not 40 <= x < 60]
    assert lake.failures()["partition"].tolist() == [2]


@pytest.mark.parametrize("case", TABLE)
def test_upstream_failure_ends_the_run(tmp_path: Path, case: str) -> None:
    """Not skipped: the same failures end the run and name the partition, and the item if known."""
    collection, transform, lost, each = TABLE[case]
    with pytest.raises(TransformError, match="ValueError: bad item") as caught:
        Front("sync").write(collection(), tmp_path, schema=SCHEMA, transform=transform)
    assert caught.value.partition == 4
    assert caught.value.position == (5 if lost == 1 else None)
    # What is an input sample is what the collection holds.
    assert caught.value.samples_processed == 40 * each
    assert values(dasklake.open(tmp_path)) == [x for x in range(40) for _ in range(each)]


def interrupting(x: int, folder: str, kind: str) -> dict[str, Any]:
    """Make a sample; the bad item ends everything."""
    note(folder, str(x))
    if x == BAD:
        raise KeyboardInterrupt if kind == "KeyboardInterrupt" else SystemExit(3)
    return {"x": x}


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit"])
def test_interrupt_in_the_function(front: Front, stage: Stage, kind: str) -> None:
    """Ctrl-C and ``sys.exit`` in the user's function end the run once, and surface."""
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
        # The worker is as it was.
        assert len(front.client.scheduler_info()["workers"]) == 2
        assert front.client.submit(sum, [1, 2]).result(30) == 3


def pressing(x: int) -> dict[str, Any]:
    """Make a sample; somebody presses Ctrl-C at the bad item."""
    if x == BAD:
        signal.raise_signal(signal.SIGINT)
    return {"x": x}


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_ctrl_c_on_a_local_scheduler(tmp_path: Path, scheduler: str) -> None:
    """Ctrl-C ends a local run: what is complete is committed, and the error says how to go on."""
    arguments = {"schema": SCHEMA, "mode": "resume", "run": "job", "checkpoint_every": 10}
    with pytest.raises(KeyboardInterrupt, match=r"samples committed.*mode='resume', run='job'"):
        Front(scheduler).write(hundred(), tmp_path, transform=pressing, **arguments)
    kept = values(dasklake.open(tmp_path))
    assert len(kept) < 100
    assert set(range(30)) <= set(kept)
    Front(scheduler).write(hundred(), tmp_path, transform=lambda x: {"x": x}, **arguments)
    assert values(dasklake.open(tmp_path)) == list(range(100))


def wrong_key(x: int) -> dict[str, Any]:
    """Make a sample of another schema."""
    return {"y": x}


def test_wrong_key_everywhere(front: Front, tmp_path: Path) -> None:
    """A mistake that spoils every sample does not succeed with nothing."""
    with pytest.raises(TooManyFailuresError, match="100 of 100 samples failed"):
        front.write(hundred(), tmp_path, schema=SCHEMA, transform=wrong_key, on_error="skip")
    assert len(dasklake.open(tmp_path)) == 0


def every_tenth_fails(x: int) -> dict[str, Any]:
    """Make a sample; one of ten fails."""
    if x % 10 == 3:
        raise ValueError("bad item")
    return {"x": x}


@pytest.mark.parametrize(("most", "ends"), [(9, True), (10, False), (None, False)])
def test_count_of_failures(tmp_path: Path, most: int | None, *, ends: bool) -> None:
    """``max_failures`` as a count: one more ends the run; None is no limit."""
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


def test_share_of_failures(tmp_path: Path) -> None:
    """``max_failures`` as a share says nothing before 1,000 samples, and ends the run then."""
    bag = db.from_sequence(range(3000), npartitions=30)
    with pytest.raises(TooManyFailuresError, match="50 of 1000 samples failed"):
        Front("sync").write(bag, tmp_path, schema=SCHEMA, transform=fifty_fail, on_error="skip")
    # A partition with failures is left to a resume, with a mended function.
    assert values(dasklake.open(tmp_path)) == [*range(500), *range(600, 1000)]


def many_failures(x: int) -> dict[str, Any]:
    """Make a sample; nearly all of one partition fail."""
    if 41 <= x < 60:
        raise ValueError(f"bad item {x}")
    return {"x": x}


def test_many_failures_of_one_partition(front: Front, tmp_path: Path) -> None:
    """More failures than a receipt carries are all listed, once each."""
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
    """Make a sample; the machine or the storage fails at the bad item."""
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
        # Credentials do not get better by being tried again.
        (PermissionDeniedError, PermissionDeniedError, 1),
    ],
)
@pytest.mark.parametrize("front", ["threads", "scheduler"], indirect=True)
def test_errors_that_are_never_skipped(
    front: Front, stage: Stage, error: type[Exception], raised: type[Exception], tries: int
) -> None:
    """Errors of the machine or the storage are no property of a sample: tried again, then raised."""
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
