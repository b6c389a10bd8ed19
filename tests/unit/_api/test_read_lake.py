"""Test that read_lake() takes what open() and to_dask_dataframe() take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import dasklake
from dasklake.exceptions import (
    CorruptionError,
    CorruptionWarning,
    InvalidInputError,
    VersionNotFoundError,
)


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Return a lake of two chunks of four samples."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    lake.create_tensor("name", "text")
    for begin in (0, 4):
        lake.extend([{"x": x, "name": f"n{x}"} for x in range(begin, begin + 4)])
    return lake


@pytest.mark.parametrize("filters", [[("x", ">=", 5)], pc.field("x") >= 5], ids=["list", "arrow"])
def test_filters_are_part_of_the_read(lake: dasklake.Lake, filters: Any) -> None:
    """Both kinds of filters select the same samples, also by a tensor that is not shown."""
    frame = dasklake.read_lake(lake.url, ["name"], filters=filters)
    assert frame.compute()["name"].tolist() == ["n5", "n6", "n7"]


def test_an_older_version_is_read(lake: dasklake.Lake) -> None:
    """``version`` is that of ``open``; one that does not exist is refused at once."""
    frame = dasklake.read_lake(lake.url, version=lake.version - 1)
    assert frame.x.compute().tolist() == [0, 1, 2, 3]
    with pytest.raises(VersionNotFoundError):
        dasklake.read_lake(lake.url, version=99)


def test_partitions_and_the_index_follow_the_arguments(lake: dasklake.Lake) -> None:
    """A small block size divides chunks, and a tensor becomes the index."""
    frame = dasklake.read_lake(lake.url, ["name", "x"], index="x", blocksize=16)
    assert frame.npartitions > 2
    assert frame.compute().index.tolist() == list(range(8))
    assert dasklake.read_lake(lake.url).npartitions == 2


def test_damaged_chunks_are_refused_or_skipped(lake: dasklake.Lake) -> None:
    """``on_corrupt`` is that of ``open``."""
    root = Path(lake.url.removeprefix("file://"))
    chunk = min(root.rglob("*-*-*.arrow"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 255
    chunk.write_bytes(bytes(data))
    with pytest.raises(CorruptionError):
        dasklake.read_lake(lake.url).compute(scheduler="sync")
    with pytest.warns(CorruptionWarning):
        frame = dasklake.read_lake(lake.url, on_corrupt="skip").compute(scheduler="sync")
    assert len(frame) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"filters": "x > 3"}, {"blocksize": "much"}, {"on_corrupt": "ignore"}, {"tensors": "numpy"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_arguments_are_refused_at_once(lake: dasklake.Lake, wrong: dict[str, Any]) -> None:
    """Nothing is read before the arguments are valid."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong)).rstrip("s")):
        dasklake.read_lake(lake.url, **wrong)
