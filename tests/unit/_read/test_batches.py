"""Test reading many samples at once against reading them one by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pyarrow as pa
import pytest
from dask.delayed import delayed

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._api.lake import Lake
from dasklake._api.lake import open as open_lake
from dasklake._read import chunk_pieces
from dasklake.exceptions import (
    CorruptionError,
    CorruptionWarning,
    InvalidInputError,
    SampleError,
    VersionNotFoundError,
)
from tests.support import media
from tests.support.htypes import FITTING
from tests.support.samples import Make, same

_RANDOM = np.random.default_rng(0)

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "flag": TensorSpec(dtype="bool", shape=()),
        "time": TensorSpec(dtype="datetime64[ns]", shape=()),
        "wave": TensorSpec(dtype="complex64", shape=(2,)),
        "vector": TensorSpec("embedding", shape=(3,)),
        "large": TensorSpec(dtype="float32", shape=(512,)),
        "boxes": TensorSpec("bbox"),
        "mask": TensorSpec("binary_mask"),
        "text": TensorSpec("text"),
        "packed": TensorSpec(dtype="int16", shape=(2,), compression="lz4"),
        "volume": TensorSpec(dtype="uint8", shape=(None, None)),
        "struct": TensorSpec(dtype=pa.struct([("a", pa.int8()), ("b", pa.string())])),
        "image": TensorSpec("image", compression="jpeg"),
        "label": TensorSpec("class_label", discover=True),
    }
)
#: Tensors whose values become one array.
STACKED = {"id", "flag", "time", "wave", "vector", "large", "packed"}

JPEG = media.picture("jpeg")


def _sample(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "flag": i % 3 == 0,
        "time": np.datetime64(i, "ns"),
        "wave": np.array([i, 1j], "c8"),
        "vector": np.full(3, i, "f4"),
        "large": np.full(512, i, "f4"),
        "boxes": np.full((i % 3, 4), i, "f4"),
        "mask": _RANDOM.random((8, 9, i % 4)) > 0.5,
        "text": f"sample {i}" * (i % 5),
        "packed": np.array([i, -i], "i2"),
        "volume": _RANDOM.integers(0, 9, (i % 4 * 50, 400), "u1"),
        "struct": {"a": i, "b": str(i)},
        "image": JPEG,
        "label": ["cat", "dog"][i % 2] if i < 9 else [str(i)],
    }


SAMPLES = [_sample(i) for i in range(40)]
for missing, tensor in enumerate(SCHEMA):
    SAMPLES[20 + missing] = {**SAMPLES[20 + missing], tensor: None}
PARTITIONS = [[SAMPLES[:4], SAMPLES[4:9]], [[]], [SAMPLES[9:10]], [SAMPLES[10:]]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Write a lake of several chunks, the last of which is larger than what is read whole."""
    bag = db.from_delayed([delayed(part) for part in (SAMPLES[:9], SAMPLES[9:])])
    return _written(bag, tmp_path / "lake")


def _written(bag: Any, url: Path) -> Lake:
    dasklake.to_lake(bag, url, schema=SCHEMA, progress=False)
    return open_lake(url)


ORDERS = {
    "in order": list(range(40)),
    "backwards": list(range(39, -1, -1)),
    "shuffled": np.random.default_rng(1).permutation(40).tolist(),
    "repeated": [3, 3, 30, 3, 30, 39, 0],
    "one": [17],
    "none": [],
}


@pytest.mark.parametrize("order", ORDERS)
def test_taken_columns_equal_single_samples(lake: Lake, order: str) -> None:
    """For any order, also with repetitions, all values equal those of ``lake[i]``."""
    rows = ORDERS[order]
    batch = lake.take(rows)
    expected = [lake[row] for row in rows]
    assert list(batch) == list(SCHEMA)
    for name, column in batch.items():
        complete = all(sample[name] is not None for sample in expected)
        assert isinstance(column, np.ndarray) == (name in STACKED and complete), name
        assert len(column) == len(rows)
        for value, sample in zip(column, expected, strict=True):
            assert same(value, sample[name]), name
            assert getattr(value, "dtype", None) == getattr(sample[name], "dtype", None)


@pytest.mark.parametrize("form", [True, False])
def test_batches_are_the_taken_rows(lake: Lake, form: bool) -> None:  # noqa: FBT001 # a parameter
    """Batches of any size hold the samples in order, and the last one what is left."""
    for size in (1, 7, 40, 64):
        batches = lake.batches(size, decode=form, read_ahead="1 KiB")
        collected = list(batches)
        assert len(batches) == len(collected) == -(-40 // size)
        for number, batch in enumerate(collected):
            rows = range(40)[number * size : (number + 1) * size]
            assert_equal(batch, lake.take(rows, decode=form))


def assert_equal(batch: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare all values of two batches."""
    assert list(batch) == list(expected)
    for name, column in batch.items():
        assert type(column) is type(expected[name])
        assert len(column) == len(expected[name])
        for value, other in zip(column, expected[name], strict=True):
            if isinstance(value, memoryview):
                assert value == other
            else:
                assert same(value, other)


def test_the_last_batch_can_be_dropped(lake: Lake) -> None:
    """With ``drop_last``, all batches have the same number of samples."""
    batches = lake.batches(7, columns=["id"], drop_last=True)
    assert [len(batch["id"]) for batch in batches] == [7] * 5
    assert len(batches) == 5


def test_undecoded_values_are_as_stored(lake: Lake) -> None:
    """Files and compressed values are views that cannot be written; others are as decoded."""
    batch = lake.take([1, 2, 30], decode=False)
    for image in batch["image"]:
        assert isinstance(image, memoryview)
        assert image.readonly
        assert image == JPEG
    assert isinstance(batch["mask"][0], memoryview)
    assert isinstance(batch["packed"][0], memoryview)
    assert batch["id"].tolist() == [1, 2, 30]
    assert same(batch["boxes"][1], SAMPLES[2]["boxes"])
    assert batch["text"] == [SAMPLES[i]["text"] for i in (1, 2, 30)]


def test_files_are_given_as_bytes(lake: Lake) -> None:
    """``"bytes"`` gives the file itself; other tensors are decoded."""
    batch = lake.take([3, 32], columns=["image", "mask"], decode={"image": "bytes"})
    assert batch["image"] == [JPEG, None]
    assert same(batch["mask"][0], SAMPLES[3]["mask"])


@pytest.mark.parametrize("copied", [True, False])
def test_arrays_can_be_written_apart_from_each_other(
    tmp_path: Path,
    copied: bool,  # noqa: FBT001 # a parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writing to an array of a batch changes no other value, and nothing that is read later."""
    if not copied:
        monkeypatch.setattr(chunk_pieces, "_SMALL_COLUMN", 0)
        monkeypatch.setattr(chunk_pieces, "_COPIED", 0)
    lake = _written(db.from_sequence(SAMPLES, npartitions=1), tmp_path / "lake")
    batch = lake.take([7, 7, 4])
    for name in ("boxes", "volume", "vector", "large"):
        first, second, _ = batch[name]
        first[...] = 1
        second[...] = 2
        assert (first == 1).all()
    assert same(lake.take([7])["boxes"][0], SAMPLES[7]["boxes"])
    assert same(lake[7]["boxes"], SAMPLES[7]["boxes"])


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("small", [True, False])
def test_every_htype(name: str, small: bool, make_lake: Make, monkeypatch: Any) -> None:  # noqa: FBT001 # a parameter
    """Values of every htype are those of ``lake[i]``, from loaded columns and by byte range."""
    if not small:
        monkeypatch.setattr(chunk_pieces, "_SMALL_COLUMN", 0)
        monkeypatch.setattr(chunk_pieces, "_SMALL_SHARE", 10**9)
        monkeypatch.setattr(chunk_pieces, "_LARGE_NUMBERS", 1)
    spec, values = FITTING[name]
    samples = [{"value": value} for value in [*values, None, *values]]
    lake = open_lake(make_lake(Schema({"value": spec}), [[samples]]).url)
    expected = [lake[i]["value"] for i in range(len(samples))]
    for rows in (range(len(samples)), range(len(samples))[::-1], [0]):
        column = lake.take(rows)["value"]
        for row, value in zip(rows, column, strict=True):
            assert repr(value) == repr(expected[row])
        assert len(lake.take(rows, decode=False)["value"]) == len(rows)


def test_transforms_change_samples(lake: Lake) -> None:
    """A transform gets each decoded sample, and its results are joined."""

    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        count = len(sample["boxes"])
        return {"id": sample["id"], "count": count, "double": sample["vector"] * 2, "x": ["y"]}

    columns = ["id", "boxes", "vector"]
    batches = list(lake.batches(8, range(16), columns, transform=transform, decode_threads=3))
    assert [batch["id"].tolist() for batch in batches] == [list(range(8)), list(range(8, 16))]
    assert batches[0]["count"].tolist() == [i % 3 for i in range(8)]
    assert batches[1]["double"].tolist() == [[2 * i] * 3 for i in range(8, 16)]
    assert batches[0]["x"] == [["y"]] * 8


def test_errors_of_transforms_name_the_sample(lake: Lake) -> None:
    """An error of a transform is raised at the batch of its sample, with its number."""

    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        return {"x": 1 / (int(sample["id"]) - 5)}

    batches = iter(lake.batches(2, columns=["id"], transform=transform))
    assert next(batches)["x"].tolist() == [-0.2, -0.25]
    next(batches)
    with pytest.raises(SampleError, match="sample 5: transform raised ZeroDivisionError"):
        next(batches)
    wrong: Any
    for wrong, match in ((lambda _: 3, "must return a sample"), (_changing, "the same names")):
        with pytest.raises(InvalidInputError, match=match):
            list(lake.batches(4, columns=["id"], transform=wrong))


def _changing(sample: dict[str, Any]) -> dict[str, Any]:
    return {str(sample["id"]): 1}


def _damage(lake: Lake, row: int) -> None:
    """Change a byte of the image of a sample."""
    location = lake._reader.plan.location(lake._reader.plan.locate(row)[0])
    path = Path(lake.url.removeprefix("file://"), location.key)
    data = bytearray(path.read_bytes())
    data[data.index(JPEG) + 100] ^= 1
    path.write_bytes(data)


def test_damage_is_raised_at_its_batch(lake: Lake) -> None:
    """Batches before the damaged chunk are read; the error names it and its samples."""
    _damage(lake, 20)
    lake = open_lake(lake.url)
    batches = iter(lake.batches(3, columns=["id", "image"]))
    assert [next(batches)["id"].tolist() for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    with pytest.raises(CorruptionError, match="Samples 9 to 39 are affected"):
        next(batches)
    with pytest.raises(CorruptionError, match="Samples 9 to 39 are affected"):
        lake.take([0, 39])


def test_damaged_chunks_are_skipped_on_request(lake: Lake) -> None:
    """With ``on_corrupt="skip"``, samples of damaged chunks are left out, with a warning."""
    _damage(lake, 2)
    lake = open_lake(lake.url, on_corrupt="skip")
    with pytest.warns(CorruptionWarning, match="Samples 0 to 8"):
        batch = lake.take([12, 1, 10, 3, 11])
    assert batch["id"].tolist() == [12, 10, 11]
    assert len(batch["image"]) == 3
    numbers = [list(batch["id"]) for batch in lake.batches(4, columns=["id", "image"])]
    assert numbers[0] == []
    assert list(chain(*numbers)) == [None if i == 20 else i for i in range(9, 40)]


def test_truncated_files_are_reported(lake: Lake) -> None:
    """A file that was cut off after its chunk was opened raises an error."""
    lake.take([30], columns=["id"])
    location = lake._reader.plan.location(lake._reader.plan.locate(30)[0])
    path = Path(lake.url.removeprefix("file://"), location.key)
    os.truncate(path, location.head + 100)
    with pytest.raises(CorruptionError, match="truncated"):
        lake.take([30, 25], columns=["image", "volume", "mask", "large"])


def test_added_tensors_have_no_values_in_older_samples(lake: Lake) -> None:
    """Samples from before a tensor was added have None."""
    lake.create_tensor("score", dtype="float32", shape=())
    lake.append({**SAMPLES[0], "score": 5.0})
    batch = lake.take([0, 40], columns=["id", "score"])
    assert batch["score"] == [None, 5.0]
    assert lake.take([40])["score"].tolist() == [5.0]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"rows": [40]}, IndexError, "Sample 40 is out of range for 40 samples"),
        ({"rows": np.array([0, -41])}, IndexError, "Sample -41"),
        ({"rows": 3}, InvalidInputError, r"rows must be .* got 3. Use \[3\]"),
        ({"rows": np.zeros((2, 2), int)}, InvalidInputError, "one axis"),
        ({"rows": [0], "columns": ["nope"]}, VersionNotFoundError, "no tensor 'nope'"),
        ({"rows": [0], "decode": "bytes"}, InvalidInputError, "decode must be True"),
        ({"rows": [0], "decode": {"id": "bytes"}}, InvalidInputError, "does not contain files"),
        ({"rows": [0], "decode": {"image": 3}}, InvalidInputError, "for tensor 'image', got 3"),
        ({"rows": [0], "decode": {"nope": True}}, InvalidInputError, "which is not read"),
    ],
)
def test_wrong_arguments_of_take(
    lake: Lake, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    """Wrong arguments are refused before anything is read."""
    with pytest.raises(error, match=match):
        lake.take(**arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 1, "read_ahead": "much"}, "read_ahead must be"),
        ({"batch_size": 1, "decode_threads": -1}, "decode_threads must be"),
        ({"batch_size": 1, "transform": 3}, "transform must be a function, got 3"),
    ],
)
def test_wrong_arguments_of_batches(lake: Lake, arguments: dict[str, Any], match: str) -> None:
    """Wrong arguments are refused when ``batches`` is called."""
    with pytest.raises(InvalidInputError, match=match):
        lake.batches(**arguments)


def test_masks_and_negative_numbers_select_samples(lake: Lake) -> None:
    """Rows can be a mask, a slice, a range, or count from the end."""
    mask = np.arange(40) % 10 == 3
    assert lake.take(mask, ["id"])["id"].tolist() == [3, 13, 23, 33]
    assert lake.take(slice(None, None, 13), ["id"])["id"].tolist() == [0, 13, 26, 39]
    assert lake.take([-1, -40], ["id"])["id"].tolist() == [39, 0]
    assert lake.take(np.array([-1, 1], np.int8), ["id"])["id"].tolist() == [39, 1]


def test_an_unfinished_iteration_leaves_no_threads(lake: Lake) -> None:
    """Closing an iteration early ends its threads."""
    before = threading.active_count()
    iteration = iter(lake.batches(2, read_ahead="64 KiB"))
    next(iteration)
    assert threading.active_count() > before
    iteration.close()
    assert threading.active_count() == before


def test_iterations_do_not_continue_in_forked_processes(lake: Lake, monkeypatch: Any) -> None:
    """A process that did not begin an iteration must not wait for its threads."""
    iteration = iter(lake.batches(2, columns=["id"]))
    next(iteration)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(InvalidInputError, match="forked"):
        next(iteration)
