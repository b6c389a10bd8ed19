"""Histories of tensors. Chunks are never rewritten, so they keep the names they were written with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dasklake._model.stored_types import Count
from dasklake._schema.spec import TensorSpec


@dataclass(frozen=True, slots=True)
class TensorHistory:
    """The history of a tensor that was added to, or renamed in, a lake with samples.

    Attributes
    ----------
    since : int
        Rows before this one were written before the tensor was added and have no value.
    former : tuple of (int, str)
        Former names, oldest first, each with a row: chunks of rows before it have the tensor
        under that name.

    Examples
    --------
    >>> history = TensorHistory(since=10, former=((20, "label"),))
    >>> [history.name_at("category", row) for row in (0, 10, 20)]
    [None, 'label', 'category']
    """

    since: Count = 0
    former: tuple[tuple[Count, str], ...] = ()

    def name_at(self, name: str, row: int) -> str | None:
        """Return the tensor's name in the chunk that holds a row, or None if the chunk lacks it.

        Parameters
        ----------
        name : str
            Its name in the version that is read.
        row : int
            First row of the chunk.
        """
        if row < self.since:
            return None
        return next((old for until, old in self.former if row < until), name)


def stored_specs(
    schema: Mapping[str, TensorSpec], histories: Mapping[str, TensorHistory], row: int
) -> dict[str, TensorSpec]:
    """Return the tensors of a version by their names in the chunk that holds a row.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors by their names in the version.
    histories : mapping of str to TensorHistory
        Histories of tensors that were added or renamed.
    row : int
        First row of the chunk.
    """
    if not histories:
        return dict(schema)
    stored = {
        histories[name].name_at(name, row) if name in histories else name: spec
        for name, spec in schema.items()
    }
    return {name: spec for name, spec in stored.items() if name is not None}
