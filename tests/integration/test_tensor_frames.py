"""Frames of a lake carry images, masks and documents through Dask without decoding them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from distributed import Client

import dasklake
from dasklake import Lake, TensorDtype, TensorSpec
from dasklake.exceptions import InvalidInputError, SampleError, TransformError
from tests.support import media

SYNC = dasklake.WriteOptions(scheduler="sync")
SCHEMA = {
    "row": TensorSpec(dtype="int64", shape=()),
    "image": TensorSpec("image", compression="jpeg", verify=False),
    "mask": TensorSpec("binary_mask", compression="rle"),
    "document": TensorSpec("json"),
    "boxes": TensorSpec("bbox", coords="pixel-ltwh"),
    "labels": TensorSpec("class_label", class_names=["a", "b"]),
}


def _file(row: int) -> bytes:
    """Return a picture that cannot be decoded: it ends after its header."""
    return media.picture("jpeg", size=(40 + row, 30))[:250]


def _sample(row: int) -> dict[str, Any]:
    return {
        "row": row,
        "image": None if row == 3 else _file(row),
        "mask": np.ones((2, 3, row % 3), bool),
        "document": {"number": row},
        "boxes": np.full((row % 4, 4), row, "f4"),
        "labels": np.arange(row % 2),
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Write twelve samples whose pictures cannot be decoded, in four chunks."""
    url = tmp_path_factory.mktemp("tensor-frames") / "lake"
    bag = db.from_sequence(range(12), npartitions=4).map(_sample)
    bag.to_lake(url, schema=SCHEMA, options=SYNC, input_id="frames")
    return dasklake.open(url)


def _number(document: Any) -> int:
    return int(document["number"])


CHANGES: list[Callable[[Any], Any]] = [
    lambda f: f.sort_values("row", ascending=False),
    lambda f: f.set_index("row").reset_index(),
    lambda f: f.shuffle("row", npartitions=3),
    lambda f: f.merge(f[["row"]].assign(more=f["row"] + 1), on="row").drop(columns="more"),
    lambda f: dd.concat([f.loc[:3], f.loc[7:]]),
    lambda f: f.drop_duplicates("row"),
    lambda f: f.persist(),
    lambda f: f[f["document"].map(_number, meta=("n", "int64")) != 5],
    lambda f: f.map_partitions(lambda part: part.iloc[::-1]),
    lambda f: f.repartition(npartitions=2),
]


def _check(frame: pd.DataFrame) -> None:
    """Check the stored values of all rows."""
    assert isinstance(frame["image"].dtype, TensorDtype)
    for row, image, mask in zip(
        frame["row"], frame["image"].array.stored(), frame["mask"], strict=True
    ):
        assert (image and bytes(image.stored.data)) == _sample(row)["image"]
        assert mask.shape == (2, 3, row % 3)


@pytest.mark.parametrize("change", CHANGES)
def test_values_move_between_threads(lake: Lake, tmp_path: Path, change: Any) -> None:
    """Operations on other columns keep pictures that cannot be decoded, up to another lake."""
    with dask.config.set(scheduler="threads"):
        frame = change(lake.to_dask_dataframe())
        _check(frame.compute())
        dasklake.to_lake(frame, tmp_path / "copy", options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert dict(copy.schema) == SCHEMA
    for row, number in enumerate(copy["row"][:].tolist()):
        assert copy["image"].bytes(row) == _sample(number)["image"]
        assert np.array_equal(copy["mask"][row], _sample(number)["mask"])


@pytest.mark.parametrize("method", ["tasks", "p2p"])
def test_values_move_between_processes(lake: Lake, client: Client, method: str) -> None:
    """Workers exchange stored values as Arrow buffers, also in shuffles of both kinds."""
    # Neither peer-to-peer shuffles nor Parquet of pandas support the names of Arrow's list types.
    frame = lake.to_dask_dataframe().drop(columns="labels")
    with dask.config.set({"dataframe.shuffle.method": method}):
        for change in CHANGES[:4]:
            _check(client.compute(change(frame)).result())


def test_a_picture_that_is_needed_is_decoded(lake: Lake) -> None:
    """A function of pixels decodes, and names the value that it cannot decode."""
    frame = lake.to_dask_dataframe()
    sizes = frame["image"].map(lambda pixels: pixels.size, meta=("size", "int64"))
    with pytest.raises(SampleError, match=r"value 0 of a column of tensor\[image"):
        sizes.compute(scheduler="sync")
    areas = frame["mask"].map(lambda mask: int(mask.sum()), meta=("area", "int64"))
    assert areas.compute(scheduler="sync").tolist() == [6 * (row % 3) for row in range(12)]


def test_equal_frames_have_equal_keys(lake: Lake) -> None:
    """Keys are deterministic, and depend on how columns are held."""
    keys = lake.to_dask_dataframe().__dask_keys__()
    assert keys == dasklake.open(lake.url).to_dask_dataframe().__dask_keys__()
    assert keys != lake.to_dask_dataframe(tensors="arrow").__dask_keys__()
    parts = [lake.to_dask_dataframe().compute(scheduler="sync") for _ in range(2)]
    names = [dd.from_pandas(part, npartitions=2).__dask_keys__() for part in parts]
    assert names[0] == names[1]


def test_columns_without_a_type_are_stored_values(lake: Lake) -> None:
    """Numbers and lists of labels have types of pandas and Arrow; nothing else can be chosen."""
    stored = lake.to_dask_dataframe().dtypes.map(str).to_dict()
    assert stored == {
        "row": "int64",
        "image": "tensor[image, compression='jpeg', verify=False]",
        "mask": "tensor[binary_mask, compression='rle']",
        "document": "tensor[json]",
        "boxes": "tensor[bbox, coords='pixel-ltwh']",
        "labels": "large_list<item: large_string>[pyarrow]",
    }
    arrow = dasklake.read_lake(lake.url, tensors="arrow")
    assert not any(isinstance(dtype, TensorDtype) for dtype in arrow.dtypes)
    assert arrow["document"].compute(scheduler="sync")[2] == '{"number":2}'
    with pytest.raises(
        InvalidInputError, match="tensors must be one of 'stored', 'arrow', got 'lazy'"
    ):
        lake.to_dask_dataframe(tensors="lazy")  # type: ignore[arg-type] # the error is tested


def test_a_new_column_of_pictures_needs_no_schema(tmp_path: Path) -> None:
    """A column with the dtype is a tensor of its spec, also from a function of partitions."""
    dtype = TensorDtype(TensorSpec("image", compression="png"))
    numbers = dd.from_pandas(pd.DataFrame({"n": range(6)}), npartitions=2)

    def drawn(part: pd.DataFrame) -> pd.DataFrame:
        pictures = [np.full((4, 5, 3), n, np.uint8) for n in part["n"]]
        return part.assign(picture=pd.Series(pictures, part.index, dtype=dtype))

    meta = {"n": "int64", "picture": dtype}
    frame = numbers.map_partitions(drawn, meta=meta)
    frame.to_lake(tmp_path / "lake", options=SYNC)
    lake = dasklake.open(tmp_path / "lake")
    assert lake.schema["picture"] == dtype.spec
    assert lake["picture"][5].tolist() == np.full((4, 5, 3), 5).tolist()
    frame.to_lake(tmp_path / "lake", mode="append", options=SYNC)
    assert len(dasklake.open(tmp_path / "lake")) == 12


def test_values_that_do_not_fit_another_schema_are_refused(lake: Lake, tmp_path: Path) -> None:
    """A column of another htype than its tensor is an error of the sample, with both named."""
    frame = lake.to_dask_dataframe()[["row", "document"]]
    schema: Any = {"row": SCHEMA["row"], "document": "text"}
    with pytest.raises(TransformError, match=r"'document'.*must be a string"):
        dasklake.to_lake(frame, tmp_path / "copy", schema=schema, options=SYNC)


# Dask uses a keyword that pandas 3.1 deprecates.
@pytest.mark.filterwarnings("ignore:The inplace keyword:Warning")
def test_parquet_of_dask_keeps_columns(lake: Lake, tmp_path: Path) -> None:
    """Files of Parquet that Dask writes restore the columns; others can read Arrow's types."""
    with dask.config.set(scheduler="sync"):
        frame = lake.to_dask_dataframe(["row", "image", "mask", "boxes"])
        frame.to_parquet(tmp_path / "parquet", write_index=False)
        again = dd.read_parquet(tmp_path / "parquet")
        assert again.dtypes.to_dict() == frame.dtypes.to_dict()
        _check(again.compute())
        plain = lake.to_dask_dataframe(["image", "document"], tensors="arrow")
        plain.to_parquet(tmp_path / "plain", write_index=False)
    read = pa.parquet.read_table(tmp_path / "plain")
    assert read["image"][1].as_py() == _file(1)
    assert read["document"][2].as_py() == '{"number":2}'


def test_links_have_present_keys_and_limits(tmp_path: Path) -> None:
    """Links of a frame have the present names of their keys and the limits of the lake."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("one", "link[image]", verify=False)
    lake.create_tensor("many", "sequence[link[image]]")
    lake.add_creds_key("first")
    lake.populate_creds("first", {"anon": True})
    link = dasklake.link("memory://a", "first")
    samples = [{"one": link, "many": [link, "memory://b"]}, {"one": None, "many": []}]
    bag = db.from_sequence(samples, npartitions=1)
    dasklake.to_lake(bag, lake.url, mode="append", options=SYNC)
    lake.refresh()
    lake.update_creds_key("first", "second")
    policy = dasklake.LinkPolicy(retries=7)
    opened = dasklake.open(tmp_path / "lake", links=policy)
    frame = opened.to_dask_dataframe().compute(scheduler="sync")
    for part in (frame, frame.iloc[[1, 0]], pd.concat([frame, frame]), frame.iloc[:1]):
        row = part[part["one"].notna()].iloc[0]
        assert row["one"].creds_key == "second"
        assert row["one"].limits.retries == 7
        assert [value.creds_key for value in row["many"]] == ["second", None]
    assert frame["one"].isna().tolist() == [False, True]
    assert frame["many"][1] == []
    assert frame["one"][0].limits == opened[0]["one"].limits
    with dask.config.set({"dasklake.creds.second": {"anon": True}}):
        dasklake.to_lake(opened.to_dask_dataframe(), tmp_path / "copy", options=SYNC)
    copy = dasklake.open(tmp_path / "copy")
    assert copy[0]["one"].creds_key == copy[0]["many"][0].creds_key == "second"
