"""Codec of boolean masks, stored as packed bits, bools or run lengths.

Compressed packed bits are 3 to 9 times smaller than compressed bools. Packing a mask of 2.2 MB takes
0.2 to 0.4 ms, and no axis has to be moved. With the compression ``"rle"``, masks that are given as
run lengths (as in annotations) are never decoded to pixels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, decoded_size, from_blob
from dasklake._codecs.convert import fit_shape, refuse_masked, to_shape
from dasklake._codecs.decoded_origins import remember
from dasklake._schema.run_lengths import RunLengthMasks, from_pixels, to_pixels
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

_PACKED = "packbits-"
_RLE = "rle"

#: Separator of the run lengths of two masks; run lengths never contain it.
_SEPARATOR = b"\n"


class MaskCodec(Codec):
    """Codec of ``binary_mask``.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        compression = spec.compression
        self._packed = compression is not None and compression.startswith(_PACKED)
        self._inner = compression.removeprefix(_PACKED) if compression else None

    def encode(self, value: object) -> Encoded:
        """Pack and compress the masks of one sample."""
        if isinstance(value, RunLengthMasks):
            if self.spec.compression == _RLE:
                fit_shape(value.shape, self.spec.shape, self.spec.kind.ranks)
                return Blob(_SEPARATOR.join(value.counts), value.shape)
            value = to_pixels(value)
        refuse_masked(value)
        array = np.asarray(value)
        if array.dtype != np.dtype(bool):
            if array.size or array.dtype.kind not in "biufc":
                raise SampleError(
                    f"a mask must have dtype bool, got {array.dtype}. Convert it with .astype(bool), "
                    "or compare it with a value (mask == 1)."
                )
            array = array.astype(bool)
        array = np.ascontiguousarray(to_shape(array, self.spec.shape, self.spec.kind.ranks))
        if self.spec.compression == _RLE:
            masks = from_pixels(array.reshape(*array.shape[:2], math.prod(array.shape[2:])))
            return Blob(_SEPARATOR.join(masks.counts), array.shape)
        stored: npt.NDArray[Any] = np.packbits(array.reshape(-1)) if self._packed else array
        return as_blob(stored, array.shape, self._inner)

    @property
    def has_separate_masks(self) -> bool:
        """True if :meth:`decode_part` decodes only the masks that it returns."""
        return self.spec.compression == _RLE

    def decode_part(self, stored: Blob, index: tuple[int | slice, ...]) -> object:
        """Decode some of the masks that are stored as run lengths, and return a part of them.

        Parameters
        ----------
        stored : Blob
            The stored masks.
        index : tuple of (int or slice)
            One for each axis of the masks.
        """
        if len(stored.shape) != 3:
            return _pixels(stored.shape, _counts(stored))[index]
        *inside, last = index
        counts = _counts(stored)
        chosen = counts[last] if isinstance(last, slice) else counts[last : last + 1]
        pixels = _pixels((*stored.shape[:2], len(chosen)), chosen)
        return pixels[(*inside, slice(None) if isinstance(last, slice) else 0)]

    def decode(self, stored: Encoded) -> object:
        """Return the masks as an array of bools."""
        if self.spec.compression == _RLE:
            pixels = _pixels(stored.shape, _counts(stored))
            remember(pixels, stored, self)  # run lengths may be written in several ways
            return pixels
        if not self._packed:
            return from_blob(stored, np.dtype(bool), self._inner)
        size = decoded_size(stored, 1)
        packed = stored._replace(shape=(-(-size // 8),))
        bits = from_blob(packed, np.dtype(np.uint8), self._inner)
        return np.unpackbits(bits, count=size).view(bool).reshape(stored.shape)


def run_lengths_of(stored: Blob) -> RunLengthMasks:
    """Return the masks of a sample that are stored as run lengths.

    Raises
    ------
    CorruptionError
        The stored bytes are not those of as many masks.
    """
    return RunLengthMasks(stored.shape[0], stored.shape[1], _counts(stored))


def _counts(stored: Blob) -> tuple[bytes, ...]:
    """Return the run lengths of each mask of a sample."""
    count = math.prod(stored.shape[2:])
    counts = tuple(bytes(stored.data).split(_SEPARATOR)) if count else ()
    if len(counts) != count:
        raise CorruptionError(
            f"A sample of shape {stored.shape} must have run lengths of {count} masks, got "
            f"{len(counts)}. "
            "Restore its chunk from a copy."
        )
    return counts


def _pixels(shape: tuple[int, ...], counts: tuple[bytes, ...]) -> npt.NDArray[np.bool_]:
    try:
        return to_pixels(RunLengthMasks(shape[0], shape[1], counts)).reshape(shape)
    except SampleError as error:
        raise CorruptionError(
            f"Masks cannot be decoded: {error.message}. Restore their chunk from a copy."
        ) from error
