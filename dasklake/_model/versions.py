"""A set of versions of one branch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Versions:
    """A set of versions, stored as spans so that a long history stays small.

    Attributes
    ----------
    spans : tuple of (int, int)
        First version, and the one after the last, of each span; sorted and disjoint.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[Iterable[int]]) -> Versions:
        """Create a set from spans, which may be unordered and overlap.

        Raises
        ------
        ValueError
            A span is empty or begins below 0.
        """
        joined: list[tuple[int, int]] = []
        for first, stop in sorted((int(first), int(stop)) for first, stop in spans):
            if not 0 <= first < stop:
                raise ValueError(
                    f"a span of versions must have 0 <= first < stop, got {first} to {stop}"
                )
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
            else:
                joined.append((first, stop))
        return cls(tuple(joined))

    @classmethod
    def each(cls, versions: Iterable[int]) -> Versions:
        """Create a set from its elements."""
        return cls.of((version, version + 1) for version in versions)

    def __or__(self, other: Versions) -> Versions:
        return Versions.of((*self.spans, *other.spans))

    def __contains__(self, version: object) -> bool:
        if not isinstance(version, int):
            return False
        index = bisect_right(self.spans, version, key=lambda span: span[0]) - 1
        return index >= 0 and version < self.spans[index][1]

    def __iter__(self) -> Iterator[int]:
        for first, stop in self.spans:
            yield from range(first, stop)

    def __len__(self) -> int:
        return sum(stop - first for first, stop in self.spans)
