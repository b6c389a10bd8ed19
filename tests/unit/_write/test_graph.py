"""Tests of the graph of a write."""

from __future__ import annotations

from pathlib import Path

import dask.bag as db
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError


@pytest.mark.parametrize("nested", [False, True])
def test_arguments_of_several_partitions_are_refused(tmp_path: Path, nested: bool) -> None:  # noqa: FBT001 # a parameter of the test
    """A bag is no single value, wherever it stands in an argument."""
    bag = db.from_sequence([1, 2], npartitions=2)
    with pytest.raises(InvalidInputError, match=r"transform_kwargs\['more'\] has 2 partitions"):
        dasklake.to_lake(
            bag,
            tmp_path / "lake",
            schema={"x": dasklake.TensorSpec(dtype="int64", shape=())},
            transform=lambda item, more: {"x": item + len(more)},
            transform_kwargs={"more": {"bag": [bag]} if nested else bag},
            options=dasklake.WriteOptions(scheduler="sync"),
        )
