"""Test the analysis of collections as inputs of a write."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr
from dask.delayed import delayed
from pyarrow import orc as pa_orc

import dasklake
from dasklake._codecs.sample import StoredValue
from dasklake._schema.schema import Schema
from dasklake._storage.file_versions import file_versions, safe_path
from dasklake._write.input import source_of
from dasklake.exceptions import InvalidInputError, SchemaError

#: Prints the ids of inputs that are built anew: each line is a name and the id.
_INPUTS = """
import pathlib, sys, tempfile
from dataclasses import dataclass
import dask.array as da, dask.bag as db, dask.dataframe as dd
import numpy as np, pandas as pd
from dask.delayed import delayed
from dasklake._write.input import source_of

class Plain:
    def __init__(self, n):
        self.n, self.tags = n, {f"tag-{i}" for i in range(n, n + 9)}

@dataclass
class Data:
    n: int
    tags: frozenset

def bag(*items, parts=2):
    return db.from_sequence(list(items), npartitions=parts)

def load(i):
    return [i]

def table(i):
    return pd.DataFrame({"x": [i, i + 1], "s": pd.array(["a", "b"], dtype="string")})

def sequence(*items):
    return [delayed(load)(i) for i in items]

paths = [pathlib.Path(sys.argv[1]) / f"{i}.parquet" for i in range(3)]
texts = [pathlib.Path(sys.argv[1]) / f"{i}.txt" for i in range(3)]
for i, (path, text) in enumerate(zip(paths, texts)):
    if not path.exists():
        table(i).to_parquet(path)
        text.write_text(str(i))
x, y = np.arange(6), np.ones((6, 2))
one = dd.from_pandas(table(1), npartitions=1)
two = dd.from_pandas(table(2), npartitions=1)
inputs = {
    "sequence": bag(1, 2, 3),
    "sequence 2": bag(2, 1, 3),
    "mapped": bag(1, 2, 3).map(lambda i: i + 1),
    "concat": db.concat([bag(1), bag(2)]),
    "concat 2": db.concat([bag(2), bag(1)]),
    "zip": db.zip(bag(1, 2), bag(3, 4)),
    "zip 2": db.zip(bag(3, 4), bag(1, 2)),
    "delayed": db.from_delayed(sequence(1, 2, 3)),
    "delayed 2": db.from_delayed(sequence(3, 2, 1)),
    "plain": bag(Plain(1), Plain(2)),
    "plain 2": bag(Plain(2), Plain(1)),
    "data": bag(Data(1, frozenset("abc")), Data(2, frozenset("def"))),
    "data 2": bag(Data(2, frozenset("def")), Data(1, frozenset("abc"))),
    "objects": bag(pathlib.Path("a"), np.float32(1), {"s", "t", "u"}, range(3)),
    "text": db.read_text([str(t) for t in texts]),
    "text 2": db.read_text([str(t) for t in texts[::-1]]),
    "pandas": dd.from_pandas(table(1), npartitions=2),
    "pandas 2": dd.from_pandas(table(1)[::-1].reset_index(drop=True), npartitions=2),
    "frames": dd.concat([one, two]),
    "frames 2": dd.concat([two, one]),
    "persisted": one.persist(scheduler="sync"),
    "persisted 2": two.persist(scheduler="sync"),
    "parquet": dd.read_parquet([str(p) for p in paths]),
    "parquet 2": dd.read_parquet([str(p) for p in paths[::-1]]),
    "map": dd.from_map(table, [1, 2, 3]),
    "map 2": dd.from_map(table, [3, 2, 1]),
    "tables": dd.from_delayed([delayed(table)(i) for i in (1, 2)], meta=table(0)),
    "tables 2": dd.from_delayed([delayed(table)(i) for i in (2, 1)], meta=table(0)),
    "partitions": dd.from_map(table, [1, 2, 3]).partitions[[2, 1]],
    "array": da.from_array(x, chunks=3),
    "array 2": da.from_array(x, chunks=3)[::-1],
    "array 3": da.from_array(x[::-1].copy(), chunks=3),
    "stacked": da.concatenate([da.from_array(x), da.from_array(-x)]),
    "stacked 2": da.concatenate([da.from_array(-x), da.from_array(x)]),
    "arrays": {"x": da.from_array(x, chunks=3), "y": da.from_array(y, chunks=(3, 2))},
    "arrays 2": {"y": da.from_array(x, chunks=3), "x": da.from_array(y, chunks=(3, 2))},
    "blocks": da.ones((6, 2), chunks=(3, 2)).map_blocks(lambda b: b + 1),
}
for name, each in inputs.items():
    print(name, source_of(each, None).input_id, sep=": ")
"""


def test_input_ids_are_equal_in_every_process_and_differ_between_inputs(tmp_path: Path) -> None:
    """Ids do not depend on the order of hashes, but on the order of the input."""
    script = tmp_path / "inputs.py"
    script.write_text(_INPUTS)
    outputs = []
    for seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        process = subprocess.run(
            [sys.executable, str(script), str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.append(dict(line.split(": ") for line in process.stdout.splitlines()))
    assert outputs[0] == outputs[1]
    ids = outputs[0]
    assert "None" not in ids.values()
    assert ids.pop("mapped") == ids["sequence"]
    assert len(set(ids.values())) == len(ids)


def test_functions_and_their_arguments_do_not_change_the_input_id() -> None:
    """Fixing a function or its arguments keeps the id; changing an input of all partitions does not."""

    def read(item: int, index: dict[int, str]) -> str:
        return index[item]

    def input_id(items: list[int], index: dict[int, str]) -> str | None:
        bag = db.from_sequence(items, npartitions=2).map(read, index=delayed(index))
        return source_of(bag, None).input_id

    first = input_id([1, 2], {1: "a", 2: "b"})
    assert first is not None
    assert input_id([1, 2], {1: "A", 2: "b"}) == first
    assert input_id([2, 1], {1: "a", 2: "b"}) != first
    arrays = [da.from_array(np.full(6, number), chunks=3) for number in (1, 2)]
    assert len({source_of(array, None).input_id for array in arrays}) == 2


def test_the_identity_of_samples_of_a_lake_needs_no_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Masks of kilobytes may decode to gigabytes, on the client. Values that were changed count."""
    with dask.config.set(scheduler="sync"):
        db.from_sequence([1, 2, 3], npartitions=1).to_lake(
            "memory://identity-of-samples",
            schema={"mask": dasklake.TensorSpec("binary_mask", compression="rle")},
            transform=lambda n: {"mask": np.ones((n, 2, 1), bool)},
            progress=False,
        )
    lake = dasklake.open("memory://identity-of-samples")

    def identity(edit: Callable[[list[Any]], object] = bool, rows: slice = slice(3)) -> str:
        samples: list[Any] = lake[rows]
        edit(samples)
        # In lists and dicts, as JSON is tried for those.
        bag = db.from_sequence([{"of": [sample, n]} for n, sample in enumerate(samples)])
        return str(source_of(bag, None).input_id)

    before = identity()
    assert identity(lambda samples: [sample["mask"].sum() for sample in samples]) == before
    assert identity(lambda samples: samples[1]["mask"].fill(0)) != before
    assert identity(lambda samples: samples[1].update(mask=None)) != before
    assert identity(rows=slice(2)) != identity(rows=slice(1, 3))
    monkeypatch.setattr(StoredValue, "get", lambda value: pytest.fail(f"decoded {value}"))
    assert identity() == before


def test_an_input_without_identity_warns() -> None:
    """An input without deterministic identity warns, and names input_id= as the remedy."""
    source = source_of(db.from_sequence([object()], npartitions=1), None)
    with pytest.warns(UserWarning, match="input_id="):
        assert source.input_id is None


def _images() -> pd.DataFrame:
    return pd.DataFrame({"k": [1, 2], "img": [np.zeros(2), np.ones(2)], "s": ["a", "b"]})


def _damaged(kind: str) -> Any:
    frame = dd.from_pandas(_images(), npartitions=2)
    if kind == "index":
        by = _images().assign(key=_images()["img"].map(tuple).astype(object)).set_index("key")
        return dd.from_pandas(by[["k"]], npartitions=1, sort=False)
    columns = {
        "rename": lambda: frame.rename(columns={"img": "pic"}),
        "assign": lambda: frame.assign(pic=frame.img)[["k", "pic"]],
        "persist": lambda: frame.persist(scheduler="sync"),
        "series": lambda: frame.img,
        "merge": lambda: frame.merge(frame, on="k"),
        "map_partitions": lambda: frame.map_partitions(lambda f: f),
        "from_map": lambda: dd.from_map(lambda _: _images(), [0]).rename(columns={"img": "pic"}),
    }
    return columns[kind]()


@pytest.mark.parametrize(
    "kind",
    ["rename", "assign", "persist", "series", "merge", "map_partitions", "from_map", "index"],
)
def test_damaged_columns_are_refused_under_any_name(kind: str) -> None:
    """Arrays that were converted to strings are an error under any name."""
    with pytest.raises(InvalidInputError, match="convert-string"):
        source_of(_damaged(kind), None)


def test_undamaged_columns_are_accepted() -> None:
    """Strings in object columns are accepted, and so are frames without the converted column."""
    frame = dd.from_pandas(_images(), npartitions=2)
    strings = pd.DataFrame({"s": pd.Series(["a", None, "b"], dtype=object)})
    assert list(source_of(dd.from_pandas(strings, npartitions=1), None).schema or ()) == ["s"]
    persisted = dd.from_pandas(strings, npartitions=1).persist(scheduler="sync")
    assert list(source_of(persisted, None).schema or ()) == ["s"]
    for rest in (frame[["k", "s"]], frame.drop(columns="img"), frame.assign(img=frame.k)):
        assert "k" in (source_of(rest, None).schema or ())
    text = Schema({"k": dasklake.TensorSpec(dtype="int64"), "pic": "text", "s": "text"})
    assert source_of(frame.rename(columns={"img": "pic"}), text).names == ("k", "pic", "s")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({1: [1], "1": [2]}),
        pd.DataFrame([[1, 2]], columns=["1", "1"]),
        pd.DataFrame({"1": [1]}, index=pd.Index([5], name="1")),
    ],
    ids=["number", "twice", "index"],
)
def test_columns_with_one_name_are_refused(frame: pd.DataFrame) -> None:
    """Columns that would be one tensor are an error that names them, before anything is written."""
    with pytest.raises(SchemaError, match=r"got 1\. Use frame.columns|'1' twice\. Rename"):
        source_of(dd.from_pandas(frame, npartitions=1), None)


def test_a_series_is_a_frame_of_one_column() -> None:
    """A series is written under its name, or that of the schema's only tensor."""
    series = dd.from_pandas(pd.Series([1, 2], name="x"), npartitions=1)
    assert source_of(series, None).names == ("x",)
    nameless = dd.from_pandas(pd.Series([1, 2]), npartitions=1)
    one = {"y": dasklake.TensorSpec(dtype="int64", shape=())}
    assert source_of(nameless, Schema(one)).names == ("y",)
    labelled = dd.from_pandas(pd.Series([1, 2], index=[5, 3]), npartitions=1, sort=False)
    level = {"index": dasklake.TensorSpec(dtype="int64", shape=(), index="unnamed")}
    assert source_of(labelled, Schema(level | one)).names == ("y",)


@pytest.mark.parametrize("name", [None, 5, ("a", "b")])
def test_a_series_without_a_name_is_refused(name: Any) -> None:
    """The error has the name, and its remedy works."""
    series = dd.from_pandas(pd.Series([1, 2], name=name), npartitions=1)
    two = Schema(dict.fromkeys("ab", dasklake.TensorSpec(dtype="int64", shape=())))
    for schema in (None, two):
        with pytest.raises(
            InvalidInputError, match=r"must have a name.*series\.rename\('x'\)"
        ) as e:
            source_of(series, schema)
        assert f"got {name!r}. " in str(e.value)
    assert source_of(series.rename("x"), None).names == ("x",)


def test_the_schema_that_an_error_shows_runs() -> None:
    """The schema in the message can be copied: each line makes the column's own spec."""
    names = [f"class-{i}" for i in range(9)]
    frame = pd.DataFrame(
        {
            "what": [[1]],
            "x": [1.0],
            "kind": pd.Categorical(["class-1"], categories=names),
            "when": pd.to_datetime(["2026-01-01"]),
            "n": pd.array([1], dtype="Int64"),
            "money": pd.array([None], dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
            "list": pd.array([None], dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
        }
    )
    with dask.config.set({"dataframe.convert-string": False}):
        source = dd.from_pandas(frame, npartitions=1)
    with pytest.raises(SchemaError, match="'what'") as caught:
        source_of(source, None)
    shown = str(caught.value)
    scope: dict[str, Any] = {"dasklake": dasklake, "frame": source}
    exec(shown[shown.index("schema = {") :], scope)  # noqa: S102 # what a user would do
    expected = source_of(source.drop(columns="what"), None).schema
    assert {n: s for n, s in scope["schema"].items() if n != "what"} == dict(expected or {})


def test_arrays_of_strings_are_text() -> None:
    """Strings and bytes have specs of their own; objects need a schema, which is used."""
    strings = da.from_array(np.array(["a", "bb"]), chunks=1)
    assert source_of(strings, None).schema == Schema({"data": "text"})
    data = da.from_array(np.array([b"a", b"bb"]), chunks=1)
    binary = dasklake.TensorSpec(dtype="binary")
    assert source_of(data, None).schema == Schema({"data": binary})
    objects = da.from_array(np.array(["a", None], dtype=object), chunks=1)
    with pytest.raises(SchemaError, match=r"'data': dasklake\.TensorSpec"):
        source_of(objects, None)
    assert source_of(objects, Schema({"t": "text"})).names == ("t",)


def test_mapped_bags_have_known_lengths() -> None:
    """A map keeps the lengths of the bag it maps; anything else leaves them unknown."""
    bag = db.from_sequence([(1, 2), (3, 4), (5, 6)], npartitions=2)
    mapped = bag.map(lambda pair: pair).starmap(lambda a, b: a + b).map(lambda n, by: n * by, by=2)
    assert source_of(mapped, None).lengths == (2, 1)
    assert source_of(mapped, None).starts == [0, 2]
    assert source_of(bag.map(lambda a, b: (a, b), bag), None).lengths is None
    assert source_of(bag.filter(bool), None).lengths is None
    assert source_of(db.from_delayed([delayed(list)()]), None).lengths is None


def _write_table(folder: Path, numbers: list[int]) -> None:
    """Write numbers as files of several formats; equally many digits give files of equal size."""
    frame = pd.DataFrame({"x": numbers})
    frame.to_parquet(folder / "part.parquet")
    frame.to_csv(folder / "a.csv", index=False)
    frame.to_json(folder / "a.json", orient="records", lines=True)
    (folder / "a.txt").write_text("\n".join(map(str, numbers)))
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(numbers).encode(), mtime=0))
    pa_orc.write_table(pa.table({"x": numbers}), folder / "a.orc")
    np.save(folder / "0.npy", np.array(numbers))
    info = {"chunks": ((4,),), "dtype": np.dtype("int64"), "axis": 0}
    (folder / "info").write_bytes(pickle.dumps(info))  # of dask.array.to_npy_stack


def _picked(number: int, folder: str) -> pd.DataFrame:
    """Read one row."""
    return pd.read_csv(folder).iloc[[number]]


def _lines(path: Any) -> list[str]:
    """Read lines."""
    return Path(path).read_text().splitlines()


FILES: dict[str, Callable[[str], Any]] = {
    "parquet": lambda folder: dd.read_parquet(f"{folder}/part.parquet"),
    "parquet of a folder": lambda folder: dd.read_parquet(folder)[["x"]],
    "parquet, arrow": lambda folder: dd.read_parquet(f"{folder}/part.parquet", filesystem="arrow"),
    "csv": lambda folder: dd.read_csv(f"{folder}/*.csv"),
    "csv blocks": lambda folder: dd.read_csv(f"{folder}/a.csv", blocksize=8).repartition(
        npartitions=2
    ),
    "json": lambda folder: dd.read_json(f"{folder}/a.json"),
    "json blocks": lambda folder: dd.read_json(f"{folder}/a.json", blocksize=30),
    "text": lambda folder: db.read_text(f"{folder}/a.txt").map(int),
    "text blocks": lambda folder: db.read_text(f"{folder}/a.txt", blocksize=8).map(int),
    "text files": lambda folder: db.read_text(f"{folder}/*.txt", files_per_partition=2),
    "orc": lambda folder: dd.read_orc(f"{folder}/a.orc"),
    "orc columns": lambda folder: dd.read_orc([f"{folder}/a.orc"], columns=["x"])[["x"]] + 1,
    "npy stack": lambda folder: {"x": da.from_npy_stack(folder)},
    "npy in memory maps": lambda folder: {
        "x": da.from_array(np.load(f"{folder}/0.npy", mmap_mode="r"), chunks=2)
    },
    "from_map": lambda folder: dd.from_map(pd.read_csv, [f"{folder}/a.csv", Path(folder, "a.csv")]),
    "from_map, arguments": lambda folder: dd.from_map(_picked, [0, 1], folder=f"{folder}/a.csv"),
    "delayed": lambda folder: db.from_delayed([delayed(_lines)(f"{folder}/a.txt")]),
    "delayed, nested": lambda folder: db.from_delayed(
        [delayed(_lines)([{"a": f"{folder}/a.txt"}])]
    ),
    "delayed array": lambda folder: {
        "x": da.from_delayed(delayed(np.load)(Path(folder, "0.npy")), (4,), dtype="int64")
    },
    "compressed text": lambda folder: db.read_text(f"{folder}/*.gz").map(json.loads),
}


@pytest.mark.parametrize("kind", FILES)
def test_rewritten_files_are_another_input(tmp_path: Path, kind: str) -> None:
    """A file source has the same id until a file is rewritten in place, even with the same size."""
    path = tmp_path if "folder" not in kind else tmp_path / "folder"
    path.mkdir(exist_ok=True)
    _write_table(path, [10, 11, 12, 13])
    if "folder" in kind:
        for file in path.iterdir():
            if file.suffix != ".parquet":
                file.unlink()

    def input_id() -> str | None:
        return source_of(FILES[kind](str(path)), None).input_id

    first = input_id()
    assert first is not None
    assert input_id() == first
    for file in path.iterdir():
        stat = file.stat()
        os.utime(file, ns=(stat.st_atime_ns + 10**9, stat.st_mtime_ns))
    assert input_id() == first  # reading a file does not change it
    _write_table(path, [20, 21, 22, 23])
    assert input_id() not in (first, None)


@pytest.mark.parametrize("layout", ["path", "array", "group", "url"])
def test_rewritten_zarr_arrays_are_another_input(tmp_path: Path, layout: str) -> None:
    """A Zarr array has the same id until it is rewritten, whatever happens to its neighbours."""
    group = zarr.open_group(str(tmp_path / "data"), mode="w")
    arrays = [group.create_array(n, shape=(8,), chunks=(4,), dtype="int64") for n in "ab"]
    sources: dict[str, Callable[[], da.Array]] = {
        "path": lambda: da.from_zarr(str(tmp_path / "data"), "a"),
        "array": lambda: da.from_array(arrays[0]),
        "group": lambda: da.from_zarr(zarr.open_group(str(tmp_path / "data"), mode="r")["a"]),
        "url": lambda: da.from_zarr(f"file://{tmp_path}/data", "a"),
    }

    def input_id() -> str | None:
        return source_of({"x": sources[layout]()}, None).input_id

    arrays[0][:] = 1
    first = input_id()
    assert first is not None
    arrays[1][:] = 2
    assert input_id() == first
    arrays[0][:] = 3
    assert input_id() not in (first, None)


def test_strings_that_are_not_files(tmp_path: Path) -> None:
    """Other strings among the arguments of tasks have an id without files."""
    texts = ["", "a" * 10_000, "a\0b", "\udce9", str(tmp_path), "/dev/null", "s3://bucket/a"]
    bag = db.from_delayed([delayed(list)(texts)])
    first = source_of(bag, None).input_id
    assert first is not None
    assert source_of(db.from_delayed([delayed(list)(texts)]), None).input_id == first


def test_the_id_of_files_has_no_credentials(tmp_path: Path) -> None:
    """Options of the file system, such as credentials, do not change the id of files."""
    (tmp_path / "a.txt").write_text("1")

    def input_id(**options: Any) -> str | None:
        bag = db.read_text(f"file://{tmp_path}/a.txt", storage_options=options)
        return source_of(bag, None).input_id

    first = input_id()
    assert first is not None
    assert input_id(key="user", client_kwargs={"a": "b"}) == first


def test_etags_precede_times() -> None:
    """The version of an object is its etag if it has one, and a stale listing is not used."""

    class Filesystem:
        etag: str | None = "a"
        listed = True

        def invalidate_cache(self) -> None:
            self.listed = False

        def info(self, path: str) -> dict[str, Any]:
            assert not self.listed
            return {"name": path, "size": 3, "ETag": self.etag, "LastModified": 5}

    filesystem = Filesystem()
    assert file_versions(filesystem, ["b/x"]) == [["b/x", "3", "etag=a"]]
    filesystem.etag = None
    assert file_versions(filesystem, ["b/x"]) == [["b/x", "3", "lastmodified=5"]]
    assert safe_path("http://h/a?sig=1") == safe_path("http://u:p@h/a?sig=2") == "http://h/a"
