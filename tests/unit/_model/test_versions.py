"""Sets of versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklake._model.versions import Versions

NUMBERS = st.sets(st.integers(0, 40))


@given(NUMBERS, NUMBERS)
def test_like_a_set(left: set[int], right: set[int]) -> None:
    """A set of versions holds, counts and joins what a set of numbers does."""
    first, second = Versions.each(left), Versions.each(right)
    assert list(first) == sorted(left)
    assert len(first) == len(left)
    assert [v in first for v in range(-1, 42)] == [v in left for v in range(-1, 42)]
    assert first | second == Versions.each(left | right)
    assert Versions.of(first.spans) == first


def test_few_spans() -> None:
    """Neighbours are one span, however many there are."""
    assert Versions.each(range(100_000)).spans == ((0, 100_000),)
    assert Versions.of([(5, 9), (0, 5)]).spans == ((0, 9),)


@pytest.mark.parametrize("spans", [[(3, 3)], [(4, 2)], [(-1, 2)], [(1, 2, 3)], [("a", 2)]])
def test_no_spans(spans: list[tuple[int, ...]]) -> None:
    """What is no span is refused."""
    with pytest.raises(ValueError, match=r"span|unpack|literal"):
        Versions.of(spans)
