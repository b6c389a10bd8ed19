"""Test views: some samples and tensors of a version."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec, View
from dasklake.exceptions import InvalidInputError, VersionNotFoundError
from tests.support.samples import Make, same

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "vector": TensorSpec("embedding", shape=(3,)),
        "boxes": TensorSpec("bbox"),
        "text": TensorSpec("text"),
    }
)


def _sample(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "vector": np.full(3, i, "f4"),
        "boxes": np.full((i % 3, 4), i, "f4"),
        "text": f"sample {i}",
    }


SAMPLES = [_sample(i) for i in range(40)]
PARTITIONS = [[SAMPLES[:12], SAMPLES[12:15]], [[]], [SAMPLES[15:16]], [SAMPLES[16:]]]

SELECTIONS: dict[str, Any] = {
    "all": slice(None),
    "a range": slice(10, 30),
    "a part of one chunk": slice(20, 22),
    "strided": slice(1, 39, 3),
    "reversed": slice(None, None, -1),
    "any order, repeated": [39, 0, 12, 0, -1, 15],
    "a mask": np.arange(40) % 13 == 5,
    "gaps of one": [i for i in range(40) if i % 7],
    "none": [],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def lake(make_lake: Make) -> Lake:
    """Open a lake of 40 samples in four chunks with rows."""
    return dasklake.open(make_lake(SCHEMA, PARTITIONS).url)


@pytest.fixture(params=SELECTIONS)
def picked(request: pytest.FixtureRequest, lake: Lake) -> tuple[View, list[int]]:
    """Return a view, and the numbers of its samples."""
    rows = SELECTIONS[request.param]
    view = lake.select(rows)
    numbers: Any = np.arange(40)
    return view, [] if request.param == "none" else numbers[rows].tolist()


def _equal(actual: Any, expected: Any) -> bool:
    return actual.keys() == expected.keys() and all(same(actual[n], expected[n]) for n in expected)


def test_a_view_is_indexed_by_its_own_positions(picked: tuple[View, list[int]]) -> None:
    """Position i of a view is the sample that was selected at position i, from either end."""
    view, rows = picked
    assert len(view) == len(rows)
    assert view.rows.tolist() == rows
    for i in range(-len(rows), len(rows)):
        assert _equal(view[i], SAMPLES[rows[i]])
    with pytest.raises(IndexError):
        view[len(rows)]
    assert [sample["id"] for sample in view[::-2]] == rows[::-2]


def test_a_view_is_iterated_in_its_order(picked: tuple[View, list[int]]) -> None:
    """A loop gives the selected samples, in the order of the selection."""
    view, rows = picked
    read = list(view)
    assert len(read) == len(rows)
    assert all(_equal(sample, SAMPLES[row]) for sample, row in zip(read, rows, strict=True))


def test_tensors_of_a_view(picked: tuple[View, list[int]]) -> None:
    """A tensor of a view has the values of the view's samples."""
    view, rows = picked
    assert len(view["vector"]) == len(rows)
    assert same(view["vector"].numpy(), np.array(rows, "f4")[:, None].repeat(3, axis=1))
    assert view["id"][:].tolist() == rows
    assert view["id"][1::2].tolist() == rows[1::2]
    assert list(view["text"]) == [f"sample {row}" for row in rows]
    shapes: Any = view["boxes"].shapes()
    assert [tuple(shape) for shape in shapes] == [(row % 3, 4) for row in rows]


def test_dask_collections_of_a_view(picked: tuple[View, list[int]]) -> None:
    """Bags, frames and arrays of a view have its samples in its order."""
    view, rows = picked
    assert [sample["id"] for sample in view.to_dask_bag().compute()] == rows
    assert view.to_dask_array("id").compute().tolist() == rows
    frame = view.to_dask_dataframe(["id", "text"])
    assert len(frame) == len(rows)
    read = frame.compute()
    assert read["id"].tolist() == read.index.tolist() == rows
    assert read["text"].tolist() == [f"sample {row}" for row in rows]
    assert frame.known_divisions == (bool(rows) and rows == sorted(set(rows)))
    assert frame.head(3, npartitions=-1)["id"].tolist() == rows[:3]
    assert frame["id"].sum().compute() == sum(rows)


def test_joined_partitions_of_a_view(lake: Lake) -> None:
    """Small chunks are joined into partitions of a view if a block size is given."""
    view = lake.select(np.arange(0, 40, 3))
    frame = view.to_dask_dataframe(["id"], blocksize="1 MiB")
    assert frame.npartitions == 1
    assert frame.compute()["id"].tolist() == list(range(0, 40, 3))
    assert view.to_dask_bag(["id"], blocksize="1 MiB").npartitions == 1


def test_frames_of_views_are_selected_like_others(lake: Lake) -> None:
    """Labels, samples and lengths of partitions of a view's frame are those of its rows."""
    rows = [i for i in range(40) if i % 4 != 1]
    frame = lake.select(rows).to_dask_dataframe()
    expected = pd.DataFrame({"id": rows}, index=rows)
    assert frame.loc[5:20].compute()["id"].tolist() == expected.loc[5:20]["id"].tolist()
    assert frame.tail(2)["id"].tolist() == rows[-2:]
    assert set(frame.sample(frac=0.5, random_state=1).compute()["id"]) <= set(rows)
    assert frame.map_partitions(len).compute().sum() == len(rows)
    assert frame.get_partition(0).compute()["id"].tolist() == [i for i in rows if i < 12]


def test_views_of_views(lake: Lake) -> None:
    """Selections of rows and tensors compose, in any order."""
    view = lake.columns(["text", "id"]).select(slice(5, None, 2)).select([3, 0]).columns(["id"])
    assert list(view) == [{"id": 11}, {"id": 5}]
    assert "id" in view
    assert "text" not in view
    assert list(view.schema) == ["id"]
    for use in (
        lambda: view["text"],
        lambda: view.columns(["text"]),
        lambda: view.to_dask_bag(["text"]),
    ):
        with pytest.raises(
            VersionNotFoundError, match=r"view of version 5 .* no tensor 'text'.*'id'"
        ):
            use()


def test_a_column_of_a_lake_with_an_empty_tensor(lake: Lake) -> None:
    """Columns that all samples have are read although a new tensor has no samples yet."""
    lake.create_tensor("new", dtype="int64", shape=())
    assert len(lake) == 0
    assert len(lake.columns(["id", "text"])) == 40


@pytest.mark.parametrize("rows", [5, "id", None, {1: 2}, 1.5])
def test_what_is_not_a_selection(lake: Lake, rows: Any) -> None:
    """A selection that is not a slice, list or mask is refused at once."""
    with pytest.raises(InvalidInputError, match="rows must be a slice, a list"):
        lake.select(rows)


@pytest.mark.parametrize("names", ["id", [1], 5])
def test_what_are_not_columns(lake: Lake, names: Any) -> None:
    """Columns that are not a list of names are refused at once."""
    with pytest.raises(InvalidInputError, match="must be a"):
        lake.columns(names)


def test_rows_out_of_range(lake: Lake) -> None:
    """A number that no sample has is refused at once."""
    with pytest.raises(IndexError, match="40"):
        lake.select([0, 40])


def test_views_are_pickled(picked: tuple[View, list[int]]) -> None:
    """A view is the same in another process."""
    view, rows = picked
    again = pickle.loads(pickle.dumps(view.columns(["id"])))  # our own bytes
    assert again == view.columns(["id"])
    assert again != view
    assert again["id"][:].tolist() == rows


def test_views_are_pickled_small() -> None:
    """A view is pickled as a range, a bitmap or an array, whichever is smallest."""
    lake = dasklake.empty("memory://small-views")
    lake.create_tensor("x", dtype="int64", shape=())
    lake.extend({"x": range(80_000)})
    alone = len(pickle.dumps(lake.select(slice(5))))
    sizes: dict[str, tuple[Any, int]] = {
        "range": (slice(70_000), 100),
        "bitmap": (slice(None, None, 2), 80_000 // 8 + 200),
        "array": ([5, 70_000], 300),
        "any order": ([70_000, 5], 300),
    }
    for rows, size in sizes.values():
        assert len(pickle.dumps(lake.select(rows))) - alone < size


def test_a_view_keeps_its_version(lake: Lake) -> None:
    """A view has the samples of its version after the lake has moved on."""
    view = lake.select([39, 1])
    lake.extend([_sample(40), _sample(41)])
    assert len(lake) == 42
    assert view["id"][:].tolist() == [39, 1]
    assert view.version < lake.version


def test_copies_of_views(picked: tuple[View, list[int]], tmp_path: Any) -> None:
    """A view is written to another lake in its order."""
    view, rows = picked
    report = view.columns(["id", "boxes"]).copy_to(tmp_path / "copy")
    copy = dasklake.open(tmp_path / "copy")
    assert report.samples == len(copy) == len(rows)
    assert [sample["id"] for sample in copy] == rows
    assert list(copy.schema) == ["id", "boxes"]


def test_parts_of_views_are_copied(lake: Lake, tmp_path: Any) -> None:
    """Rows of a copy are positions in the view."""
    lake.select([30, 20, 10]).copy_to(tmp_path / "copy", rows=[2, 0])
    assert dasklake.open(tmp_path / "copy")["id"][:].tolist() == [10, 30]


def test_bags_and_frames_of_views_are_written(lake: Lake, tmp_path: Any) -> None:
    """A Dask collection of a view has the view's schema when it is written."""
    view = lake.select([7, 3, 39]).columns(["id", "boxes"])
    makers: dict[str, Callable[[], Any]] = {
        "bag": view.to_dask_bag,
        "frame": view.to_dask_dataframe,
    }
    for name, make in makers.items():
        dasklake.to_lake(make(), tmp_path / name)
        copy = dasklake.open(tmp_path / name)
        assert copy["id"][:].tolist() == [7, 3, 39]
        assert copy.schema["boxes"].htype == "bbox"


def test_views_print_what_they_are(lake: Lake) -> None:
    """The texts of a view name the lake, its version, its share of the samples and its tensors."""
    view = lake.select([1, 2]).columns(["boxes"])
    assert repr(view).splitlines() == [
        f"View of Lake({lake.url!r}, version={lake.version})",
        "2 of 40 samples",
        "  tensor  htype  shape   dtype    compression",
        "  boxes   bbox   (?, 4)  float32  -",
    ]
    page = view._repr_html_()
    assert "2 of 40 samples" in page
    assert "<td>boxes</td>" in page
    assert "<td>id</td>" not in page


def test_damaged_chunks_are_left_out(make_lake: Make) -> None:
    """With ``on_corrupt="skip"``, samples of damaged chunks are left out of a view's collections."""
    store = make_lake(SCHEMA, PARTITIONS)
    key = dasklake.open(store.url)._reader.plan.location(0).key
    store.put(key, store.get(key)[:-10] + b"x" * 10)
    view = dasklake.open(store.url, on_corrupt="skip").select([13, 0, 20, 5, 39])
    expected = [13, 20, 39]
    with pytest.warns(UserWarning, match="damaged"):
        assert [sample["id"] for sample in view] == expected
    assert view.to_dask_dataframe(["id", "text"]).compute()["id"].tolist() == expected
    assert [sample["id"] for sample in view.to_dask_bag().compute()] == expected


def test_batches_of_views(picked: tuple[View, list[int]]) -> None:
    """Batches and columns of a view are those of its samples, in its order."""
    view, rows = picked
    read = [int(i) for batch in view.columns(["id", "text"]).batches(7) for i in batch["id"]]
    assert read == rows
    if rows:
        assert view.take([-1, 0])["id"].tolist() == [rows[-1], rows[0]]
    with pytest.raises(VersionNotFoundError, match="view of version"):
        view.columns(["id"]).take([], columns=["text"])
