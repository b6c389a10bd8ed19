"""Test the methods of a lake for readers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import google_crc32c
import numpy as np
import pandas as pd
import pytest

from dasklake import Schema, TensorSpec
from dasklake._api.lake import Lake, read_lake
from dasklake._api.lake import open as open_lake
from dasklake._format import object_keys
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeNotFoundError,
    SampleError,
    UnsupportedFormatError,
    VersionNotFoundError,
)
from tests.support.samples import Make, Writing, same

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "vector": TensorSpec("embedding", shape=(3,)),
        "boxes": TensorSpec("bbox"),
        "mask": TensorSpec("binary_mask"),
        "text": TensorSpec("text"),
        "packed": TensorSpec(dtype="int16", shape=(2,), compression="lz4"),
    }
)


def _sample(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "vector": np.full(3, i, "f4"),
        "boxes": np.full((i % 3, 4), i, "f4"),
        "mask": np.random.default_rng(i).random((8, 9, i % 4)) > 0.5,
        "text": f"sample {i}",
        "packed": np.array([i, -i], "i2"),
    }


SAMPLES = [_sample(i) for i in range(23)]
PARTITIONS = [[SAMPLES[:4], SAMPLES[4:9]], [[]], [SAMPLES[9:10]], [SAMPLES[10:]]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(params=["file", "memory"])
def lake(request: pytest.FixtureRequest, make_lake: Make) -> Lake:
    """Open a lake of 23 samples in four chunks with rows and one without."""
    memory = ObjectStore(f"memory://test-lake/{request.node.name}")
    store = make_lake(SCHEMA, PARTITIONS, memory if request.param == "memory" else None)
    return open_lake(store.url)


def _equal(actual: Any, expected: Any) -> bool:
    return actual.keys() == expected.keys() and all(same(actual[n], expected[n]) for n in expected)


def test_samples_by_number(lake: Lake) -> None:
    """Samples are indexed in input order, from either end; other indices raise IndexError."""
    assert len(lake) == lake.max_len == 23
    assert all(_equal(lake[i], SAMPLES[i]) for i in range(-23, 23))
    assert list(lake[0]) == list(lake.schema)
    for outside in (23, -24):
        with pytest.raises(IndexError, match="23"):
            lake[outside]


def test_samples_by_slice_and_list(lake: Lake) -> None:
    """Slices, lists and masks return lists of samples in the requested order."""
    for key in (slice(2, 20, 3), slice(None, None, -1), slice(5, 5), slice(20, 99)):
        assert [row["id"] for row in lake[key]] == list(range(23))[key]
    assert [row["id"] for row in lake[[7, -1, 7]]] == [7, 22, 7]
    picked: Any = np.arange(23) % 5 == 0
    assert [row["id"] for row in lake[picked]] == [0, 5, 10, 15, 20]
    with pytest.raises(InvalidInputError, match="mask"):
        lake[picked[:3]]
    with pytest.raises(InvalidInputError, match="An index must be"):
        lake[1.5]  # type: ignore[call-overload] # the error is the point


def test_iterating_gives_all_samples(lake: Lake) -> None:
    """Iterating gives every sample once, in order."""
    assert all(_equal(a, b) for a, b in zip(lake, SAMPLES, strict=True))


def test_samples_may_be_changed(lake: Lake) -> None:
    """Changing returned values does not affect later reads."""
    for name in ("vector", "boxes", "packed"):
        for row in (lake[5], next(iter(lake[5:6])), list(lake)[5]):
            row[name] += 1
        assert same(lake[5][name], SAMPLES[5][name])


def test_tensors(lake: Lake) -> None:
    """A slice of a tensor is one array if its shape is fixed, and otherwise a list."""
    vectors = lake["vector"]
    assert len(vectors) == 23
    assert vectors.spec == SCHEMA["vector"]
    assert same(vectors[-1], SAMPLES[-1]["vector"])
    assert same(vectors[3:12], np.stack([s["vector"] for s in SAMPLES[3:12]]))
    assert vectors[5:5].shape == (0, 3)
    assert same(lake["packed"].numpy(), np.stack([s["packed"] for s in SAMPLES]))
    boxes = lake["boxes"][[2, 1]]
    assert isinstance(boxes, list)
    assert same(boxes[0], SAMPLES[2]["boxes"])
    assert lake["text"][1:3] == ["sample 1", "sample 2"]
    assert list(lake["id"]) == list(range(23))
    with pytest.raises(InvalidInputError, match="files"):
        vectors.bytes(0)
    with pytest.raises(VersionNotFoundError, match="'vector'"):
        lake["vectors"]


def test_bags(lake: Lake) -> None:
    """A bag has the samples in order, with one or several chunks per partition."""
    bag = lake.to_dask_bag()
    assert bag.npartitions == 4
    assert all(_equal(a, b) for a, b in zip(bag.compute(), SAMPLES, strict=True))
    joined = lake.to_dask_bag(["id"], blocksize="1 GiB")
    assert joined.npartitions == 1
    assert joined.compute() == [{"id": i} for i in range(23)]


def test_frames(lake: Lake) -> None:
    """A frame is indexed by the row in the version, with known divisions."""
    frame = lake.to_dask_dataframe(blocksize=None)
    assert frame.divisions == (0, 4, 9, 10, 22)
    result = frame.compute()
    assert list(result.columns) == list(SCHEMA)
    assert result["id"].tolist() == result.index.tolist() == list(range(23))
    assert result["text"].tolist() == [s["text"] for s in SAMPLES]
    assert not any(str(dtype) == "object" for dtype in result.dtypes)
    assert (result.dtypes == frame.dtypes).all()
    assert frame.loc[9:11]["id"].compute().tolist() == [9, 10, 11]
    assert list(read_lake(lake.url, ["text", "id"]).compute().columns) == ["text", "id"]
    with pytest.raises(VersionNotFoundError, match="'nothing'"):
        lake.to_dask_dataframe(["nothing"])


def test_arrays(lake: Lake) -> None:
    """A tensor of fixed shape is an array with known chunks; others raise an error."""
    array = lake.to_dask_array("vector")
    assert array.chunks == ((4, 5, 1, 13), (3,))
    assert array.dtype == np.float32
    assert same(array.compute(), np.stack([s["vector"] for s in SAMPLES]))
    assert same(lake.to_dask_array("packed")[:, 0].compute(), np.arange(23, dtype="i2"))
    assert lake.to_dask_array("id", blocksize=10**9).numblocks == (1,)
    for name in ("boxes", "text", "mask"):
        with pytest.raises(InvalidInputError, match="fixed shape"):
            lake.to_dask_array(name)


def test_arrays_without_a_value(make_lake: Make) -> None:
    """Missing values are NaN or NaT in an array, and an error for other dtypes."""
    schema = Schema(
        {
            "f": TensorSpec(dtype="float32", shape=(2,)),
            "t": TensorSpec(dtype="datetime64[us]", shape=()),
            "i": TensorSpec(dtype="int64", shape=()),
        }
    )
    lake = open_lake(make_lake(schema, [[[dict.fromkeys(schema)]]]).url)
    assert np.isnan(lake.to_dask_array("f").compute()).all()
    assert np.isnat(lake.to_dask_array("t").compute()).all()
    with pytest.raises(InvalidInputError, match="sample 0"):
        lake.to_dask_array("i").compute()
    assert lake["f"][:] == [None]


def test_a_lake_without_samples(make_lake: Make) -> None:
    """A lake without samples can be read in every way."""
    lake = open_lake(make_lake(SCHEMA, [[[]]]).url)
    assert len(lake) == 0
    assert list(lake) == lake[:] == lake.to_dask_bag().compute() == []
    assert lake.to_dask_dataframe().compute().empty
    assert lake.to_dask_array("vector").compute().shape == (0, 3)
    assert lake.failures().empty


def test_only_requested_columns_are_read(make_lake: Make, tmp_path: Path) -> None:
    """Columns that are not requested are not read, so their damage is not detected."""
    schema = Schema(
        {
            "id": TensorSpec(dtype="int64", shape=()),
            "big": TensorSpec(dtype="uint8", shape=(None,)),
        }
    )
    rows = [{"id": i, "big": np.zeros(100_000, np.uint8)} for i in range(5)]
    store = make_lake(schema, [[rows]])
    (path,) = (tmp_path / "lake" / "data").rglob("*.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    lake = open_lake(store.url)
    assert lake["id"][:].tolist() == list(range(5))
    assert lake.to_dask_dataframe()[["id"]].compute()["id"].tolist() == list(range(5))
    assert lake.to_dask_bag(["id"]).compute()[-1] == {"id": 4}
    assert lake.to_dask_array("id").compute().tolist() == list(range(5))
    assert lake["big"][0].sum() == 0
    with pytest.raises(CorruptionError, match=r"0 to 4.*data/main/run"):
        lake["big"].numpy()


def test_a_version_is_unchanged_until_refresh(tmp_path: Path) -> None:
    """An opened version is unchanged until refresh, and incomplete until its run ends."""
    writing = Writing(ObjectStore(tmp_path), SCHEMA, 2)
    writing.commit(1, [SAMPLES[10:]])
    lake = open_lake(tmp_path)
    assert len(lake) == 13
    assert not lake.is_complete
    writing.commit(0, [SAMPLES[:10]])
    assert len(lake) == 13
    assert lake[0]["id"] == 10
    first = lake.version
    assert lake.refresh() is lake
    assert (len(lake), lake[0]["id"], lake.is_complete) == (23, 0, True)
    assert lake.refresh().version == first + 1
    old = open_lake(tmp_path, version=first)
    assert [len(old), len(pickle.loads(pickle.dumps(old)))] == [13, 13]
    assert old.version == first


@pytest.mark.parametrize("version", [99, -1])
def test_unknown_versions(lake: Lake, version: int) -> None:
    """A missing version is an error that names the newest."""
    with pytest.raises(VersionNotFoundError, match="newest"):
        open_lake(lake.url, version=version)


def test_a_version_is_a_number(lake: Lake) -> None:
    """A version must be an integer."""
    with pytest.raises(InvalidInputError, match="version must be an integer"):
        open_lake(lake.url, version="newest")  # type: ignore[arg-type] # the error is the point


def test_opening_a_missing_lake_creates_nothing(tmp_path: Path) -> None:
    """Opening a missing lake creates nothing, and the error states the remedy."""
    for reset in (False, True):
        with pytest.raises(LakeNotFoundError, match="to_lake"):
            open_lake(tmp_path / "none", reset=reset)
    assert list(tmp_path.iterdir()) == []


def test_lost_objects_are_named(make_lake: Make, tmp_path: Path) -> None:
    """A chunk missing from an unexpired version is corruption, and is named."""
    store = make_lake(SCHEMA, PARTITIONS)
    for path in (tmp_path / "lake" / "data").rglob("*.arrow"):
        path.unlink()
    lake = open_lake(store.url)
    for read in (
        lambda: lake[0],
        lambda: lake[1:3],
        lambda: list(lake),
        lake.to_dask_bag().compute,
    ):
        with pytest.raises(CorruptionError, match=r"missing.*data/main/run"):
            read()


def test_pictures_by_bytes(make_lake: Make) -> None:
    """The stored bytes of a picture equal the written ones; decoding errors name the sample."""
    schema = Schema({"image": TensorSpec("image", compression="jpeg")})
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    lake = open_lake(make_lake(schema, [[[{"image": pixels}, {"image": None}]]]).url)
    data = lake["image"].bytes(0)
    assert data is not None
    assert lake["image"].bytes(1) is None
    unverified = Schema({"image": TensorSpec("image", compression="jpeg", verify=False)})
    cut = make_lake(
        unverified, [[[{"image": data[:1500]}]]], ObjectStore("memory://test-lake/cut-picture")
    )
    with pytest.raises(SampleError, match="tensor 'image', sample 0"):
        open_lake(cut.url)[0]["image"]
    assert open_lake(cut.url)["image"].bytes(0) == data[:1500]


def test_failures_are_a_table(lake: Lake) -> None:
    """The failures are a frame with the location and the reason of each failure."""
    failures = lake.failures()
    assert isinstance(failures, pd.DataFrame)
    assert list(failures.columns)[:6] == ["run", "partition", "position", "index", "item", "tensor"]


def test_reset_of_a_complete_lake_changes_nothing(lake: Lake) -> None:
    """A lake without leftovers keeps its version through a reset."""
    version = lake.version
    assert lake.reset(dry_run=True).objects == ()
    assert lake.reset().objects == ()
    assert lake.version == version
    assert len(open_lake(lake.url, reset=True)) == 23


def test_unknown_features_are_refused(make_lake: Make, tmp_path: Path) -> None:
    """A commit that needs a newer reader is refused."""
    store = make_lake(SCHEMA, PARTITIONS)
    path = tmp_path / "lake" / object_keys.commit_key("main", open_lake(store.url).version)
    data = path.read_bytes()
    rest = data[data.index(b",") + 1 :].replace(b'"reader":[]', b'"reader":["mirrors"]')
    path.write_bytes(b'{"crc32c":"%08x",' % google_crc32c.value(rest) + rest)
    with pytest.raises(UnsupportedFormatError, match="mirrors"):
        open_lake(store.url)


def test_lists_of_bools_are_masks(lake: Lake) -> None:
    """A list of bools must be a mask of the right length; a single bool is refused."""
    picked: Any = [i % 5 == 0 for i in range(23)]
    wrong: Any
    assert [row["id"] for row in lake[picked]] == [0, 5, 10, 15, 20]
    assert lake["id"][picked].tolist() == [0, 5, 10, 15, 20]
    assert lake[[]] == []
    for wrong in ([True, False, False], [True, 2], True):
        with pytest.raises(InvalidInputError):
            lake[wrong]


def test_a_frame_without_columns_keeps_its_index(lake: Lake) -> None:
    """A frame without columns keeps its index, and reads no tensor."""
    for frame in (lake.to_dask_dataframe([]), lake.to_dask_dataframe()[[]]):
        result = frame.compute()
        assert result.shape == (23, 0)
        assert result.index.tolist() == list(range(23))


def test_names_are_in_the_lake(lake: Lake) -> None:
    """A lake contains the names of its tensors."""
    assert "id" in lake
    assert "nothing" not in lake
    assert ["id"] not in lake


def test_tensors_cross_processes(lake: Lake) -> None:
    """An unpickled tensor reads the same version."""
    lake["id"][0]
    copy = pickle.loads(pickle.dumps(lake["vector"]))
    assert same(copy[3:12], lake["vector"][3:12])


@pytest.mark.parametrize("blocksize", ["zz", 0, -1, [], float("nan")], ids=str)
def test_sizes_of_blocks_are_checked(lake: Lake, blocksize: Any) -> None:
    """An invalid block size is an error of the call, for every collection."""
    for read in (lake.to_dask_bag, lake.to_dask_dataframe):
        with pytest.raises(InvalidInputError, match="blocksize"):
            read(blocksize=blocksize)
    with pytest.raises(InvalidInputError, match="blocksize"):
        lake.to_dask_array("id", blocksize=blocksize)


def test_names_of_columns_are_checked(lake: Lake) -> None:
    """An invalid name or list of names is an error of the call."""
    wrong: Any
    for wrong in (["id"], None, 5):
        with pytest.raises(InvalidInputError, match="string"):
            lake.to_dask_array(wrong)
    for wrong in ("id", 5, [5], [["id"]]):
        with pytest.raises(InvalidInputError):
            lake.to_dask_bag(wrong)


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(dtype="float32", shape=(2, 3)),
        TensorSpec(dtype="complex64", shape=(2,)),
        TensorSpec(dtype="complex128", shape=()),
        TensorSpec(dtype="bool", shape=(3,)),
        TensorSpec(dtype="bool", shape=()),
        TensorSpec(dtype="datetime64[D]", shape=(2,)),
        TensorSpec(dtype="timedelta64[us]", shape=()),
        TensorSpec("class_label", shape=(2,)),
        TensorSpec(dtype="int8", shape=(2,), compression="lz4"),
        TensorSpec(dtype="int8", shape=(0, 2)),
    ],
    ids=str,
)
def test_slices_are_the_samples_stacked(make_lake: Make, spec: TensorSpec) -> None:
    """A slice over several chunks equals its stacked samples, and can be changed."""
    shape, dtype = spec.shape, spec.numpy_dtype
    numbers = np.random.default_rng(0).integers(0, 2, (40, *shape))
    values = numbers.astype("i8").astype(dtype)
    rows = [{"x": value} for value in values]
    tensor = open_lake(make_lake(Schema({"x": spec}), [[rows[:9], rows[9:30]], [rows[30:]]]).url)[
        "x"
    ]
    for key in (slice(0, 40), slice(8, 31), slice(12, 13), slice(3, 3), slice(30, 2, -3)):
        stacked = tensor[key]
        assert stacked.dtype == dtype
        assert same(stacked, values[key])
    tensor[5:20][...] = 0
    assert same(tensor[5:20], values[5:20])


def test_slices_with_samples_without_a_value(make_lake: Make) -> None:
    """A slice is a list if it has a missing value, and otherwise an array."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=(2,))})
    rows = [{"x": None if i == 7 else [i, i]} for i in range(20)]
    tensor = open_lake(make_lake(schema, [[rows]]).url)["x"]
    assert tensor[8:20].tolist() == [[i, i] for i in range(8, 20)]
    assert tensor[0:7].shape == (7, 2)
    assert tensor[3:9][4] is None
