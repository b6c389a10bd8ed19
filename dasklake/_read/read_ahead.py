"""Read units of samples ahead of their use, with bounded memory.

Each iteration has threads of its own, which end with it: nothing is left behind after a fork, and
nothing has to be closed by the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition

import numpy as np
import numpy.typing as npt

from dasklake._read.fetch import Fetcher
from dasklake._read.fetched import Fetched, Form
from dasklake.exceptions import LakeError

#: Units that are read, or wait for their use, at the same time.
_UNITS = 8

#: Share of the allowed bytes that units take: decoding and the libraries of the storage need the rest.
_UNITS_SHARE = 1 / 4


class _ClosedError(Exception):
    """The iteration has ended."""


class _Budget:
    """Bytes in memory, granted to units in their order.

    Parameters
    ----------
    most : int
        Bytes that all units may take. A larger one is granted if no other has any.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._turn = 0
        self._closed = False
        self._changed = Condition()

    def acquire(self, unit: int, nbytes: int) -> None:
        """Wait until all earlier units have their bytes, and this one fits."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or (
                        unit == self._turn and (not self._used or self._used + nbytes <= self._most)
                    )
                )
            )
            if self._closed:
                raise _ClosedError
            self._used += nbytes
            self._turn += 1
            self._changed.notify_all()

    def release(self, nbytes: int) -> None:
        """Return the bytes of a unit."""
        with self._changed:
            self._used -= nbytes
            self._changed.notify_all()

    def close(self) -> None:
        """Wake all waiting units."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _read_in_turn(
    fetcher: Fetcher, units: Iterator[npt.NDArray[np.int64]], forms: Mapping[str, Form]
) -> Iterator[Fetched | LakeError]:
    """Yield units of a disk, read by the calling thread.

    A thread would be slower: it waits for the interpreter's lock after each read. The system reads
    ahead what is not in its cache.
    """
    for rows in units:
        try:
            fetched: Fetched | LakeError = fetcher.fetch(rows, forms)
        except LakeError as error:
            fetched = error
        yield fetched
        del fetched


def read_ahead(
    fetcher: Fetcher,
    units: Iterator[npt.NDArray[np.int64]],
    forms: Mapping[str, Form],
    most: int,
) -> Iterator[Fetched | LakeError]:
    """Yield units of samples in order, or the error of a unit.

    Parameters
    ----------
    fetcher : Fetcher
        Reads the samples.
    units : iterator of numpy.ndarray
        int64: the numbers of the samples of each unit.
    forms : mapping of str to Form
        The tensors, and the forms of their values.
    most : int
        Bytes that may be read ahead, with those that decoding and the storage's libraries need.
    """
    if fetcher.local:
        yield from _read_in_turn(fetcher, units, forms)
        return
    budget = _Budget(int(most * _UNITS_SHARE))
    pool = ThreadPoolExecutor(_UNITS, "dasklake-read")

    def read(unit: int, rows: npt.NDArray[np.int64]) -> tuple[int, Fetched | LakeError]:
        nbytes = 0
        try:
            plan = fetcher.plan(rows, list(forms))
            nbytes = plan.nbytes
        except LakeError as error:
            budget.acquire(unit, 0)
            return 0, error
        except BaseException:
            # Later units must not wait for it.
            budget.acquire(unit, 0)
            raise
        budget.acquire(unit, nbytes)
        try:
            return nbytes, fetcher.read(plan, forms)
        except LakeError as error:
            return nbytes, error

    waiting: deque[Future[tuple[int, Fetched | LakeError]]] = deque()
    numbered = enumerate(units)
    try:
        for unit, rows in numbered:
            waiting.append(pool.submit(read, unit, rows))
            if len(waiting) >= _UNITS:
                break
        while waiting:
            nbytes, result = waiting.popleft().result()
            yield result
            del result
            budget.release(nbytes)
            for unit, rows in numbered:
                waiting.append(pool.submit(read, unit, rows))
                break
    finally:
        budget.close()
        pool.shutdown(wait=True, cancel_futures=True)
