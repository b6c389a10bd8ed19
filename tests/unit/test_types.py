"""The types that a type checker sees; mypy checks every ``assert_type`` here in ``make check``."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import dask.bag as db
from dask.delayed import Delayed

import dasklake
from dasklake import Preview, WriteReport

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

    def test_unknown(self, tmp_path: Path) -> None:
        """With flags known at run time only, the result is one of the three."""
        bag = db.from_sequence([{"x": 1}], npartitions=1)
        compute, preview = bool(len(SCHEMA)), len(SCHEMA) or None
        result = dasklake.to_lake(
            bag, tmp_path / "lake", schema=SCHEMA, compute=compute, preview=preview
        )
        assert_type(result, WriteReport | Delayed | Preview)
        assert isinstance(result, Preview)
