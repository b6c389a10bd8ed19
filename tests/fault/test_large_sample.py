"""A sample larger than a chunk; in a deep search larger than 2 GiB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np

import dasklake

#: Size of the sample in bytes: above the copy limit, or above 32 bits.
SIZE = 2_200 << 20 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 70 << 20


def test_large_sample_gets_its_own_chunk(tmp_path: Path) -> None:
    """A sample larger than a chunk gets its own chunk; its memory may be reused afterwards."""
    memory = np.zeros(SIZE, "uint8")

    def make(x: int) -> dict[str, Any]:
        # The large sample comes first: it is on storage before its memory is reused.
        memory[:: 1 << 12] = x
        return {"x": x, "bytes": memory if x == 1 else memory[:5]}

    schema = {
        "x": dasklake.TensorSpec(dtype="int64", shape=()),
        "bytes": dasklake.TensorSpec(dtype="uint8", shape=(None,)),
    }
    bag = db.from_sequence([1, 2, 3], npartitions=1)
    options = dasklake.WriteOptions(scheduler="sync")
    report = dasklake.to_lake(bag, tmp_path, schema=schema, transform=make, options=options)
    assert report.bytes > SIZE
    lake = dasklake.open(tmp_path)
    assert [sample["x"] for sample in lake[1:]] == [2, 3]
    assert [sample["bytes"].tolist() for sample in lake[1:]] == [[2, 0, 0, 0, 0], [3, 0, 0, 0, 0]]
    large = lake["bytes"][0]
    assert (large.shape, large.dtype) == ((SIZE,), np.dtype("uint8"))
    assert (large[:: 1 << 12] == 1).all()
    assert int(np.count_nonzero(large)) == SIZE >> 12
