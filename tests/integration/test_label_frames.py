"""Class labels without a shape: one label or several in each sample, in frames and arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.bag as db
import pandas as pd
import pytest

import dasklake
from dasklake import TensorSpec
from dasklake._format import statistics
from dasklake.exceptions import CorruptionError, InvalidInputError

SPEC = TensorSpec("class_label", class_names=["cat", "dog"])
LOCAL = dasklake.WriteOptions(scheduler="sync")


def write(url: str, labels: list[Any], spec: TensorSpec = SPEC, mode: Any = "create") -> Any:
    """Write labels in two partitions, and open the lake."""
    bag = db.from_sequence(labels, npartitions=2).map(lambda label: {"label": label})
    dasklake.to_lake(bag, url, schema={"label": spec}, mode=mode, progress=False, options=LOCAL)
    return dasklake.open(url)


@pytest.mark.parametrize("labels", [["cat", "dog", "cat"], [0, 1, 0]])
def test_single_labels_are_categories(tmp_path: Path, labels: list[Any]) -> None:
    """Group-bys, categories and arrays work for the schema that everybody writes first."""
    lake = write(str(tmp_path / "lake"), labels)
    frame = lake.to_dask_dataframe()
    assert frame.dtypes["label"] == pd.CategoricalDtype(["cat", "dog"])
    assert frame.compute()["label"].tolist() == ["cat", "dog", "cat"]
    assert frame.head(2, npartitions=-1)["label"].tolist() == ["cat", "dog"]
    assert frame.groupby("label", observed=True).size().compute().to_dict() == {"cat": 2, "dog": 1}
    assert frame[frame["label"] == "dog"].compute().index.tolist() == [1]
    array = lake.to_dask_array("label")
    assert (array.dtype, array.compute().tolist()) == ("uint32", [0, 1, 0])
    assert array[1:].compute().tolist() == [1, 0]
    assert lake["label"][1].shape == ()


def test_single_labels_without_names_are_numbers(tmp_path: Path) -> None:
    """Labels without names become a column of indices."""
    frame = write(str(tmp_path / "lake"), [3, 1, 3], TensorSpec("class_label")).to_dask_dataframe()
    assert frame.dtypes["label"] == "uint32"
    assert frame.compute()["label"].tolist() == [3, 1, 3]


def test_missing_labels_stay_missing(tmp_path: Path) -> None:
    """A sample without a label does not turn the others into lists."""
    spec = TensorSpec("class_label", class_names=["cat", "dog"], optional=True)
    frame = write(str(tmp_path / "lake"), ["dog", None, "cat", None], spec).to_dask_dataframe()
    column = frame.compute()["label"]
    assert column.isna().tolist() == [False, True, False, True]
    assert column[::2].tolist() == ["dog", "cat"]


@pytest.mark.parametrize(
    "labels", [[["cat"], ["dog", "cat"], []], ["cat", ["dog", "cat"], []], [["cat"], [1, 0], []]]
)
def test_lists_of_labels_show_their_names(tmp_path: Path, labels: list[Any]) -> None:
    """Both kinds may be mixed; a frame then has a list of names for each sample."""
    lake = write(str(tmp_path / "lake"), labels)
    frame = lake.to_dask_dataframe()
    expected = [["cat"], ["dog", "cat"], []]
    assert [list(row) for row in frame.compute()["label"]] == expected
    assert [list(row) for row in frame.head(3, npartitions=-1)["label"]] == expected
    with pytest.raises(InvalidInputError, match="not numbers of fixed shape"):
        lake.to_dask_array("label")


def test_each_version_has_its_own_type(tmp_path: Path) -> None:
    """A list that is appended changes the type of later versions only."""
    url = str(tmp_path / "lake")
    single = write(url, ["cat", "dog"])
    mixed = write(url, [["dog", "cat"], "cat"], mode="append")
    assert single.to_dask_dataframe().compute()["label"].tolist() == ["cat", "dog"]
    column = mixed.to_dask_dataframe().compute()["label"]
    assert [list(row) for row in column] == [["cat"], ["dog"], ["dog", "cat"], ["cat"]]


def test_chunks_without_the_statistic_are_read_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lakes of earlier releases keep the types of their frames: nothing says that all are scalars."""
    monkeypatch.setattr(statistics, "_shape_statistics", lambda *_: {})
    column = write(str(tmp_path / "lake"), ["cat", "dog"]).to_dask_dataframe().compute()["label"]
    assert [list(row) for row in column] == [["cat"], ["dog"]]


def test_false_statistics_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a chunk has a list although its statistics say scalars, the frame is an error."""
    monkeypatch.setattr(statistics, "_shape_statistics", lambda *_: {"shape": ((), ())})
    lake = write(str(tmp_path / "lake"), [["cat"], ["dog"]])
    with pytest.raises(CorruptionError, match="list of labels"):
        lake.to_dask_dataframe().compute()


def test_frames_of_labels_are_written_again(tmp_path: Path) -> None:
    """A frame of a lake is written with the names, as categories and as lists."""
    for name, labels in (("single", ["cat", "dog"]), ("lists", [["dog", "cat"], []])):
        frame = write(str(tmp_path / name), labels).to_dask_dataframe()
        for suffix, part in (("copy", frame), ("cut", frame.reset_index(drop=True))):
            url = str(tmp_path / f"{name}-{suffix}")
            dasklake.to_lake(part, url, schema={"label": SPEC}, progress=False, options=LOCAL)
            again = dasklake.open(url)
            assert again.schema["label"].class_names == ("cat", "dog")
            column = again.to_dask_dataframe().compute()["label"]
            assert [list(row) if name == "lists" else row for row in column] == labels
