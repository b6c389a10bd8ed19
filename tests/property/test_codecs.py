"""Every value that a tensor accepts round-trips through a chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dasklake import Schema, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._format.columns import iterate_stored
from dasklake._read.chunk_reader import OpenChunk
from dasklake._read.plan import ChunkLocation
from dasklake._read.row_reader import RowReader
from dasklake._storage.store import ObjectStore
from tests.support.samples import encode, opened, same

DTYPES = ["bool", "uint8", "int64", "float16", "float32", "complex64", "datetime64[us]"]


@st.composite
def tensors(draw: st.DrawFn) -> tuple[TensorSpec, list[Any]]:
    """Draw a spec and some values that fit it."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ragged = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    axes = tuple(None if free else axis for axis, free in zip(shape, ragged, strict=True))
    spec = TensorSpec(
        dtype=dtype,
        shape=draw(st.sampled_from([axes, None])),
        compression=draw(st.sampled_from([None, "lz4", "zstd"])),
    )
    shapes = st.tuples(*(st.integers(0, 4) if axis is None else st.just(axis) for axis in axes))
    values = st.one_of(st.none(), hnp.arrays(dtype, shapes))
    return spec, draw(st.lists(values, max_size=12))


@given(tensors())
def test_arrays_round_trip_through_a_chunk(case: tuple[TensorSpec, list[Any]]) -> None:
    """Arrays of any dtype and shape round-trip, in bulk and row by row."""
    spec, values = case
    schema = Schema({"a": spec})
    chunk = encode(schema, [{"a": value} for value in values])
    batch = opened(chunk).batch
    shapes = batch.column("a:shape") if "a:shape" in batch.schema.names else None
    codec = codec_for(spec)
    stored = list(iterate_stored(batch.column("a"), shapes, spec))
    decoded = [None if item is None else codec.decode(item) for item in stored]
    assert len(decoded) == len(values)
    assert all(map(same, decoded, values))
    store = ObjectStore("memory://property-codecs")
    store.put("chunk", chunk.data)
    location = ChunkLocation("chunk", 0, chunk.rows, len(chunk.data), chunk.head, chunk.crc)
    reader = RowReader(OpenChunk(store, location), schema)
    for row, value in enumerate(values):
        (item,) = reader.read(row, ["a"])
        assert same(None if item is None else codec.decode(item), value)


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.lists(hnp.arrays("int16", hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))),
        ),
        max_size=6,
    )
)
def test_lists_round_trip_through_a_chunk(values: list[Any]) -> None:
    """Lists of any length, of arrays of any shape, round-trip through a chunk."""
    spec = TensorSpec("sequence[generic]", dtype="int16")
    batch = opened(encode(Schema({"a": spec}), [{"a": value} for value in values])).batch
    codec = codec_for(spec)
    for stored, value in zip(
        iterate_stored(batch.column("a"), batch.column("a:shape"), spec), values, strict=True
    ):
        decoded: Any = None if stored is None else codec.decode(stored)
        assert (decoded is None) == (value is None)
        assert value is None or len(decoded) == len(value)
        assert value is None or all(map(same, decoded, value))


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9)))
def test_masks_round_trip(mask: np.ndarray[Any, Any]) -> None:
    """Masks of any size round-trip with every compression."""
    for compression in ("packbits-zstd", "packbits-lz4", "lz4", "none"):
        codec = codec_for(TensorSpec("binary_mask", compression=compression))
        assert same(codec.decode(codec.encode(mask)), mask)


@given(st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))))
def test_texts_round_trip(values: list[str | None]) -> None:
    """Every text round-trips."""
    batch = opened(encode(Schema({"a": TensorSpec("text")}), [{"a": v} for v in values])).batch
    assert list(iterate_stored(batch.column("a"), None, TensorSpec("text"))) == values
