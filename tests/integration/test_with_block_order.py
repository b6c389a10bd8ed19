"""Test that changes inside a ``with lake:`` block keep the order of the calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake.exceptions import SampleError

LOCAL = dasklake.WriteOptions(scheduler="sync")


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Make a lake with one sample."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    lake.append({"x": 0})
    return lake


def test_samples_before_and_after_a_new_tensor(lake: dasklake.Lake) -> None:
    """Samples appended before a tensor was created do not need it; later ones do."""
    with lake:
        lake.append({"x": 1})
        lake.extend({"x": [2, 3]})
        lake.create_tensor("y", htype="text")
        lake.create_tensor("z", htype="text")
        lake.append({"x": 4, "y": "four", "z": None})
        lake.create_tensor("w", htype="text")
        lake.extend([{"x": 5}], skip_ok=True)
    assert lake.max_len == 6
    assert list(lake["x"]) == [0, 1, 2, 3, 4, 5]
    assert lake["y"][4] == "four"
    assert list(lake.schema) == ["x", "y", "z", "w"]
    kinds = [str(commit.kind) for commit in lake.log(entries=False)]
    assert kinds[:5] == ["data", "schema", "data", "schema", "data"]


def test_a_sample_that_lacks_an_earlier_tensor(lake: dasklake.Lake) -> None:
    """A sample is still refused if the block created its tensor before."""

    def change() -> None:
        with lake:
            lake.append({"x": 1})
            lake.create_tensor("y", htype="text")
            lake.append({"x": 2})

    with pytest.raises(SampleError, match="'y'"):
        change()
    assert lake.refresh().max_len == 2


def test_other_changes_commit_what_precedes_them(lake: dasklake.Lake) -> None:
    """Renames, deletions, class names, writes and maintenance come after earlier calls."""
    with lake:
        lake.append({"x": 1})
        lake.rename_tensor("x", "a")
        lake.append({"a": 2})
        lake.create_tensor("label", htype="class_label", shape=(), class_names=["cat"])
        lake.update_class_names("label", ["dog"])
        lake.append({"a": 3, "label": "dog"})
        lake.write(db.from_sequence([{"a": 4, "label": 0}]), options=LOCAL, progress=False)
        lake.append({"a": 5, "label": 1})
        lake.delete_tensor("label")
        lake.append({"a": 6})
        lake.compact()
        assert list(lake["a"]) == list(range(7))
        lake.append({"a": 7})
        assert (len(lake), len(lake.refresh())) == (7, 7)
    assert list(lake["a"]) == list(range(8))


def test_reset_discards_what_was_collected(lake: dasklake.Lake) -> None:
    """After a reset inside the block only later changes are committed; a dry run keeps all."""
    with lake:
        lake.append({"x": 1})
        lake.create_tensor("y", htype="text")
        lake.reset(progress=False)
        lake.append({"x": 2})
        lake.reset(dry_run=True, progress=False)
    assert list(lake.schema) == ["x"]
    assert list(lake["x"]) == [0, 2]


def test_reused_values(tmp_path: Path) -> None:
    """A loop may fill the same dict, array and list again for the next sample."""
    lake = dasklake.empty(tmp_path / "lake")
    sample: dict[str, Any] = {"a": np.zeros(2), "j": {"k": [0]}}
    with lake:
        lake.create_tensor("a", dtype="float64")
        lake.create_tensor("j", htype="json")
        lake.create_tensor("n", dtype="int64", shape=())
        for n in range(3):
            sample["a"][:] = n
            sample["j"]["k"][0] = n
            sample["n"] = n
            lake.append(sample)
    assert [row["a"].tolist() for row in lake] == [[0, 0], [1, 1], [2, 2]]
    assert [row["j"] for row in lake] == [{"k": [n]} for n in range(3)]
