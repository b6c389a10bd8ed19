"""Every kind of collection is written to a lake and read back equal."""

from __future__ import annotations

import datetime as dt
import inspect
from decimal import Decimal
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
from dask.delayed import delayed

import dasklake
from dasklake.exceptions import InvalidInputError, SchemaError, TransformError

SYNC = dasklake.WriteOptions(scheduler="sync")


def back(url: Path) -> pd.DataFrame:
    """Read a lake as one frame."""
    return dasklake.read_lake(url).compute(scheduler="sync").reset_index(drop=True)


def arrow(values: list[Any], kind: pa.DataType) -> Any:
    """Make a pandas column of an Arrow type."""
    return pd.array(values, dtype=pd.ArrowDtype(kind))


def columns() -> dict[str, Any]:
    """Make one column of each kind, with missing values if the kind allows them."""
    moments = pd.to_datetime(["2026-01-01", "2026-06-01", None, "2026-12-31"])
    return {
        "int": np.array([1, -2, 3, 2**40]),
        "small": np.array([1, 2, 3, 4], "uint8"),
        "float": np.array([1.5, np.nan, -0.0, np.inf], "float32"),
        "bool": np.array([True, False, True, False]),
        "complex": np.array([1 + 2j, 0, -1j, 3], "complex128"),
        "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
        "nullable_bool": pd.array([True, None, False, True], dtype="boolean"),
        "text": pd.array(["a", None, "", "é中"], dtype="string[pyarrow]"),
        "moment": moments,
        "zone": moments.tz_localize("Europe/Berlin"),
        "duration": pd.to_timedelta(["1h", "2s", None, "3D"]),
        "decimal": arrow(
            [Decimal("1.25"), None, Decimal("-3.00"), Decimal(0)], pa.decimal128(10, 2)
        ),
        "day": arrow([dt.date(2026, 1, 1), None, None, dt.date(1, 1, 1)], pa.date32()),
        "nested": arrow([[1.0], None, [], [2.0, 3.0]], pa.list_(pa.float64())),
        "record": arrow(
            [{"a": 1, "b": "x"}, None, {"a": None, "b": ""}, {"a": 2, "b": "y"}],
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
        ),
        "binary": arrow([b"\x00\xff", None, b"", b"x"], pa.large_binary()),
    }


@pytest.mark.parametrize("name", columns())
def test_columns_are_read_back_with_equal_dtype_and_values(tmp_path: Path, name: str) -> None:
    """A column of any dtype of pandas or Arrow is the same after reading back."""
    frame = pd.DataFrame({name: columns()[name]})
    source = dd.from_pandas(frame, npartitions=2)
    source.to_lake(tmp_path / "lake", options=SYNC)
    read = dasklake.read_lake(tmp_path / "lake")
    assert read.dtypes.to_dict() == source.dtypes.to_dict()
    expected = source.compute(scheduler="sync").reset_index(drop=True)
    pd.testing.assert_frame_equal(back(tmp_path / "lake"), expected)


def test_categoricals_are_read_back_as_class_names(tmp_path: Path) -> None:
    """A categorical of strings is a class label, and a categorical again after reading."""
    column = pd.Categorical(["cat", "dog", None, "cat"], categories=["dog", "cat", "cow"])
    source = dd.from_pandas(pd.DataFrame({"kind": column}), npartitions=2)
    source.to_lake(tmp_path / "lake", options=SYNC)
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake.schema["kind"].class_names) == ["dog", "cat", "cow"]
    pd.testing.assert_series_equal(back(tmp_path / "lake")["kind"], pd.Series(column, name="kind"))


def test_object_columns_that_became_strings_are_refused(tmp_path: Path) -> None:
    """Arrays that Dask converted to their repr are refused with a remedy, and the remedy works."""
    frame = pd.DataFrame({"pixels": [np.full((2, 2), i, "uint8") for i in range(4)]})
    schema = {"pixels": dasklake.TensorSpec(dtype="uint8", shape=(2, 2))}
    with pytest.raises(InvalidInputError, match=r"'pixels'.*convert-string"):
        dd.from_pandas(frame, npartitions=2).to_lake(tmp_path / "lake", schema=schema, options=SYNC)
    assert not (tmp_path / "lake").exists()
    with dask.config.set({"dataframe.convert-string": False}):
        source = dd.from_pandas(frame, npartitions=2)
    source.to_lake(tmp_path / "lake", schema=schema, options=SYNC)
    pixels = dasklake.open(tmp_path / "lake")["pixels"][:]
    np.testing.assert_array_equal(pixels, np.stack(list(frame["pixels"])))


def test_object_columns_need_a_schema(tmp_path: Path) -> None:
    """An object column requires a schema, and the error shows how to write it."""
    with dask.config.set({"dataframe.convert-string": False}):
        source = dd.from_pandas(pd.DataFrame({"x": [1], "y": [[1, 2]]}), npartitions=1)
    with pytest.raises(SchemaError, match=r"'y': dasklake\.TensorSpec"):
        source.to_lake(tmp_path / "lake", options=SYNC)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int64", "float16", "float32", "complex64", "M8[ms]", "m8[us]"]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_arrays_are_read_back_equal(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """An array of any dtype, rank and blocks is the same after reading back."""
    values = np.random.default_rng(1).integers(0, 2, (10, *shape)).astype(dtype)
    source = da.from_array(values, chunks=(3, *shape))
    source.to_lake(tmp_path / "lake", options=SYNC)
    result = dasklake.open(tmp_path / "lake").to_dask_array("data")
    assert (result.dtype, result.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(result.compute(scheduler="sync"), values)
    np.testing.assert_array_equal(dasklake.open(tmp_path / "lake")["data"][4], values[4])


def test_arrays_split_along_other_axes_are_rechunked_with_a_warning(tmp_path: Path) -> None:
    """An array that is split along the axes of a sample is rechunked with a warning."""
    values = np.arange(60).reshape(10, 6)
    with pytest.warns(UserWarning, match="rechunked"):
        da.from_array(values, chunks=(5, 3)).to_lake(tmp_path / "lake", options=SYNC)
    np.testing.assert_array_equal(dasklake.open(tmp_path / "lake")["data"][:], values)


def test_unknown_chunk_sizes_are_accepted(tmp_path: Path) -> None:
    """An array with unknown chunk sizes is written."""
    source = da.arange(20, chunks=5)
    source[source % 3 == 0].to_lake(tmp_path / "lake", options=SYNC)
    assert dasklake.open(tmp_path / "lake")["data"][:].tolist() == list(range(0, 20, 3))


def test_aligned_arrays_are_tensors_of_one_sample(tmp_path: Path) -> None:
    """A mapping of arrays is partitioned like its first one; different lengths are refused."""
    x, y = da.arange(10, chunks=4), da.ones((10, 2), chunks=(3, 2), dtype="float32")
    dasklake.to_lake({"x": x, "y": y}, tmp_path / "lake", options=SYNC)
    lake = dasklake.open(tmp_path / "lake")
    assert (len(lake), lake[9]["x"], lake[9]["y"].tolist()) == (10, 9, [1.0, 1.0])
    with pytest.raises(InvalidInputError, match="got 9 for 'y'"):
        dasklake.to_lake({"x": x, "y": y[:9]}, tmp_path / "other", options=SYNC)


def test_bags_are_checked_sample_by_sample(tmp_path: Path) -> None:
    """Missing and unknown tensors are errors; omitted optional tensors and None are missing values."""
    schema = {
        "x": dasklake.TensorSpec(dtype="int64", shape=()),
        "y": dasklake.TensorSpec(dtype="float32", shape=(None,), optional=True),
    }
    good = db.from_sequence([{"x": 1, "y": [1.0]}, {"x": 2}, {"x": None, "y": None}])
    good.to_lake(tmp_path / "good", schema=schema, options=SYNC)
    samples = list(dasklake.open(tmp_path / "good"))
    assert [s["x"] for s in samples] == [1, 2, None]
    assert [s["y"] is None for s in samples] == [False, True, True]
    for sample, tensor in (({"y": None}, "x"), ({"x": 1, "z": 2}, "z")):
        url = tmp_path / f"bad-{tensor}"
        with pytest.raises(TransformError, match=f"tensor '{tensor}'"):
            db.from_sequence([sample]).to_lake(url, schema=schema, options=SYNC)


def test_empty_partitions_and_inputs_are_written(tmp_path: Path) -> None:
    """Partitions without rows are written, counted and read like all partitions."""
    schema = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
    some = db.from_sequence(range(9), npartitions=3).filter(lambda i: i < 3)
    report = some.map(lambda i: {"x": i}).to_lake(tmp_path / "some", schema=schema, options=SYNC)
    assert (report.samples, report.partitions) == (3, 3)
    assert [s["x"] for s in dasklake.open(tmp_path / "some")] == [0, 1, 2]
    none = db.from_sequence([], npartitions=1)
    report = none.to_lake(tmp_path / "none", schema=schema, options=SYNC)
    assert (report.samples, len(dasklake.open(tmp_path / "none"))) == (0, 0)
    assert dasklake.open(tmp_path / "none").is_complete


def test_partitions_are_streamed(tmp_path: Path) -> None:
    """A bag's partition is written item by item, and never materialized as a list."""
    steps = tmp_path / "steps"

    def make(item: int) -> int:
        with steps.open("a") as file:
            file.write(f"make {item}\n")
        return item

    def sample(item: int) -> dict[str, int]:
        with steps.open("a") as file:
            file.write(f"take {item}\n")
        return {"x": item}

    source = db.from_sequence(range(5), npartitions=1).map(lambda i: i).map(make)
    schema = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
    source.to_lake(tmp_path / "lake", schema=schema, transform=sample, options=SYNC)
    expected = [f"{step} {item}" for item in range(5) for step in ("make", "take")]
    assert steps.read_text().splitlines() == expected


def test_shared_upstreams_are_computed_once(tmp_path: Path) -> None:
    """Tasks shared by partitions, and Delayed arguments, are computed once per run."""
    calls: list[str] = []

    def load() -> list[int]:
        calls.append("load")
        return list(range(10))

    def offset() -> int:
        calls.append("offset")
        return 100

    whole = delayed(load)()
    parts = [delayed(lambda items, i=i: items[i::2])(whole) for i in range(2)]
    schema = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
    db.from_delayed(parts).to_lake(
        tmp_path / "lake",
        schema=schema,
        transform=lambda item, plus: {"x": item + plus},
        transform_kwargs={"plus": delayed(offset)()},
        options=SYNC,
    )
    assert sorted(calls) == ["load", "offset"]
    values = sorted(int(s["x"]) for s in dasklake.open(tmp_path / "lake"))
    assert values == list(range(100, 110))


def test_a_delayed_write_is_one_run_however_often_it_is_computed(tmp_path: Path) -> None:
    """``compute=False`` writes nothing yet; computed twice, it is one run with one commit."""
    schema = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
    bag = db.from_sequence(range(200), npartitions=100).map(lambda i: {"x": i})
    write = bag.to_lake(tmp_path / "lake", schema=schema, compute=False)
    assert not (tmp_path / "lake").exists()
    first = write.compute(scheduler="sync")
    second = write.compute(scheduler="sync")
    assert (first.samples, second.samples, first.version) == (200, 200, second.version)
    lake = dasklake.open(tmp_path / "lake")
    assert [s["x"] for s in lake] == list(range(200))
    assert len([c for c in lake.log() if c.progress]) == 1


def test_two_thousand_tensors_are_supported(tmp_path: Path) -> None:
    """A lake may have thousands of tensors; their schema is stored beside the commits."""
    schema = {f"t{i}": dasklake.TensorSpec(dtype="int32", shape=()) for i in range(2000)}
    bag = db.from_sequence(range(4), npartitions=2).map(lambda i: dict.fromkeys(schema, i))
    bag.to_lake(tmp_path / "lake", schema=schema, options=SYNC)
    lake = dasklake.open(tmp_path / "lake")
    assert list(lake.schema) == list(schema)
    assert lake[3] == dict.fromkeys(schema, 3)
    assert len(list((tmp_path / "lake/_lake/schemas").iterdir())) == 1


def test_delayed_arguments_may_be_nested(tmp_path: Path) -> None:
    """A Delayed in a list or dict of an argument arrives as its value, computed once."""
    calls: list[str] = []

    def two() -> int:
        calls.append("two")
        return 2

    value = delayed(two)()
    large = list(range(2_000))
    seen: list[bool] = []

    def sample(item: int, by: dict[str, Any], table: list[int]) -> dict[str, int]:
        seen.append(table is large)
        return {"x": item * by["factors"][0] + by["plus"]}

    db.from_sequence([1, 2], npartitions=2).to_lake(
        tmp_path / "lake",
        schema={"x": dasklake.TensorSpec(dtype="int64", shape=())},
        transform=sample,
        transform_kwargs={"by": {"factors": [value, 5], "plus": 1}, "table": large},
        options=SYNC,
    )
    assert [s["x"] for s in dasklake.open(tmp_path / "lake")] == [3, 5]
    assert (calls, seen) == (["two"], [True, True])


def test_series_and_arrays_of_strings_are_read_back(tmp_path: Path) -> None:
    """A series is one tensor; arrays of strings, bytes and objects are written by their content."""
    series = dd.from_pandas(pd.Series([1, 2], name="x"), npartitions=2)
    series.to_frame().to_lake(tmp_path / "frame", options=SYNC)
    report = series.to_lake(tmp_path / "series", options=SYNC)
    assert isinstance(report, dasklake.WriteReport)
    assert back(tmp_path / "series").equals(back(tmp_path / "frame"))
    report = series.to_lake(tmp_path / "lazy", compute=False).compute(scheduler="sync")
    assert report.samples == 2
    assert back(tmp_path / "lazy").equals(back(tmp_path / "frame"))
    # The accessor is the function: with its arguments, and also on a column that was read.
    assert "mode" in inspect.signature(series.to_lake).parameters
    column = dasklake.read_lake(tmp_path / "frame")["x"]
    column.to_lake(tmp_path / "series", mode="append", options=SYNC)
    assert back(tmp_path / "series")["x"].tolist() == [1, 2, 1, 2]
    cases: list[tuple[list[Any], Any]] = [
        (["a", "é中"], None),
        ([b"a", b"\xff"], None),
        (["a", None], object),
    ]
    for i, (values, dtype) in enumerate(cases):
        array = da.from_array(np.array(values, dtype=dtype), chunks=1)
        schema = None if dtype is None else {"data": "text"}
        array.to_lake(tmp_path / str(i), schema=schema, options=SYNC)
        assert [s["data"] for s in dasklake.open(tmp_path / str(i))] == values


def test_missing_times_are_missing_values_by_row_and_by_block(tmp_path: Path) -> None:
    """A missing time is a missing value, with a transform and without."""
    frame = pd.DataFrame({"t": pd.to_datetime(["2026-01-01", None])})
    schema = {"t": dasklake.TensorSpec(dtype=frame["t"].dtype, shape=())}
    source = dd.from_pandas(frame, npartitions=1)
    source.to_lake(tmp_path / "block", schema=schema, options=SYNC)
    source.to_lake(tmp_path / "row", schema=schema, transform=dict, options=SYNC)
    for name in ("block", "row"):
        assert [s["t"] is None for s in dasklake.open(tmp_path / name)] == [False, True]
