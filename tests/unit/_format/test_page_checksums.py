"""Test the checks of many pages at once against the check of each page."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklake._format.page_checksums import PageChecksums, shift


def _pages(seed: int, size: int, page: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    crcs = [google_crc32c.value(data[i : i + page]) for i in range(0, size, page)]
    return data, np.array(crcs, "<u4")


@given(
    seed=st.integers(0, 99),
    page=st.sampled_from([1, 3, 8, 100, 128]),
    count=st.integers(1, 70),
    short=st.integers(0, 99),
    picks=st.lists(st.tuples(st.integers(0, 69), st.integers(1, 70)), min_size=1, max_size=8),
    damage=st.none() | st.integers(0, 10**6),
)
def test_a_range_is_intact_exactly_if_each_of_its_pages_is(  # a property
    seed: int,
    page: int,
    count: int,
    short: int,
    picks: list[tuple[int, int]],
    damage: int | None,
) -> None:
    """For any range, also with a short last page, the first damaged page is reported."""
    data, crcs = _pages(seed, count * page - short % page, page)
    checksums = PageChecksums(crcs, page, len(data))
    broken = None
    if damage is not None:
        broken = damage % len(data) // page
        data[damage % len(data)] ^= 1 + damage % 255
    for begin, width in picks:
        first, end = begin % count, min(count, begin % count + width)
        expected = broken if broken is not None and first <= broken < end else None
        assert checksums.first_damaged(first, data[first * page : end * page]) == expected


def test_many_pages_are_checked_with_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the prefixes were computed, a range of any length costs one native call."""
    data, crcs = _pages(0, 1000 * 64 - 10, 64)
    checksums = PageChecksums(crcs, 64, len(data))
    assert checksums.first_damaged(0, data) is None
    calls = []

    def value(part: np.ndarray) -> int:
        calls.append(len(part))
        return int(native(part))

    native = google_crc32c.value
    monkeypatch.setattr(google_crc32c, "value", value)
    assert checksums.first_damaged(500, data[500 * 64 :]) is None
    assert calls == [500 * 64 - 10]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_joined_checksums_follow_from_their_parts(first: bytes, second: bytes) -> None:
    """The checksum of two joined pieces is computed without their data."""
    joined = shift(google_crc32c.value(first), len(second)) ^ google_crc32c.value(second)
    assert joined == google_crc32c.value(first + second)
