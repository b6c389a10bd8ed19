"""Nothing that is not exactly a chunk is ever read as one."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from dasklake import Schema, TensorSpec
from dasklake._format.chunk import ChunkHead, head_length
from dasklake.exceptions import CorruptionError
from tests.support.samples import encode

SCHEMA = Schema({"id": TensorSpec(dtype="int64", shape=()), "text": TensorSpec("text")})
CHUNK = bytes(encode(SCHEMA, [{"id": i, "text": "a" * i} for i in range(300)]).data)


@given(st.integers(0, len(CHUNK) - 1), st.binary(min_size=1, max_size=200))
def test_overwritten_bytes_are_found(place: int, patch: bytes) -> None:
    """Whatever is written over a chunk: it is found, or nothing was changed."""
    data = CHUNK[:place] + patch + CHUNK[place + len(patch) :]
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
    """Foreign bytes are refused with one kind of error, whatever they are."""
    with contextlib.suppress(CorruptionError):
        length = head_length(data)
        assert length is None or length <= len(data)
    with contextlib.suppress(CorruptionError):
        ChunkHead.parse(data, len(data), "k")
        raise AssertionError(data)
