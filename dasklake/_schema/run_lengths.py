"""Masks as COCO's run lengths, and their conversion from and to pixels.

Pixels are counted column by column. Run lengths alternate between pixels outside and inside the
mask, starting outside. COCO's compressed form subtracts from each run length, from the fourth on,
the one two before it. It writes the result in groups of five bits, the lowest first. Each group is
a letter from ``0`` on; its sixth bit is set if another group follows.

References
----------
.. [1] ``rleToString`` and ``rleFrString`` in ``maskApi.c`` of the COCO API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake.exceptions import SampleError

_FIRST_LETTER = ord("0")
_BITS, _SIGN, _MORE = 0x1F, 0x10, 0x20

#: The longest run length, and the most letters that its difference takes: 32 bits and a sign.
_MAX_LENGTH = 2**32 - 1
_MAX_LETTERS = 7

#: Bytes of pixels that are decoded column by column before they are transposed.
_MAX_COPY = 128 * 2**20


@dataclass(frozen=True, slots=True)
class RunLengthMasks:
    """The masks of one sample as run lengths. :mod:`dasklake.masks` builds them.

    Attributes
    ----------
    height, width : int
        Size of the image, in pixels.
    counts : tuple of bytes
        Run lengths of each mask, in COCO's compressed form.
    """

    height: int
    width: int
    counts: tuple[bytes, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and number of masks: the shape of the array of pixels."""
        return self.height, self.width, len(self.counts)

    def __array__(
        self,
        dtype: Any = None,
        copy: bool | None = None,  # noqa: FBT001 # numpy's signature
    ) -> npt.NDArray[Any]:
        """Return the masks as pixels: bool, of shape ``(height, width, masks)``."""
        if copy is False:
            raise ValueError(
                "copy must not be False: pixels of run lengths are a new array. Leave it out."
            )
        return to_pixels(self).astype(dtype or bool, copy=False)


def expand_counts(compressed: bytes, pixels: int) -> npt.NDArray[np.int64]:
    """Return the run lengths of a mask from COCO's compressed form.

    Raises
    ------
    SampleError
        ``compressed`` is not valid, or does not cover ``pixels`` pixels.
    """
    letters = np.frombuffer(compressed, np.uint8).astype(np.int64) - _FIRST_LETTER
    ends = np.flatnonzero(~letters & _MORE)
    whole = not len(letters) or (len(ends) and ends[-1] == len(letters) - 1)
    if not whole or (letters < 0).any() or (letters > (_MORE | _BITS)).any():
        raise SampleError("run lengths must be in COCO's compressed form")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends + 1 - starts
    if (lengths > _MAX_LETTERS).any():
        raise SampleError("a run length must fit into 32 bits")
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    counts = np.add.reduceat((letters & _BITS) << shifts, starts) if len(starts) else starts.copy()
    counts -= np.where(letters[ends] & _SIGN, 1 << (5 * lengths), 0)
    for first in (1, 2):
        np.cumsum(counts[first::2], out=counts[first::2])
    if (counts < 0).any() or counts.sum() != pixels:
        raise SampleError(f"run lengths must cover {pixels} pixels, got {counts.sum()}")
    return counts


def compress_counts(counts: npt.NDArray[np.int64]) -> bytes:
    """Return run lengths in COCO's compressed form.

    Raises
    ------
    SampleError
        An item of ``counts`` does not fit into 32 bits.
    """
    if counts.max(initial=0) > _MAX_LENGTH:
        raise SampleError("a run length must fit into 32 bits")
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    letters = np.zeros((len(counts), _MAX_LETTERS), np.uint8)
    used = np.zeros((len(counts), _MAX_LETTERS), bool)
    more = np.ones(len(counts), bool)
    for position in range(_MAX_LETTERS):
        group = rest & _BITS
        rest >>= 5
        used[:, position] = more
        more &= rest != np.where(group & _SIGN, -1, 0)
        letters[:, position] = _FIRST_LETTER + (group | np.where(more, _MORE, 0))
    return letters[used].tobytes()


def to_pixels(masks: RunLengthMasks) -> npt.NDArray[np.bool_]:
    """Return masks as pixels.

    Returns
    -------
    numpy.ndarray
        bool, of shape ``(height, width, masks)``.

    Raises
    ------
    SampleError
        The run lengths do not cover the image.
    """
    height, width, count = masks.shape
    if not count:
        return np.zeros(masks.shape, bool)
    # Some masks at a time: a second copy of all pixels could exceed the memory.
    together = min(count, max(1, _MAX_COPY // max(1, height * width)))
    pixels = np.empty(masks.shape, np.uint8)
    for first in range(0, count, together):
        counts = masks.counts[first : first + together]
        # Fill column by column, then transpose whole pixels: both access memory in order.
        columns = np.empty((width * height, len(counts)), np.uint8)
        for index, compressed in enumerate(counts):
            lengths = expand_counts(compressed, height * width)
            columns[:, index] = np.repeat(np.arange(len(lengths), dtype=np.uint8) & 1, lengths)
        whole = f"V{len(counts)}"
        transposed = columns.view(whole).reshape(width, height).T
        pixels[:, :, first : first + together].view(whole)[:, :, 0] = transposed
    return pixels.view(bool)


def from_pixels(pixels: npt.NDArray[np.bool_]) -> RunLengthMasks:
    """Return masks of shape ``(height, width, masks)`` as run lengths."""
    height, width, count = pixels.shape
    planes = np.ascontiguousarray(pixels.transpose(2, 1, 0)).reshape(count, height * width)
    return RunLengthMasks(height, width, tuple(compress_counts(_runs(plane)) for plane in planes))


def _runs(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    changes = np.flatnonzero(plane[1:] != plane[:-1]) + 1
    first = [0] if len(plane) and plane[0] else []
    ends = np.concatenate([first, changes, [len(plane)]]).astype(np.int64)
    ends[1:] -= ends[:-1].copy()
    return ends
