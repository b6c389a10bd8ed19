"""Every dtype of a frame goes through a lake unchanged, or is refused before anything is written."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import dask
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pytest

import dasklake
from dasklake.exceptions import LakeNotFoundError, SchemaError
from tests.support.dtypes import COLUMNS, REFUSED, difference, frame_of, through_lake

SYNC = dasklake.WriteOptions(scheduler="sync")

KEPT = [name for name in COLUMNS if name not in REFUSED]

#: Refused dtypes whose values the schema in the error keeps, as values of another dtype.
CURED = [
    name
    for name in COLUMNS
    if name in REFUSED and name.startswith(("category of", "Sparse", "dictionary"))
]


def test_there_are_about_a_hundred_dtypes() -> None:
    """The matrix covers numpy, pandas and Arrow."""
    assert len(COLUMNS) > 100
    assert REFUSED


def test_dtypes_are_restored() -> None:
    """A frame of all dtypes is equal after reading: dtypes, values, NaN and missing values."""
    assert through_lake(frame_of(KEPT), f"memory://{uuid4().hex}") == "equal"


def test_dtypes_are_restored_from_several_runs() -> None:
    """Appended rows are equal, too, and rows of a selection."""
    url = f"memory://{uuid4().hex}"
    frame = frame_of(KEPT)
    frame.to_lake(url, options=SYNC)
    frame.to_lake(url, mode="append", options=SYNC)
    back = dasklake.read_lake(url, index=False).compute(scheduler="sync")
    once = frame.compute(scheduler="sync")
    assert difference(once, back.iloc[3:].reset_index(drop=True)) == ""
    assert difference(once, back.iloc[:3]) == ""


def test_samples_of_all_dtypes_can_be_written_again() -> None:
    """A bag of the samples of a lake makes an equal lake."""
    url = f"memory://{uuid4().hex}"
    frame_of(KEPT).to_lake(url, options=SYNC)
    lake = dasklake.open(url)
    plain = [dict(sample.items()) for sample in lake]
    with dask.config.set(scheduler="sync"):
        db.from_sequence(plain, npartitions=2).to_lake(f"{url}/copy", schema=lake.schema)
        frames = [dasklake.read_lake(u).compute() for u in (url, f"{url}/copy")]
    assert difference(*frames) == ""


@pytest.mark.parametrize("permutation", [None, [0, 1], [1, 0]])
def test_arrow_tensors_with_a_permutation_are_restored(permutation: list[int] | None) -> None:
    """Arrow makes no list to such a type, not even an empty one, but frames and tables have it."""
    kind = pa.fixed_shape_tensor(pa.float32(), (2, 3), permutation=permutation)
    storage = pa.array([[float(6 * row + item) for item in range(6)] for row in range(4)])
    column = pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type))
    before = pd.DataFrame({"x": pd.arrays.ArrowExtensionArray(column), "row": range(4)})
    url = f"memory://{uuid4().hex}"
    dd.from_pandas(before, npartitions=2).to_lake(url, options=SYNC)
    frame = dasklake.read_lake(url)
    after = frame.compute(scheduler="sync")
    assert after["x"].dtype == before["x"].dtype
    assert pa.chunked_array([column]).equals(pa.chunked_array(pa.array(after["x"]).chunks))
    some = frame[frame["row"] > 1].compute(scheduler="sync")
    assert pa.array(some["x"]).to_pylist() == column.to_pylist()[2:]
    table = pa.table(dasklake.open(url))
    assert table["x"].type == kind
    assert table["x"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_dtypes_are_refused_on_the_client(name: str) -> None:
    """A dtype that would change is an error with its reason, and no lake is created."""
    url = f"memory://{uuid4().hex}"
    with pytest.raises(SchemaError, match="# edit this line: ") as raised:
        frame_of([name]).to_lake(url, options=SYNC)
    assert repr(name) in str(raised.value)
    with pytest.raises(LakeNotFoundError):
        dasklake.open(url)


@pytest.mark.parametrize("name", CURED)
def test_the_schema_of_the_error_keeps_the_values(name: str) -> None:
    """The schema that the error shows takes the column, with equal values."""
    frame = frame_of([name])
    with pytest.raises(SchemaError) as raised:
        frame.to_lake(f"memory://{uuid4().hex}", options=SYNC)
    scope: dict[str, Any] = {"dasklake": dasklake, "frame": frame}
    exec(str(raised.value).partition("\n")[2], scope)  # noqa: S102 # what a user would do
    url = f"memory://{uuid4().hex}"
    frame.to_lake(url, schema=scope["schema"], options=SYNC)
    back = dasklake.read_lake(url).compute(scheduler="sync")[name]
    before = frame.compute(scheduler="sync")[name]
    assert back.isna().tolist() == before.isna().tolist()
    assert back.dropna().tolist() == pd.Series(before.dropna().tolist()).tolist()
