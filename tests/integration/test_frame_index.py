"""The index and the names of a frame are restored, or the write is refused with a cure that works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask.delayed import delayed

import dasklake
from dasklake import TensorSpec
from dasklake.exceptions import (
    InvalidInputError,
    SchemaError,
    TransformError,
    UnsupportedFormatError,
)

SYNC = dasklake.WriteOptions(scheduler="sync")
INT = TensorSpec(dtype="int64", shape=())


@pytest.fixture
def url() -> str:
    """Return the URL of a lake that does not exist."""
    return f"memory://{uuid4().hex}"


def table(index: Any = None, columns: Any = ("x", "y")) -> pd.DataFrame:
    """Make a frame of six rows."""
    data = pd.DataFrame({"x": range(6), "y": list("abcdef")}).set_axis(list(columns), axis=1)
    return data if index is None else data.set_axis(index, axis=0)


def source(frame: pd.DataFrame) -> dd.DataFrame:
    """Return a frame of two partitions."""
    collection: dd.DataFrame = dd.from_pandas(frame, npartitions=2, sort=False)
    return collection


def restored(url: str, **options: Any) -> pd.DataFrame:
    """Read a lake as one frame."""
    frame: pd.DataFrame = dasklake.read_lake(url, **options).compute(scheduler="sync")
    return frame


DAYS = pd.DatetimeIndex(pd.date_range("2026-01-01", periods=6), freq=None)

#: Indexes that are data.
INDEXES: dict[str, pd.Index] = {
    "names": pd.Index(list("uvwxyz")),
    "numbers": pd.Index(range(10, 16)),
    "steps": pd.RangeIndex(0, 12, 2),
    "unsorted": pd.Index([3, 1, 2, 0, 5, 4]),
    "repeated": pd.Index([1, 1, 2, 2, 3, 3]),
    "floats": pd.Index([0.5, np.nan, 1.5, 2.5, np.inf, 3.5]),
    "small": pd.Index(range(6), dtype="int8"),
    "times": DAYS,
    "zoned times": DAYS.tz_localize("Europe/Berlin"),
    "durations": pd.TimedeltaIndex(pd.to_timedelta(range(6), unit="h"), freq=None),
    "categories": pd.CategoricalIndex(list("abcabc"), categories=list("cba"), ordered=True),
    "nullable": pd.Index([1, None, 3, 4, 5, 6], dtype="Int64"),
    "periods": pd.period_range("2026-01", periods=6, freq="M"),
    "strings": pd.Index(list("uvwxyz"), dtype="string[pyarrow]"),
}


@pytest.mark.parametrize("name", [None, "id"])
@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_is_restored(url: str, kind: str, name: str | None) -> None:
    """An index with or without a name is a tensor of the lake, and the index again after reading."""
    frame = source(table(INDEXES[kind].rename(name)))
    frame.to_lake(url, options=SYNC)
    tensor = name or "index"
    assert list(dasklake.open(url).schema) == [tensor, "x", "y"]
    expected = frame.compute(scheduler="sync")
    pd.testing.assert_frame_equal(restored(url), expected, check_freq=False)
    numbered = restored(url, index=False)
    assert list(numbered.columns) == [tensor, "x", "y"]
    assert numbered.index.tolist() == list(range(6))


@pytest.mark.parametrize(
    "make",
    [
        lambda f: f,
        lambda f: f.assign(z=1),
        lambda f: f[["x"]],
        lambda f: f.rename(columns={"x": "u"}),
        lambda f: f.set_index("y").reset_index(drop=True),
        lambda f: f.persist(scheduler="sync"),
        lambda f: f.repartition(npartitions=1),
        lambda f: f.x,
        lambda f: f.merge(f, on="x"),
        lambda _: db.from_sequence([{"x": 1}, {"x": 2}], npartitions=1).to_dataframe(),
        lambda _: dd.from_delayed([delayed(table)()])[["x"]],
        lambda _: dd.from_map(lambda _: table(), [1])[["x"]],
        lambda f: f.set_index("x").reset_index(),
    ],
)
def test_numbers_of_rows_are_not_stored(url: str, make: Callable[[Any], Any]) -> None:
    """A default index is not a tensor."""
    with dask.config.set(scheduler="sync"):
        frame = make(source(table()))
    dasklake.to_lake(frame, url, options=SYNC)
    lake = dasklake.open(url)
    assert "index" not in lake.schema
    assert restored(url).index.tolist() == list(range(len(lake)))


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of Dask's own calls of pandas
@pytest.mark.parametrize("kind", ["csv", "json", "parquet", "parquet of dask"])
def test_numbers_of_rows_of_files_are_not_stored(tmp_path: Path, kind: str) -> None:
    """The rows of files are numbered by their readers; a schema does not need a tensor for that."""
    frame = table()[["x"]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_json(tmp_path / "a.json", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    with dask.config.set(scheduler="sync"):
        source(frame).to_parquet(tmp_path / "folder")
    read: dict[str, Callable[[], Any]] = {
        "csv": lambda: dd.read_csv(tmp_path / "a.csv"),
        "json": lambda: dd.read_json(tmp_path / "a.json"),
        "parquet": lambda: dd.read_parquet(tmp_path / "a.parquet"),
        "parquet of dask": lambda: dd.read_parquet(tmp_path / "folder"),
    }
    schema = None if kind != "parquet of dask" else {"x": INT}
    read[kind]().to_lake(tmp_path / "lake", schema=schema, options=SYNC)
    assert list(dasklake.open(tmp_path / "lake").schema) == ["x"]


def test_an_index_that_the_metadata_hide_is_refused(url: str) -> None:
    """A partition with an index that the frame's metadata do not show is an error."""
    frame = source(table()).map_partitions(
        lambda part: part.set_axis(list("uvw"), axis=0), meta=table().iloc[:0]
    )
    with pytest.raises(TransformError, match="metadata do not show"):
        frame[["x"]].to_lake(url, schema={"x": INT}, options=SYNC)


def test_empty_names_are_refused(url: str) -> None:
    """An empty name is not a missing one."""
    with pytest.raises(SchemaError, match="non-empty"):
        source(table(INDEXES["names"].rename(""))).to_lake(url, options=SYNC)


@pytest.mark.parametrize(
    "make",
    [
        lambda f: f[f.x > 3],
        lambda f: f[(f.x < 2) | (f.x > 3)],
        lambda f: f.loc[1:4],
        lambda f: dd.concat([f, f]),
        lambda f: f.drop_duplicates(),
        lambda f: f[f.x > 3].persist(scheduler="sync"),
        lambda f: f.map_partitions(lambda part: part[part.x % 2 == 1]),
        lambda f: f.map_partitions(lambda part: part.set_index(part.x * 10).rename_axis(None)),
        lambda f: f.partitions[1],
        lambda f: f.sort_values("y", ascending=False),
    ],
)
def test_the_labels_of_selected_rows_are_restored(url: str, make: Callable[[Any], Any]) -> None:
    """Rows that were selected keep their labels, as in Parquet."""
    frame = make(source(table()))
    frame.to_lake(url, options=SYNC)
    expected = frame.compute(scheduler="sync")
    pd.testing.assert_frame_equal(restored(url), expected)


def test_selections_of_a_frame_with_an_index(url: str) -> None:
    """Lengths, labels and samples of a frame with a restored index are right."""
    source(table(INDEXES["names"].rename("id"))).to_lake(url, options=SYNC)
    frame = dasklake.read_lake(url)
    with dask.config.set(scheduler="sync"):
        assert len(frame) == 6
        assert frame.index.compute().tolist() == list("uvwxyz")
        assert frame.head(2).index.tolist() == ["u", "v"]
        assert frame.tail(2)["x"].tolist() == [4, 5]
        assert frame.loc["x":].compute().y.tolist() == ["d", "e", "f"]
        assert frame.partitions[1].compute().index.tolist() == ["x", "y", "z"]
        drawn = frame.sample(frac=0.5, random_state=1).compute()
        whole = frame.compute()
        pd.testing.assert_frame_equal(drawn, whole.loc[drawn.index])
        assert whole[["x"]].equals(frame[["x"]].compute())


def test_selected_samples_of_a_lake_are_numbered_again(url: str) -> None:
    """The numbers of samples are not an index that a copy stores; a stored index is."""
    source(table()).to_lake(url, options=SYNC)
    frame = dasklake.read_lake(url)
    frame[frame.x > 3].to_lake(f"{url}/copy", options=SYNC)
    assert list(dasklake.open(f"{url}/copy").schema) == ["x", "y"]
    source(table(INDEXES["names"])).to_lake(f"{url}/indexed", options=SYNC)
    indexed = dasklake.read_lake(f"{url}/indexed")
    indexed[indexed.x > 3].to_lake(f"{url}/selected", options=SYNC)
    assert restored(f"{url}/selected").index.tolist() == ["y", "z"]


def test_levels_of_an_index_are_restored(url: str) -> None:
    """An index of several levels is a tensor for each level."""
    frame = source(table()).groupby(["y", "x"]).size().to_frame("n")
    frame.to_lake(url, options=SYNC)
    assert list(dasklake.open(url).schema) == ["y", "x", "n"]
    pd.testing.assert_frame_equal(restored(url), frame.compute(scheduler="sync"))
    assert restored(url, index="x").index.name == "x"


def test_columns_keep_the_index_unless_they_are_the_index(url: str) -> None:
    """``columns=`` selects columns; the index that is one of them is not the index any more."""
    source(table(INDEXES["names"].rename("id"))).to_lake(url, options=SYNC)
    assert restored(url, columns=["x"]).index.tolist() == list("uvwxyz")
    assert restored(url, columns=["x", "id"]).index.tolist() == list(range(6))
    frame = restored(url, columns=["x"], index="y")
    assert (frame.index.name, frame.index[0], list(frame.columns)) == ("y", "a", ["x"])
    assert dasklake.read_lake(url)[["y"]].compute(scheduler="sync").index[0] == "u"
    for wrong in ("z", 5, ["x", "z"]):
        with pytest.raises(InvalidInputError, match=re.escape(repr("z" if wrong != 5 else 5))):
            restored(url, index=wrong)


def test_an_index_named_like_the_columns_has_another_name(url: str) -> None:
    """An index without a name takes a free name, as reset_index gives it."""
    frame = source(table(INDEXES["names"], columns=("index", "y")))
    frame.to_lake(url, options=SYNC)
    assert list(dasklake.open(url).schema) == ["level_0", "index", "y"]
    pd.testing.assert_frame_equal(restored(url), frame.compute(scheduler="sync"))


def test_appended_frames_need_the_index_of_the_lake(url: str) -> None:
    """A frame with another index is refused with the cure, and the cure works."""
    indexed = source(table(INDEXES["names"]))
    indexed.to_lake(url, options=SYNC)
    with pytest.raises(SchemaError, match=r"index 'index'.*set_index") as raised:
        source(table()).to_lake(url, mode="append", options=SYNC)
    assert "does not have" in str(raised.value)
    with pytest.raises(SchemaError, match=r"datetime64.*reset_index"):
        source(table(INDEXES["times"])).to_lake(url, mode="append", options=SYNC)
    with pytest.raises(SchemaError, match="index 'id'"):
        source(table(INDEXES["names"].rename("id"))).to_lake(url, mode="append", options=SYNC)
    indexed.to_lake(url, mode="append", options=SYNC)
    cured = source(table()).assign(index=source(table()).y)
    cured.to_lake(url, mode="append", options=SYNC)
    assert restored(url).index.tolist() == [*"uvwxyz", *"uvwxyz", *"abcdef"]


def test_an_index_is_refused_by_a_lake_without_one(url: str) -> None:
    """An index that would be dropped is an error; numbers of rows are not."""
    source(table()).to_lake(url, options=SYNC)
    indexed = source(table(INDEXES["names"]))
    with pytest.raises(SchemaError, match=r"index of dtype.*reset_index\(drop=True\)"):
        indexed.to_lake(url, mode="append", options=SYNC)
    selected = source(table())
    selected[selected.x > 3].to_lake(url, mode="append", options=SYNC)
    indexed.reset_index(drop=True).to_lake(url, mode="append", options=SYNC)
    assert len(dasklake.open(url)) == 14


def test_numbers_of_rows_fill_the_index_of_a_lake(url: str) -> None:
    """A lake with numbers as its index takes the numbers of rows, too."""
    source(table(INDEXES["numbers"])).to_lake(url, options=SYNC)
    source(table()).to_lake(url, mode="append", options=SYNC)
    assert restored(url).index.tolist() == [*range(10, 16), *range(6)]


def test_a_schema_decides_about_the_index(url: str) -> None:
    """A schema has a tensor for an index that is data; the code of the error is the cure."""
    schema: dict[str, Any] = {"x": INT, "y": TensorSpec(dtype="str")}
    frame = source(table(INDEXES["numbers"]))
    with pytest.raises(SchemaError, match="To keep it, add 'index'") as raised:
        frame.to_lake(url, schema=schema, options=SYNC)
    code = re.search(r"dasklake\.TensorSpec\(.*?\)\)? to the schema", str(raised.value))
    assert code is not None
    spec = eval(code[0].removesuffix(" to the schema"), {"dasklake": dasklake})  # noqa: S307 # what a user would do
    frame.to_lake(url, schema={"index": spec, **schema}, options=SYNC)
    assert restored(url).index.tolist() == list(range(10, 16))
    other = source(table())
    other[other.x > 3].to_lake(url + "/b", schema=schema, options=SYNC)
    assert restored(url + "/b").index.tolist() == [0, 1]


def test_a_transform_gets_the_index_that_the_schema_has(url: str) -> None:
    """The items of a transform have a named index, and an index that is a tensor."""
    frame = source(table(INDEXES["names"]))
    schema: dict[str, Any] = {"index": TensorSpec("text", index="unnamed"), "z": INT}
    frame.to_lake(
        url, schema=schema, transform=lambda s: {"index": s["index"], "z": s["x"]}, options=SYNC
    )
    assert restored(url).index.tolist() == list("uvwxyz")
    plain = {"z": INT}
    frame.to_lake(f"{url}/b", schema=plain, transform=lambda s: {"z": len(s)}, options=SYNC)
    assert restored(f"{url}/b").z.tolist() == [2] * 6


def test_items_of_a_bag_give_the_index_as_a_tensor(url: str) -> None:
    """The index of a lake is an ordinary tensor of its samples."""
    source(table(INDEXES["names"])).to_lake(url, options=SYNC)
    lake = dasklake.open(url)
    assert lake[0] == {"index": "u", "x": 0, "y": "a"}
    lake.append({"index": "extra", "x": 9, "y": "z"})
    assert restored(url).index.tolist() == [*"uvwxyz", "extra"]
    lake.rename_tensor("index", "file")
    assert restored(url).index.name is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([0, 1], "strings"),
        (pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")]), "one level"),
        (pd.Index(["x", "y"], name="axis"), "name 'axis'"),
        ([pd.Timestamp("2026-01-01"), "y"], "strings"),
    ],
)
def test_column_names_that_would_change_are_refused(url: str, columns: Any, words: str) -> None:
    """A name that is not a plain string is an error, and the code of the error is the cure."""
    frame = source(table().set_axis(columns, axis=1))
    with pytest.raises(SchemaError, match=words) as raised:
        frame.to_lake(url, options=SYNC)
    scope = {"frame": frame}
    code = re.search(r"frame\.(columns = |rename_axis).*[\])]", str(raised.value))
    assert code is not None
    exec(code[0].replace("frame.rename", "frame = frame.rename"), scope)  # noqa: S102 # what a user would do
    scope["frame"].to_lake(url, options=SYNC)
    assert all(isinstance(name, str) for name in restored(url).columns)


@pytest.mark.parametrize("columns", [["x", "x"], ["", "y"], ["a\n", "y"], ["a:shape", "y"]])
def test_names_that_tensors_cannot_have_are_refused(url: str, columns: list[str]) -> None:
    """A name that occurs twice, or is not valid for a tensor, is an error of the client."""
    with pytest.raises(SchemaError, match=r"Rename|Choose another"):
        source(table(columns=columns)).to_lake(url, options=SYNC)
    with pytest.raises(SchemaError, match="'x' twice"):
        source(table(pd.Index(range(6), name="x"))).to_lake(url, options=SYNC)


def test_ordered_categories_are_restored(url: str) -> None:
    """The order of categories is part of the schema, and another order is refused."""
    levels = pd.CategoricalDtype(["low", "mid", "high"], ordered=True)
    values = ["low", None, "high", "mid", "low", "low"]
    frame = source(pd.DataFrame({"level": pd.Categorical(values, dtype=levels)}))
    frame.to_lake(url, options=SYNC)
    pd.testing.assert_frame_equal(restored(url), frame.compute(scheduler="sync"))
    assert (restored(url).level > "low").sum() == 2
    frame.to_lake(url, mode="append", options=SYNC)
    reverse = pd.CategoricalDtype(["high", "mid", "low"], ordered=True)
    other = source(pd.DataFrame({"level": pd.Categorical(values, dtype=reverse)}))
    with pytest.raises(SchemaError, match=r"as_unordered\(\)"):
        other.to_lake(url, mode="append", options=SYNC)
    other.assign(level=other.level.cat.as_unordered()).to_lake(url, mode="append", options=SYNC)
    assert restored(url).level.astype(object).fillna("").tolist() == [v or "" for v in values * 3]


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical([1, 2] * 3),
        pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02"] * 3)),
        pd.arrays.SparseArray([0, 0, 1, 0, 0, 2]),
    ],
    ids=["numbers", "times", "sparse"],
)
def test_dtypes_that_would_change_are_refused(url: str, column: Any) -> None:
    """A dtype that a lake does not restore is an error, and the schema in the error is the cure."""
    frame = source(pd.DataFrame({"x": column}))
    with pytest.raises(SchemaError, match=r"edit this line: (its categories|it is)"):
        frame.to_lake(url, options=SYNC)
    with pytest.raises(SchemaError) as raised:
        frame.to_lake(url, options=SYNC)
    scope: dict[str, Any] = {"dasklake": dasklake}
    shown = str(raised.value)
    exec(shown[shown.index("schema = {") :], scope)  # noqa: S102 # what a user would do
    frame.to_lake(url, schema=scope["schema"], options=SYNC)
    assert restored(url).x.tolist() == pd.Series(column).tolist()


def test_objects_in_an_index_are_not_converted_silently(url: str) -> None:
    """An index of objects that Dask converted to strings is refused."""
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index([1, "a"], dtype=object))
    with pytest.raises(InvalidInputError, match=r"the index|type of the columns 'index'"):
        dd.from_pandas(frame, npartitions=1, sort=False).to_lake(url, options=SYNC)


def test_releases_that_would_drop_the_index_do_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lake with an index names a feature that its writers must know; readers need not."""
    path = str(tmp_path / "lake")
    source(table(INDEXES["names"])).to_lake(path, options=SYNC)
    monkeypatch.setattr("dasklake._format.documents.WRITER_FEATURES", frozenset({"past", "names"}))
    assert dasklake.open(path)[0]["index"] == "u"
    with pytest.raises(UnsupportedFormatError, match="frame"):
        source(table(INDEXES["names"])).to_lake(path, mode="append", options=SYNC)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"dtype": "int64", "shape": (2,), "index": True}, "one value per sample"),
        ({"dtype": "int64", "shape": (), "index": "other"}, "'unnamed'"),
        ({"dtype": "int64", "shape": (), "index": 1}, "'unnamed'"),
        ({"htype": "image", "compression": "png", "index": True}, "one value per sample"),
        ({"htype": "class_label", "ordered": True}, "class_names"),
        ({"dtype": "int64", "ordered": True}, "does not support ordered"),
    ],
)
def test_roles_that_do_not_fit_are_refused(parameters: dict[str, Any], words: str) -> None:
    """A spec checks its role in a frame."""
    with pytest.raises(SchemaError, match=words):
        TensorSpec(**parameters)


def test_a_bag_of_an_indexed_lake_has_the_same_schema(url: str) -> None:
    """The roles survive a copy through a bag."""
    source(table(INDEXES["names"].rename("id"))).to_lake(url, options=SYNC)
    lake = dasklake.open(url)
    copy = db.from_sequence(list(lake), npartitions=2)
    with dask.config.set(scheduler="sync"):
        copy.to_lake(f"{url}/copy", schema=lake.schema)
    assert dasklake.open(f"{url}/copy").schema == lake.schema
    pd.testing.assert_frame_equal(restored(f"{url}/copy"), restored(url))
