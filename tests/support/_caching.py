"""A process that uses a cache: ``python -m tests.support._caching FOLDER SIZE KILL SEED ROUNDS``.

It reads and writes blocks of known content, as a reader does, and exits with 1 if it reads a wrong one.
``KILL`` is the operation in whose middle the process kills itself, or ``-``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

from dasklake._storage import block_cache
from dasklake._storage.block_cache import BLOCK, BlockCache, CacheSettings

OBJECTS, BLOCKS = 12, 20


def content(name: int, number: int) -> memoryview:
    """Return the bytes of a block."""
    size = BLOCK if number < BLOCKS - 1 else 1000
    return memoryview(random.Random(name * BLOCKS + number).randbytes(size))  # noqa: S311 # no secret


def die() -> None:
    """End as a process does that ran out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def _half_write(fd: int, buffers: list[Any], offset: int) -> int:
    os.pwrite(fd, b"".join([buffers[0], buffers[1][: BLOCK // 2]]), offset)
    die()
    return 0


def _before_write(fd: int, digest: bytes, number: int, block: memoryview) -> None:
    del fd, digest, number, block
    die()


def _killed_eviction(unlink: Callable[..., None]) -> Callable[..., None]:
    def kill(*args: Any, **kwargs: Any) -> None:
        unlink(*args, **kwargs)
        die()

    return kill


def main(folder: str, size: int, kill: str, seed: int, rounds: int) -> int:
    """Run the process; return the number of wrong blocks."""
    cache, draw, wrong = BlockCache(CacheSettings(folder, size)), random.Random(seed), 0  # noqa: S311 # no secret
    for step in range(rounds):
        if step == rounds // 2:
            if kill == "write":
                os.pwritev = _half_write  # type: ignore[assignment] # takes fewer arguments
            elif kill == "reserve":
                block_cache._write_block = _before_write
            elif kill == "evict":
                os.unlink = _killed_eviction(os.unlink)
        name, first = draw.randrange(OBJECTS), draw.randrange(BLOCKS)
        numbers = list(range(first, min(first + 6, BLOCKS)))
        blocks = cache.read(str(name), numbers)
        wrong += sum(block != content(name, number) for number, block in blocks.items())
        missing = {number: content(name, number) for number in numbers if number not in blocks}
        cache.write(str(name), missing)
    return wrong


if __name__ == "__main__":
    folder, size, kill, seed, rounds = sys.argv[1:]
    sys.exit(main(folder, int(size), kill, int(seed), int(rounds)) != 0)
