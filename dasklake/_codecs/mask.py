"""Boolean masks: one bit a pixel before they are compressed, or run lengths.

Packing bits first makes them 3 to 9 times smaller than compressing the bytes of the bools, and
takes 0.2 to 0.4 ms for a mask of 2.2 MB; no axis has to be moved for that. Masks that come as run
lengths, as annotations do, never become pixels where the tensor's compression is ``"rle"``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, check_size, from_blob
from dasklake._codecs.convert import refuse_masked, to_shape
from dasklake._schema.run_lengths import RunLengthMasks, from_pixels, to_pixels
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

__all__ = ["MaskCodec"]

_PACKED = "packbits-"
_RUNS = "rle"

#: Between the run lengths of two masks; no letter of theirs.
_BETWEEN = b"\n"


class MaskCodec(Codec):
    """Codec of ``binary_mask``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        compression = spec.compression
        self._packed = compression is not None and compression.startswith(_PACKED)
        self._inner = compression.removeprefix(_PACKED) if compression else None

    def encode(self, value: object) -> Encoded:
        """Pack and compress the masks of one sample."""
        if isinstance(value, RunLengthMasks):
            if self.spec.compression == _RUNS:
                # Checked by its shape alone: no pixel of it is ever made.
                shape = np.broadcast_to(np.bool_(), value.shape)
                to_shape(shape, self.spec.shape, self.spec.kind.ranks)
                return Blob(_BETWEEN.join(value.counts), value.shape)
            value = to_pixels(value)
        refuse_masked(value)
        array = np.asarray(value)
        if array.dtype != np.dtype(bool):
            if array.size or array.dtype.kind not in "biufc":
                raise SampleError(
                    f"dtype {array.dtype} is not bool. Convert the mask with .astype(bool), or "
                    "compare it with what it should be (mask == 1)."
                )
            array = array.astype(bool)
        array = np.ascontiguousarray(to_shape(array, self.spec.shape, self.spec.kind.ranks))
        if self.spec.compression == _RUNS:
            masks = from_pixels(array.reshape(*array.shape[:2], -1))
            return Blob(_BETWEEN.join(masks.counts), array.shape)
        stored: npt.NDArray[Any] = np.packbits(array.reshape(-1)) if self._packed else array
        return as_blob(stored, array.shape, self._inner)

    def decode(self, stored: Encoded) -> object:
        """Return the masks as bools."""
        if self.spec.compression == _RUNS:
            return _pixels(stored)
        if not self._packed:
            return from_blob(stored, np.dtype(bool), self._inner)
        pixels = check_size(stored, 1)
        packed = stored._replace(shape=(-(-pixels // 8),))
        bits = from_blob(packed, np.dtype(np.uint8), self._inner)
        return np.unpackbits(bits, count=pixels).view(bool).reshape(stored.shape)


def _pixels(stored: Blob) -> npt.NDArray[np.bool_]:
    height, width, *rest = stored.shape
    count = math.prod(rest)
    counts = tuple(bytes(stored.data).split(_BETWEEN)) if count else ()
    if len(counts) != count:
        raise CorruptionError(
            f"A sample of shape {stored.shape} has run lengths of {len(counts)} masks. "
            "Restore its chunk from a copy."
        )
    try:
        return to_pixels(RunLengthMasks(height, width, counts)).reshape(stored.shape)
    except SampleError as error:
        raise CorruptionError(
            f"Masks cannot be read: {error.message}. Restore their chunk from a copy."
        ) from error
