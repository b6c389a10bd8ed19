"""Test shapes of tensors: of all samples, their bounds, and the properties that NumPy has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._read.shape_table import ShapeTable
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError, InvalidInputError
from tests.support import media
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make

SPECS = {
    "scalar": TensorSpec(dtype="int32", shape=()),
    "flag": TensorSpec(dtype="bool", shape=()),
    "fixed": TensorSpec(dtype="complex64", shape=(3, 2)),
    "ragged": TensorSpec(dtype="float64", shape=(None, 2)),
    "free": TensorSpec(dtype="float32"),
    "mixed": TensorSpec(dtype="float32"),
    "image": TensorSpec("image", compression="png"),
    "frames": TensorSpec("sequence[image]", compression="png"),
    "sound": TensorSpec("audio", compression="wav"),
    "text": TensorSpec("text"),
    "nullable": TensorSpec(dtype="Int64"),
    "tags": TensorSpec("tag"),
    "empty": TensorSpec(dtype="int64", shape=(None,)),
}


@pytest.fixture
def lake(make_lake: Make) -> Lake:
    """Write three chunks; of most tensors, sample 2 has no value."""
    samples: list[dict[str, Any]] = [
        {
            "scalar": n,
            "flag": True,
            "fixed": np.zeros((3, 2), "c8"),
            "ragged": None if n == 2 else np.zeros((n, 2)),
            "free": None if n == 2 else np.zeros((4, n), "f4"),
            "mixed": np.zeros((1,) * (n % 3), "f4"),
            "image": None if n == 2 else media.pixels(5 + n, 9 - n, 3),
            "frames": None if n == 2 else [media.pixels(3, 4, 3)] * n,
            "sound": media.sound("wav"),
            "text": "a",
            "nullable": 1,
            "tags": ["a"],
            "empty": None,
        }
        for n in range(5)
    ]
    store = make_lake(Schema(SPECS), [[samples[:2]], [samples[2:3], samples[3:]]])
    return dasklake.open(store.url)


def test_shapes_of_all_samples(lake: Lake) -> None:
    """Shapes are one array if every sample has one of the same number of axes, else a list."""
    assert np.asarray(lake["fixed"].shapes()).tolist() == [[3, 2]] * 5
    assert np.asarray(lake["scalar"].shapes()).shape == (5, 0)
    assert np.asarray(lake["flag"].shapes()).shape == (5, 0)
    assert lake["ragged"].shapes() == [(0, 2), (1, 2), None, (3, 2), (4, 2)]
    assert lake["free"].shapes() == [(4, 0), (4, 1), None, (4, 3), (4, 4)]
    assert lake["mixed"].shapes() == [(), (1,), (1, 1), (), (1,)]
    assert lake["frames"].shapes() == [(0,), (1,), None, (3,), (4,)]
    assert lake["empty"].shapes() == [None] * 5
    with pytest.raises(InvalidInputError, match="not stored"):
        lake["text"].shapes()


@pytest.mark.parametrize(
    ("name", "shape", "bounds", "dtype"),
    [
        ("scalar", (5,), ((), ()), np.dtype("int32")),
        ("flag", (5,), ((), ()), np.dtype("bool")),
        ("fixed", (5, 3, 2), ((3, 2), (3, 2)), np.dtype("complex64")),
        ("ragged", (5, None, 2), ((0, 2), (4, 2)), np.dtype("float64")),
        ("free", (5, 4, None), ((4, 0), (4, 4)), np.dtype("float32")),
        ("image", (5, None, None, None), ((5, 5, 3), (9, 9, 3)), np.dtype("uint8")),
        ("frames", (5, None), ((0,), (4,)), np.dtype("uint8")),
        ("text", (5,), ((), ()), pa.large_string()),
        ("nullable", (5,), ((), ()), pa.int64()),
        ("empty", (5, None), None, np.dtype("int64")),
    ],
)
def test_shape_and_dtype(
    lake: Lake,
    name: str,
    shape: tuple[int | None, ...],
    bounds: tuple[Any, Any] | None,
    dtype: Any,
) -> None:
    """``shape`` begins with the number of samples, and its bounds leave that out."""
    tensor = lake[name]
    assert tensor.shape == shape
    assert tensor.ndim == len(shape)
    assert tensor.dtype == dtype
    assert (tensor.min_shape, tensor.max_shape) == (bounds or (None, None))


def test_values_without_a_dtype(lake: Lake) -> None:
    """Documents have no dtype, and a sound has that of its file."""
    assert lake["tags"].dtype is None
    assert lake["sound"].dtype is None
    assert lake["sound"].max_shape == lake["sound"][0].shape


def test_shapes_with_different_numbers_of_axes_have_no_bounds(lake: Lake) -> None:
    """The error names the tensor and the numbers of axes, and says what to use."""
    for read in ("shape", "ndim", "min_shape", "max_shape"):
        with pytest.raises(InvalidInputError, match=r"'mixed' .* 0 to 2\. Use shapes\(\)"):
            getattr(lake["mixed"], read)


def test_the_schema_answers_without_a_request(
    make_lake: Make, counting_files: type[CountingFileSystem]
) -> None:
    """Shapes of tensors of fixed shape, and ragged axes, are known from the schema."""
    schema = Schema({name: SPECS[name] for name in ("fixed", "ragged")})
    sample = {"fixed": np.zeros((3, 2), "c8"), "ragged": np.zeros((60_000, 2))}
    store = make_lake(schema, [[[sample]]], ObjectStore("counted://shapes"))
    lake = dasklake.open(store.url)
    counting_files.reset()
    assert lake["fixed"].max_shape == (3, 2)
    assert lake["ragged"].shape == (1, None, 2)
    assert not counting_files.reads
    assert lake["ragged"].max_shape == (60_000, 2)
    assert sum(size for path, size in counting_files.reads if "/data/" in path) < 30_000


def test_a_lake_without_samples() -> None:
    """There are no bounds without samples, and the first axis has the length 0."""
    lake = dasklake.empty("memory://no-shapes")
    lake.create_tensor("fixed", dtype="int64", shape=(2, 3))
    lake.create_tensor("free", dtype="int64")
    assert lake["fixed"].shape == (0, 2, 3)
    assert lake["fixed"].max_shape is None
    assert lake["free"].shape == (0,)
    assert len(lake["free"].shapes()) == 0


def test_a_tensor_that_was_added_later(make_lake: Make) -> None:
    """Samples from before the tensor have no shape."""
    store = make_lake(Schema({"x": "int64"}), [[[{"x": 1}, {"x": 2}]]])
    lake = dasklake.open(store.url)
    lake.create_tensor("y", dtype="int64", shape=(None,))
    assert lake["y"].shape == (0, None)
    lake.append({"x": 3, "y": [1, 2]})
    assert lake["y"].shapes() == [None, None, (2,)]
    assert lake["y"].max_shape == (2,)
    assert lake["y"][:, 1:] == [None, None, [2]]


def test_lists_of_axes() -> None:
    """Lists of any length make a table; nulls have no shape, and only the first axes are read."""
    lists = pa.array([[1, 2], None, [], [3]], pa.list_(pa.int64()))
    assert ShapeTable.of_lists(lists, 9).shapes() == [(1, 2), None, (), (3,)]
    assert ShapeTable.of_lists(lists.slice(0, 1), 1).shapes() == [[1]]
    assert ShapeTable.of_lists(lists, 1).shapes() == [(1,), None, (), (3,)]
    with pytest.raises(ValueError, match="65 axes"):
        ShapeTable.of_lists(pa.array([[1] * 100]), 65)
    with pytest.raises(ValueError, match="null"):
        ShapeTable.of_lists(pa.array([[1, None]]), 9)


def test_tables_of_several_chunks() -> None:
    """Tables with different numbers of axes are joined, and rows can be taken."""
    joined = ShapeTable.concatenate(
        [
            ShapeTable.of_one_shape((5,), np.array([True, False])),
            ShapeTable.of_axes(np.array([[1, 2]]), np.array([True])),
        ]
    )
    assert joined.shapes() == [(5,), None, (1, 2)]
    assert joined.take([2, 0]).shapes() == [(1, 2), (5,)]
    assert joined.take([1, 0]).bounds("x") == ((5,), (5,))


def test_damaged_shapes(make_lake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that no array can have is reported as damage."""
    store = make_lake(Schema({"x": SPECS["free"]}), [[[{"x": np.zeros((1,) * 5, "f4")}]]])
    monkeypatch.setattr("dasklake._read.shape_table._MAX_AXES", 4)
    with pytest.raises(CorruptionError, match="5 axes"):
        dasklake.open(store.url)["x"].shapes()
