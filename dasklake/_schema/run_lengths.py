"""Masks as run lengths, the way COCO writes them, and what they are as pixels.

The pixels of a mask are walked down the columns; a run length says how many of them in a row are
alike, starting with those that are not in the mask. COCO's compressed form writes each run length,
from the fourth on less the one two before it, in groups of five bits, the lowest first; each group
is a letter from ``0`` on, its sixth bit says that another follows.

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

__all__ = ["RunLengthMasks", "from_pixels", "packed", "run_lengths", "to_pixels"]

_FIRST_LETTER = ord("0")
_BITS, _SIGN, _MORE = 0x1F, 0x10, 0x20

#: The longest run length, and the letters of what may be left of it: 32 bits and a sign.
_MOST = 2**32 - 1
_LONGEST = 7


@dataclass(frozen=True, slots=True)
class RunLengthMasks:
    """The masks of one sample as run lengths; made by :mod:`dasklake.masks`.

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
        """Height, width and number of masks, as of the array of pixels."""
        return self.height, self.width, len(self.counts)

    def __array__(
        self,
        dtype: Any = None,
        copy: bool | None = None,  # noqa: FBT001 # numpy's signature
    ) -> npt.NDArray[Any]:
        """Return the masks as pixels: bool, of shape ``(height, width, masks)``."""
        if copy is False:
            raise ValueError("Run lengths become pixels only in a copy. Leave copy=False out.")
        return to_pixels(self).astype(dtype or bool, copy=False)


def run_lengths(packed_counts: bytes, pixels: int) -> npt.NDArray[np.int64]:
    """Return the run lengths of a mask from COCO's compressed form.

    Raises
    ------
    SampleError
        They are no run lengths, or do not cover ``pixels`` pixels.
    """
    letters = np.frombuffer(packed_counts, np.uint8).astype(np.int64) - _FIRST_LETTER
    lasts = np.flatnonzero(~letters & _MORE)
    whole = not len(letters) or (len(lasts) and lasts[-1] == len(letters) - 1)
    if not whole or (letters < 0).any() or (letters > (_MORE | _BITS)).any():
        raise SampleError("its run lengths are not in COCO's compressed form")
    starts = np.concatenate([[0], lasts[:-1] + 1]) if len(lasts) else lasts
    lengths = lasts + 1 - starts
    if (lengths > _LONGEST).any():
        raise SampleError("a run length of it is out of range")
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    counts = np.add.reduceat((letters & _BITS) << shifts, starts) if len(starts) else starts.copy()
    counts -= np.where(letters[lasts] & _SIGN, 1 << (5 * lengths), 0)
    for first in (1, 2):
        np.cumsum(counts[first::2], out=counts[first::2])
    if (counts < 0).any() or counts.sum() != pixels:
        raise SampleError(f"its run lengths cover {counts.sum()} pixels, not {pixels}")
    return counts


def packed(counts: npt.NDArray[np.int64]) -> bytes:
    """Return run lengths in COCO's compressed form.

    Raises
    ------
    SampleError
        One is longer than 32 bits say.
    """
    if counts.max(initial=0) > _MOST:
        raise SampleError("a run length of it is out of range")
    rest = counts.copy()
    rest[3:] -= counts[1:-2]
    letters = np.zeros((len(counts), _LONGEST), np.uint8)
    used = np.zeros((len(counts), _LONGEST), bool)
    more = np.ones(len(counts), bool)
    for place in range(_LONGEST):
        group = rest & _BITS
        rest >>= 5
        used[:, place] = more
        more &= rest != np.where(group & _SIGN, -1, 0)
        letters[:, place] = _FIRST_LETTER + (group | np.where(more, _MORE, 0))
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
        Run lengths do not fit the image.
    """
    height, width, count = masks.shape
    if not count:
        return np.zeros(masks.shape, bool)
    # Written down the columns as they come, then turned pixel by pixel: both walk memory in order.
    columns = np.empty((width * height, count), np.uint8)
    for place, each in enumerate(masks.counts):
        lengths = run_lengths(each, height * width)
        columns[:, place] = np.repeat(np.arange(len(lengths), dtype=np.uint8) & 1, lengths)
    whole = columns.view(f"V{count}").reshape(width, height)
    return np.ascontiguousarray(whole.T).view(bool).reshape(masks.shape)


def from_pixels(pixels: npt.NDArray[np.bool_]) -> RunLengthMasks:
    """Return masks of shape ``(height, width, masks)`` as run lengths."""
    height, width, count = pixels.shape
    planes = np.ascontiguousarray(pixels.transpose(2, 1, 0)).reshape(count, height * width)
    return RunLengthMasks(height, width, tuple(packed(_runs(plane)) for plane in planes))


def _runs(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    changes = np.flatnonzero(plane[1:] != plane[:-1]) + 1
    first = [0] if len(plane) and plane[0] else []
    ends = np.concatenate([first, changes, [len(plane)]]).astype(np.int64)
    ends[1:] -= ends[:-1].copy()
    return ends
