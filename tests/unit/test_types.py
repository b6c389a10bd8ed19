"""The types that a type checker sees; mypy checks every ``assert_type`` here in ``make check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import dask.bag as db
import dask.dataframe as dd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from dask.array import Array
from dask.bag import Bag
from dask.dataframe import DataFrame
from dask.delayed import Delayed

import dasklake
from dasklake import Preview, Tensor, WriteReport
from dasklake._maintenance.compact import CompactReport
from dasklake._maintenance.reset import ResetReport
from dasklake._maintenance.vacuum import VacuumReport
from dasklake._maintenance.verify import VerifyReport

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


class TestToLake:
    """The result of ``to_lake`` has a type for each way to call it."""

    def test_write(self, tmp_path: Path) -> None:
        """A write returns a report."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        report = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA)
        assert_type(report, WriteReport)
        assert_type(report.version, int)
        assert_type(report.seconds, float)
        assert isinstance(report, WriteReport)

    def test_delayed(self, tmp_path: Path) -> None:
        """With ``compute=False`` the result is a Delayed."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        delayed = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, compute=False)
        assert_type(delayed, Delayed)
        assert isinstance(delayed, Delayed)

    def test_preview(self, tmp_path: Path) -> None:
        """With ``preview`` the result is a Preview, whatever ``compute`` says."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        preview = dasklake.to_lake(bag, tmp_path / "lake", schema=SCHEMA, preview=1)
        assert_type(preview, Preview)
        assert_type(preview.estimated_bytes, int | None)
        assert isinstance(preview, Preview)

    def test_series(self, tmp_path: Path) -> None:
        """A Series, also by its method, has the results of a write."""
        series = dd.from_pandas(pd.Series([1], name="x"), npartitions=1)
        assert_type(dasklake.to_lake(series, tmp_path / "lake"), WriteReport)
        preview = dasklake.to_lake(series, tmp_path / "lake", preview=1)
        assert_type(preview, Preview)
        assert isinstance(series.to_lake(tmp_path / "other"), WriteReport)

    def test_unknown(self, tmp_path: Path) -> None:
        """With flags known at run time only, the result is one of the three."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        compute, preview = bool(len(SCHEMA)), len(SCHEMA) or None
        result = dasklake.to_lake(
            bag, tmp_path / "lake", schema=SCHEMA, compute=compute, preview=preview
        )
        assert_type(result, WriteReport | Delayed | Preview)
        assert isinstance(result, Preview)


class TestLake:
    """The methods of a lake and its tensors have types that depend on their arguments."""

    @pytest.fixture
    def lake(self, tmp_path: Path) -> dasklake.Lake:
        """Make a lake of two numbers."""
        lake = dasklake.empty(tmp_path / "lake")
        lake.create_tensor("x", dtype="int64", shape=())
        lake.extend([{"x": 1}, {"x": 2}])
        return lake

    def test_indexing(self, lake: dasklake.Lake) -> None:
        """A name gives a tensor, a number a sample, and a slice, list or mask a list of samples."""
        assert_type(lake["x"], Tensor)
        assert_type(lake[0], dict[str, Any])
        assert_type(lake[np.int64(0)], dict[str, Any])
        assert_type(lake[:1], list[dict[str, Any]])
        assert_type(lake[[0, 1]], list[dict[str, Any]])
        assert_type(lake[np.array([True, False])], list[dict[str, Any]])
        assert_type(lake["x"][:], npt.NDArray[Any] | Any)
        assert_type(lake["x"][[0, 1]], npt.NDArray[Any] | Any)
        assert lake["x"][1] == 2

    def test_collections(self, lake: dasklake.Lake) -> None:
        """A lake is read as collections of Dask's own types."""
        assert_type(lake.to_dask_bag(), Bag)
        assert_type(lake.to_dask_dataframe(), DataFrame)
        assert_type(lake.to_dask_array("x"), Array)
        assert_type(dasklake.read_lake(lake.url), DataFrame)

    def test_maintenance(self, lake: dasklake.Lake) -> None:
        """Each maintenance method returns a report of its own type."""
        assert_type(lake.verify(), VerifyReport)
        assert_type(lake.reset(), ResetReport)
        assert_type(lake.vacuum(dry_run=True), VacuumReport)
        assert_type(lake.compact(), CompactReport)
        assert_type(lake.retry_failures(dict), WriteReport | None)
        assert_type(lake.refresh(), dasklake.Lake)

    def test_write(self, lake: dasklake.Lake) -> None:
        """``Lake.write`` returns what ``to_lake`` returns for the same flags."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        assert_type(lake.write(bag), WriteReport)
        assert_type(lake.write(bag, compute=False), Delayed)
        assert_type(lake.write(bag, preview=1), Preview)
        assert len(lake) == 3
