"""Check many pages with one native call, from the checksums of single pages.

crc32c is linear. The checksum of two joined pieces of data follows from those of the pieces::

    crc(A + B) = shift(crc(A), len(B)) ^ crc(B)

``shift`` appends zero bytes to data of which only the checksum is available. It is a linear map of
32 bits. So the checksum of any sequence of pages follows from the checksums of the pages, without
the data. The prefixes of a chunk are computed once, all of them at the same time. The checksum of the
pages from ``i`` to before ``j`` is then ``prefix[j] ^ shift(prefix[i], length)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import google_crc32c
import numpy as np
import numpy.typing as npt

#: Sequences of up to so many pages are compared page by page. With 3 pages both ways cost the same.
_FEW = 3

#: Pages that are compared page by page before the prefixes are computed, as a share of all pages:
#: the prefixes cost as much as comparing a sixteenth of them.
_RESERVE = 16

#: Shifts of up to this size in bytes are one step.
_OWN_TABLES = 2**18

_Crcs = npt.NDArray[np.uint32]


class PageChecksums:
    """The checksums of the pages of a chunk.

    Parameters
    ----------
    crcs : numpy.ndarray
        uint32, shape (pages,): crc32c of each page.
    page : int
        Bytes of a page.
    size : int
        Bytes of all pages. The last page may be short.

    Examples
    --------
    >>> import google_crc32c
    >>> import numpy as np
    >>> data = np.arange(10, dtype="u1")
    >>> crcs = [google_crc32c.value(data[i : i + 4]) for i in range(0, 10, 4)]
    >>> checksums = PageChecksums(np.array(crcs, "u4"), 4, 10)
    >>> checksums.first_damaged(1, data[4:]) is None
    True
    >>> data[9] = 0
    >>> checksums.first_damaged(0, data)
    2
    """

    def __init__(self, crcs: _Crcs, page: int, size: int) -> None:
        self._crcs = crcs
        self._page = page
        self._last = size - (len(crcs) - 1) * page
        self._prefixes: list[int] | None = None
        self._reserve = len(crcs) // _RESERVE

    def __len__(self) -> int:
        return len(self._crcs)

    def first_damaged(self, first: int, pages: npt.NDArray[np.uint8]) -> int | None:
        """Return the number of the first page that differs from its checksum, or None.

        Parameters
        ----------
        first : int
            Number of the first of the pages.
        pages : numpy.ndarray
            uint8: consecutive whole pages.
        """
        size = len(pages)
        count = -(-size // self._page)
        if count > _FEW:
            prefixes = self._prefixes or self._computed(count)
            if prefixes is not None:
                joined = prefixes[first + count] ^ shift(prefixes[first], size)
                if joined == google_crc32c.value(pages):
                    return None
        page, value = self._page, google_crc32c.value
        for number, offset in enumerate(range(0, size, page), first):
            if value(pages[offset : offset + page]) != self._crcs[number]:
                return number
        return None

    def _computed(self, count: int) -> list[int] | None:
        """Compute the prefixes, or return None as long as they do not pay off."""
        self._reserve -= count
        if self._reserve < 0:
            self._prefixes = _prefixes(self._crcs, self._page, self._last)
        return self._prefixes


def shift(crc: int, size: int) -> int:
    """Return the checksum of data with ``size`` zero bytes appended, apart from a constant.

    Parameters
    ----------
    crc : int
        crc32c of the data.
    size : int
        Bytes that follow the data.

    Examples
    --------
    >>> import google_crc32c
    >>> first, second = google_crc32c.value(b"dask"), google_crc32c.value(b"lake")
    >>> shift(first, 4) ^ second == google_crc32c.value(b"dasklake")
    True
    """
    while size:
        # Short sequences of pages have few sizes, each of which has tables of its own.
        part = size if size <= _OWN_TABLES else size & -size
        a, b, c, d = _lists(part)
        crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24]
        size -= part
    return crc


def _prefixes(crcs: _Crcs, page: int, last: int) -> list[int]:
    """Return the checksums of the first 0, 1, 2, ... pages, joined."""
    joined = np.array(crcs[:-1], np.uint32)
    span = 1
    # Before each step, an entry is the checksum of its page and up to ``span - 1`` pages before it.
    while span < len(joined):
        joined[span:] ^= _shift_all(joined[:-span], span * page)
        span *= 2
    prefixes: list[int] = [0, *joined.tolist()]
    return [*prefixes, shift(prefixes[-1], last) ^ int(crcs[-1])]


def _shift_all(crcs: _Crcs, size: int) -> _Crcs:
    """Shift many checksums; see :func:`shift`."""
    while size:
        bit = size & -size
        crcs = _mapped(_tables(bit.bit_length() - 1), crcs)
        size ^= bit
    return crcs


def _mapped(tables: Sequence[_Crcs], crcs: _Crcs) -> _Crcs:
    octets = np.ascontiguousarray(crcs, "<u4").view(np.uint8).reshape(-1, 4)
    mapped = tables[0].take(octets[:, 0])
    for table, octet in zip(tables[1:], octets.T[1:], strict=True):
        mapped ^= table.take(octet)
    return mapped


@lru_cache(maxsize=64)
def _tables(power: int) -> tuple[_Crcs, ...]:
    """Return the shift by ``2 ** power`` bytes as a table for each of the four bytes of a checksum."""
    octets: _Crcs = np.arange(256, dtype=np.uint32)
    if power:
        before = _tables(power - 1)
        return tuple(_mapped(before, table) for table in before)
    step = octets
    for _ in range(8):  # the reflected polynomial of Castagnoli
        step = np.bitwise_xor(step >> 1, (step & 1) * np.uint32(0x82F63B78), dtype=np.uint32)
    return step, octets, octets << np.uint32(8), octets << np.uint32(16)


@lru_cache(maxsize=256)
def _lists(size: int) -> tuple[list[int], ...]:
    """Return the tables of a shift by ``size`` bytes as lists, which are faster for one number."""
    tables = _tables(0)
    rest = size - 1
    while rest:
        bit = rest & -rest
        tables = tuple(_mapped(_tables(bit.bit_length() - 1), table) for table in tables)
        rest ^= bit
    return tuple(table.tolist() for table in tables)
