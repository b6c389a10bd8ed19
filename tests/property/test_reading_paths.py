"""Test that all ways to read the same samples give the same values, for random lakes and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import dask.bag as db
import fsspec
from hypothesis import given, settings
from hypothesis import strategies as st

import dasklake
from dasklake import TensorSpec
from tests.support.htypes import FITTING
from tests.support.samples import same

ROW = TensorSpec(dtype="int64", shape=())


@st.composite
def samples(draw: st.DrawFn) -> tuple[dict[str, TensorSpec], list[dict[str, Any]]]:
    """Return a schema of a few htypes, and samples, some of whose values are missing."""
    names = draw(st.lists(st.sampled_from(sorted(FITTING)), min_size=1, max_size=6, unique=True))
    schema = {"row": ROW, **{name: FITTING[name][0] for name in names}}
    count = draw(st.integers(1, 20))
    values = {name: st.sampled_from([None, *FITTING[name][1]]) for name in names}
    return schema, [
        {"row": row, **{name: draw(value) for name, value in values.items()}}
        for row in range(count)
    ]


def equal(actual: Any, expected: Any) -> bool:
    """Compare values, the items of lists, and the bytes or URLs of files."""
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(equal, actual, expected))
    if getattr(expected, "url", None) is not None:
        return bool(actual.url == expected.url)
    if isinstance(expected, dasklake.File):
        return bool(actual.bytes() == expected.bytes())
    return same(actual, expected)


def check(actual: Sequence[Any], expected: Sequence[Any]) -> None:
    """Compare samples, value by value."""
    assert len(actual) == len(expected)
    for sample, wanted in zip(actual, expected, strict=True):
        assert [name for name in wanted if not equal(sample[name], wanted[name])] == []


def as_samples(batches: Any) -> list[dict[str, Any]]:
    """Return the samples of batches."""
    return [
        {name: column[i] for name, column in batch.items()}
        for batch in batches
        for i in range(len(batch["row"]))
    ]


@contextmanager
def folder() -> Iterator[str]:
    """Make a folder in memory, and remove it."""
    name = f"reading-paths-{uuid4()}"
    try:
        yield f"memory://{name}"
    finally:
        fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


@settings(max_examples=settings().max_examples // 3)
@given(samples(), st.data())
def test_all_ways_to_read_give_the_same_samples(
    made: tuple[dict[str, TensorSpec], list[dict[str, Any]]], data: st.DataObject
) -> None:
    """Samples by index, take, views, batches, bags and filters agree, and copies as well."""
    with folder() as url:
        _compare(*made, data, url)


def _compare(
    schema: dict[str, TensorSpec], items: list[dict[str, Any]], data: st.DataObject, url: str
) -> None:
    partitions = data.draw(st.integers(1, 4), label="partitions")
    sync = dasklake.WriteOptions(scheduler="sync")
    bag = db.from_sequence(items, npartitions=partitions)
    dasklake.to_lake(bag, f"{url}/lake", schema=schema, options=sync, progress=False)
    lake = dasklake.open(f"{url}/lake")
    if data.draw(st.booleans(), label="compact"):
        lake.compact()
        lake.refresh()
    rows = data.draw(
        st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=30), label="rows"
    )
    size = data.draw(st.integers(1, 8), label="batch size")
    expected = [lake[row] for row in rows]
    view = lake.select(rows)
    check(as_samples([lake.take(rows)]), expected)
    check(list(view), expected)
    check([view[i] for i in range(len(view))], expected)
    check(list(view.select(range(0, len(rows), 2))), expected[::2])
    check(as_samples(view.batches(size)), expected)
    check(view.to_dask_bag().compute(scheduler="sync"), expected)
    shuffled = as_samples(view.batches(size, shuffle=True, seed=size))
    assert sorted(int(sample["row"]) for sample in shuffled) == sorted(rows)
    check(shuffled, [lake[int(sample["row"])] for sample in shuffled])
    check(list(lake.where([("row", ">=", size)])), list(lake)[size:])
    parts = lake.split({"a": 0.5, "b": 0.5}, seed=size)
    split = [int(sample["row"]) for part in parts.values() for sample in part]
    assert sorted(split) == list(range(len(items)))
    view.copy_to(f"{url}/copy", progress=False)
    check(list(dasklake.open(f"{url}/copy")), expected)
