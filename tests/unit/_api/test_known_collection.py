"""Test the inputs of other libraries as far as it needs none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dask.array as da
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError


def test_a_dimension_needs_a_dataset(tmp_path: Path) -> None:
    """``dim`` with another collection is refused, and without it the collection is written."""
    arrays = {"x": da.arange(2)}
    with pytest.raises(
        InvalidInputError, match=r"dimension of an xarray Dataset, got a dict\. Omit"
    ):
        dasklake.to_lake(arrays, tmp_path / "lake", dim="time")
    assert dasklake.to_lake(arrays, tmp_path / "lake").samples == 2


def test_the_libraries_are_not_imported() -> None:
    """A write of another collection does not import xarray or geopandas; Dask itself may."""
    code = (
        "import sys, dask.array as da, dask.bag, dask.dataframe, distributed\n"
        "before = set(sys.modules)\n"
        "import dasklake\n"
        "dasklake.to_lake({'x': da.arange(2)}, 'memory://plain')\n"
        "print({'xarray', 'geopandas', 'shapely'} & (set(sys.modules) - before))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.strip() == "set()"
