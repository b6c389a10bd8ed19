"""Several lazy writes and other collections of one computation compute their common input once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import dask.base
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake.exceptions import InvalidInputError

#: Two columns of numbers, in four partitions.
FRAME = pd.DataFrame({"x": range(8), "y": [n / 2 for n in range(8)]})
SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


COMPUTE: Any = dask.base.compute
READ: Any = dd.read_parquet
TOGETHER: Any = getattr(dask.base, "collections_to_expr", None)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """Return a client of a cluster of two processes."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
        Client(local) as client,
    ):
        yield client


def note(block: Any, folder: str) -> Any:
    """Return a partition, and leave a file for the call, if it has data."""
    values = block["x"].tolist() if isinstance(block, pd.DataFrame) else np.ravel(block).tolist()
    if values:
        with (Path(folder) / f"{values[0]}").open("a") as file:
            file.write(".")
    return block


def note_bag(part: Any, folder: str) -> list[Any]:
    """Return a partition of a bag, and leave a file for the call."""
    items = list(part)
    note(np.array([item["x"] for item in items]), folder)
    return items


def calls(folder: Path) -> Counter[str]:
    """Return the number of calls for each partition."""
    return Counter({file.name: len(file.read_text()) for file in folder.iterdir()})


def upstream(kind: str, folder: str) -> tuple[Any, Any]:
    """Return a collection of four partitions that notes its calls, and a sum of its numbers."""
    if kind == "frame":
        frame = dd.from_pandas(FRAME, npartitions=4).map_partitions(
            note, folder, meta=FRAME.iloc[:0]
        )
        return frame, frame.x.sum()
    if kind == "array":
        array = da.arange(8, chunks=2).map_blocks(
            note, folder, dtype="int64", meta=np.empty(0, dtype="int64")
        )
        return array, array.sum()
    bag = db.from_sequence([{"x": n} for n in range(8)], npartitions=4).map_partitions(
        note_bag, folder
    )
    return bag, bag.pluck("x").sum()


ONCE = {"0": 1, "2": 1, "4": 1, "6": 1}


def write(collection: Any, url: Path) -> Any:
    """Return a lazy write."""
    schema = None if hasattr(collection, "dtypes") or hasattr(collection, "dtype") else SCHEMA
    return dasklake.to_lake(collection, url, schema=schema, input_id="id", compute=False)


@pytest.mark.parametrize("kind", ["frame", "array", "bag"])
@pytest.mark.parametrize("scheduler", ["threads", "cluster"])
def test_common_input_is_computed_once(
    kind: str, scheduler: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Two lazy writes and a sum compute each partition once, and write what each alone would."""
    get = request.getfixturevalue("cluster") if scheduler == "cluster" else scheduler
    folder = tmp_path / "calls"
    folder.mkdir()
    collection, total = upstream(kind, str(folder))
    lazy = [write(collection, tmp_path / name) for name in ("a", "b")]
    assert not list(folder.iterdir())
    first, second, summed = COMPUTE(*lazy, total, scheduler=get)
    assert calls(folder) == ONCE
    assert summed == 28
    for name, report in zip(("a", "b"), (first, second), strict=True):
        assert (report.samples, report.partitions) == (8, 4)
        lake = dasklake.open(tmp_path / name)
        assert [int(next(iter(sample.values()))) for sample in lake] == list(range(8))


@pytest.mark.parametrize("kind", ["frame", "array", "bag"])
def test_changed_copies_share_the_input(kind: str, tmp_path: Path) -> None:
    """A derived collection and the collection itself are written from the same partitions."""
    folder = tmp_path / "calls"
    folder.mkdir()
    collection, _ = upstream(kind, str(folder))
    derived = {
        "frame": lambda: collection.assign(z=collection.x * 2)[["x", "z"]],
        "array": lambda: collection * 2,
        "bag": lambda: collection.map(lambda item: {"x": item["x"] * 2}),
    }[kind]()
    if kind == "bag":
        collection = collection.map(lambda item: item)
    COMPUTE(write(collection, tmp_path / "a"), write(derived, tmp_path / "b"), scheduler="sync")
    last = list(dasklake.open(tmp_path / "b"))[-1]
    assert int(list(last.values())[-1]) == 14
    if kind != "bag":  # functions before the last may return iterators, so they are not shared
        assert calls(folder) == ONCE


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, in Dask
@pytest.mark.skipif(TOGETHER is None, reason="Dask before 2025.4 optimises each frame alone")
def test_a_shared_file_is_read_once(tmp_path: Path) -> None:
    """A sum of one column reads the columns that the writes read, so that they share the reads."""
    source: Any = dd.from_pandas(FRAME, npartitions=2)
    source.to_parquet(tmp_path / "p", write_index=False)
    frame: Any = READ(tmp_path / "p")
    lazy = [write(frame, tmp_path / name) for name in ("a", "b")]
    together = TOGETHER((*lazy, frame.x.sum())).optimize()
    reads = {e._name for e in together.walk() if "read_parquet" in e._name}
    assert len(reads) == 1
    reports = COMPUTE(*lazy, scheduler="sync")
    assert [report.samples for report in reports] == [8, 8]


def test_iterators_are_not_shared(tmp_path: Path) -> None:
    """The items of a generator are never consumed by two collections: it is called for each."""

    def generate(part: Any) -> Any:
        yield from part

    bag = db.from_sequence([{"x": n} for n in range(4)], npartitions=2).map_partitions(generate)
    same = bag.map(lambda item: item)
    report, count = COMPUTE(write(bag, tmp_path / "a"), same.count(), scheduler="sync")
    assert (report.samples, count) == (4, 4)
    assert write(same, tmp_path / "b").compute(scheduler="sync").samples == 4


def test_hidden_iterators_are_refused(tmp_path: Path) -> None:
    """A function that returns an iterator without being a generator is an error with a remedy."""
    bag = db.from_sequence([{"x": n} for n in range(4)], npartitions=2).map_partitions(
        lambda part: iter(list(part))
    )
    with pytest.raises(InvalidInputError, match="Return a list, or write with compute=True"):
        write(bag, tmp_path / "lake").compute(scheduler="sync")
    report = dasklake.to_lake(
        bag, tmp_path / "lake", schema=SCHEMA, mode="overwrite", run="again", progress=False
    )
    assert report.samples == 4


def test_skipping_writes_keep_their_input(tmp_path: Path) -> None:
    """If failures are skipped, a failing task of the input costs only its partition."""

    def fail(block: pd.DataFrame) -> pd.DataFrame:
        if (block.x == 2).any():
            raise ValueError("bad")
        return block

    frame = dd.from_pandas(FRAME, npartitions=4).map_partitions(fail, meta=FRAME.iloc[:0])
    lazy = dasklake.to_lake(
        frame, tmp_path / "lake", compute=False, on_error="skip", max_failures=None
    )
    report = lazy.compute(scheduler="sync")
    assert (report.samples, report.failures) == (6, 1)


def test_a_frame_computed_again_is_one_run(tmp_path: Path) -> None:
    """A second computation finds the run finished and writes nothing."""
    folder = tmp_path / "calls"
    folder.mkdir()
    lazy = write(upstream("frame", str(folder))[0], tmp_path / "lake")
    first, second = lazy.compute(scheduler="sync"), lazy.compute(scheduler="sync")
    assert (first.version, first.samples) == (second.version, second.samples) == (2, 8)


def test_persisted_frames_and_arrays(cluster: Client, tmp_path: Path) -> None:
    """Results that the cluster holds are written by lazy writes, without other copies of them."""
    for kind in ("frame", "array", "bag"):
        folder = tmp_path / kind
        folder.mkdir()
        collection, _ = upstream(kind, str(folder))
        held = collection.persist()
        lazy = write(held, tmp_path / f"{kind}-lake")
        del held
        assert cluster.compute(lazy).result().samples == 8
        assert calls(folder) == ONCE
