"""Sets of versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklake._model.versions import Versions

NUMBERS = st.sets(st.integers(0, 40))


@given(NUMBERS, NUMBERS)
def test_like_a_set(one: set[int], two: set[int]) -> None:
    """A set of versions behaves like a set of numbers."""
    first, second = Versions.each(one), Versions.each(two)
    assert list(first) == sorted(one)
    assert len(first) == len(one)
    assert [v in first for v in range(-1, 42)] == [v in one for v in range(-1, 42)]
    assert first | second == Versions.each(one | two)
    assert Versions.of(first.spans) == first


def test_few_spans() -> None:
    """Any number of consecutive versions is one span."""
    assert Versions.each(range(100_000)).spans == ((0, 100_000),)
    assert Versions.of([(5, 9), (0, 5)]).spans == ((0, 9),)


@pytest.mark.parametrize("spans", [[(3, 3)], [(4, 2)], [(-1, 2)], [(1, 2, 3)], [("a", 2)]])
def test_invalid_spans(spans: list[tuple[int, ...]]) -> None:
    """Invalid spans are refused."""
    with pytest.raises(ValueError, match=r"span|unpack|literal"):
        Versions.of(spans)
