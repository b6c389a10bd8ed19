"""A look at a long job before it begins, and at its checkpoints while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, SchemaError
from tests.support.clusters import Front

SCHEMA: dict[str, Any] = {"x": dasklake.TensorSpec(dtype="int64", shape=()), "mask": "binary_mask"}
LOCAL = dasklake.WriteOptions(scheduler="sync", chunk_size="1 kB")


def sample(i: int, bad: int = -1) -> dict[str, Any]:
    """Make a sample."""
    if i == bad:
        raise ValueError("bad item")
    return {"x": i, "mask": np.random.default_rng(i).random((40, 50, 2)) < 0.5}


def preview(url: Path, items: int = 200, **arguments: Any) -> Any:
    """Preview the write of some items."""
    bag = db.from_sequence(range(items), npartitions=items // 10)
    arguments = {"preview": 20, "checkpoint_every": 50, "options": LOCAL, **arguments}
    return dasklake.to_lake(bag, url, schema=SCHEMA, transform=sample, **arguments)


def test_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The estimate is that of the write itself, and nothing is written before."""
    found = preview(tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
    assert not fsspec.filesystem("memory").find("dasklake-preview")
    printed = capsys.readouterr().out
    for text in ("20 items produced 20 samples", "'binary_mask'", "200 items in 20 partitions"):
        assert text in printed
    assert "No item failed." in printed
    assert (found.inputs, found.samples, found.failures) == (20, 20, ())
    report = preview(tmp_path / "lake", preview=None)
    assert 0.8 < found.estimated_bytes / report.bytes < 1.2
    assert found.estimated_commits == report.commits
    objects = sum(path.is_file() for path in (tmp_path / "lake").rglob("*"))
    assert 0.7 < found.estimated_objects / objects < 1.5
    assert found.estimated_seconds > 0


def test_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first failures are named, whatever the job itself is to do about them."""
    found = preview(tmp_path / "lake", transform_kwargs={"bad": 13})
    assert (found.inputs, found.samples) == (20, 19)
    assert [failure.index for failure in found.failures] == [13]
    assert "13 (13): ValueError: bad item" in capsys.readouterr().out


def test_broken_input(tmp_path: Path) -> None:
    """An input that cannot be made is a failure of its partition, not of the preview."""

    def broken(_: Any) -> Any:
        raise OSError("no such file")

    bag = db.from_sequence(range(10), npartitions=2).map(broken)
    found = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, preview=5, options=LOCAL)
    assert found.samples == 0
    assert found.failures[0].exception == "OSError"


@pytest.mark.parametrize(
    "collection",
    [
        dd.from_pandas(pd.DataFrame({"a": range(50), "b": ["x"] * 50}), npartitions=2),
        da.arange(50, chunks=25),
        {"a": da.zeros((50, 3), chunks=25), "b": da.arange(50, chunks=25)},
    ],
    ids=["dataframe", "array", "arrays"],
)
def test_other_collections(collection: Any, tmp_path: Path) -> None:
    """Of a table and of arrays the first rows are tried, over several partitions if need be."""
    found = dasklake.to_lake(collection, tmp_path / "lake", preview=30, options=LOCAL)
    assert (found.inputs, found.samples, found.total) == (30, 30, 50)
    assert all(found.sizes.values())


def test_number_not_known(tmp_path: Path) -> None:
    """Where the input does not say how long it is, nothing is made up."""
    bag = db.from_sequence(range(10), npartitions=2).filter(lambda i: i % 2 == 0)
    found = dasklake.to_lake(
        bag, tmp_path / "lake", schema=SCHEMA, transform=sample, preview=3, options=LOCAL
    )
    assert (found.total, found.estimated_bytes, found.estimated_commits) == (None, None, None)
    assert "unknown number" in str(found)


def test_schema_of_the_lake(tmp_path: Path) -> None:
    """What would be refused by the lake is refused by the preview."""
    preview(tmp_path / "lake", items=10, preview=None)
    with pytest.raises(SchemaError, match="another schema"):
        dasklake.to_lake(
            db.from_sequence([{"y": 1}]),
            tmp_path / "lake",
            schema={"y": dasklake.TensorSpec(dtype="int64", shape=())},
            mode="append",
            preview=5,
            options=LOCAL,
        )
    with pytest.raises(InvalidInputError, match="preview must be"):
        preview(tmp_path / "lake", preview=0)


def test_every_front(front: Front, tmp_path: Path) -> None:
    """A preview runs where the job would; a callback hears of its checkpoints, the last one too."""
    bag = db.from_sequence(range(40), npartitions=20)
    job: dict[str, Any] = {"schema": SCHEMA, "transform": sample, "checkpoint_every": 10}
    options = front.options()
    found = dasklake.to_lake(bag, tmp_path / "lake", preview=4, options=options, **job)
    assert (found.inputs, found.samples) == (4, 4)
    versions: list[int] = []
    report = front.write(bag, tmp_path / "lake", on_checkpoint=versions.append, **job)
    assert versions == sorted(set(versions))
    assert versions[-1] == report.version


def test_callback_that_fails(tmp_path: Path) -> None:
    """What a callback raises is a warning; the run goes on."""

    def fail(version: int) -> None:
        raise ValueError(f"no room for {version}")

    with pytest.warns(UserWarning, match="on_checkpoint failed: ValueError"):
        report = preview(tmp_path / "lake", items=20, preview=None, on_checkpoint=fail)
    assert report.samples == 20
