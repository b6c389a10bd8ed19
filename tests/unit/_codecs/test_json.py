"""JSON: values that round-trip, and values that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError


@pytest.mark.parametrize(
    ("htype", "value", "expected", "shape"),
    [
        ("json", {"a": [1, 2.5, None, True, "é"]}, {"a": [1, 2.5, None, True, "é"]}, ()),
        ("json", (1, np.int8(2), np.float32(0.5)), [1, 2, 0.5], ()),
        ("json", 2**80, 2**80, ()),
        ("list", [1, ["a"]], [1, ["a"]], (2,)),
        ("list", (), [], (0,)),
        ("tag", "dusk", ["dusk"], (1,)),
        ("tag", np.array(["a", "b"]), ["a", "b"], (2,)),
    ],
)
def test_values_round_trip(htype: str, value: Any, expected: Any, shape: tuple[int, ...]) -> None:
    """A value is decoded with JSON types; the shape of a list is its length."""
    codec = codec_for(TensorSpec(htype))
    blob = codec.encode(value)
    assert blob.shape == shape
    assert codec.decode(blob) == expected


@pytest.mark.parametrize(
    ("htype", "value", "message"),
    [
        ("json", {1: "a"}, "key"),
        ("json", {"a": [float("inf")]}, "inf"),
        ("json", np.zeros(2), "tolist"),
        ("json", {"a", "b"}, "set"),
        ("json", b"bytes", "bytes"),
        ("json", "\ud800", "invalid text"),
        ("list", {"a": 1}, "must be a list"),
        ("tag", 5, "list of strings"),
        ("tag", [["a"]], "list of strings"),
    ],
)
def test_values_that_json_cannot_represent_are_refused(
    htype: str, value: Any, message: str
) -> None:
    """A value that JSON would change or cannot represent raises an error."""
    with pytest.raises(SampleError, match=message):
        codec_for(TensorSpec(htype)).encode(value)


def test_a_fixed_length_is_checked() -> None:
    """A list whose length differs from the fixed length of the tensor is refused."""
    codec = codec_for(TensorSpec("list", shape=(2,)))
    assert codec.decode(codec.encode([1, 2])) == [1, 2]
    with pytest.raises(SampleError, match="3"):
        codec.encode([1, 2, 3])


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000])
def test_invalid_json_is_a_corruption_error(data: bytes) -> None:
    """Invalid stored JSON raises a CorruptionError, whatever error the parser raises."""
    with pytest.raises(CorruptionError):
        codec_for(TensorSpec("json")).decode(Blob(data, ()))


@pytest.mark.parametrize("value", [np.longdouble(1), np.clongdouble(1j), [np.longdouble(1)]])
def test_numbers_that_python_does_not_have_are_refused(value: Any) -> None:
    """Wide numbers of numpy have no equal in Python; the error proposes a conversion that works."""
    codec = codec_for(TensorSpec("json"))
    with pytest.raises(SampleError, match=r"Convert it with str\(\)"):
        codec.encode(value)
    assert codec.encode(str(value))
