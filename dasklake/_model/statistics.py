"""Statistics of the values of one tensor in one chunk, as they are stored."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dasklake._model.stored_types import Count

#: The least or the largest value as JSON has it. Times are integers in the unit of their dtype,
#: decimals are text, and infinite numbers are ``"inf"`` and ``"-inf"``.
Bound = bool | int | float | str


class StoredStatistics(Struct, frozen=True, omit_defaults=True):
    """The entry of one tensor of one chunk in a segment.

    Attributes
    ----------
    nulls : int
        Samples without a value.
    nan : int
        Values that are NaN or NaT, which ``min`` and ``max`` leave out.
    min, max : bool, int, float, str or None
        The least and the largest value of a scalar. Text is cut: see ``MAX_TEXT`` in
        :mod:`dasklake._format.statistics`. None if unknown, or if there is no value.
    classes : str or None
        Base64 of a bitmap of the class labels that occur: bit ``i % 8`` of byte ``i // 8`` is that
        of index ``i``.
    names : tuple of str or None
        The class names that occur, for labels whose chunk has its own list of names.
    counts : tuple of int or None
        Number of labels of each class that occurs, in the order of the indices or of ``names``.
    objects : tuple of int, or None
        The least, the largest and the total number of objects of a value.
    shape : tuple of tuple, or None
        The least and the largest length of each axis.
    """

    nulls: Count = 0
    nan: Count = 0
    min: Bound | None = None
    max: Bound | None = None
    classes: str | None = None
    names: tuple[str, ...] | None = None
    counts: tuple[Count, ...] | None = None
    objects: tuple[Count, Count, Count] | None = None
    shape: tuple[tuple[Count, ...], tuple[Count, ...]] | None = None


class TensorStatistics(Struct, frozen=True):
    """Statistics of one tensor in one chunk, in terms of the version that is read.

    Attributes
    ----------
    rows : int
        Samples in the chunk.
    nulls : int
        Samples without a value.
    nan : int
        Values that are NaN or NaT.
    min, max : bool, int, float, str, decimal.Decimal or None
        Bounds of the values of a scalar. None if unknown, or if there is no value. Numbers are
        exact, text may be a lower and an upper bound.
    classes : tuple of int or None
        Indices of the classes that occur, in ascending order. None if unknown.
    counts : tuple of int or None
        Number of labels of each of them.
    objects : tuple of int, or None
        The least, the largest and the total number of objects of a value.
    shape : tuple of tuple, or None
        The least and the largest length of each axis.
    """

    rows: int
    nulls: int = 0
    nan: int = 0
    min: Any = None
    max: Any = None
    classes: tuple[int, ...] | None = None
    counts: tuple[int, ...] | None = None
    objects: tuple[int, int, int] | None = None
    shape: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def present(self) -> int:
        """Number of samples with a value."""
        return self.rows - self.nulls
