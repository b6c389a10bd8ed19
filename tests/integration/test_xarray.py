"""Datasets of xarray as inputs: each variable along the dimension of the samples is a tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError
from tests.support.clusters import Front

xr: Any = pytest.importorskip("xarray")

SYNC = dasklake.WriteOptions(scheduler="sync")

#: Pictures of six times in three chunks.
PICTURES = np.arange(6 * 2 * 3, dtype="float32").reshape(6, 2, 3)


def dataset(**more: Any) -> Any:
    """Return a Dataset with two variables and two coordinates along time."""
    variables = {
        "picture": (("time", "y", "x"), da.from_array(PICTURES, chunks=(2, 2, 3))),
        "wind": (("time",), np.arange(6)),
    }
    coords = {
        "time": pd.date_range("2020-01-01", periods=6, unit="ns"),
        "station": ("time", list("abcdef")),
    }
    return xr.Dataset(variables | more, coords=coords)


def test_variables_and_coordinates_become_tensors(front: Front, tmp_path: Path) -> None:
    """On every front the samples are those of the first dimension, in the chunks of the Dataset."""
    report = front.write(dataset(), tmp_path / "lake")
    assert (report.samples, report.partitions) == (6, 3)
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake.schema) == ["time", "station", "picture", "wind"]
    assert lake.schema["picture"] == dasklake.TensorSpec(dtype="float32", shape=(2, 3))
    np.testing.assert_array_equal(lake["picture"][:], PICTURES)
    assert [sample["station"] for sample in lake] == list("abcdef")
    assert lake["wind"][:].tolist() == list(range(6))
    assert lake[3]["time"] == np.datetime64("2020-01-04")


def test_another_dimension_is_named(tmp_path: Path) -> None:
    """With ``dim`` the samples lie along it, and it is the first axis of each array."""
    pictures = dataset().drop_vars(["wind", "time", "station"])
    with pytest.warns(UserWarning, match="several chunks along other axes"):
        report = dasklake.to_lake(pictures, tmp_path / "lake", dim="y", options=SYNC)
    assert report.samples == 2
    stored = dasklake.open(tmp_path / "lake")["picture"][:]
    np.testing.assert_array_equal(stored, PICTURES.transpose(1, 0, 2))


def test_a_dataset_is_appended_resumed_and_transformed(tmp_path: Path) -> None:
    """A Dataset is the same input when it is built again, and a transform gets its values."""
    for _ in range(2):
        dasklake.to_lake(dataset(), tmp_path / "lake", mode="resume", run="one", options=SYNC)
    assert len(dasklake.open(tmp_path / "lake")) == 6
    dasklake.open(tmp_path / "lake").write(dataset(), options=SYNC)
    assert len(dasklake.open(tmp_path / "lake")) == 12
    dasklake.to_lake(
        dataset(),
        tmp_path / "means",
        schema={"mean": "float32"},
        transform=lambda item: {"mean": item["picture"].mean()},
        options=SYNC,
    )
    means = dasklake.open(tmp_path / "means")["mean"][:]
    np.testing.assert_array_equal(means, PICTURES.mean(axis=(1, 2)))


def test_what_is_not_written_is_named(tmp_path: Path) -> None:
    """Coordinates along other dimensions and attributes are warned of, and the remedy works."""
    described = dataset().assign_coords(x=[1, 2, 3]).assign_attrs(title="weather")
    with pytest.warns(UserWarning, match=r"\['x'\] without the dimension 'time' and the attr") as w:
        dasklake.to_lake(described, tmp_path / "lake", options=SYNC)
    assert w[0].filename == __file__
    assert "dataset.drop_vars(['x']).drop_attrs() is written" in str(w[0].message)
    dasklake.to_lake(described.drop_vars(["x"]).drop_attrs(), tmp_path / "quiet", options=SYNC)
    quiet, lake = (dasklake.open(tmp_path / name) for name in ("quiet", "lake"))
    assert dict(quiet.schema) == dict(lake.schema)


def test_inputs_that_are_not_certain_are_refused(tmp_path: Path) -> None:
    """Each error names the remedy, which works."""
    fixed = dataset(mask=(("y", "x"), np.ones((2, 3))))
    with pytest.raises(InvalidInputError, match=r"\['mask'\] must have the dimension 'time'"):
        dasklake.to_lake(fixed, tmp_path / "lake")
    with pytest.raises(InvalidInputError, match=r"dataset\.chunk\(\{'time': 1000\}\)"):
        dasklake.to_lake(dataset().compute(), tmp_path / "lake")
    with pytest.raises(InvalidInputError, match=r"array\.to_dataset\(name='wind'\)"):
        dasklake.to_lake(dataset()["wind"], tmp_path / "lake")
    with pytest.raises(
        InvalidInputError, match=r"dim must be one of .* 'time', 'y', 'x' .* got 'z'"
    ):
        dasklake.to_lake(dataset(), tmp_path / "lake", dim="z")
    with pytest.raises(InvalidInputError, match="a data variable with a dimension"):
        dasklake.to_lake(xr.Dataset({"one": 1}), tmp_path / "lake")
    assert not (tmp_path / "lake").exists()
    chunked = dataset().compute().chunk({"time": 1000})
    dasklake.to_lake(chunked.drop_vars([]), tmp_path / "chunked", options=SYNC)
    dasklake.to_lake(fixed.drop_vars(["mask"]), tmp_path / "lake", options=SYNC)
    named = chunked["wind"].to_dataset(name="wind")
    dasklake.to_lake(named, tmp_path / "named", options=SYNC)
    assert len(dasklake.open(tmp_path / "named")) == 6
