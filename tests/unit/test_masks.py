"""Masks from run lengths and polygons: pixels as of pycocotools, and errors with the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as reference

from dasklake import masks
from dasklake._codecs.registry import codec_for
from dasklake._schema.run_lengths import from_pixels, to_pixels
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

#: Boolean arrays of shape (height, width, masks).
pixels = npst.arrays(bool, st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)))

SQUARE = [1.0, 1, 4, 1, 4, 4, 1, 4]
HALF = [0, 0, 5, 0, 0, 5.0]


def drawn(polygons: list[list[float]], height: int, width: int) -> np.ndarray[Any, Any]:
    """Draw a mask as annToMask of pycocotools does."""
    whole = reference.merge(reference.frPyObjects(polygons, height, width))
    return np.asarray(reference.decode(whole)).astype(bool)


@given(pixels)
def test_run_lengths_are_those_of_coco(dense: np.ndarray[Any, Any]) -> None:
    """Pixels are encoded byte for byte as by pycocotools, and decoded to equal pixels."""
    decoded = from_pixels(dense)
    assert decoded.shape == dense.shape
    assert np.array_equal(to_pixels(decoded), dense)
    assert np.asarray(decoded).flags.c_contiguous
    if dense.size:
        encoded = reference.encode(np.asfortranarray(dense.view("uint8")))
        assert [rle["counts"] for rle in encoded] == list(decoded.counts)


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9))
def test_long_runs(lengths: list[int]) -> None:
    """Run lengths of up to 31 bits are encoded and decoded."""
    total = sum(lengths)
    decoded = masks.from_rle([{"counts": lengths}], size=(1, total))
    again = masks.from_rle([{"counts": decoded.counts[0].decode()}], size=(1, total))
    assert again == decoded


def test_every_form_of_run_lengths() -> None:
    """Bytes, text and lists of run lengths are equivalent."""
    dense = np.zeros((4, 6, 1), bool)
    dense[1:3, 2:5] = True
    (packed,) = from_pixels(dense).counts
    lengths = [9, 2, 2, 2, 2, 2, 5]
    rles: list[dict[str, Any]] = [
        {"counts": packed},
        {"size": [4, 6], "counts": packed.decode()},
        {"counts": lengths},
    ]
    decoded = np.asarray(masks.from_rle(rles, size=(4, 6)))
    assert np.array_equal(decoded, np.repeat(dense, 3, axis=2))


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    """Several polygons are one mask. Polygons without three corners cover no pixels."""
    decoded = masks.from_polygons([[SQUARE], [SQUARE, HALF], [], [[1, 1, 2, 2]]], size=(6, 8))
    dense = np.asarray(decoded)
    assert decoded.shape == (6, 8, 4)
    assert np.array_equal(dense[:, :, 0], drawn([SQUARE], 6, 8))
    assert np.array_equal(dense[:, :, 1], drawn([SQUARE, HALF], 6, 8))
    assert not dense[:, :, 2:].any()
    assert masks.from_polygons([], size=(6, 8)).shape == (6, 8, 0)


@pytest.mark.parametrize(
    ("rle", "text"),
    [
        ({"counts": [1, 2]}, "cover 24 pixels, got 3"),
        ({"counts": b"PPYo1"}, "mask 0"),
        ({"counts": "ü"}, "compressed form"),
        ({"counts": b"o"}, "compressed form"),
        ({"counts": [25, -1]}, "a string or a list"),
        ({"counts": [2**32]}, "fit into 32 bits"),
        ({"counts": [0.5]}, "a string or a list"),
        ({}, "a string or a list"),
        ({"size": [6, 4], "counts": [24]}, r"got \[6, 4\]"),
    ],
)
def test_damaged_run_lengths_are_refused(rle: dict[str, Any], text: str) -> None:
    """Invalid run lengths, or those of another image, are an error with the mask number."""
    with pytest.raises(SampleError, match=text):
        masks.from_rle([rle], size=(4, 6))


@pytest.mark.parametrize("polygon", [[1, 2, 3], ["a", 1], [0, 0, 1, np.inf, 1, 1], 5])
def test_damaged_polygons_are_refused(polygon: Any) -> None:
    """A polygon that is not a list of pairs of numbers is an error with the mask number."""
    with pytest.raises(SampleError, match="mask 1"):
        masks.from_polygons([[SQUARE], [polygon]], size=(4, 6))


@pytest.mark.parametrize("size", [(4,), "ab", (-1, 4), None])
def test_sizes_are_checked(size: Any) -> None:
    """The size of an image must be its height and width."""
    with pytest.raises(SampleError, match="image"):
        masks.from_rle([], size=size)


@pytest.mark.parametrize("compression", ["rle", "packbits-zstd", "lz4", "none"])
def test_every_compression_takes_pixels_and_run_lengths(compression: str) -> None:
    """With every compression, pixels and run lengths are read as the same pixels."""
    codec = codec_for(TensorSpec("binary_mask", compression=compression))
    dense = np.zeros((5, 7, 2), bool)
    dense[1:3, 2:4, 1] = True
    for value in (dense, from_pixels(dense), dense[:, :, :0], from_pixels(dense[:, :, :0])):
        decoded = codec.decode(codec.encode(value))
        assert isinstance(decoded, np.ndarray)
        assert decoded.dtype == bool
        assert np.array_equal(decoded, np.asarray(value))


def test_run_lengths_are_stored_as_they_are() -> None:
    """A tensor of run lengths stores COCO's bytes, one mask a line, without creating pixels."""
    codec = codec_for(TensorSpec("binary_mask", compression="rle"))
    wide = masks.from_rle([{"counts": [2**31]}, {"counts": [0, 2**31]}], size=(2**15, 2**16))
    stored = codec.encode(wide)
    assert stored == Blob(b"\n".join(wide.counts), (2**15, 2**16, 2))


def test_run_lengths_have_to_fit_the_tensor() -> None:
    """A fixed axis of the tensor is checked for run lengths too."""
    codec = codec_for(TensorSpec("binary_mask", shape=(4, 6, None), compression="rle"))
    with pytest.raises(SampleError, match="axis"):
        codec.encode(masks.from_rle([{"counts": [25]}], size=(5, 5)))


@pytest.mark.parametrize("data", [b"", b"0\n0\n0", b"!!\n!!", b"1\n1"])
def test_damaged_masks_are_detected(data: bytes) -> None:
    """Stored run lengths that do not fit the shape are corruption."""
    codec = codec_for(TensorSpec("binary_mask", compression="rle"))
    with pytest.raises(CorruptionError):
        codec.decode(Blob(data, (2, 3, 2)))
