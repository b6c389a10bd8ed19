"""Test the specification with an independent reader that uses no dasklake code.

It reads a lake by the rules of docs/reference/spec.md alone, with pyarrow, a crc32c and the file
system.
"""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

import dasklake

ROWS = 20


def make_sample(i: int) -> dict[str, Any]:
    """Make a sample with one tensor of each layout and a mask."""
    return {
        "name": f"sample {i}" if i % 5 else None,
        "size": i,
        "vector": np.arange(3, dtype="float32") + i,
        "boxes": np.full((i % 3, 4), i, "float32"),
        "mask": np.indices((5, 4, i % 4)).sum(0) % 2 == 0,
        "flags": np.array([i % 2 == 0, True]),
    }


SCHEMA: dict[str, Any] = {
    "name": "text",
    "size": dasklake.TensorSpec(dtype="int64", shape=()),
    "vector": "embedding",
    "boxes": dasklake.TensorSpec("bbox", compression="lz4"),
    "mask": "binary_mask",
    "flags": dasklake.TensorSpec(dtype="bool", shape=(2,)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a lake of several commits and chunks."""
    root = tmp_path_factory.mktemp("spec") / "lake"
    with dask.config.set(scheduler="threads"):
        dasklake.to_lake(
            db.from_sequence(range(ROWS), npartitions=5),
            root,
            schema=SCHEMA,
            transform=make_sample,
            checkpoint_every=8,
        )
    return root


def read_head(root: Path) -> dict[str, Any]:
    """Find the head and read its commit."""
    log = root / "_lake" / "log" / "main"
    newest = max(log.iterdir(), key=lambda folder: int(folder.name))
    data = max(newest.glob("*.json"), key=lambda file: int(file.stem)).read_bytes()
    assert data.startswith(b'{"crc32c":"')
    assert int(data[11:19], 16) == google_crc32c.value(data[21:])
    commit: dict[str, Any] = json.loads(data)
    assert commit["format"] == 1
    assert commit["features"]["reader"] == []
    return commit


def read_segments(root: Path, commit: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunk references in row order."""
    chunks: list[dict[str, Any]] = []
    for ref in commit["segments"]:
        data = (root / "_lake" / "segments" / f"{ref['name']}.arrow").read_bytes()
        assert (len(data), google_crc32c.value(data)) == (ref["size"], ref["crc"])
        chunks += pa.ipc.open_file(data).read_all().to_pylist()
    return sorted(chunks, key=lambda c: (c["order"], c["partition"], c["chunk"]))


def chunk_file(root: Path, chunk: dict[str, Any]) -> Path:
    """Return the path of a chunk."""
    parts = chunk["partition"], chunk["epoch"], f"{chunk['attempt']:016x}", chunk["chunk"]
    return root / "data" / str(chunk["home"]) / f"{'-'.join(map(str, parts))}.arrow"


class Ranges:
    """A chunk of which only the head is read, then single ranges; every page is checked."""

    def __init__(self, path: Path, chunk: dict[str, Any]) -> None:
        self.path, self.head, self.size = path, chunk["head"], chunk["size"]
        with path.open("rb") as file:
            data = file.read(self.head)
        assert google_crc32c.value(data) == chunk["crc"]
        self.memory = np.empty(self.size, np.uint8)
        self.memory[: self.head] = np.frombuffer(data, np.uint8)
        reader = pa.ipc.open_stream(pa.py_buffer(self.memory[8:]))
        self.about = json.loads(reader.schema.metadata[b"dasklake"])
        self.batch, metadata = reader.read_next_batch_with_custom_metadata()
        sums = json.loads(metadata[b"dasklake:crc32c"])
        self.page = sums["page"]
        self.sums = np.frombuffer(base64.b64decode(sums["crc32c"]), "<u4")
        self.bytes_read = self.head

    def range(self, start: int, stop: int) -> bytes:
        """Read some bytes of the object, widened to pages."""
        first, last = (start - self.head) // self.page, (stop - 1 - self.head) // self.page
        at = self.head + first * self.page
        with self.path.open("rb") as file:
            file.seek(at)
            data = file.read((last + 1 - first) * self.page)
        self.bytes_read += len(data)
        for i in range(first, last + 1):
            page = data[(i - first) * self.page : (i - first + 1) * self.page]
            assert google_crc32c.value(page) == self.sums[i]
        return data[start - at : stop - at]

    def buffer(self, buffer: pa.Buffer, start: int, stop: int) -> bytes:
        """Read bytes of one buffer of a column."""
        offset = buffer.address - self.memory.ctypes.data
        return self.range(offset + start, offset + stop) if stop > start else b""

    def valid(self, column: pa.Array, row: int) -> bool:
        """Return whether a row has a value."""
        validity = column.buffers()[0]
        if validity is None:
            return True
        return bool(self.buffer(validity, row // 8, row // 8 + 1)[0] >> row % 8 & 1)

    def binary(self, column: pa.Array, row: int) -> bytes:
        """Read one value of a large_binary or large_string column."""
        _, offsets, data = column.buffers()
        ends = np.frombuffer(self.buffer(offsets, 8 * row, 8 * row + 16), "<i8")
        return self.buffer(data, int(ends[0]), int(ends[1]))

    def fixed(self, buffer: pa.Buffer, row: int, shape: tuple[int, ...], dtype: str) -> Any:
        """Read one value of a column of fixed width."""
        width = math.prod(shape) * np.dtype(dtype).itemsize
        data = self.buffer(buffer, width * row, width * (row + 1))
        return np.frombuffer(data, dtype).reshape(shape)


def read_sample(ranges: Ranges, row: int) -> dict[str, Any]:
    """Read one sample by byte ranges."""
    column = ranges.batch.column
    shapes = {}
    for name, rank in (("boxes", 2), ("mask", 3)):
        values = column(f"{name}:shape").buffers()[-1]
        shapes[name] = tuple(map(int, ranges.fixed(values, row, (rank,), "<i8")))
    boxes = pa.Codec("lz4").decompress(
        ranges.binary(column("boxes"), row), 4 * math.prod(shapes["boxes"])
    )
    pixels = math.prod(shapes["mask"])
    packed = pa.Codec("zstd").decompress(ranges.binary(column("mask"), row), -(-pixels // 8))
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=pixels)
    name = column("name")
    return {
        "name": ranges.binary(name, row).decode() if ranges.valid(name, row) else None,
        "size": int(ranges.fixed(column("size").buffers()[1], row, (), "<i8")),
        "vector": ranges.binary(column("vector"), row),
        "boxes": np.frombuffer(boxes, "<f4").reshape(shapes["boxes"]),
        "mask": bits.view(bool).reshape(shapes["mask"]),
        "flags": ranges.fixed(column("flags").storage.buffers()[-1], row, (2,), "u1").view(bool),
    }


def test_a_reader_by_the_specification(root: Path) -> None:
    """Every sample is located by its row and read back unchanged, range by range."""
    commit = read_head(root)
    assert list(commit["schema"]["tensors"]) == list(SCHEMA)
    chunks = read_segments(root, commit)
    assert commit["totals"]["samples"] == sum(chunk["rows"] for chunk in chunks) == ROWS
    number = 0
    for chunk in chunks:
        ranges = Ranges(chunk_file(root, chunk), chunk)
        assert ranges.about["partition"] == chunk["partition"]
        for row in range(chunk["rows"]):
            actual, meant = read_sample(ranges, row), make_sample(number)
            vector = actual.pop("vector")
            assert np.array_equal(np.frombuffer(vector, "<f4"), meant.pop("vector"))
            for name, value in meant.items():
                assert np.array_equal(actual[name], value), (number, name)
            number += 1


def test_chunks_are_plain_arrow_files(root: Path) -> None:
    """A chunk opens with pyarrow alone, as one record batch with its location."""
    chunk = read_segments(root, read_head(root))[0]
    reader = pa.ipc.open_file(chunk_file(root, chunk).read_bytes())
    assert reader.num_record_batches == 1
    table = reader.read_all()
    assert table["size"].to_pylist() == list(range(chunk["rows"]))
    about = json.loads(table.schema.metadata[b"dasklake"])
    assert (about["format"], about["last"], about["inputs"]) == (1, True, chunk["rows"])
    flags = table["flags"].combine_chunks().to_numpy_ndarray()
    assert np.array_equal(flags[:, 1], np.ones(chunk["rows"], np.uint8))


def test_statistics_by_the_specification(root: Path) -> None:
    """The statistics of each chunk are those of its samples, and fields of default value are absent."""
    number = 0
    for chunk in read_segments(root, read_head(root)):
        samples = [make_sample(number + row) for row in range(chunk["rows"])]
        number += chunk["rows"]
        statistics = json.loads(chunk["statistics"])
        assert len(chunk["statistics"]) < 2048
        names = [sample["name"] for sample in samples if sample["name"] is not None]
        assert statistics.pop("size") == {"min": samples[0]["size"], "max": samples[-1]["size"]}
        assert statistics["name"].pop("nulls", 0) == len(samples) - len(names)
        assert statistics.pop("name") == {"min": min(names), "max": max(names)}
        for name, axis in (("boxes", 0), ("mask", 2)):
            counts = [sample[name].shape[axis] for sample in samples]
            assert statistics[name].pop("objects") == [min(counts), max(counts), sum(counts)]
        depths = [sample["mask"].shape[2] for sample in samples]
        assert statistics.pop("mask") == {"shape": [[5, 4, min(depths)], [5, 4, max(depths)]]}
        assert statistics == {"boxes": {}, "vector": {"shape": [[3], [3]]}, "flags": {}}
