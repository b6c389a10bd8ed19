"""Compute the order in which an epoch reads samples, without storing it.

An order maps *positions* of an epoch to *rows*: indices into the list of the samples that are read.
Any position is computed alone, in constant memory, so a stopped epoch is resumed by its position.
The order depends on the number of samples, the seed, the epoch, and how samples are shuffled; not on
processes, the platform, or the releases of libraries.

Interface
---------
``Order(n, shuffle=True, seed=0, epoch=0, block=1, window=None, weights=None)``
``len(order)``                 number of positions, ``n``
``order.rows(start, stop)``    rows of consecutive positions, int64
``order.at(positions)``        rows of any positions, int64: one call for many is faster
``order.block, order.window``  the values in use, kept in the state of a loader
``class_weights(labels)``      weights of a class-balanced order
``default_block(nbytes)``      block for storage on which each request waits
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._read.permutation import Permutation, key_of
from dasklake.exceptions import InvalidInputError

__all__ = ["Order", "class_weights", "default_block"]

Integers = npt.NDArray[np.int64]

#: Fewest samples, and fewest blocks, that a window mixes by default.
_WINDOW_SAMPLES, _WINDOW_BLOCKS = 4096, 64

#: Bytes of a block by default: one request of this size uses a connection well. Most samples of a
#: block: more of them would put long runs of neighbours into one window.
_BLOCK_BYTES, _BLOCK_SAMPLES = 2**20, 1024

#: Windows whose permutations are kept.
_KEPT_WINDOWS = 4

_WORD = 2**64


class Order:
    """The order in which one epoch reads ``n`` samples.

    Parameters
    ----------
    n : int
        Number of samples.
    shuffle : bool, default True
        With False, position ``i`` is row ``i``.
    seed : int, default 0
        Seed of the shuffle. Each epoch of a seed has another order.
    epoch : int, default 0
        Number of the epoch.
    block : int, default 1
        Consecutive rows that stay together until the shuffle inside a window. With 1, all ``n`` rows
        are permuted, and ``window`` has no effect. With more, the blocks are permuted; positions
        then run through windows of blocks, and the rows of each window are permuted.
    window : int, optional
        Blocks of a window. By default, as many as have 4,096 rows, at least 64. A reader that keeps
        a window in memory reads each block once.
    weights : array_like, optional
        Weight of each row: finite, not negative, and not all 0. The epoch still has ``n`` positions,
        and row ``i`` is read ``n * weights[i] / sum(weights)`` times, rounded up or down. Which of
        both depends on the epoch.

    Raises
    ------
    InvalidInputError
        An argument is invalid.

    Examples
    --------
    >>> from dasklake._read.order import Order
    >>> Order(5, shuffle=False).rows(1, 4)
    array([1, 2, 3])
    >>> order = Order(10, seed=7)
    >>> order.rows(0, 10)
    array([9, 1, 2, 6, 7, 0, 8, 4, 5, 3])
    >>> order.rows(4, 6)
    array([7, 0])
    >>> sorted(Order(4, weights=[2, 1, 1, 0]).rows(0, 4).tolist())
    [0, 0, 1, 2]
    """

    def __init__(
        self,
        n: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        block: int = 1,
        window: int | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> None:
        self._n = _integer(n, "n", 0)
        self.shuffle = bool(shuffle)
        self.seed = _integer(seed, "seed")
        self.epoch = _integer(epoch, "epoch", 0)
        self.block = _integer(block, "block", 1)
        self.window = (
            _default_window(self.block) if window is None else _integer(window, "window", 1)
        )
        self._ends = None if weights is None else _cumulative(weights, self._n)
        self._windows: dict[int, Permutation] = {}

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        if not self.shuffle:
            return f"Order({self._n}, shuffle=False)"
        return (
            f"Order({self._n}, seed={self.seed}, epoch={self.epoch}, block={self.block}, "
            f"window={self.window})"
        )

    @property
    def weights_digest(self) -> bytes:
        """Digest of the weights, empty without weights."""
        if self._ends is None:
            return b""
        return blake2b(self._ends.astype("<f8").tobytes(), digest_size=16).digest()

    def rows(self, start: int, stop: int) -> Integers:
        """Return the rows at consecutive positions.

        Parameters
        ----------
        start, stop : int
            First position, and one after the last, from 0 to ``len(self)``.

        Returns
        -------
        numpy.ndarray
            int64, shape ``(stop - start,)``.
        """
        return self.at(np.arange(start, stop, dtype=np.int64))

    def at(self, positions: Integers) -> Integers:
        """Return the rows at any positions.

        Parameters
        ----------
        positions : numpy.ndarray
            int64, each from 0 to ``len(self) - 1``.

        Returns
        -------
        numpy.ndarray
            int64, of the same shape.
        """
        if len(positions) and not (positions.min() >= 0 and positions.max() < self._n):
            raise IndexError(f"A position is out of range for {self._n} positions.")
        if not self.shuffle:
            drawn = positions
        elif self.block == 1 or self._n <= self.block:
            drawn = self._rows(positions)
        else:
            drawn = self._in_blocks(positions)
        return drawn if self._ends is None else self._weighted(drawn)

    # ------------------------------------------------------------------------------------ shuffle

    @cached_property
    def _rows(self) -> Permutation:
        return Permutation(self._n, self._key_of("rows"))

    @cached_property
    def _blocks(self) -> Permutation:
        """Permutes all blocks but the last, which may be short."""
        return Permutation(self._block_count - 1, self._key_of("blocks"))

    @cached_property
    def _block_count(self) -> int:
        return -(-self._n // self.block)

    @cached_property
    def _missing(self) -> int:
        """Rows that the last block has less than the others."""
        return self._block_count * self.block - self._n

    @cached_property
    def _short_index(self) -> int:
        """Index of the last, short block among the permuted blocks."""
        return self._key_of("short block") * self._block_count // _WORD

    def _key_of(self, purpose: str, number: int = 0) -> int:
        return key_of(purpose, self.seed, self.epoch, number)

    def _begin(self, index: int) -> int:
        """Return the position at which the block at an index begins, before the shuffle inside."""
        return index * self.block - (self._missing if index > self._short_index else 0)

    def _as_if_full(self, positions: Integers) -> Integers:
        """Count the rows that the short block does not have as if it had them."""
        after = positions >= self._begin(self._short_index + 1)
        return np.where(after, positions + self._missing, positions)

    def _in_blocks(self, positions: Integers) -> Integers:
        """Return the rows of an order that permutes blocks."""
        mixed = np.empty_like(positions)
        for window, inside in self._by_window(positions):
            begin, end = self._window_range(window)
            mixed[inside] = self._window(window, end - begin)(positions[inside] - begin) + begin
        indices, offsets = np.divmod(self._as_if_full(mixed), self.block)
        after = (indices > self._short_index).astype(np.int64)
        is_short = indices == self._short_index
        # A permutation of no blocks is never asked.
        blocks = np.where(is_short, self._block_count - 1, 0)
        blocks[~is_short] = self._blocks((indices - after)[~is_short])
        return blocks * self.block + offsets

    def _window_range(self, window: int) -> tuple[int, int]:
        """Return the first position of a window, and one after its last."""
        first, last = window * self.window, min((window + 1) * self.window, self._block_count)
        return self._begin(first), self._begin(last)

    def _by_window(self, positions: Integers) -> Iterator[tuple[int, Any]]:
        """Yield the windows of some positions, and the positions' indices."""
        windows = self._as_if_full(positions) // (self.window * self.block)
        if len(windows) and (windows == windows[0]).all():
            yield int(windows[0]), slice(None)
            return
        by_window = np.argsort(windows, kind="stable")
        edges = np.flatnonzero(np.diff(windows[by_window])) + 1
        for begin, end in pairwise([0, *edges.tolist(), len(windows)]):
            if begin < end:
                inside = by_window[begin:end]
                yield int(windows[inside[0]]), inside

    def _window(self, window: int, rows: int) -> Permutation:
        permutation = self._windows.get(window)
        if permutation is None:
            permutation = Permutation(rows, self._key_of("window", window))
            for oldest in list(self._windows)[: 1 - _KEPT_WINDOWS]:
                self._windows.pop(oldest, None)
            self._windows[window] = permutation
        return permutation

    # ------------------------------------------------------------------------------------ weights

    def _weighted(self, draws: Integers) -> Integers:
        """Return the rows of draws: equal steps through the cumulative weights."""
        assert self._ends is not None  # noqa: S101 # for mypy
        total = self._ends[-1]
        offset = (self._key_of("offset") + 0.5) / _WORD
        points = np.minimum((draws + offset) * (total / self._n), np.nextafter(total, 0.0))
        rows: Integers = np.searchsorted(self._ends, points, side="right").astype(np.int64)
        return rows


def default_block(nbytes: float) -> int:
    """Return the rows of a block of about 1 MiB, at most 1,024.

    Parameters
    ----------
    nbytes : float
        Mean stored bytes of a sample.
    """
    return int(min(max(_BLOCK_BYTES // max(nbytes, 1.0), 1), _BLOCK_SAMPLES))


def class_weights(labels: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return weights with which each class is read equally often.

    Parameters
    ----------
    labels : array_like
        Class of each sample: integers or strings, shape ``(n,)``.

    Returns
    -------
    numpy.ndarray
        float64, shape ``(n,)``: 1 / (samples of the class).

    Examples
    --------
    >>> from dasklake._read.order import class_weights
    >>> class_weights([3, 3, 3, 8]).round(2)
    array([0.33, 0.33, 0.33, 1.  ])
    """
    values = np.asarray(labels)
    if values.ndim != 1:
        raise InvalidInputError(f"labels must have one axis, got the shape {values.shape}.")
    _, classes, counts = np.unique(values, return_inverse=True, return_counts=True)
    weights: npt.NDArray[np.float64] = 1.0 / counts[classes]
    return weights


def _default_window(block: int) -> int:
    return max(_WINDOW_BLOCKS, -(-_WINDOW_SAMPLES // block))


def _integer(value: Any, name: str, least: int | None = None) -> int:
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least) or number >= 2**63:
        kind = "an integer" if least is None else f"an integer of at least {least}"
        raise InvalidInputError(f"{name} must be {kind}, got {value!r}.")
    return number


def _cumulative(weights: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """Validate weights, and return their cumulative sums."""
    try:
        values = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"weights must be numbers, got {weights!r}.") from None
    if values.shape != (n,):
        raise InvalidInputError(
            f"weights must have one number for each of the {n} samples, got the shape "
            f"{values.shape}."
        )
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise InvalidInputError(
            f"weights must be finite and not negative, but the weight of sample {wrong[0]} is "
            f"{values[wrong[0]]}."
        )
    with np.errstate(over="ignore"):
        ends = np.cumsum(values)
    if n and not 0 < ends[-1] < np.inf:
        raise InvalidInputError(f"The sum of weights must be positive and finite, got {ends[-1]}.")
    return ends
