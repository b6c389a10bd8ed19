"""Test open chunks: only requested data are fetched, and all fetched data are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake import Schema, TensorSpec
from dasklake._format.chunk import EncodedChunk
from dasklake._read.chunk_reader import OpenChunk
from dasklake._read.plan import ChunkLocation
from dasklake._read.row_reader import RowReader
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError
from tests.support.samples import encode, same

SCHEMA = Schema(
    {
        "small": TensorSpec(dtype="int64", shape=()),
        "flag": TensorSpec(dtype="bool", shape=()),
        "big": TensorSpec(dtype="uint8", shape=(None, None)),
        "fixed": TensorSpec(dtype="float32", shape=(3,)),
        "any": TensorSpec(dtype="int16"),
        "text": TensorSpec("text"),
        "link": TensorSpec("link[image]", compression="jpeg"),
        "rare": TensorSpec(dtype="Int64"),
    }
)


def _sample(i: int) -> dict[str, Any]:
    if i % 11 == 5:
        return dict.fromkeys(SCHEMA)
    return {
        "small": i,
        "flag": i % 2 == 0,
        "big": np.full((100, 20), i % 251, np.uint8),
        "fixed": np.full(3, i, "f4"),
        "any": np.full((2,) * (i % 3), i, "i2"),
        "text": "ö" * (i % 7),
        "link": f"s3://b/{i}",
        "rare": i,
    }


SAMPLES = [_sample(i) for i in range(300)]
CHUNK = encode(SCHEMA, SAMPLES)


class _Counting(ObjectStore):
    """A store that records its reads."""

    def __init__(self, url: Any) -> None:
        super().__init__(url)
        self.requests: list[int] = []

    def get(self, key: str, most: int | None = None) -> bytes:
        data = super().get(key, most)
        self.requests.append(len(data))
        return data

    def get_ranges(self, key: str, ranges: Any) -> list[bytes]:
        self.requests.append(sum(stop - start for start, stop in ranges))
        return super().get_ranges(key, ranges)


def _location(chunk: EncodedChunk, first: int = 1000) -> ChunkLocation:
    return ChunkLocation("data/x.arrow", first, chunk.rows, len(chunk.data), chunk.head, chunk.crc)


@pytest.fixture
def store(tmp_path: Any) -> _Counting:
    """Put the chunk into a store that records its reads."""
    counting = _Counting(tmp_path)
    counting.put("data/x.arrow", CHUNK.data)
    return counting


@pytest.mark.parametrize("together", [False, True])
def test_every_row_is_read_back(store: _Counting, together: bool) -> None:  # noqa: FBT001 # a case
    """Each row, read alone or together, equals the written one, including None."""
    reader = RowReader(OpenChunk(store, _location(CHUNK)), SCHEMA)
    order = np.random.default_rng(0).permutation(300).tolist()
    names = list(SCHEMA)
    rows = reader.read_many(order, names) if together else [reader.read(i, names) for i in order]
    for i, row in zip(order, rows, strict=True):
        actual = dict(zip(names, row, strict=True))
        expected = SAMPLES[i]
        if expected["big"] is None:
            assert all(value is None for value in row)
            continue
        assert actual["big"].shape == expected["big"].shape
        assert bytes(actual["big"].data) == expected["big"].tobytes()
        assert actual["any"].shape == expected["any"].shape
        unknown = dict.fromkeys(("creds_key", "shape", "size", "etag", "format"))
        assert actual["link"] == {"url": expected["link"], **unknown}
        assert all(same(actual[n], expected[n]) for n in ("small", "flag", "fixed", "text", "rare"))


def test_a_single_sample_costs_few_requests(store: _Counting) -> None:
    """After head and offsets are cached, a sample costs one request of a few pages."""
    reader = RowReader(OpenChunk(store, _location(CHUNK)), SCHEMA)
    reader.read(3, ["big"])
    assert len(store.requests) <= 3
    store.requests.clear()
    reader.read(200, ["big"])
    assert len(store.requests) == 1
    assert sum(store.requests) <= 3 * 16_384
    store.requests.clear()
    reader.read(200, ["big"])
    assert store.requests == []


def test_only_requested_tensors_are_read(store: _Counting) -> None:
    """Reading small tensors does not fetch the bytes of the large one."""
    chunk = OpenChunk(store, _location(CHUNK))
    chunk.load_tensors(["small", "text"])
    assert sum(store.requests) < len(CHUNK.data) / 5
    assert chunk.head.batch.column("small")[7].as_py() == 7


def test_almost_everything_is_one_request(store: _Counting) -> None:
    """If most of a chunk is requested, the whole object is fetched."""
    chunk = OpenChunk(store, _location(CHUNK))
    store.requests.clear()
    chunk.load_tensors(["big"])
    assert store.requests == [len(CHUNK.data)]


def test_small_chunks_are_one_request(store: _Counting) -> None:
    """A small chunk is fetched whole when it is opened."""
    small = encode(SCHEMA, SAMPLES[:5])
    store.put("data/x.arrow", small.data)
    reader = RowReader(OpenChunk(store, _location(small)), SCHEMA)
    assert len(reader.read(4, list(SCHEMA))) == len(SCHEMA)
    assert store.requests == [len(small.data)]


@pytest.mark.parametrize("whole", [False, True])
def test_damage_names_object_and_rows(store: _Counting, whole: bool) -> None:  # noqa: FBT001 # a case
    """A changed byte in fetched data is an error that names the object and its rows."""
    data = bytearray(CHUNK.data)
    data[CHUNK.head + len(data) // 2] ^= 1
    store.put("data/x.arrow", bytes(data))
    with pytest.raises(CorruptionError, match=r"1000 to 1299.*data/x\.arrow"):
        OpenChunk(store, _location(CHUNK), whole=whole).load_tensors(SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 7},
        {"crc": 1},
        {"head": CHUNK.head - 8},
        {"size": len(CHUNK.data) + 16_384},
    ],
)
def test_a_mismatched_reference_is_detected(store: _Counting, change: dict[str, Any]) -> None:
    """An object that does not match its reference is never read."""
    with pytest.raises(CorruptionError):
        OpenChunk(store, _location(CHUNK)._replace(**change)).load_tensors(SCHEMA)


@pytest.mark.parametrize("keep", [0, 10, CHUNK.head, len(CHUNK.data) - 1])
@pytest.mark.parametrize("whole", [False, True])
def test_a_truncated_object_is_detected(store: _Counting, keep: int, whole: bool) -> None:  # noqa: FBT001 # a case
    """A truncated object is an error at every length."""
    store.put("data/x.arrow", CHUNK.data[:keep])
    with pytest.raises(CorruptionError):
        OpenChunk(store, _location(CHUNK), whole=whole).load_tensors(SCHEMA)
