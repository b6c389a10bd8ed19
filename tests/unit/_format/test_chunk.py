"""Chunks are plain Arrow files with checksums of all bytes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake import Schema, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._format.chunk import ChunkHead, write_chunk
from dasklake._format.columns import iterate_stored
from dasklake._model.receipt import Failure
from dasklake.exceptions import CorruptionError, UnsupportedFormatError
from tests.support.samples import HEADER, encode, opened, same

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "x": TensorSpec(dtype="float32", shape=(2, 3)),
        "c": TensorSpec(dtype="complex64", shape=(2,)),
        "b": TensorSpec(dtype="bool", shape=(3,)),
        "boxes": TensorSpec("bbox"),
        "mask": TensorSpec("binary_mask"),
        "text": TensorSpec("text"),
        "link": TensorSpec("link[image]", compression="jpeg"),
    }
)


def _sample(i: int) -> dict[str, Any]:
    return {
        "id": i,
        "x": np.full((2, 3), i, "f4"),
        "c": np.full(2, i * 1j, "c8"),
        "b": np.array([i % 2 == 0, True, False]),
        "boxes": np.full((i % 3, 4), i, "f4"),
        "mask": np.random.default_rng(i).random((20, 30, i % 4)) > 0.5,
        "text": "ä" * i,
        "link": f"s3://b/{i}.jpg",
    }


SAMPLES = [_sample(i) for i in range(40)]
CHUNK = encode(SCHEMA, SAMPLES)


def test_any_arrow_reader_opens_a_chunk() -> None:
    """Plain pyarrow.ipc opens a chunk and reads its fixed-shape numbers."""
    with pa.ipc.open_file(pa.py_buffer(CHUNK.data)) as reader:
        assert reader.num_record_batches == 1
        batch = reader.get_batch(0)
    batch.validate(full=True)
    assert batch.schema.field("x").type == pa.fixed_shape_tensor(pa.float32(), (2, 3))
    expected = np.stack([sample["x"] for sample in SAMPLES])
    assert np.array_equal(batch.column("x").to_numpy_ndarray(), expected)
    assert batch.column("id").to_pylist() == list(range(40))
    assert batch.column("text").to_pylist() == [sample["text"] for sample in SAMPLES]
    pairs = batch.column("c").to_numpy_ndarray().view("c8")[:, :, 0]
    assert np.array_equal(pairs, np.stack([sample["c"] for sample in SAMPLES]))


def test_fields_describe_their_columns() -> None:
    """Each tensor's field has layout, dtype and compression."""
    metadata = json.loads(opened(CHUNK).batch.schema.field("mask").metadata[b"dasklake"])
    assert metadata == {"layout": "blob", "dtype": "bool", "compression": "packbits-zstd"}


def test_samples_come_back() -> None:
    """All samples of a chunk are read back unchanged."""
    batch = opened(CHUNK).batch
    for name, spec in SCHEMA.items():
        if name == "link":
            continue
        shapes = batch.column(f"{name}:shape") if f"{name}:shape" in batch.schema.names else None
        codec = codec_for(spec)
        values = [
            codec.decode(stored) for stored in iterate_stored(batch.column(name), shapes, spec)
        ]
        assert all(same(a, b[name]) for a, b in zip(values, SAMPLES, strict=True))


def test_the_header_comes_back() -> None:
    """The header, failures included, is read from the head alone."""
    failure = Failure("run", 3, 1, None, 'it\'s "it"', "x", "ValueError", "ä", "trace")
    header = dataclasses.replace(
        HEADER, epoch=2, partition=3, chunk=1, inputs=9, failures=(failure,), failed=1
    )
    chunk = encode(SCHEMA, SAMPLES[:2], header)
    head = ChunkHead.parse(chunk.data[: chunk.head], len(chunk.data), "k", chunk.crc)
    assert head.header == header
    assert head.rows == chunk.rows == 2
    assert dataclasses.astuple(head.ref()) == (1, 2, len(chunk.data), chunk.head, chunk.crc, None)


def test_a_chunk_without_rows() -> None:
    """A partition without samples still has a chunk."""
    head = opened(encode(SCHEMA, []))
    assert head.rows == 0
    assert head.header == HEADER


def test_parts_can_be_read_alone() -> None:
    """Only the head and the pages of one column are needed to read that column."""
    data = bytes(CHUNK.data)
    head = ChunkHead.parse(data[: CHUNK.head], len(data), "k", CHUNK.crc)
    for start, stop in head.spans("boxes"):
        begin = head.length + (start - head.length) // head.page * head.page
        end = head.length + -(-(stop - head.length) // head.page) * head.page
        head.check(begin, data[begin:end])
        head.memory[start:stop] = np.frombuffer(data[start:stop], np.uint8)
    column, shapes = (head.batch.column(name) for name in ("boxes", "boxes:shape"))
    codec = codec_for(SCHEMA["boxes"])
    values = [codec.decode(stored) for stored in iterate_stored(column, shapes, SCHEMA["boxes"])]
    assert all(same(a, b["boxes"]) for a, b in zip(values, SAMPLES, strict=True))


def _check(data: bytes, crc: int | None) -> None:
    head = ChunkHead.parse(data, len(data), "k", crc)
    head.check(head.length, data[head.length :])


def test_every_changed_byte_is_found() -> None:
    """A change of any byte is detected, with or without the reference."""
    chunk = encode(Schema({"a": TensorSpec(dtype="uint8", shape=(None,))}), [{"a": [1, 2]}] * 3)
    data = bytearray(chunk.data)
    for offset in range(len(data)):
        data[offset] ^= 0x10
        for crc in (None, chunk.crc):
            with pytest.raises(CorruptionError):
                _check(bytes(data), crc)
        data[offset] ^= 0x10


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 100, -1])
def test_cut_heads_are_refused(length: int) -> None:
    """A head truncated anywhere is an error that names the object."""
    cut = bytes(CHUNK.data[: CHUNK.head])[:length]
    with pytest.raises(CorruptionError, match="data/key"):
        ChunkHead.parse(cut, len(CHUNK.data), "data/key")


def test_garbage_is_refused() -> None:
    """Bytes that only begin like a chunk are an error, without a crash or much memory."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(CHUNK.data)
        offset = int(rng.integers(8, CHUNK.head - 64))
        data[offset : offset + 64] = rng.bytes(64)
        with pytest.raises(CorruptionError):
            ChunkHead.parse(bytes(data), len(data), "k")


def test_newer_chunks_are_refused() -> None:
    """A chunk of a newer format asks for a newer release."""
    data = bytes(CHUNK.data)
    newer = data.replace(b'{"format":1,', b'{"format":9,')
    assert newer != data
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        ChunkHead.parse(newer, len(newer), "k")


def test_many_tensors() -> None:
    """Two thousand tensors fit into a chunk."""
    schema = Schema({f"t{i}": TensorSpec(dtype="int64", shape=()) for i in range(2000)})
    head = opened(encode(schema, [dict.fromkeys(schema, 7)] * 2))
    assert head.batch.column("t1999").to_pylist() == [7, 7]


def test_columns_of_two_lengths_are_refused() -> None:
    """Columns of different lengths never become a chunk."""
    field = pa.field("a", pa.int64())
    columns = [(field, pa.array([1])), (pa.field("b", pa.int64()), pa.array([1, 2]))]
    with pytest.raises(ValueError, match="length"):
        write_chunk(columns, HEADER)
