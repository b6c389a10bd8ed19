"""Test filters of frames, given or passed down from a mask."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake.exceptions import InvalidInputError, VersionNotFoundError
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="int64", shape=()),
        "small": TensorSpec(dtype="uint8", shape=()),
        "f": TensorSpec(dtype="float64", shape=()),
        "f4": TensorSpec(dtype="float32", shape=()),
        "flag": TensorSpec(dtype="bool", shape=()),
        "label": TensorSpec("class_label", shape=(), class_names=["cat", "dog", "eel"]),
        "text": TensorSpec("text"),
        "when": TensorSpec(dtype="datetime64[us]", shape=()),
    }
)


def _sample(i: int) -> dict[str, Any]:
    return {
        "x": None if i % 11 == 3 else i - 20,
        "small": i % 7,
        "f": [0.5, np.nan, -1.0, np.inf, None][i % 5],
        "f4": [0.1, np.nan, 0.5, None][i % 4],
        "flag": None if i % 13 == 5 else i % 3 == 0,
        "label": None if i % 17 == 4 else i % 3,
        "text": None if i % 6 == 5 else f"t{i % 4}",
        "when": np.datetime64("2024-01-01", "us") + i % 5,
    }


SAMPLES = [_sample(i) for i in range(60)]
PARTITIONS = [[SAMPLES[:20], SAMPLES[20:27]], [SAMPLES[27:28]], [SAMPLES[28:]]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def lake(make_lake: Make) -> Lake:
    """Open a lake with missing values and NaN."""
    return dasklake.open(make_lake(SCHEMA, PARTITIONS).url)


def _plan(collection: Any) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        collection.optimize().pprint()
    return printed.getvalue()


Mask = Callable[[Any], Any]
INSTANT = dt.datetime(2024, 1, 1, 0, 0, 0, 2)  # noqa: DTZ001 # without a zone

#: Masks that are passed down, and others that are not because pandas compares them in its own way.
PASSED: dict[str, Mask] = {
    "int": lambda d: d.x > 3,
    "negative": lambda d: d.x != -5,
    "out of range": lambda d: d.small < 300,
    "float": lambda d: d.f >= 0.5,
    "float and int": lambda d: d.f < 1,
    "not equal float": lambda d: d.f != 0.5,
    "bool": lambda d: d.flag == True,  # noqa: E712 # a mask
    "label": lambda d: d.label == "cat",
    "not label": lambda d: d.label != "cat",
    "text": lambda d: d.text <= "t2",
    "time": lambda d: d.when >= INSTANT,
    "and": lambda d: (d.label == "dog") & (d.x > 3),
    "or": lambda d: (d.label == "dog") | ((d.x < 3) & (d.text == "t1")),
    "numpy number": lambda d: d.x == np.int64(7),
}
KEPT: dict[str, Mask] = {
    "float32": lambda d: d.f4 == 0.1,
    "int and float": lambda d: d.x > 3.5,
    "unknown label": lambda d: d.label == "owl",
    "label index": lambda d: d.label == 1,
    "mean": lambda d: (d.label == "dog") & (d.x > d.x.mean()),
    "two columns": lambda d: d.x > d.small,
    "isna": lambda d: d.x.isna(),
    "text time": lambda d: d.when >= "2024-01-01",
    "not": lambda d: ~(d.small == 1),
}


@pytest.mark.parametrize("name", [*PASSED, *KEPT])
def test_masks_select_what_pandas_selects(lake: Lake, name: str) -> None:
    """``frame[mask]`` equals pandas; comparisons with constants are also passed down to the read."""
    mask = (PASSED | KEPT)[name]
    frame, table = lake.to_dask_dataframe(), lake.to_dask_dataframe().compute()
    expected = table[mask(table).fillna(False).astype(bool)]  # noqa: FBT003 # of pandas
    uses: list[Mask] = [lambda d: d, lambda d: d[["text", "x"]], lambda d: d["small"]]
    for use in uses:
        selected = use(frame[mask(frame)])
        pd_testing: Any = pd.testing
        check = (
            pd_testing.assert_frame_equal if selected.ndim == 2 else pd_testing.assert_series_equal
        )
        check(selected.compute(), use(expected), check_dtype=False)
        assert ("filters=" in _plan(selected)) == (name in PASSED)
    assert len(frame[mask(frame)]) == len(expected)


GIVEN: dict[str, Any] = {
    "terms": [("label", "==", "dog"), ("x", ">", 3)],
    "alternatives": [[("label", "in", ["cat", "eel"])], [("x", "is", None)]],
    "expression": (pc.field("label") == "cat") & (pc.field("text.length") == 2),
    "nothing": [("x", ">", 10_000)],
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("rows", [None, slice(None, None, 2), [50, 3, 20, 3]], ids=str)
def test_filters_of_frames_are_those_of_where(lake: Lake, name: str, rows: Any) -> None:
    """``to_dask_dataframe(filters=)`` has the samples of ``where``, with the same index."""
    some: Any = lake if rows is None else lake.select(rows)
    expected = some.where(GIVEN[name]).to_dask_dataframe(["text", "f"]).compute()
    frame = some.to_dask_dataframe(["text", "f"], filters=GIVEN[name])
    pd.testing.assert_frame_equal(frame.compute(), expected, check_dtype=False)
    assert len(frame) == len(expected)
    assert frame.head(3, npartitions=-1).index.tolist() == expected.index.tolist()[:3]
    assert frame["f"].count().compute() == expected["f"].count()
    assert frame.dtypes.to_dict() == frame._meta.dtypes.to_dict()


def test_filters_are_part_of_the_plan(lake: Lake) -> None:
    """The optimized expression shows the filter and the columns, in one fused task per partition."""
    frame = lake.to_dask_dataframe(filters=[("label", "==", "dog")])
    plan = _plan(frame["text"].str.upper())
    assert "columns=['text'] filters=[('label', '==', 'dog')]" in plan
    assert len(frame["text"].str.upper().optimize().dask) == frame.npartitions
    assert frame._name == lake.to_dask_dataframe(filters=[("label", "==", "dog")])._name
    assert frame._name != lake.to_dask_dataframe(filters=[("label", "==", "cat")])._name
    assert frame.known_divisions


def test_labels_and_partitions_of_filtered_frames(lake: Lake) -> None:
    """Rows are selected by label, and partitions by number, as without a filter."""
    condition = [("label", "==", "dog")]
    frame, table = lake.to_dask_dataframe(filters=condition), lake.to_dask_dataframe().compute()
    table = table[(table.label == "dog").fillna(False)]  # noqa: FBT003 # of pandas
    assert frame.loc[10:30].compute().index.tolist() == table.loc[10:30].index.tolist()
    assert frame.partitions[1].compute().index.tolist() == table.loc[20:26].index.tolist()
    assert frame.tail(2).index.tolist() == table.index.tolist()[-2:]


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ([("labl", "==", 1)], VersionNotFoundError),
        ([("x", "~", 1)], InvalidInputError),
        ([], InvalidInputError),
    ],
)
def test_wrong_filters_are_refused_at_once(
    lake: Lake, filters: Any, error: type[Exception]
) -> None:
    """A filter is validated when the frame is made."""
    with pytest.raises(error):
        lake.to_dask_dataframe(filters=filters)


def test_filtered_frames_read_only_matching_rows(counting_files: type[CountingFileSystem]) -> None:
    """Of large tensors, only the rows that match are read; lengths need no values without a filter."""
    lake = dasklake.empty("counted://filtered-frames", overwrite=True)
    lake.create_tensor("x", dtype="int64", shape=())
    lake.create_tensor("blob", dtype="uint8", shape=(50_000,))
    for i in range(4):
        blobs = np.random.default_rng(i).integers(0, 255, (40, 50_000), np.uint8)
        lake.extend([{"x": 40 * i + k, "blob": blob} for k, blob in enumerate(blobs)])
    lake = dasklake.open("counted://filtered-frames")
    frame = lake.to_dask_dataframe()
    counting_files.reset()
    assert len(frame) == 160
    assert counting_files.bytes_read() < 30_000
    heads = 4 * 2 * 40_000
    for filtered in (frame[frame.x == 57], lake.to_dask_dataframe(filters=[("x", "==", 57)])):
        counting_files.reset()
        assert filtered.compute().index.tolist() == [57]
        assert 50_000 < counting_files.bytes_read() < heads + 100_000
    counting_files.reset()
    assert frame[frame.x > 150]["x"].sum().compute() == sum(range(151, 160))
    assert counting_files.bytes_read() < heads


def test_filtered_frames_are_written(lake: Lake, tmp_path: Any) -> None:
    """A filtered frame is the input of another lake, with the schema of its tensors."""
    frame = lake.to_dask_dataframe(["label", "text"], filters=[("x", ">", 20)])
    dasklake.to_lake(frame, tmp_path / "copy")
    copy = dasklake.open(tmp_path / "copy")
    assert copy.schema["label"].class_names == ("cat", "dog", "eel")
    expected = lake.where([("x", ">", 20)])
    assert list(copy["text"]) == list(expected["text"])
    assert list(copy["label"]) == list(expected["label"])
