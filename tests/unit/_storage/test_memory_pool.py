"""Test that memory is used again, and only after its last use."""

from __future__ import annotations

import gc

import numpy as np

from dasklake._storage.memory_pool import BLOCK, MemoryPool


def test_arrays_do_not_overlap() -> None:
    """Arrays of one arena, and of several, have memory of their own."""
    pool = MemoryPool()
    arenas = [pool.arena(), pool.arena()]
    arrays = [arena.empty(size, size) for size in (1, 1000, BLOCK // 2, BLOCK) for arena in arenas]
    for number, array in enumerate(arrays):
        array[...] = number
    for number, array in enumerate(arrays):
        assert (array == number).all()


def test_blocks_are_used_again_after_their_last_view() -> None:
    """A block returns to the pool when no array, memoryview or slice refers to it."""
    pool = MemoryPool()
    arena = pool.arena()
    array = arena.empty(1000, BLOCK)
    address = array.ctypes.data
    array[:3] = 7
    view = array.data.toreadonly()[:3]
    slice_of_view = np.frombuffer(view, np.uint8)
    del arena, array, view
    gc.collect()
    other = pool.arena().empty(BLOCK, BLOCK)
    other[...] = 1
    assert other.ctypes.data != address
    assert slice_of_view.tolist() == [7, 7, 7]
    del slice_of_view
    assert pool.arena().empty(1, 1).ctypes.data == address


def test_large_arrays_are_not_kept() -> None:
    """An array that is larger than a block has its exact size."""
    assert len(MemoryPool().arena().empty(BLOCK + 1, 10 * BLOCK)) == BLOCK + 1
