"""Test what a frame of a lake reads: bytes are counted by the file system."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionWarning
from dasklake.masks import from_polygons
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make

Counter = type[CountingFileSystem]

#: Rows of each chunk; one of them is empty.
ROWS = (30, 50, 0, 20)
SCHEMA = Schema(
    {
        "image": TensorSpec("generic", dtype="uint8", shape=(None,)),
        "label": TensorSpec(dtype="int64", shape=()),
        "name": TensorSpec("text"),
    }
)
#: Bytes of the largest column in one sample.
LARGE = 40_000


def _sample(row: int) -> dict[str, Any]:
    return {"image": np.full(LARGE, row, np.uint8), "label": row % 7, "name": f"row {row}"}


@pytest.fixture
def lake(make_lake: Make, counting_files: Counter) -> dasklake.Lake:
    """Return a lake of 100 samples of 40 kB in three chunks with rows."""
    rows = iter(range(sum(ROWS)))
    chunks = [[[_sample(next(rows)) for _ in range(count)]] for count in ROWS]
    store = make_lake(SCHEMA, chunks, ObjectStore("counted://lake"))
    lake = dasklake.open(store.url)
    assert lake.to_dask_dataframe().npartitions == 3  # reads the manifest
    counting_files.reset()
    return lake


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (len, 100),
        (lambda frame: len(frame.label), 100),
        (lambda frame: len(frame[["image", "name"]]), 100),
        (lambda frame: len(frame.partitions[1:]), 70),
        (lambda frame: len(frame.assign(twice=frame.label + frame.label)), 100),
        (lambda frame: frame.shape[0].compute(), 100),
        (lambda frame: frame.size.compute(), 300),
        (lambda frame: frame.index.compute().tolist(), list(range(100))),
        (lambda frame: frame.label.index.max().compute(), 99),
        (lambda frame: frame.index.partitions[1].compute().tolist(), list(range(30, 80))),
        (lambda frame: len(frame.index), 100),
        (lambda frame: frame.head(0).shape, (0, 3)),
    ],
)
def test_lengths_and_index_are_in_the_manifest(
    read: Callable[[dd.DataFrame], Any], expected: Any, lake: dasklake.Lake, counting_files: Counter
) -> None:
    """Nothing is read for the length, the shape and the index of a frame."""
    assert read(lake.to_dask_dataframe()) == expected
    assert counting_files.bytes_read() == 0


@pytest.mark.parametrize(
    ("read", "rows"),
    [
        (lambda frame: frame.label.head(3), range(3)),
        (lambda frame: frame[["label"]].head(3), range(3)),
        (lambda frame: frame.head(3, compute=False)["label"].compute(), range(3)),
        (lambda frame: (frame.label + 1).head(), range(5)),
        (lambda frame: frame.label.tail(2), range(98, 100)),
        (lambda frame: frame.partitions[:2][["label"]].tail(2), range(78, 80)),
        (lambda frame: frame.label.loc[40:42].compute(), range(40, 43)),
        (lambda frame: frame.loc[40:42, "label"].compute(), range(40, 43)),
        (lambda frame: frame.loc[40:42][["label"]].compute(), range(40, 43)),
        (lambda frame: frame.loc[50, ["label"]].compute(), range(50, 51)),
        (lambda frame: frame.label.loc[[33, 31]].compute(), [33, 31]),
    ],
)
def test_one_column_of_one_chunk(
    read: Callable[[dd.DataFrame], Any], rows: Any, lake: dasklake.Lake, counting_files: Counter
) -> None:
    """Selections of rows of one column read that column of the one chunk that holds them."""
    result = read(lake.to_dask_dataframe())
    assert result.index.tolist() == list(rows)
    (path,) = counting_files.files_read()
    assert counting_files.bytes_read() < LARGE, path


@pytest.mark.parametrize(
    ("read", "samples"),
    [
        (lambda frame: frame.head(2), 2),
        (lambda frame: frame.tail(1), 1),
        (lambda frame: frame.loc[60].compute(), 1),
        (lambda frame: frame.loc[28:31].compute(), 4),
        (lambda frame: frame.loc[[7, 95]].compute(), 2),
        (lambda frame: frame.sample(frac=0.05, random_state=1).compute(), 5),
    ],
)
def test_only_the_selected_rows_are_read(
    read: Callable[[dd.DataFrame], Any], samples: int, lake: dasklake.Lake, counting_files: Counter
) -> None:
    """A selection of rows reads the pages of these rows, not those of their chunks."""
    whole = lake.to_dask_dataframe().compute()
    counting_files.reset()
    result = read(lake.to_dask_dataframe())
    assert len(result) == samples
    pages = 4 * 16_384
    assert counting_files.bytes_read() <= samples * (LARGE + pages) + 3 * pages
    pd.testing.assert_frame_equal(result, whole.loc[result.index])


def test_random_samples_are_those_of_dask(lake: dasklake.Lake) -> None:
    """A random sample has the rows that Dask draws from a frame with the same partitions."""
    frame = lake.to_dask_dataframe(["label", "name"])
    parts = [part.compute() for part in frame.partitions]
    with dask.config.set({"dataframe.convert-string": False}):
        other = dd.from_map(lambda part: part, parts, meta=parts[0])
    for options in ({"frac": 0.4}, {"frac": 0.9, "replace": True}):
        drawn = frame.sample(random_state=5, **options)
        expected = other.sample(random_state=5, **options).compute()
        pd.testing.assert_frame_equal(drawn.compute(), expected)
        pd.testing.assert_series_equal(drawn["name"].compute(), expected["name"])


def test_expressions_that_share_rows_have_their_columns(lake: dasklake.Lake) -> None:
    """A selection that several expressions use has the columns of all of them."""
    frame = lake.to_dask_dataframe()
    head, part = frame.head(4, compute=False), frame.loc[2:3]
    both = head.label + head["name"].str.len()
    assert both.compute().tolist() == [5, 6, 7, 8]
    assert (frame.label + frame["name"].str.len()).head(2).tolist() == [5, 6]
    total = part.label.sum() + frame.label.sum() + part["name"].count()
    assert total.compute() == 5 + sum(row % 7 for row in range(100)) + 2
    assert frame.assign(row=frame.index)[["row", "label"]].tail(1).to_numpy().tolist() == [[99, 1]]


def test_an_optimized_frame_shows_what_is_read(
    lake: dasklake.Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    """The optimized expression names the version, the columns and the rows."""
    lake.to_dask_dataframe().label.head(3, compute=False).optimize().pprint()
    text = capsys.readouterr().out
    assert "ReadLake: plan=<version 5 of counted://lake> columns=['label'] rows=((0, 3),)" in text


def test_names_are_deterministic(lake: dasklake.Lake) -> None:
    """Equal frames have equal keys, also after pickling; frames of other partitions do not."""
    frame = lake.to_dask_dataframe()
    names = frame.__dask_keys__()
    assert names == dasklake.open(lake.url).to_dask_dataframe().__dask_keys__()
    assert pickle.loads(pickle.dumps(frame)).__dask_keys__() == names
    assert len(pickle.loads(pickle.dumps(frame))) == 100
    others = [lake.to_dask_dataframe(blocksize=9), lake.to_dask_dataframe(["label"]), frame.label]
    assert len({keys[0] for keys in (names, *(other.__dask_keys__() for other in others))}) == 4


def test_repeated_columns(lake: dasklake.Lake) -> None:
    """A column that is given twice is there twice."""
    frame = lake.to_dask_dataframe(["label", "name", "label"])
    assert list(frame.compute().columns) == list(frame.columns) == ["label", "name", "label"]


def test_damaged_samples_are_not_counted(lake: dasklake.Lake, counting_files: Counter) -> None:
    """Where damaged samples are skipped, lengths and rows are those of the samples that are left."""
    key = next(path for path in counting_files.store if "/data/" in path)
    file = counting_files.store[key]
    file.seek(len(file.getbuffer()) // 2)
    file.write(b"\xff" * 100)
    frame = dasklake.open(lake.url, on_corrupt="skip").to_dask_dataframe()
    with pytest.warns(CorruptionWarning):
        assert len(frame) == len(frame.compute()) == 70
    assert len(frame.index.compute()) == 70
    with pytest.warns(CorruptionWarning, match="Samples 5 to 29"):
        assert frame.loc[5:31].compute().index.tolist() == [30, 31]


def test_a_frame_of_masks_is_planned_late(make_lake: Make, counting_files: Counter) -> None:
    """The length of a frame of masks does not read the shapes that its partitions depend on."""
    mask = from_polygons([[[0, 0, 9, 0, 9, 9, 0, 9]]], (5000, 5000))
    schema = Schema({"mask": TensorSpec("binary_mask", compression="rle")})
    store = make_lake(schema, [[[{"mask": mask}] * 12]], ObjectStore("counted://masks"))
    lake = dasklake.open(store.url)
    assert len(lake.to_dask_dataframe()) == 12
    counting_files.reset()
    assert len(lake.to_dask_dataframe()) == lake.to_dask_dataframe().shape[0].compute() == 12
    assert counting_files.bytes_read() == 0
    frame = lake.to_dask_dataframe()
    assert frame.npartitions == 3
    assert frame.divisions == (0, 5, 10, 11)
    assert frame.loc[11].compute()["mask"].iloc[0].shape == (5000, 5000, 1)
