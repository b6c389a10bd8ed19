"""Masks: any shape comes back, small on storage."""

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
def test_masks_come_back(compression: str, shape: tuple[int, ...]) -> None:
    """Whatever the compression, and however empty, a mask comes back as it was."""
    codec = codec_for(TensorSpec("binary_mask", compression=compression))
    mask = _mask(*shape)
    found: Any = codec.decode(codec.encode(mask))
    assert found.dtype == bool
    assert found.shape == shape
    assert np.array_equal(found, mask)


def test_a_transposed_mask_comes_back() -> None:
    """How the mask lies in memory does not matter."""
    mask = _mask(3, 4, 5).transpose(1, 2, 0)
    codec = codec_for(TensorSpec("binary_mask"))
    assert np.array_equal(codec.decode(codec.encode(mask)), mask)  # type: ignore[arg-type] # array


def test_an_empty_mask_of_another_dtype_is_taken() -> None:
    """No objects are no objects, whatever dtype the empty array came out with."""
    codec = codec_for(TensorSpec("binary_mask"))
    found: Any = codec.decode(codec.encode(np.zeros((4, 5, 0))))
    assert found.shape == (4, 5, 0)
    assert found.dtype == bool


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (np.zeros((3, 3, 1), np.uint8), "bool"),
        (np.zeros((3, 3), bool), "rank"),
        (np.zeros(0, bool), "rank"),
        ("mask", "bool"),
    ],
)
def test_what_is_no_mask_is_refused(value: Any, word: str) -> None:
    """Other dtypes and ranks are refused."""
    with pytest.raises(SampleError, match=word):
        codec_for(TensorSpec("binary_mask")).encode(value)


def test_objects_take_little_room() -> None:
    """Packed and compressed, a dense mask of seven objects takes a thousandth of its bools."""
    mask = np.zeros((480, 640, 7), bool)
    mask[100:300, 100:300] = True
    assert len(codec_for(TensorSpec("binary_mask")).encode(mask).data) < mask.nbytes / 1000


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_of_another_shape_are_found(compression: str) -> None:
    """Bytes that are not those of the shape are an error, not a wrong mask."""
    codec = codec_for(TensorSpec("binary_mask", compression=compression))
    blob = codec.encode(_mask(4, 4, 4))
    with pytest.raises(CorruptionError):
        codec.decode(blob._replace(shape=(40, 40, 4)))


def test_masked_masks_are_refused() -> None:
    """A masked array of pixels is refused: what hides some of them would be lost."""
    with pytest.raises(SampleError, match="filled"):
        codec_for(TensorSpec("binary_mask")).encode(
            np.ma.MaskedArray(np.ones((2, 2, 1), bool), mask=True)
        )
