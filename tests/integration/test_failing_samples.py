"""Failing samples: raised with their place and all that was complete committed, or skipped and listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import TooManyFailuresError, TransformError

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
SCHEDULERS = ["sync", "threads", "processes"]


class BadItemError(Exception):
    """What the user's function raises; importable by other processes."""


def sample(item: int) -> dict[str, int]:
    """Fail at item 45."""
    if item == 45:
        raise BadItemError(f"cannot take {item}")
    return {"x": item}


def generate(items: Any) -> Iterator[dict[str, int]]:
    """Make samples of a partition, one after the other."""
    for item in items:
        yield sample(item)


def options(scheduler: str = "sync") -> dasklake.WriteOptions:
    """Return what makes a write local."""
    return dasklake.WriteOptions(scheduler=scheduler)


def bag(items: int = 100) -> Any:
    """Return a bag of ten items to a partition."""
    return db.from_sequence(range(items), npartitions=items // 10)


def values(url: Path) -> list[int]:
    """Return what a lake holds."""
    return [int(each["x"]) for each in dasklake.open(url)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_bad_item_is_named_and_what_was_before_it_kept(tmp_path: Path, scheduler: str) -> None:
    """Item 45 of 100 ends the run with an error that says all of it; four partitions are there."""
    url = tmp_path / "lake"
    with pytest.raises(TransformError) as caught:
        bag().to_lake(url, schema=SCHEMA, transform=sample, run="job", options=options(scheduler))
    error = caught.value
    assert (error.index, error.item, error.partition, error.position) == (45, "45", 4, 5)
    assert type(error.__cause__).__name__ == "BadItemError"
    found = values(url)
    assert set(range(40)) <= set(found)
    assert not set(range(40, 50)) & set(found)
    assert error.samples_processed == len(found)
    text = str(error)
    assert "Transform failed at index 45 of the input data on the item: 45" in text
    assert f"Last checkpoint: {len(found)} samples committed" in text
    assert "mode='resume', run='job'" in text
    assert "on_error='skip'" in text


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_skipped_item_is_one_row_of_failures(tmp_path: Path, scheduler: str) -> None:
    """With ``on_error="skip"`` 99 samples are written and one failure names the item."""
    url = tmp_path / "lake"
    report = bag().to_lake(
        url, schema=SCHEMA, transform=sample, on_error="skip", options=options(scheduler)
    )
    assert (report.samples, report.failures) == (99, 1)
    assert values(url) == [item for item in range(100) if item != 45]
    (failure,) = dasklake.open(url).failures().to_dict("records")
    place = (failure["partition"], failure["position"], failure["index"], failure["item"])
    assert place == (4, 5, 45, "45")
    assert (failure["exception"], failure["message"]) == ("BadItemError", "cannot take 45")
    assert "cannot take 45" in failure["traceback"]


def _map(bag: Any) -> Any:
    return bag.map(sample)


def _flatten(bag: Any) -> Any:
    return bag.map(lambda item: [sample(item)]).flatten()


def _generator(bag: Any) -> Any:
    return bag.map_partitions(generate)


def _zip(bag: Any) -> Any:
    return db.zip(bag, bag.map(sample)).map(lambda pair: pair[1])


def _frame(_: Any) -> Any:
    frame = dd.from_pandas(pd.DataFrame({"item": range(100)}), npartitions=10)

    def column(part: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"x": [sample(item)["x"] for item in part["item"]]}, dtype="int64")

    return frame.map_partitions(column, meta={"x": "int64"})


def _array(_: Any) -> Any:
    def block(part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.array([sample(int(item))["x"] for item in part], "int64")

    return da.arange(100, chunks=10).map_blocks(block, dtype="int64")


def _shared(bag: Any) -> Any:
    return bag.map(sample).repartition(5)


@pytest.mark.parametrize(
    "make", [_map, _flatten, _generator, _zip, _frame, _array, _shared], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_samples_and_failures_account_for_every_input(
    tmp_path: Path, make: Callable[[Any], Any], scheduler: str
) -> None:
    """An error that comes out of the collection loses its partition, says so, and nothing else."""
    url = tmp_path / "lake"
    collection = make(bag())
    report = dasklake.to_lake(
        collection,
        url,
        schema=SCHEMA,
        on_error="skip",
        max_failures=10,
        options=options(scheduler),
    )
    lake = dasklake.open(url)
    failures = lake.failures()
    size = 100 // collection.npartitions
    lost = {
        item
        for partition in failures["partition"]
        for item in range(size * partition, size * (partition + 1))
    }
    assert lost == set(range(45 // size * size, (45 // size + 1) * size))
    assert values(url) == [item for item in range(100) if item not in lost]
    assert failures["position"].isna().all()
    assert (report.failures, report.partitions) == (len(failures), collection.npartitions)
    assert lake.is_complete


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_error_of_the_collection_is_raised_with_its_partition(
    tmp_path: Path, scheduler: str
) -> None:
    """An error that comes out of the collection names the partition, and earlier ones are kept."""
    url = tmp_path / "lake"
    with pytest.raises(TransformError, match="in partition 4 of the input data") as caught:
        bag().map(sample).to_lake(url, schema=SCHEMA, options=options(scheduler))
    assert (caught.value.partition, caught.value.position, caught.value.index) == (4, None, None)
    assert type(caught.value.__cause__).__name__ == "BadItemError"
    assert set(range(40)) <= set(values(url))


def test_a_sample_that_does_not_fit_is_named_with_its_tensor(tmp_path: Path) -> None:
    """A value of a wrong type is an error of its sample and tensor, and can be skipped like any."""
    items = db.from_sequence([{"x": 1}, {"x": "two"}, {"x": 3}], npartitions=1)
    with pytest.raises(TransformError, match=r"at index 1 .*tensor 'x'"):
        items.to_lake(tmp_path / "raise", schema=SCHEMA, options=options())
    items.to_lake(tmp_path / "skip", schema=SCHEMA, on_error="skip", options=options())
    assert values(tmp_path / "skip") == [1, 3]
    assert dasklake.open(tmp_path / "skip").failures()["tensor"].tolist() == ["x"]


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_wrong_key_everywhere_does_not_succeed_with_nothing(
    tmp_path: Path, scheduler: str
) -> None:
    """A run of which every sample fails ends in an error, however small it is."""

    def wrong(_: int) -> dict[str, int]:
        raise KeyError("imgae")

    for items in (10, 5000):
        url = tmp_path / f"lake{items}"
        with pytest.raises(TooManyFailuresError, match="max_failures"):
            bag(items).to_lake(
                url, schema=SCHEMA, transform=wrong, on_error="skip", options=options(scheduler)
            )
        assert values(url) == []


@pytest.mark.parametrize("error", [MemoryError, PermissionError, ConnectionError, TimeoutError])
def test_errors_of_machine_and_storage_are_never_skipped(
    tmp_path: Path, error: type[BaseException]
) -> None:
    """What says nothing of the sample is not skipped as if it did."""

    def broken(item: int) -> dict[str, int]:
        if item == 45:
            raise error("not the sample's fault")
        return {"x": item}

    url = tmp_path / "lake"
    with pytest.raises(TransformError, match="not the sample's fault"):
        bag().to_lake(
            url, schema=SCHEMA, transform=broken, on_error="skip", options=options("sync")
        )
    assert len(dasklake.open(url).failures()) == 0


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_surface_and_committed_work_is_kept(
    tmp_path: Path, scheduler: str, error: type[BaseException]
) -> None:
    """An interrupt raised in the user's function ends the run as itself; what was there stays."""

    def interrupted(item: int) -> dict[str, int]:
        if item == 45:
            raise error("enough")
        return {"x": item}

    url = tmp_path / "lake"
    with pytest.raises(error):
        bag().to_lake(url, schema=SCHEMA, transform=interrupted, options=options(scheduler))
    assert set(range(40)) <= set(values(url))


def test_many_failures_of_one_partition_are_all_listed(tmp_path: Path) -> None:
    """Failures too many for a receipt come back whole, in the order of the input."""

    def odd(item: int) -> dict[str, int]:
        if item % 2:
            raise BadItemError(str(item))
        return {"x": item}

    url = tmp_path / "lake"
    bag(200).to_lake(
        url,
        schema=SCHEMA,
        transform=odd,
        on_error="skip",
        max_failures=None,
        checkpoint_every=20,
        options=options(),
    )
    failures = dasklake.open(url).failures()
    assert sorted(failures["index"]) == list(range(1, 200, 2))
    assert failures["item"].astype(int).equals(failures["index"].astype(int))
