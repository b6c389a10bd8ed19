"""Masks: every shape round-trips, and stored masks are small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake.exceptions import CorruptionError, SampleError

COMPRESSIONS = ["packbits-zstd", "packbits-lz4", "zstd", "lz4", "none"]


def _mask(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random(shape) > 0.5


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("shape", [(5, 7, 3), (480, 640, 0), (0, 0, 0), (1, 1, 1)])
def test_masks_round_trip(compression: str, shape: tuple[int, ...]) -> None:
    """Every compression returns the same mask, also an empty one."""
    codec = codec_for(TensorSpec("binary_mask", compression=compression))
    mask = _mask(*shape)
    decoded: Any = codec.decode(codec.encode(mask))
    assert decoded.dtype == bool
    assert decoded.shape == shape
    assert np.array_equal(decoded, mask)


def test_a_transposed_mask_round_trips() -> None:
    """The memory layout of a mask does not matter."""
    mask = _mask(3, 4, 5).transpose(1, 2, 0)
    codec = codec_for(TensorSpec("binary_mask"))
    assert np.array_equal(codec.decode(codec.encode(mask)), mask)  # type: ignore[arg-type] # array


def test_an_empty_mask_of_another_dtype_is_accepted() -> None:
    """The dtype of an empty array does not matter."""
    codec = codec_for(TensorSpec("binary_mask"))
    decoded: Any = codec.decode(codec.encode(np.zeros((4, 5, 0))))
    assert decoded.shape == (4, 5, 0)
    assert decoded.dtype == bool


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((3, 3, 1), np.uint8), "bool"),
        (np.zeros((3, 3), bool), "rank"),
        (np.zeros(0, bool), "rank"),
        ("mask", "bool"),
    ],
)
def test_invalid_masks_are_refused(value: Any, message: str) -> None:
    """A mask with another dtype or rank is refused."""
    with pytest.raises(SampleError, match=message):
        codec_for(TensorSpec("binary_mask")).encode(value)


def test_stored_masks_are_small() -> None:
    """A packed, compressed mask of seven objects takes less than 0.1% of the size of its bools."""
    mask = np.zeros((480, 640, 7), bool)
    mask[100:300, 100:300] = True
    assert len(codec_for(TensorSpec("binary_mask")).encode(mask).data) < mask.nbytes / 1000


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_of_another_shape_are_refused(compression: str) -> None:
    """Bytes that do not match the shape raise an error, and never give a wrong mask."""
    codec = codec_for(TensorSpec("binary_mask", compression=compression))
    blob = codec.encode(_mask(4, 4, 4))
    with pytest.raises(CorruptionError):
        codec.decode(blob._replace(shape=(40, 40, 4)))


def test_masked_masks_are_refused() -> None:
    """A masked array of pixels is refused, because its mask would be lost."""
    with pytest.raises(SampleError, match="filled"):
        codec_for(TensorSpec("binary_mask")).encode(
            np.ma.MaskedArray(np.ones((2, 2, 1), bool), mask=True)
        )
