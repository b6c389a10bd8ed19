"""Read immutable objects of a backend through a cache on the local disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._format.object_keys import parse_chunk_key
from dasklake._storage.block_cache import BLOCK, BlockCache
from dasklake._storage.errors import is_beyond
from dasklake._storage.memory_pool import Allocate, Check
from dasklake.exceptions import CorruptionError

#: Most blocks of one request: 8 MiB, as the requests of a chunk.
_MOST = 128

_Range = tuple[int, int]


class CachedBackend:
    """A backend whose chunks are read through a cache.

    A chunk never changes under its key. All other objects, and all other operations, use the backend
    directly.

    Parameters
    ----------
    backend : Backend
        The backend.
    cache : BlockCache
        The cache.
    storage : str
        Name of the storage without secrets, unique among all that share the cache.
    """

    def __init__(self, backend: Any, cache: BlockCache, storage: str) -> None:
        self._backend = backend
        self._cache = cache
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def get(self, key: str, max_bytes: int | None = None) -> bytes:
        """Read a whole object, or at most its first ``max_bytes`` bytes."""
        if max_bytes is None or parse_chunk_key(key) is None:
            return bytes(self._backend.get(key, max_bytes))
        data = self._read(key, [(0, max_bytes)])
        # A caller allows one byte more than the object has, to notice a longer one.
        if data is None or len(data[0]) < max_bytes - 1:
            return bytes(self._backend.get(key, max_bytes))
        return data[0]

    def get_ranges(self, key: str, ranges: Sequence[_Range]) -> list[bytes]:
        """Read parts of an object."""
        if parse_chunk_key(key) is not None:
            data = self._read(key, ranges)
            complete = data is not None and all(
                len(part) == stop - start for part, (start, stop) in zip(data, ranges, strict=True)
            )
            if data is not None and complete:
                return data
        parts: list[bytes] = self._backend.get_ranges(key, ranges)
        return parts

    def get_arrays(
        self,
        key: str,
        ranges: Sequence[_Range],
        allocate: Allocate,  # noqa: ARG002 # blocks are joined to new bytes
        check: Check,
    ) -> list[npt.NDArray[np.uint8]]:
        """Read and check parts of an object; if the cache holds damaged ones, read them again."""
        try:
            return self._checked_arrays(key, ranges, check)
        except CorruptionError:
            if not self.forget(key):
                raise
            return self._checked_arrays(key, ranges, check)

    def _checked_arrays(
        self, key: str, ranges: Sequence[_Range], check: Check
    ) -> list[npt.NDArray[np.uint8]]:
        arrays = [np.frombuffer(part, np.uint8) for part in self.get_ranges(key, ranges)]
        for (start, stop), data in zip(ranges, arrays, strict=True):
            if len(data) == stop - start:
                check(start, data)
        return arrays

    def forget(self, key: str) -> bool:
        """Remove an object from the cache; return whether it was there."""
        return self._cache.forget(self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._storage}\0{key}"

    def _read(self, key: str, ranges: Sequence[_Range]) -> list[bytes] | None:
        """Return parts of an object; None if its blocks cannot be requested."""
        numbers = sorted(
            {n for start, stop in ranges for n in range(start // BLOCK, -(-stop // BLOCK))}
        )
        blocks = self._cache.read(self._name(key), numbers)
        missing = [number for number in numbers if number not in blocks]
        if missing:
            try:
                fetched = self._fetch(key, missing)
            except Exception as error:
                # The last block may begin at the end of the object.
                if not is_beyond(error):
                    raise
                return None
            self._cache.write(self._name(key), fetched)
            blocks.update(fetched)
        return [_joined(blocks, start, stop) for start, stop in ranges]

    def _fetch(self, key: str, numbers: Sequence[int]) -> dict[int, memoryview]:
        """Return blocks from the backend, with one request for neighbours."""
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1 and len(runs[-1]) < _MOST:
                runs[-1].append(number)
            else:
                runs.append([number])
        ranges = [(run[0] * BLOCK, (run[-1] + 1) * BLOCK) for run in runs]
        parts = self._backend.get_ranges(key, ranges)
        blocks: dict[int, memoryview] = {}
        for run, part in zip(runs, parts, strict=True):
            view = memoryview(part)
            for at, number in enumerate(run):
                blocks[number] = view[at * BLOCK : (at + 1) * BLOCK]
        return blocks


def _joined(blocks: dict[int, memoryview], start: int, stop: int) -> bytes:
    """Return a part of an object, short if the object ends before."""
    pieces: list[memoryview] = []
    for number in range(start // BLOCK, -(-stop // BLOCK)):
        begin = number * BLOCK
        block = blocks[number]
        pieces.append(block[max(start - begin, 0) : stop - begin])
        if len(block) < BLOCK:
            break
    return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
