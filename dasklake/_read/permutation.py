"""Permute any number of values pseudo-randomly, in constant memory."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from math import isqrt

import numpy as np
import numpy.typing as npt

__all__ = ["Permutation", "key_of"]

Integers = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

#: Permutations of at most so many values are computed once, by sorting: that is exact for any number
#: of values, where a Feistel network over very few values would favour some permutations.
_MAX_TABLE = 2**16

#: Rounds of the Feistel network. Four make it pseudo-random if the round function is.
_ROUNDS = 6

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = (np.uint64(bits) for bits in (27, 30, 31, 32))


def key_of(*parts: int | str) -> int:
    """Return a 64-bit key that depends on all parts."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mixed(values: _Words, key: int) -> _Words:
    """Return 64-bit hashes of values: the steps of SplitMix64, which map 64-bit numbers one to one."""
    hashes = values * _GOLDEN
    hashes += np.uint64(key)
    hashes ^= hashes >> _S30
    hashes *= _MIX_1
    hashes ^= hashes >> _S27
    hashes *= _MIX_2
    hashes ^= hashes >> _S31
    return hashes


class Permutation:
    """A pseudo-random permutation of ``range(n)``, in memory that does not grow with ``n``.

    Few values are sorted by their hashes. For more, a value is written as two digits of nearly equal
    base, and each round adds a hash of one digit to the other: a Feistel network. The few results
    that are not below ``n`` are permuted again (cycle walking).

    Parameters
    ----------
    n : int
        Number of values, below 2**63.
    key : int
        Selects the permutation.

    Examples
    --------
    >>> import numpy as np
    >>> from dasklake._read.permutation import Permutation
    >>> sorted(Permutation(5, key=1)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, n: int, key: int) -> None:
        self._n = n
        self._key = key
        self._high = isqrt(max(n - 1, 0)) + 1
        self._low = -(-n // self._high)

    def __len__(self) -> int:
        return self._n

    def __call__(self, positions: Integers) -> Integers:
        """Return the values at some positions, each from 0 to ``n - 1``."""
        if self._n <= _MAX_TABLE:
            return self._table[positions]
        values = self._walked(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self._n))
        while len(outside):
            values[outside] = self._walked(values[outside])
            outside = outside[values[outside] >= np.uint64(self._n)]
        return values.astype(np.int64)

    @cached_property
    def _table(self) -> Integers:
        hashes = _mixed(np.arange(self._n, dtype=np.uint64), self._key)
        # The hashes differ, so that every sorting algorithm gives the same result.
        return np.argsort(hashes).astype(np.int64)

    @cached_property
    def _keys(self) -> tuple[int, ...]:
        return tuple(key_of("round", self._key, number) for number in range(_ROUNDS))

    def _walked(self, values: _Words) -> _Words:
        """Return the permutation of ``range(high * low)``, which is slightly larger."""
        high, low = np.uint64(self._high), np.uint64(self._low)
        upper, lower = np.divmod(values, low)
        for number, key in enumerate(self._keys):
            if number % 2:
                lower = _sum_below(lower, _mixed(upper, key), low)
            else:
                upper = _sum_below(upper, _mixed(lower, key), high)
        return upper * low + lower


def _sum_below(digits: _Words, hashes: _Words, base: np.uint64) -> _Words:
    """Return the sums of digits and hashes modulo a base below 2**32."""
    # The upper half of a hash, scaled to the base: no slow division.
    total = digits + ((hashes >> _S32) * base >> _S32)
    return np.where(total >= base, total - base, total)
