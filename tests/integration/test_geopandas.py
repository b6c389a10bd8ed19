"""GeoDataFrames as inputs: geometries are written as WKB, and read back equal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, SchemaError
from tests.support.clusters import Front

geopandas: Any = pytest.importorskip("geopandas")
dask_geopandas: Any = pytest.importorskip("dask_geopandas")
shapely: Any = pytest.importorskip("shapely")

SYNC = dasklake.WriteOptions(scheduler="sync")


def places(crs: str | None = None, index: Any = None) -> Any:
    """Return three places, one without a geometry."""
    shapes = [shapely.Point(0, 1), None, shapely.Polygon([(0, 0), (1, 0), (1, 1)])]
    return geopandas.GeoDataFrame(
        {"name": ["a", "b", "c"], "size": [1, 2, 3]}, geometry=shapes, crs=crs, index=index
    )


def test_geometries_are_written_as_bytes(front: Front, tmp_path: Path) -> None:
    """On every front the geometries are equal when they are read, and other columns unchanged."""
    frame = dask_geopandas.from_geopandas(places(), npartitions=2)
    report = front.write(frame, tmp_path / "lake")
    assert (report.samples, report.partitions) == (3, 2)
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake.schema) == ["name", "size", "geometry"]
    assert lake[0]["geometry"] == shapely.Point(0, 1).wkb
    assert lake[1]["geometry"] is None
    again = dasklake.read_lake(tmp_path / "lake").compute()
    wkb = again["geometry"].to_numpy(object, na_value=None)
    assert geopandas.GeoSeries.from_wkb(wkb, again.index).equals(places().geometry)
    assert again["size"].tolist() == [1, 2, 3]


def test_a_reference_system_is_named(tmp_path: Path) -> None:
    """The warning has the code that restores it, and it works."""
    frame = dask_geopandas.from_geopandas(places("EPSG:4326"), npartitions=1)
    code = r"use (geopandas\.GeoSeries\.from_wkb\(.*\)) with a computed frame"
    with pytest.warns(UserWarning, match=code) as warned:
        dasklake.to_lake(frame, tmp_path / "lake", options=SYNC)
    assert warned[0].filename == __file__
    read = dasklake.read_lake(tmp_path / "lake").compute()
    expression = re.search(code, str(warned[0].message))
    assert expression is not None
    restored = eval(expression[1], {"geopandas": geopandas, "frame": read})  # noqa: S307 # the remedy
    assert restored.crs == places("EPSG:4326").crs
    assert restored.equals(places("EPSG:4326").geometry)


def test_the_index_is_kept_and_the_input_is_recognized(tmp_path: Path) -> None:
    """An index of names is stored, and the same frame continues its run."""
    index = pd.Index(["x", "y", "z"], name="key")
    for _ in range(2):
        frame = dask_geopandas.from_geopandas(places(index=index), npartitions=2)
        frame.to_lake(tmp_path / "lake", mode="resume", run="one", options=SYNC)
    lake = dasklake.open(tmp_path / "lake")
    assert [sample["key"] for sample in lake] == ["x", "y", "z"]
    frame.to_lake(tmp_path / "lake", mode="append", options=SYNC)
    assert len(dasklake.open(tmp_path / "lake")) == 6


def test_columns_without_geometries_are_a_plain_frame(tmp_path: Path) -> None:
    """A selection of other columns, and a plain frame with a geometry column, are written."""
    frame = dask_geopandas.from_geopandas(places(), npartitions=1)
    dasklake.to_lake(frame[["name"]], tmp_path / "names", options=SYNC)
    assert [sample["name"] for sample in dasklake.open(tmp_path / "names")] == ["a", "b", "c"]
    twice = frame[["name", "name"]].to_lake
    with pytest.raises(SchemaError, match="'name' twice"):
        twice(tmp_path / "twice")
    plain = dd.from_pandas(pd.DataFrame(places()), npartitions=1)
    dasklake.to_lake(plain, tmp_path / "plain", options=SYNC)
    assert dasklake.open(tmp_path / "plain")[0]["geometry"] == shapely.Point(0, 1).wkb


def test_other_geometries_are_refused_with_a_remedy(tmp_path: Path) -> None:
    """A frame in memory and a series of geometries have an error, whose remedy works."""
    with pytest.raises(InvalidInputError, match=r"dask_geopandas\.from_geopandas\(frame, npart"):
        dasklake.to_lake(places(), tmp_path / "lake")
    frame = dask_geopandas.from_geopandas(places(), npartitions=2)
    with pytest.raises(InvalidInputError, match=r"series\.to_frame\('geometry'\)"):
        dasklake.to_lake(frame.geometry, tmp_path / "lake")
    dasklake.to_lake(frame.geometry.to_frame("geometry"), tmp_path / "lake", options=SYNC)
    assert dasklake.open(tmp_path / "lake")[0]["geometry"] == shapely.Point(0, 1).wkb
