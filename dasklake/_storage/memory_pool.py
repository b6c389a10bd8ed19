"""Memory for what is read from a disk, used again as soon as no value refers to it.

The system clears new memory before a process may use it, which takes longer than reading a file from
the cache of the system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

#: Returns a writable array, uint8, with at least and at most some numbers of bytes.
Allocate = Callable[[int, int], npt.NDArray[np.uint8]]

#: Raises an error if a part of an object, which begins at an offset, is damaged.
Check = Callable[[int, npt.NDArray[np.uint8]], None]

#: Bytes of a block, and most blocks that wait for their next use.
BLOCK = 2 * 2**20
_MAX_FREE = 24


class _Lease(np.ndarray[Any, Any]):
    """A block in use. Only its memoryview is handed out, and keeps it alive."""

    block: npt.NDArray[np.uint8]
    blocks: list[npt.NDArray[np.uint8]]

    def __del__(self) -> None:
        blocks = getattr(self, "blocks", None)
        if blocks is not None and len(blocks) < _MAX_FREE:
            blocks.append(self.block)


class MemoryPool:
    """Blocks of memory that are used again."""

    def __init__(self) -> None:
        self._blocks: list[npt.NDArray[np.uint8]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryPool, ()

    def arena(self) -> Arena:
        """Return a new source of memory; each thread needs its own."""
        return Arena(self._blocks)


class Arena:
    """Cuts blocks of a pool into arrays.

    Parameters
    ----------
    blocks : list of numpy.ndarray
        Blocks that are not in use.

    Examples
    --------
    >>> arena = MemoryPool().arena()
    >>> len(arena.empty(100, 100)), len(arena.empty(5_000_000, 9_000_000))
    (100, 5000000)
    """

    def __init__(self, blocks: list[npt.NDArray[np.uint8]]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def empty(self, least: int, most: int) -> npt.NDArray[np.uint8]:
        """Return a writable array of ``least`` to ``most`` bytes with any content."""
        if least > BLOCK:
            return np.empty(least, np.uint8)
        if least > len(self._rest):
            self._rest = self._block()
        part, self._rest = self._rest[:most], self._rest[most:]
        return np.frombuffer(part, np.uint8)

    def _block(self) -> memoryview:
        try:
            block = self._blocks.pop()
        except IndexError:  # another thread may have taken the last one
            block = np.empty(BLOCK, np.uint8)
        lease = block.view(_Lease)
        lease.block, lease.blocks = block, self._blocks
        return lease.data
