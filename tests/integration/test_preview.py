"""Previews of a job, and callbacks for its checkpoints."""

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
    """Preview a write of items."""
    bag = db.from_sequence(range(items), npartitions=items // 10)
    arguments = {"preview": 20, "checkpoint_every": 50, "options": LOCAL, **arguments}
    return dasklake.to_lake(bag, url, schema=SCHEMA, transform=sample, **arguments)


def test_estimate_is_close_to_the_written_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The estimate is close to the size of the write, and the preview writes nothing."""
    result = preview(tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
    assert not fsspec.filesystem("memory").find("dasklake-preview")
    printed = capsys.readouterr().out
    for text in ("20 items produced 20 samples", "'binary_mask'", "200 items in 20 partitions"):
        assert text in printed
    assert "No item failed." in printed
    assert (result.inputs, result.samples, result.failures) == (20, 20, ())
    report = preview(tmp_path / "lake", preview=None)
    assert 0.8 < result.estimated_bytes / report.bytes < 1.2
    assert result.estimated_commits == report.commits
    objects = sum(path.is_file() for path in (tmp_path / "lake").rglob("*"))
    assert 0.7 < result.estimated_objects / objects < 1.5
    assert result.estimated_seconds > 0


def test_first_failures_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first failures are listed, for any error handling of the job."""
    result = preview(tmp_path / "lake", transform_kwargs={"bad": 13})
    assert (result.inputs, result.samples) == (20, 19)
    assert [failure.index for failure in result.failures] == [13]
    assert "13 (13): ValueError: bad item" in capsys.readouterr().out


def test_input_error_is_a_failure_of_its_partition(tmp_path: Path) -> None:
    """An input error is a failure of its partition, not of the preview."""

    def broken(_: Any) -> Any:
        raise OSError("no such file")

    bag = db.from_sequence(range(10), npartitions=2).map(broken)
    result = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, preview=5, options=LOCAL)
    assert result.samples == 0
    assert result.failures[0].exception == "OSError"


@pytest.mark.parametrize(
    "collection",
    [
        dd.from_pandas(pd.DataFrame({"a": range(50), "b": ["x"] * 50}), npartitions=2),
        da.arange(50, chunks=25),
        {"a": da.zeros((50, 3), chunks=25), "b": da.arange(50, chunks=25)},
    ],
    ids=["dataframe", "array", "arrays"],
)
def test_tables_and_arrays_are_previewed(collection: Any, tmp_path: Path) -> None:
    """The first rows of tables and arrays are previewed, over several partitions if necessary."""
    result = dasklake.to_lake(collection, tmp_path / "lake", preview=30, options=LOCAL)
    assert (result.inputs, result.samples, result.total) == (30, 30, 50)
    assert all(result.sizes.values())


def test_unknown_length_has_no_estimate(tmp_path: Path) -> None:
    """If the length of the input is unknown, totals and estimates are None."""
    bag = db.from_sequence(range(10), npartitions=2).filter(lambda i: i % 2 == 0)
    result = dasklake.to_lake(
        bag, tmp_path / "lake", schema=SCHEMA, transform=sample, preview=3, options=LOCAL
    )
    assert (result.total, result.estimated_bytes, result.estimated_commits) == (None, None, None)
    assert "unknown number" in str(result)


def test_preview_raises_the_errors_of_the_lake(tmp_path: Path) -> None:
    """A preview raises the errors that the lake would raise."""
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


def test_preview_runs_on_every_front(front: Front, tmp_path: Path) -> None:
    """A preview runs on the job's scheduler; a callback receives every checkpoint of the job."""
    bag = db.from_sequence(range(40), npartitions=20)
    job: dict[str, Any] = {"schema": SCHEMA, "transform": sample, "checkpoint_every": 10}
    options = front.options()
    result = dasklake.to_lake(bag, tmp_path / "lake", preview=4, options=options, **job)
    assert (result.inputs, result.samples) == (4, 4)
    versions: list[int] = []
    report = front.write(bag, tmp_path / "lake", on_checkpoint=versions.append, **job)
    assert versions == sorted(set(versions))
    assert versions[-1] == report.version


def test_error_in_a_callback_is_a_warning(tmp_path: Path) -> None:
    """An error in a callback becomes a warning; the run continues."""

    def fail(version: int) -> None:
        raise ValueError(f"no room for {version}")

    with pytest.warns(UserWarning, match="on_checkpoint failed: ValueError"):
        report = preview(tmp_path / "lake", items=20, preview=None, on_checkpoint=fail)
    assert report.samples == 20
