"""Only the exact bytes of a chunk are read as a chunk."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from dasklake import Schema, TensorSpec
from dasklake._format.chunk import ChunkHead
from dasklake.exceptions import CorruptionError
from tests.support.samples import encode

SCHEMA = Schema({"id": TensorSpec(dtype="int64", shape=()), "text": TensorSpec("text")})
CHUNK = bytes(encode(SCHEMA, [{"id": i, "text": "a" * i} for i in range(300)]).data)


@given(st.integers(0, len(CHUNK) - 1), st.binary(min_size=1, max_size=200))
def test_overwritten_bytes_are_found(offset: int, patch: bytes) -> None:
    """Any overwritten bytes are detected, unless they equal the old ones."""
    data = CHUNK[:offset] + patch + CHUNK[offset + len(patch) :]
    unchanged = data == CHUNK
    try:
        head = ChunkHead.parse(data, len(data), "k")
        head.check(head.length, data[head.length :])
    except CorruptionError:
        assert not unchanged
    else:
        assert unchanged


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda b: CHUNK[:40] + b)))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Any foreign bytes are refused with a CorruptionError."""
    with contextlib.suppress(CorruptionError):
        ChunkHead.parse(data, len(data), "k")
        raise AssertionError(data)
