"""Test that a worker with little memory reads chunks that are far larger once decoded."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.bag as db
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from distributed import Client, LocalCluster

import dasklake
from dasklake import TensorSpec, WriteOptions
from dasklake.masks import from_polygons

#: Side of a mask, and the number of samples: 9 MB each, 405 MB in one chunk.
SIDE, SAMPLES = 3000, 45

#: MiB that a task may take besides the libraries.
LIMIT = 160


def _masks(row: int) -> dict[str, Any]:
    return {"masks": from_polygons([[[0, 0, 99, 0, 99, 99, 0, 99]]], (SIDE, SIDE)), "row": row}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Connect to one worker whose nanny kills it at 95 % of 600 MiB."""
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="600 MiB", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def lake(
    tmp_path_factory: pytest.TempPathFactory, client: Client
) -> dasklake.Lake:  # writes with it
    """Return a lake of a few kB, compacted into one chunk."""
    folder: Path = tmp_path_factory.mktemp("memory")
    schema = {
        "masks": TensorSpec("binary_mask", compression="rle"),
        "row": TensorSpec(dtype="int64", shape=()),
    }
    bag = db.from_sequence(range(SAMPLES), npartitions=4).map(_masks)
    options = WriteOptions(chunk_size="64 MiB")
    bag.to_lake(folder / "lake", schema=schema, options=options, progress=False)
    lake = dasklake.open(folder / "lake")
    lake.compact()
    lake.refresh()
    assert lake.to_dask_bag().npartitions == 1
    return lake


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _pixels(sample: Any) -> int:
    return int(sample["masks"].sum())


@dasklake.compute
def _count(sample_in: Any, samples_out: Any) -> None:
    samples_out.append({"pixels": _pixels(sample_in)})


def _bag(lake: dasklake.Lake) -> int:
    return int(lake.to_dask_bag().map(_pixels).sum().compute())


def _frame(lake: dasklake.Lake) -> int:
    frame = lake.to_dask_dataframe()
    assert frame.npartitions == 4
    return int(frame.map_partitions(_count_pixels, meta=("pixels", "int64")).sum().compute())


def _arrow_frame(lake: dasklake.Lake) -> int:
    frame = lake.to_dask_dataframe(tensors="arrow")
    assert frame.npartitions == 4
    return int(frame.map_partitions(_count_bits, meta=("pixels", "int64")).sum().compute())


def _count_pixels(part: Any) -> Any:
    return part["masks"].map(lambda mask: int(mask.sum()))


def _count_bits(part: Any) -> Any:
    data = pc.struct_field(pa.array(part["masks"]), "data")
    return pd.Series([pc.sum(pc.list_flatten(data)).as_py()])


def _eval(lake: dasklake.Lake) -> int:
    other = dasklake.empty(f"{lake.url}-{lake.version}-pixels")
    other.create_tensor("pixels", dtype="int64", shape=())
    _count().eval(lake, other, progress=False)
    other.refresh()
    return int(sum(other["pixels"].numpy()))


@pytest.mark.parametrize("read", [_bag, _frame, _arrow_frame, _eval])
def test_a_small_worker_reads_a_large_chunk(
    read: Callable[[dasklake.Lake], int], lake: dasklake.Lake, client: Client
) -> None:
    """The peak memory of a worker does not depend on the decoded size of a chunk."""
    (before,) = client.run(_peak).values()
    assert read(lake) == SAMPLES * 99 * 99
    (after,) = client.run(_peak).values()
    assert after - before < LIMIT, f"{before} MiB before, {after} MiB after"
