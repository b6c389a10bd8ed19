"""Test that the schema which an error proposes fits the column, by following each proposal."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import uuid
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dasklake
from dasklake.exceptions import InvalidInputError, SchemaError

SYNC = dasklake.WriteOptions(scheduler="sync")
DAY = dt.date(2026, 1, 1)
TIME = pd.Timestamp(2026, 1, 1, 12, 30).to_pydatetime()
BERLIN = pd.Timestamp("2026-01-01", tz="Europe/Berlin")


def objects(*values: Any) -> pd.Series:
    """Return a column of objects."""
    column = pd.Series([None] * len(values), dtype=object)
    for i, value in enumerate(values):
        column.array[i] = value
    return column


def arrow(values: Any) -> pd.Series:
    """Return a column of an Arrow array."""
    return pd.Series(pd.arrays.ArrowExtensionArray(values))


def categories(*values: Any) -> pd.Series:
    """Return a categorical column."""
    return pd.Series(values).astype("category")


#: Columns whose dtype determines no schema, and what their proposal has.
COLUMNS: dict[str, tuple[Callable[[], pd.Series], str]] = {
    "categories of integers": (lambda: categories(1, 2, 1), "dtype='int64'"),
    "categories of floats": (lambda: categories(1.5, 2.5, 1.5), "dtype='float64'"),
    "categories of times": (lambda: categories(*pd.to_datetime(["2026", "2027"])), "datetime64"),
    "categories of times with zones": (lambda: categories(BERLIN, BERLIN), "Europe/Berlin"),
    "categories of durations": (lambda: categories(pd.Timedelta("1s")), "dtype='timedelta64"),
    "categories of periods": (lambda: categories(pd.Period("2026-01", "M")), "dtype='period[M]'"),
    "categories of dates": (lambda: categories(DAY, DAY), "pyarrow.date32()"),
    "categories of bytes": (lambda: categories(b"a", b"b"), "dtype='binary'"),
    "categories of several types": (lambda: categories("a", 1), "'json'"),
    "intervals": (lambda: pd.cut(pd.Series([1, 2, 3]), 2), "dtype='interval[float64, right]'"),
    "sparse integers": (lambda: pd.Series(pd.arrays.SparseArray([0, 1, 0])), "dtype='int64'"),
    "sparse floats": (lambda: pd.Series(pd.arrays.SparseArray([0.0, 1.5])), "dtype='float64'"),
    "sparse bools": (lambda: pd.Series(pd.arrays.SparseArray([False, True])), "dtype='bool'"),
    "wide floats": (lambda: pd.Series([1, 2]).astype("longdouble"), "map(numpy.float64"),
    "strings": (lambda: objects("a", None, "c"), "'text'"),
    "strings and NaN": (lambda: objects("a", float("nan")), "'text'"),
    "integers": (lambda: objects(1, None, 3), "dtype='int64'"),
    "integers of numpy": (lambda: objects(np.int32(3), None), "dtype='int64'"),
    "large integers": (lambda: objects(2**63, 1), "dtype='uint64'"),
    "huge integers": (lambda: objects(2**70, 1), "'json'"),
    "integers and floats": (lambda: objects(1, 2.5, None), "dtype='float64'"),
    "floats": (lambda: objects(1.5, None), "dtype='float64'"),
    "bools": (lambda: objects(*[True, None]), "dtype='bool'"),
    "complex numbers": (lambda: objects(1j, 2 + 1j), "dtype='complex128'"),
    "bytes": (lambda: objects(b"a", b"\xff", None), "dtype='binary'"),
    "bytearrays": (lambda: objects(bytearray(b"a"), b"b"), "dtype='binary'"),
    "decimals": (lambda: objects(decimal.Decimal("1.50"), None), "pyarrow.decimal128(3, 2)"),
    "dates": (lambda: objects(DAY, None), "pyarrow.date32()"),
    "times": (lambda: objects(TIME, pd.NaT), "dtype='datetime64[us]'"),
    "times with nanoseconds": (lambda: objects(pd.Timestamp(7)), "dtype='datetime64[ns]'"),
    "times with a zone": (
        lambda: objects(TIME.replace(tzinfo=dt.UTC)),
        "dtype='datetime64[us, UTC]'",
    ),
    "times with several zones": (lambda: objects(BERLIN, BERLIN.tz_convert("UTC")), "map(str"),
    "times of the day": (lambda: objects(dt.time(1, 2, 3, 4), None), "pyarrow.time64('us')"),
    "durations": (lambda: objects(dt.timedelta(1), None), "dtype='timedelta64[us]'"),
    "periods": (lambda: objects(pd.Period("2026", "Y"), None), "dtype='period["),
    "lists of integers": (lambda: objects([1, 2], [3], []), "dtype='int64', shape=(None,)"),
    "lists of floats": (lambda: objects([1.5], [2, float("nan")]), "dtype='float64'"),
    "lists of lists": (lambda: objects([[1, 2], [3, 4]], [[1, 2]]), "shape=(None, 2)"),
    "ragged lists of lists": (lambda: objects([[1, 2], [3]], []), "'json'"),
    "lists of strings": (lambda: objects(["a"], ["b", "c"], []), "'sequence[text]'"),
    "lists of strings and None": (lambda: objects(["a", None]), "pyarrow.list_(pyarrow.string())"),
    "lists of dates": (lambda: objects([DAY], []), "pyarrow.list_(pyarrow.date32())"),
    "lists of several types": (lambda: objects(["a", 1], []), "'json'"),
    "arrays": (lambda: objects(np.zeros((3, 2), "f4"), np.ones((1, 2), "f4")), "shape=(None, 2)"),
    "arrays of times": (lambda: objects(np.array(["2026"], "M8[us]")), "datetime64[us]"),
    "arrays of strings": (
        lambda: objects(np.array([["a", "b"]])),
        "list_(pyarrow.list_(pyarrow.str",
    ),
    "dicts": (lambda: objects({"a": 1}, None, {"b": [1]}), "'json'"),
    "several types": (lambda: objects(1, "a", None, [2]), "'json'"),
    "missing values only": (lambda: objects(None, None), "'text'"),
    "sets": (lambda: objects({1}, {2}), "map(list"),
    "identifiers": (lambda: objects(uuid.UUID(int=1), None), "map(str"),
    "paths": (lambda: objects(pathlib.PurePosixPath("/x")), "map(str"),
    "strings and bytes": (lambda: objects("a", b"b"), "map(str"),
    "views of strings": (lambda: arrow(pa.array(["a", None], pa.string_view())), "'text'"),
    "views of bytes": (lambda: arrow(pa.array([b"a"], pa.binary_view())), "dtype='binary'"),
    "lists of dictionaries": (
        lambda: arrow(pa.array([["a"], None], pa.list_(pa.dictionary(pa.int32(), pa.string())))),
        "'sequence[text]'",
    ),
}


def frame_of(data: pd.DataFrame) -> Any:
    """Return a frame without Dask's conversion to strings."""
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_pandas(data, npartitions=1, sort=False)


def followed(collection: Any, **names: Any) -> tuple[str, str]:
    """Execute the proposal of the error; return the code and the URL of the lake that it writes."""
    with pytest.raises(SchemaError, match="such as:") as raised:
        dasklake.to_lake(collection, f"memory://{uuid4().hex}", options=SYNC)
    code = str(raised.value).partition("\n")[2]
    scope: dict[str, Any] = {"dasklake": dasklake, **names}
    with dask.config.set({"dataframe.convert-string": False}):
        exec(code, scope)  # noqa: S102 # what a user would do
        changed = next(scope[name] for name in names)
        url = f"memory://{uuid4().hex}"
        dasklake.to_lake(changed, url, schema=scope["schema"], options=SYNC)
    return code, url


def plain(value: Any) -> Any:
    """Return a value in a form that can be compared."""
    if isinstance(value, np.longdouble | np.clongdouble):
        return complex(value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, dict) or not pd.isna(value):
        return value
    return None


@pytest.mark.parametrize("name", COLUMNS)
def test_the_proposed_schema_fits_the_column(name: str) -> None:
    """The proposal has the expected tensor, and the written values are equal."""
    make, expected = COLUMNS[name]
    column = make()
    frame = frame_of(pd.DataFrame({"x": column, "n": range(len(column))}))
    code, url = followed(frame, frame=frame)
    assert expected in code
    with dask.config.set({"dataframe.convert-string": False}):
        back = dasklake.read_lake(url).compute(scheduler="sync")["x"]
    convert = {"map(list": list, "map(str": str, "map(numpy.float64": float}.get(expected, plain)
    before = [None if plain(value) is None else convert(value) for value in column]
    assert plain(list(back)) == plain(before)


ARRAYS: dict[str, tuple[Any, str]] = {
    "2-D strings": (np.array([["a", "b"], ["c", "d"]]), "'sequence[text]'"),
    "3-D strings": (np.array([[["a"], ["b"]]]), "pyarrow.list_(pyarrow.list_(pyarrow.string()))"),
    "2-D bytes": (np.array([[b"a", b"b"]]), "pyarrow.list_(pyarrow.binary())"),
    "wide floats": (np.ones((2, 3), np.longdouble), "astype('float64')"),
    "wide complex numbers": (np.ones(2, np.clongdouble), "astype('complex128')"),
    "objects that are strings": (np.array(["a", None], dtype=object), "'text'"),
    "objects that are dates": (np.array([DAY], dtype=object), "pyarrow.date32()"),
    "objects that are numbers": (np.array([[1, 2], [3, 4]], dtype=object), "dtype='int64'"),
    "identifiers": (np.array([uuid.UUID(int=1)], dtype=object), "astype(str)"),
    "2-D objects": (np.array([["a", 1]], dtype=object), "astype(str)"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_proposed_schema_fits_the_array(name: str) -> None:
    """The proposal works for one array and for several, and the written values are equal."""
    values, expected = ARRAYS[name]
    array = da.from_array(values, chunks=(1, *values.shape[1:]))
    code, url = followed(array, array=array)
    assert expected in code
    before = plain(values.astype(str) if "astype(str)" in expected else values)
    assert plain([sample["data"] for sample in dasklake.open(url)]) == before
    arrays = {"x": array, "n": da.arange(len(values), chunks=1)}
    url = followed(arrays, arrays=arrays)[1]
    assert plain([sample["x"] for sample in dasklake.open(url)]) == before


def test_records_are_written_as_one_array_for_each_field() -> None:
    """The error for an array with fields proposes a mapping of arrays, which works."""
    array = da.from_array(np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f4")]), chunks=1)
    with pytest.raises(InvalidInputError) as raised:
        dasklake.to_lake(array, f"memory://{uuid4().hex}", options=SYNC)
    code = str(raised.value).partition("each field: ")[2].removesuffix(".")
    url = f"memory://{uuid4().hex}"
    dasklake.to_lake(eval(code, {"array": array}), url, options=SYNC)  # noqa: S307 # the proposal
    assert dict(dasklake.open(url)[0]) == {"a": 1, "b": 2.5}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pd.Index([DAY, DAY.replace(day=2)], dtype=object), "index='unnamed'"),
        (pd.Index(["a", "b"], dtype=object, name="key"), "index=True"),
        (pd.Index([1, "a"], dtype=object), "reset_index()"),
        (pd.CategoricalIndex([5, 7]), "dtype='int64'"),
    ],
    ids=["dates", "names", "several types", "categories"],
)
def test_the_proposed_schema_keeps_the_index(labels: pd.Index, expected: str) -> None:
    """The proposal for an index restores it, or its values as strings if they are of several types."""
    frame = frame_of(pd.DataFrame({"x": [1, 2]}, index=labels))
    code, url = followed(frame, frame=frame)
    assert expected in code
    with dask.config.set({"dataframe.convert-string": False}):
        back = dasklake.read_lake(url).compute(scheduler="sync").index
    texts = "reset_index" in expected
    assert back.tolist() == (list(map(str, labels)) if texts else labels.tolist())
    assert back.name == labels.name


def test_a_proposal_for_values_that_are_not_computed_says_so() -> None:
    """Without values, the proposal takes what most columns of objects hold."""
    frame = frame_of(pd.DataFrame({"x": [1, 2]})).map_partitions(
        lambda part: part.assign(x=objects("a", [1])), meta={"x": object}
    )
    code, url = followed(frame, frame=frame)
    assert "its values are not known before they are computed" in code
    assert [sample["x"] for sample in dasklake.open(url)] == ["a", [1]]


def test_values_are_found_behind_selections_and_in_persisted_frames() -> None:
    """Columns, rows and partitions that are selected keep the values that a proposal is made of."""
    data = pd.DataFrame({"x": objects(b"a", b"b"), "y": [1, 2]})
    frame = frame_of(data)
    for selected in (frame[["x"]], frame[frame.y > 1], frame.persist(scheduler="sync")):
        assert "dtype='binary'" in followed(selected, frame=selected)[0]


def test_columns_that_dask_converted_are_kept_as_the_error_says() -> None:
    """Both proposals work: a frame without the conversion, and a schema of text."""
    data = pd.DataFrame({"x": objects([1], [2, 3])})
    with dask.config.set({"dataframe.convert-string": True}):
        frame = dd.from_pandas(data, npartitions=1)
        with pytest.raises(
            InvalidInputError, match=r"dask.config.set\({'dataframe.convert-string'"
        ):
            frame.to_lake(f"memory://{uuid4().hex}", options=SYNC)
        url = f"memory://{uuid4().hex}"
        frame.to_lake(url, schema={"x": dasklake.TensorSpec("text")}, options=SYNC)
        assert dasklake.open(url)[0]["x"] == "[1]"
    frame = frame_of(data)
    code, url = followed(frame, frame=frame)
    assert "dtype='int64', shape=(None,)" in code
    assert dasklake.open(url)[1]["x"].tolist() == [2, 3]
