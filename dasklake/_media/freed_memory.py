"""Let the process keep the memory of images that are not used any more.

The C library of Linux (glibc) asks the system for the memory of each large object, and returns it at
once. The system clears memory before a process may use it. For the pixels of an image, that takes as
long as decoding it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: Bytes of the largest object whose memory is kept: glibc allows 32 MiB.
_LARGEST = 31 * 2**20


@cache
def keep_freed_memory() -> None:
    """Make the C library keep the memory of objects up to 31 MiB, and at most twice that.

    glibc adapts to the largest object that was freed; see M_MMAP_THRESHOLD in mallopt(3). An object
    that is never touched needs no memory. Nothing happens with another C library, or if the user has
    set one of the variables MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_, as Dask's workers do.
    """
    np.empty(_LARGEST, np.uint8)
