"""Schema changes of lakes with samples: added, renamed and removed tensors, as readers see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    LakeExistsError,
    SampleError,
    SchemaError,
    TransformError,
)

LOCAL = dasklake.WriteOptions(scheduler="sync")


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Make a lake of six samples in three chunks."""
    lake = dasklake.empty(tmp_path / "lake")
    with lake:
        lake.create_tensor("x", dtype="int64", shape=())
        lake.create_tensor("box", htype="bbox")
    lake.write(db.from_sequence(range(6), npartitions=3).map(first), options=LOCAL)
    return lake


def first(i: int) -> dict[str, Any]:
    """Make a sample of the first schema."""
    return {"x": i, "box": np.full((i % 3, 4), i, "float32")}


def changed(lake: dasklake.Lake) -> None:
    """Rename a tensor and add three; one of them takes the old name."""
    lake.rename_tensor("box", "area")
    with lake:
        lake.create_tensor("box", htype="text")
        lake.create_tensor("vector", htype="embedding", shape=(2,))
        lake.create_tensor("mask", htype="binary_mask")


def second(i: int) -> dict[str, Any]:
    """Make a sample of the second schema."""
    new = {"box": f"box {i}", "vector": [i, i], "mask": np.ones((2, 3, i % 2), bool)}
    return {"x": i, "area": np.full((1, 4), i, "float32"), **new}


def test_added_tensor_limits_the_length(lake: dasklake.Lake) -> None:
    """An added tensor limits the length of the lake to its own until it has samples."""
    changed(lake)
    assert (len(lake), lake.max_len) == (0, 6)
    lengths = {name: len(lake[name]) for name in lake.schema}
    assert lengths == {"x": 6, "area": 6, "box": 0, "vector": 0, "mask": 0}
    assert list(lake) == []
    assert lake.to_dask_bag().compute(scheduler="sync") == []
    assert lake.to_dask_bag(["x"]).pluck("x").compute(scheduler="sync") == list(range(6))
    with pytest.raises(IndexError):
        lake[0]
    lake.extend([second(6), second(7)])
    assert (len(lake), lake.max_len, len(lake["mask"])) == (8, 8, 8)


def test_old_samples_are_read_by_the_new_names(lake: dasklake.Lake) -> None:
    """Old samples are read by the new names, and have missing values for added tensors."""
    changed(lake)
    assert lake["area"][4].tolist() == [[4.0] * 4]
    lake.write(db.from_sequence(range(6, 10), npartitions=2).map(second), options=LOCAL)
    single = [lake[row] for row in range(10)]
    for row, pair in enumerate(zip(lake, single, strict=True)):
        expected = (first if row < 6 else second)(row)
        area = expected.get("area", expected["box"])
        for sample in pair:
            assert sample["x"] == row
            np.testing.assert_array_equal(sample["area"], area)
            assert sample["box"] == (None if row < 6 else expected["box"])
            assert (sample["vector"] is None, sample["mask"] is None) == (row < 6, row < 6)
    assert lake["box"][4:8] == [None, None, "box 6", "box 7"]
    assert lake["vector"][6:].tolist() == [[6, 6], [7, 7], [8, 8], [9, 9]]
    assert lake["mask"][7].shape == (2, 3, 1)


def test_collections_have_all_rows(lake: dasklake.Lake) -> None:
    """Dask collections have all rows, with missing values for tensors added later."""
    changed(lake)
    lake.extend([second(6), second(7)])
    with dask.config.set(scheduler="sync"):
        frame = lake.to_dask_dataframe().compute()
        vector = lake.to_dask_array("vector").compute()
        bag = lake.to_dask_bag(["area", "box"]).compute()
    assert frame["x"].tolist() == list(range(8))
    assert frame["box"].isna().tolist() == [True] * 6 + [False] * 2
    assert frame["vector"].isna().tolist() == [True] * 6 + [False] * 2
    assert frame["mask"].isna().tolist() == [True] * 6 + [False] * 2
    assert np.isnan(vector).all(axis=1).tolist() == [True] * 6 + [False] * 2
    assert [sample["box"] for sample in bag] == [None] * 6 + ["box 6", "box 7"]


def test_versions_keep_their_schema(lake: dasklake.Lake) -> None:
    """An opened version is unchanged; the log lists the changes."""
    before = lake.version
    changed(lake)
    lake.delete_tensor("mask")
    old = dasklake.open(lake.url, version=before)
    assert list(old.schema) == ["x", "box"]
    assert old["box"][4].tolist() == [[4.0] * 4]
    kinds = [str(commit.kind) for commit in lake.log()]
    assert kinds[:3] == ["schema"] * 3
    assert "Rename tensor 'box' to 'area'" in str(lake.log())


def test_appends_need_the_current_tensors(lake: dasklake.Lake) -> None:
    """Appended samples must have the current tensors of the lake."""
    lake.create_tensor("note", htype="text")
    with pytest.raises(SchemaError, match="'note' is missing"):
        lake.write(
            db.from_sequence([first(6)]),
            schema={"x": dasklake.TensorSpec(dtype="int64", shape=()), "box": "bbox"},
            options=LOCAL,
        )
    with pytest.raises(SchemaError, match="at least one"):
        lake.write(db.from_sequence([{}]), schema={}, options=LOCAL)
    with pytest.raises(SampleError, match="'note'"):
        lake.append(first(6))
    assert lake.is_complete
    lake.append(first(6), skip_ok=True)
    assert lake[6]["note"] is None


def test_change_during_a_run_fails(lake: dasklake.Lake) -> None:
    """A change during an unfinished run fails with the run's name; the run continues."""

    def fragile(i: int, bad: int) -> dict[str, Any]:
        return first(1 // (i != bad) * i)

    job: dict[str, Any] = {"mode": "resume", "run": "long", "transform": fragile, "options": LOCAL}
    bag = db.from_sequence(range(6, 12), npartitions=3)
    with pytest.raises(TransformError):
        lake.write(bag, transform_kwargs={"bad": 9}, **job)
    with pytest.raises(ConflictError, match="Run 'long' is unfinished"):
        lake.create_tensor("note", htype="text")
    lake.write(bag, transform_kwargs={"bad": -1}, **job)
    lake.create_tensor("note", htype="text")
    assert (len(lake["x"]), len(lake)) == (12, 0)


def test_readded_tensor_has_no_old_values(lake: dasklake.Lake) -> None:
    """A new tensor with the name of a dropped one has none of its values."""
    lake.delete_tensor("box")
    lake.create_tensor("box", htype="bbox")
    assert len(lake["box"]) == 0
    lake.append({"x": 6, "box": [[1, 2, 3, 4]]})
    assert lake["box"][5] is None
    assert lake["box"][6].tolist() == [[1, 2, 3, 4]]


def test_compaction_joins_nothing_across_a_change(lake: dasklake.Lake) -> None:
    """Compaction does not join chunks from before and after a change."""
    changed(lake)
    lake.extend([second(6), second(7)])
    want = [str(sample) for sample in lake]
    lake.compact()
    assert [str(sample) for sample in lake] == want


class TestWith:
    """Changes collected in a ``with`` block."""

    def test_block_is_committed_at_its_end(self, tmp_path: Path) -> None:
        """Tensors and samples of a block are committed at its end, in two commits."""
        lake = dasklake.empty(tmp_path / "lake")
        with lake:
            lake.create_tensor("x", dtype="int64", shape=())
            lake.create_tensor("a/y", htype="text")
            lake.append({"x": 1, "a/y": "one"})
            more: dict[str, list[Any]] = {"x": [2, 3], "a/y": ["two", None]}
            lake.extend(more)
            assert list(lake.schema) == []
        assert [str(commit.kind) for commit in lake.log()] == ["data", "schema", "init"]
        assert list(lake["x"]) == [1, 2, 3]
        assert list(lake["a/y"]) == ["one", "two", None]

    def test_an_exception_discards_the_changes(self, tmp_path: Path) -> None:
        """After an exception the collected changes are not committed, and the block can be repeated."""
        lake = dasklake.empty(tmp_path / "lake")

        def stumble() -> None:
            with lake:
                lake.create_tensor("x", dtype="int64", shape=())
                raise KeyError

        with pytest.raises(KeyError):
            stumble()
        assert list(lake.refresh().schema) == []
        with lake, pytest.raises(InvalidInputError, match="already"), lake:
            pass
        assert lake.version == 0

    def test_existing_names_are_refused(self, tmp_path: Path) -> None:
        """A name that exists in the block or in the lake is refused at once."""
        lake = dasklake.empty(tmp_path / "lake")
        lake.create_tensor("x", htype="text")
        with lake:
            lake.create_tensor("y", htype="text")
            for name in ("x", "y"):
                lake.create_tensor(name, htype="text", exist_ok=True)
                with pytest.raises(SchemaError, match="already"):
                    lake.create_tensor(name, htype="text")
        assert list(lake.schema) == ["x", "y"]


class TestParameters:
    """Parameters of other libraries."""

    def test_compressions_have_aliases(self, tmp_path: Path) -> None:
        """Compressions have alternative names, and None disables compression."""
        lake = dasklake.empty(tmp_path / "lake")
        lake.create_tensor("a", htype="binary_mask", sample_compression="lz4")
        lake.create_tensor("b", htype="binary_mask", chunk_compression=None)
        lake.create_tensor("c", htype="image", sample_compression="jpg")
        assert [lake.schema[n].compression for n in "abc"] == ["lz4", None, "jpeg"]

    def test_groups_are_declared_in_one_block(self, tmp_path: Path) -> None:
        """Tensors with equal numbers of objects are declared one by one, in one block."""
        lake = dasklake.empty(tmp_path / "lake")
        with lake:
            lake.create_tensor("boxes", htype="bbox", same_length="boxes")
            lake.create_tensor("labels", htype="class_label", shape=(None,), same_length="boxes")
        assert lake.schema.same_length == (("boxes", "labels"),)
        with pytest.raises(SampleError, match="labels"):
            lake.append({"boxes": np.zeros((2, 4), "float32"), "labels": [1]})

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"tiling_threshold": 1}, "'tiling_threshold' is not a parameter"),
            ({"sample_compression": "lz4", "chunk_compression": "lz4"}, "the same parameter"),
            ({"htype": "imagge"}, "imagge"),
        ],
    )
    def test_unsupported_parameters_are_refused(
        self, tmp_path: Path, parameters: dict[str, Any], message: str
    ) -> None:
        """Unsupported parameters are refused with the supported ones."""
        lake = dasklake.empty(tmp_path / "lake")
        with pytest.raises(SchemaError, match=message):
            lake.create_tensor("x", **{"htype": "binary_mask", **parameters})
        assert lake.refresh().version == 0


def test_lake_is_emptied_only_on_request(tmp_path: Path) -> None:
    """An existing lake is emptied only on request; the old version remains."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", htype="text")
    lake.append({"x": "old"})
    with pytest.raises(LakeExistsError, match="overwrite=True"):
        dasklake.empty(tmp_path / "lake")
    again = dasklake.empty(tmp_path / "lake", overwrite=True)
    assert (len(again), list(again.schema)) == (0, [])
    assert dasklake.load(tmp_path / "lake", version=lake.version)[0] == {"x": "old"}
    with pytest.raises(SchemaError, match="no tensors yet"):
        again.append({"x": "new"})
    again.create_tensor("y", dtype="int64", shape=())
    again.append({"y": 1})
    assert list(again) == [{"y": 1}]


def test_summary_lists_the_tensors(lake: dasklake.Lake, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary lists the tensors with their types."""
    lake.summary()
    printed = capsys.readouterr().out
    assert "bbox" in printed
    assert "6 samples" in printed


def test_frame_keeps_its_dtypes(tmp_path: Path) -> None:
    """A table keeps the dtypes of its columns when one is added later."""
    frame = pd.DataFrame({"n": [1, 2]})
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("n", dtype="int64", shape=())
    lake.extend(frame.to_dict("list"))
    lake.create_tensor("m", dtype="int64", shape=(), optional=True)
    lake.append({"n": 3, "m": 4})
    with dask.config.set(scheduler="sync"):
        read = lake.to_dask_dataframe().compute()
    assert read["n"].tolist() == [1, 2, 3]
    assert read["m"].dtype == "Int64"
    assert read["m"].isna().tolist() == [True, True, False]
