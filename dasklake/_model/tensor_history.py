"""What a tensor was before the schema changed: chunks are never rewritten, so their names stay."""

from __future__ import annotations

from dataclasses import dataclass

from dasklake._model.stored_types import Count

__all__ = ["TensorHistory"]


@dataclass(frozen=True, slots=True)
class TensorHistory:
    """Where the values of a tensor lie that was added to, or renamed in, a lake with samples.

    Attributes
    ----------
    since : int
        Samples at smaller places were written before the tensor was added: no value.
    former : tuple of (int, str)
        Chunks of samples at places smaller than the number hold the tensor under that name; the
        oldest name first.

    Examples
    --------
    >>> past = TensorHistory(since=10, former=((20, "label"),))
    >>> [past.name_at("category", place) for place in (0, 10, 20)]
    [None, 'label', 'category']
    """

    since: Count = 0
    former: tuple[tuple[Count, str], ...] = ()

    def name_at(self, name: str, place: int) -> str | None:
        """Return the tensor's name in the chunk of the sample at a place; None where it has none.

        Parameters
        ----------
        name : str
            Its name in the version that is read.
        place : int
            Place of the chunk's first sample.
        """
        if place < self.since:
            return None
        return next((old for until, old in self.former if place < until), name)
