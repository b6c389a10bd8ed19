"""Lists of values: round trips, refused values, and invalid directories."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import dasklake
from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._codecs.sequence import ItemLocation, item_locations
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError
from tests.support.samples import same

BOXES = TensorSpec("sequence[bbox]", compression="zstd")


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (BOXES, [np.ones((2, 4), "f4"), np.zeros((0, 4), "f4")]),
        (TensorSpec("sequence[generic]", dtype="datetime64[s]", shape=()), [np.datetime64(5, "s")]),
        (TensorSpec("sequence[generic]", dtype="bool", shape=(2,)), [np.array([True, False])]),
        (TensorSpec("sequence[generic]", dtype="complex64", shape=(None,)), [np.array([1j], "c8")]),
        (TensorSpec("sequence[text]"), ["", "é"]),
        (TensorSpec("sequence[json]"), [{"a": [None]}, 5]),
        (TensorSpec("sequence[polygon]"), [[np.ones((3, 2), "f4")], []]),
        (TensorSpec("polygon", compression="lz4"), [np.ones((3, 2), "f4")]),
        (BOXES, []),
    ],
)
def test_lists_round_trip(spec: TensorSpec, value: list[Any]) -> None:
    """A decoded list has the same items."""
    codec = codec_for(spec)
    decoded: Any = codec.decode(codec.encode(value))
    assert isinstance(decoded, list)
    assert len(decoded) == len(value)
    for item, original in zip(decoded, value, strict=True):
        if isinstance(original, list):
            assert all(map(same, item, original))
        else:
            assert item == original if isinstance(original, dict | int) else same(item, original)


def test_any_iterable_is_accepted_as_a_list() -> None:
    """Generators, tuples and arrays (along the first axis) are accepted as lists."""
    codec = codec_for(BOXES)
    expected = codec.encode([np.zeros((1, 4), "f4")] * 2)
    for value in (
        np.zeros((2, 1, 4), "f4"),
        (np.zeros((1, 4), "f4") for _ in range(2)),
        ([[0, 0, 0, 0]], [[0, 0, 0, 0]]),
    ):
        assert codec.encode(value) == expected


def test_the_directory_locates_each_item() -> None:
    """The directory gives the range of bytes and the shape of each item."""
    codec = codec_for(TensorSpec("sequence[generic]", dtype="uint8", shape=(None,)))
    blob: Any = codec.encode([[1, 2], [], [3, 4, 5]])
    locations = item_locations(blob.shape, len(blob.data))
    assert locations == [
        ItemLocation(0, 2, (2,)),
        ItemLocation(2, 2, (0,)),
        ItemLocation(2, 5, (3,)),
    ]
    assert list(blob.data[locations[2].begin : locations[2].end]) == [3, 4, 5]


@pytest.mark.parametrize(
    ("spec", "value", "parts"),
    [
        (BOXES, 5, ["int", "list"]),
        (BOXES, "abc", ["str", "list"]),
        (BOXES, np.array(5.0), ["list"]),
        (BOXES, {"a": 1}, ["dict", "list"]),
        (BOXES, [np.zeros((1, 4), "f4"), None], ["item 1", "None"]),
        (BOXES, [np.zeros((1, 4), "f4"), np.zeros((1, 3), "f4")], ["item 1", "last axis"]),
        (TensorSpec("sequence[text]"), ["a", 1], ["item 1", "must be a string"]),
        (TensorSpec("sequence[image]", compression="png"), [b"x"], ["item 0", "not a valid image"]),
        (TensorSpec("sequence[link[image]]"), ["s3://u:secret@b/a"], ["item 0", "password"]),
        (TensorSpec("sequence[generic]", dtype=pa.decimal128(5, 2)), [1], ["item 0", "Arrow"]),
    ],
)
def test_values_that_do_not_fit_are_refused(spec: TensorSpec, value: Any, parts: list[str]) -> None:
    """A value that is not a list is refused; an item that does not fit is named in the error."""
    with pytest.raises(SampleError) as raised:
        codec_for(spec).encode(value)
    for part in parts:
        assert part in str(raised.value)
    assert "secret" not in str(raised.value)


def test_links_in_a_list_keep_their_keys() -> None:
    """A link in a list keeps its URL and its credentials key."""
    codec = codec_for(TensorSpec("sequence[link[image]]"))
    links = [dasklake.link("s3://b/1", "key"), dasklake.link("s3://b/2")]
    assert codec.decode(codec.encode(links)) == links


@pytest.mark.parametrize(
    "directory",
    [
        (),
        (-1,),
        (1,),
        (1, 8, 1),
        (1, 9, 0),
        (2, 8, 0),
        (1, 8, 1, -2),
        (1, 8, 0, 7),
        (2, 16, 0, -8, 0),
        (2**62, 8, 0),
        (1, 8, 2**62, 1),
    ],
)
def test_invalid_directories_are_corruption_errors(directory: tuple[int, ...]) -> None:
    """A directory that does not match the number of bytes raises a CorruptionError."""
    with pytest.raises(CorruptionError):
        item_locations(directory, 8)


@pytest.mark.parametrize(
    ("spec", "data"),
    [
        (TensorSpec("sequence[generic]", dtype="int32", shape=()), b"12345"),
        (TensorSpec("sequence[text]"), b"\xff\xfe"),
        (TensorSpec("sequence[link[image]]"), b"{"),
        (TensorSpec("sequence[json]"), b"{"),
    ],
)
def test_invalid_items_are_corruption_errors(spec: TensorSpec, data: bytes) -> None:
    """Bytes that are not a valid item raise a CorruptionError."""
    with pytest.raises(CorruptionError):
        codec_for(spec).decode(Blob(data, (1, len(data), 0)))
