"""Futures of a cluster in the input and the arguments of a write, or a refusal before the run begins."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import dask.base
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.delayed import delayed
from distributed import Client

import dasklake
from dasklake.exceptions import InvalidInputError
from tests.support.clusters import Cluster

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The input has no deterministic identity:UserWarning"),
]

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """Connect to the cluster, as Dask's current scheduler."""
    with Client(cluster.address) as client:
        yield client


def double(item: int) -> dict[str, int]:
    """Make a sample of an item."""
    return {"x": 2 * item}


def add(item: int, more: Any) -> dict[str, int]:
    """Make a sample of an item and the numbers in an argument."""
    numbers = [more] if isinstance(more, int) else more["numbers"]
    return {"x": 2 * item + sum(numbers)}


def rows(partition: Any, more: int) -> list[dict[str, int]]:
    """Make the samples of a partition and an argument."""
    return [add(item, more) for item in partition]


def numbers() -> Any:
    """Return the items in partitions."""
    return db.from_sequence(range(6), npartitions=3)


def doubled_bag() -> Any:
    """Return the samples as a bag."""
    return numbers().map(double)


def doubled_array() -> Any:
    """Return the samples as an array."""
    return da.arange(0, 12, 2, chunks=2)


def doubled_frame() -> Any:
    """Return the samples as a frame."""
    return dd.from_pandas(pd.DataFrame({"x": range(0, 12, 2)}), npartitions=3)


def persisted_five() -> Any:
    """Return a persisted Delayed."""
    five: Any = delayed(int)("5")
    return five.persist()


INPUTS: dict[str, Callable[[Client], Any]] = {
    "bag.persist": lambda _: doubled_bag().persist(),
    "client.persist": lambda client: client.persist(doubled_bag()),
    "bag.persist.map": lambda _: doubled_bag().persist().map(dict),
    "array.persist": lambda _: {"x": doubled_array().persist()},
    "array.persist.rechunk": lambda _: {"x": doubled_array().persist().rechunk(3)},
    "array.persist, sliced": lambda _: {"x": da.arange(0, 20, 2, chunks=4).persist()[:6]},
    "dask.persist": lambda _: {"x": dask.base.persist(doubled_array(), doubled_bag())[0]},
    "array of a future": lambda client: {
        "x": da.from_delayed(client.submit(np.arange, 0, 12, 2), (6,), np.int64)
    },
    "frame.persist": lambda _: doubled_frame().persist(),
    "frame.persist.repartition": lambda _: doubled_frame().persist().repartition(npartitions=2),
    "items are futures": lambda client: db.from_sequence(
        client.map(double, range(6)), npartitions=2
    ),
    "map_partitions": lambda client: numbers().map_partitions(rows, client.submit(int)),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(client: Client, tmp_path: Path, name: str) -> None:
    """Each kind of input that holds futures is written in its order."""
    source = INPUTS[name](client)
    schema = None if type(source).__name__ == "DataFrame" else SCHEMA
    dasklake.to_lake(source, tmp_path / "lake", schema=schema, progress=False)
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == list(range(0, 12, 2))


@pytest.mark.parametrize("coordinator", ["scheduler", "client"])
@pytest.mark.parametrize("kind", ["scatter", "submit", "persist", "nested"])
def test_arguments(client: Client, tmp_path: Path, kind: str, coordinator: Any) -> None:
    """Futures among the arguments of a transform arrive as their values, also inside containers."""
    arguments: dict[str, Callable[[], Any]] = {
        "scatter": lambda: client.scatter(5),
        "submit": lambda: client.submit(int, "5"),
        "persist": persisted_five,
        "nested": lambda: {"numbers": [client.scatter(2), delayed(int)("3")]},
    }
    more = arguments[kind]()
    dasklake.to_lake(
        numbers(),
        tmp_path / "lake",
        schema=SCHEMA,
        transform=add,
        transform_kwargs={"more": more},
        coordinator=coordinator,
        progress=False,
    )
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == list(range(5, 17, 2))


def test_lazy_and_preview(client: Client, tmp_path: Path) -> None:
    """A lazy write keeps the futures after the collection is deleted, and a preview reads them."""
    source = doubled_bag().persist()
    more = client.scatter(5)
    preview = source.to_lake(tmp_path / "lake", schema=SCHEMA, preview=2)
    assert preview.samples == 2
    lazy = source.to_lake(
        tmp_path / "lake",
        schema=SCHEMA,
        transform=lambda sample, more: {"x": sample["x"] + more},
        transform_kwargs={"more": more},
        compute=False,
    )
    del source, more
    assert lazy.compute().samples == 6
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == list(range(5, 17, 2))


def test_resume(client: Client, tmp_path: Path) -> None:
    """A run over a persisted input is resumed with a collection that was persisted again."""

    def fails(sample: dict[str, int]) -> dict[str, int]:
        if sample["x"] == 10:
            raise ValueError("not yet")
        return sample

    arguments: Any = {"schema": SCHEMA, "mode": "resume", "run": "r", "progress": False}
    with pytest.raises(dasklake.exceptions.TransformError):
        doubled_bag().persist().to_lake(tmp_path / "lake", transform=fails, **arguments)
    doubled_bag().persist().to_lake(tmp_path / "lake", transform=dict, **arguments)
    assert sorted(dasklake.open(tmp_path / "lake")["x"][:].tolist()) == list(range(0, 12, 2))


@pytest.mark.parametrize("mode", ["create", "resume"])
def test_results_that_are_gone(client: Client, tmp_path: Path, mode: Any) -> None:
    """Cancelled results are refused before a run begins, and the lake is not created."""
    source = doubled_bag().persist()
    client.cancel(source)
    with pytest.raises(InvalidInputError, match="does not hold 3 of 3 results"):
        dasklake.to_lake(
            source, tmp_path / "lake", schema=SCHEMA, mode=mode, run="r", progress=False
        )
    assert not (tmp_path / "lake").exists()


def test_futures_that_were_dropped(client: Client, tmp_path: Path) -> None:
    """Futures that were released are reported with the remedy."""
    futures = client.map(rows, [[1], [2]], more=5)
    source = db.from_delayed(futures)
    client.cancel(futures)
    del futures
    with pytest.raises(InvalidInputError, match="Keep the futures"):
        dasklake.to_lake(source, tmp_path / "lake", schema=SCHEMA, progress=False)


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_local_schedulers(client: Client, tmp_path: Path, scheduler: str) -> None:
    """A local scheduler refuses futures before it writes, and in a preview."""
    local: Any = {"options": dasklake.WriteOptions(scheduler=scheduler), "schema": SCHEMA}
    url = tmp_path / "lake"
    source = doubled_bag().persist()
    for preview in (None, 2):
        with pytest.raises(InvalidInputError, match="local scheduler"):
            dasklake.to_lake(source, url, preview=preview, **local)
    arguments = {"more": {"numbers": [client.scatter(5)]}}
    with pytest.raises(InvalidInputError, match="local scheduler"):
        numbers().to_lake(url, transform=add, transform_kwargs=arguments, **local)
    assert not url.exists()


def test_bound_futures(client: Client, tmp_path: Path) -> None:
    """A transform that binds a future is refused, and the remedy works."""
    more = client.scatter(5)
    for transform in (functools.partial(add, more=more), lambda item: add(item, more)):
        with pytest.raises(InvalidInputError, match=r"transform_kwargs=\{'more': future\}"):
            dasklake.to_lake(numbers(), tmp_path / "lake", schema=SCHEMA, transform=transform)
    arguments = {"more": more}
    report = numbers().to_lake(
        tmp_path / "lake", schema=SCHEMA, transform=add, transform_kwargs=arguments
    )
    assert report.samples == 6
