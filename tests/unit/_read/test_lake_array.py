"""Test that arrays of a lake read only the rows that are used."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

import dasklake
from dasklake import Lake
from tests.support.counting import CountingFileSystem

VALUES = np.random.default_rng(0).integers(0, 255, (120, 100, 100), np.uint8)
ROW = 10_000

#: Bytes of a chunk's head and of the pages around a row.
HEAD = 10_000
PAGES = 2 * 2**14

Index = Callable[[Any], Any]

#: Selections of an array, the rows they use and the chunks that hold them.
SELECTIONS: dict[str, tuple[Index, int, int]] = {
    "one row": (lambda a: a[5], 1, 1),
    "the last row": (lambda a: a[-1], 1, 1),
    "a part of a row": (lambda a: a[35, 10:20, 3], 1, 1),
    "a slice": (lambda a: a[10:20], 10, 1),
    "a slice over chunks": (lambda a: a[25:35], 10, 2),
    "a slice of a slice": (lambda a: a[10:30][5:7], 2, 1),
    "strided": (lambda a: a[::30], 4, 4),
    "strided in a chunk": (lambda a: a[1:30:9], 4, 1),
    "backwards": (lambda a: a[70:0:-30], 3, 3),
    "a list": (lambda a: a[[3, 100, 3, -2]], 3, 2),
    "an array": (lambda a: a[np.array([119, 0])], 2, 2),
    "a mask": (lambda a: a[np.arange(120) % 40 == 7], 3, 3),
    "a list and a slice": (lambda a: a[[3, 100], 5:7], 2, 2),
    "a list of a slice": (lambda a: a[30:60][[3, 20]], 2, 1),
    "a list of a list": (lambda a: a[[3, 100, 50]][[2, 0]], 2, 2),
    "a sum of a slice": (lambda a: a[10:20].sum(axis=0), 10, 1),
    "elements of a slice": (lambda a: (a[10:20] / 2 + 1)[3:5, 2], 10, 1),
    "a list of rows in order": (lambda a: a[[1, 2, 3, 40]].mean(), 4, 2),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def lake(counting_files: type[CountingFileSystem]) -> Lake:
    """Write 120 samples in chunks of 30, beside another tensor."""
    arrays = {
        "a": da.from_array(VALUES, chunks=(30, 100, 100)),
        "other": da.from_array(VALUES, chunks=(30, 100, 100)),
    }
    dasklake.to_lake(arrays, "counted://arrays")
    lake = dasklake.open("counted://arrays")
    assert len(lake) == 120
    counting_files.reset()
    return lake


@pytest.mark.parametrize("name", SELECTIONS)
def test_only_the_rows_that_are_used_are_read(
    lake: Lake, counting_files: type[CountingFileSystem], name: str
) -> None:
    """A selection has the values of numpy and reads little more than its rows."""
    select, rows, chunks = SELECTIONS[name]
    array = lake.to_dask_array("a")
    counting_files.reset()
    selected = select(array)
    assert counting_files.bytes_read() == 0
    np.testing.assert_array_equal(selected.compute(), select(VALUES))
    assert selected.shape == select(VALUES).shape
    assert selected.dtype == select(VALUES).dtype
    read = counting_files.bytes_read()
    assert rows * ROW * ("part" not in name) <= read <= rows * (ROW + PAGES) + chunks * HEAD
    assert len(counting_files.files_read()) == chunks


def test_selections_that_numpy_refuses(lake: Lake) -> None:
    """Rows that do not exist are an error when the index is used."""
    array = lake.to_dask_array("a")
    for index in ([120], [-121], np.ones(5, bool)):
        with pytest.raises(IndexError):
            array[index]


def test_selections_of_nothing(lake: Lake) -> None:
    """A selection without rows is an empty array of the same dtype."""
    array = lake.to_dask_array("a")
    nothing: list[Any] = [[], np.zeros(120, bool), slice(0), slice(0, 5, -1)]
    for index in nothing:
        selected = array[index]
        assert selected.shape == (0, 100, 100)
        assert selected.compute().shape == (0, 100, 100)


def test_arrays_of_views_are_selected(lake: Lake, counting_files: type[CountingFileSystem]) -> None:
    """An array of a view is selected by its own positions, in any order of the view."""
    for rows in (slice(7, 110, 3), [100, 3, 50, 3], slice(None, None, -1)):
        array = lake.select(rows).to_dask_array("a")
        expected = VALUES[rows]
        for index in ([2, 0], slice(1, 3), slice(None, None, -2), 1, [-1, -1]):
            np.testing.assert_array_equal(array[index].compute(), expected[index])
    counting_files.reset()
    lake.select(slice(7, 110, 3)).to_dask_array("a")[[2, 0]].compute()
    assert counting_files.bytes_read() < 2 * (ROW + PAGES) + HEAD


def test_arrays_have_deterministic_names(lake: Lake) -> None:
    """Equal selections have equal names, and different ones do not."""
    array, again = lake.to_dask_array("a"), lake.to_dask_array("a")
    names = {array.name, array[[1, 2]].name, array[[2, 1]].name, lake.to_dask_array("other").name}
    assert len(names | {lake.select([0]).to_dask_array("a").name}) == 5
    assert (again.name, again[[1, 2]].name) == (array.name, array[[1, 2]].name)
    copy = pickle.loads(pickle.dumps(array))  # our own bytes
    np.testing.assert_array_equal(copy[[7, 3]].compute(), VALUES[[7, 3]])


def test_selected_arrays_are_written(lake: Lake) -> None:
    """A selection of an array is the input of another lake."""
    dasklake.to_lake(
        {"a": lake.to_dask_array("a")[[50, 2]]}, "memory://selected-arrays", mode="overwrite"
    )
    np.testing.assert_array_equal(
        dasklake.open("memory://selected-arrays")["a"].numpy(), VALUES[[50, 2]]
    )
