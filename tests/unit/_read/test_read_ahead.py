"""Test that units are read ahead in order and within their bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dasklake._read.fetch import FetchPlan
from dasklake._read.fetched import Fetched, Form
from dasklake._read.read_ahead import read_ahead
from dasklake.exceptions import CorruptionError

FORMS = {"x": Form.STORED}


class Fetcher:
    """Counts the bytes of units that are read and not yet replaced by the next one."""

    local = False

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.started: list[int] = []

    def plan(self, rows: Any, _: Any) -> FetchPlan:
        """Return a plan of some bytes; later units are planned earlier."""
        time.sleep(0.001 * (5 - int(rows[0]) % 5))
        return FetchPlan(rows, [], self.nbytes)

    def read(self, plan: FetchPlan, _: Any) -> Fetched:
        """Record the unit."""
        if plan.rows[0] == 12:
            raise CorruptionError("unit 12 is damaged")
        self.started.append(int(plan.rows[0]))
        return Fetched(plan.rows, {})


def units(count: int) -> Iterator[Any]:
    """Yield units of one sample."""
    return (np.array([number]) for number in range(count))


def read(fetcher: Any, count: int, most: int) -> Iterator[Any]:
    """Read units ahead."""
    return read_ahead(fetcher, units(count), FORMS, most)


def test_units_come_in_order() -> None:
    """Units are yielded in order, whichever is planned first."""
    results = read(Fetcher(10), 12, 1000)
    assert [int(result.rows[0]) for result in results] == list(range(12))


def test_units_wait_for_the_bytes_of_earlier_ones() -> None:
    """No more units are read than fit, also if the loop takes its time."""
    fetcher = Fetcher(100)
    for number, _ in enumerate(read(fetcher, 11, 600)):
        # Half of the bytes are for units: three of them, this one included.
        time.sleep(0.01)
        assert len(fetcher.started) <= number + 3


def test_a_larger_unit_is_read_alone() -> None:
    """A unit that exceeds the limit does not wait for ever."""
    assert len(list(read(Fetcher(10**9), 5, 10))) == 5


def test_errors_take_the_place_of_their_unit() -> None:
    """A damaged unit is an error in its place; later ones are read."""
    results = list(read(Fetcher(1), 15, 1000))
    assert [number for number, r in enumerate(results) if isinstance(r, CorruptionError)] == [12]


def test_a_bug_is_raised_in_its_place() -> None:
    """An error that is not one of the package ends the loop after the earlier units."""

    class Broken(Fetcher):
        def plan(self, rows: Any, _: Any) -> FetchPlan:
            """Fail for one unit."""
            if rows[0] == 5:
                raise RuntimeError("a bug")
            return super().plan(rows, _)

    results: list[Any] = []
    with pytest.raises(RuntimeError, match="a bug"):
        results.extend(iter(read(Broken(1), 15, 1000)))
    assert len(results) == 5


def test_a_closed_loop_ends_its_threads() -> None:
    """Threads that wait for their bytes end with the loop."""
    before = threading.active_count()
    results: Any = read(Fetcher(100), 50, 100)
    next(results)
    results.close()
    assert threading.active_count() == before
