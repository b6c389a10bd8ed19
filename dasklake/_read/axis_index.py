"""Index the axes of a sample as NumPy does, and find the bytes that an index selects."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dasklake.exceptions import InvalidInputError

#: First byte, and the one after the last.
Range = tuple[int, int]

#: An index of one axis.
Axis = int | slice

#: Distance up to which two pieces are one range, in bytes: a page, which is fetched as a whole.
_GAP = 16 * 2**10


class SampleId(NamedTuple):
    """The sample that is indexed, for messages."""

    tensor: str
    sample: int

    def __str__(self) -> str:
        return f"sample {self.sample} of tensor {self.tensor!r}"


@dataclass(frozen=True, slots=True)
class AxisIndex:
    """Integers and slices for the axes of a sample.

    Attributes
    ----------
    before : tuple of (int or slice)
        Indices of the first axes.
    after : tuple of (int or slice)
        Indices of the last axes, if there is an Ellipsis.
    """

    before: tuple[Axis, ...] = ()
    after: tuple[Axis, ...] = ()

    @classmethod
    def parse(cls, items: Sequence[Any]) -> AxisIndex:
        """Validate the index of the axes of a sample.

        Raises
        ------
        InvalidInputError
            An item of ``items`` is not an integer, a slice or one Ellipsis.
        """
        ellipses = [position for position, item in enumerate(items) if item is Ellipsis]
        if len(ellipses) > 1:
            raise InvalidInputError("An index must have at most one Ellipsis (...), got several.")
        first = ellipses[0] if ellipses else len(items)
        return cls(tuple(map(_axis, items[:first])), tuple(map(_axis, items[first + 1 :])))

    def __len__(self) -> int:
        # An Ellipsis is no axis.
        return len(self.before) + len(self.after)

    def split(self) -> tuple[AxisIndex, AxisIndex]:
        """Return the index of a list itself, which is its first axis, and that of its items."""
        if self.before:
            return AxisIndex(self.before[:1]), AxisIndex(self.before[1:], self.after)
        return AxisIndex((slice(None),)), AxisIndex((), self.after)

    def resolve(self, shape: Sequence[int], value: object) -> tuple[int | range, ...]:
        """Return the positions along each axis of a sample.

        Parameters
        ----------
        shape : sequence of int
            Shape of the sample.
        value : object
            The sample, for messages.

        Returns
        -------
        tuple of (int or range)
            One for each axis; an integer removes the axis.

        Raises
        ------
        IndexError
            The index has too many axes, or an integer is out of range.
        """
        missing = len(shape) - len(self)
        if missing < 0:
            raise too_many_axes(len(self), len(shape), value)
        items = (*self.before, *[slice(None)] * missing, *self.after)
        return tuple(_positions(item, axis, shape, value) for axis, item in enumerate(items))


def too_many_axes(given: int, axes: int, value: object) -> IndexError:
    """Return the error of an index with more axes than a sample has."""
    return IndexError(
        f"An index of {given} axes is too long for {value}, which has {axes}. The first index "
        "selects samples, and each of the others an axis."
    )


def _axis(item: Any) -> Axis:
    if isinstance(item, slice):
        return check_slice(item)
    if item is None:
        raise InvalidInputError(
            "An index must not have None (np.newaxis). Add the axis to the result: "
            "tensor[i, 0:2][None]."
        )
    if not isinstance(item, bool | np.bool_):
        try:
            return operator.index(item)
        except TypeError:
            pass
    raise InvalidInputError(
        f"An index of an axis must be an integer, a slice or an Ellipsis, got {item!r}. Read a slice "
        "that covers what you need, then index the result."
    )


def check_slice(item: slice) -> slice:
    """Return a slice after validating it.

    Raises
    ------
    InvalidInputError
        ``item`` has a part that is not an integer, or the step 0.
    """
    try:
        item.indices(0)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"A slice must have integers and a step other than 0, got {item!r}. Fix it."
        ) from error
    return item


def _positions(item: Axis, axis: int, shape: Sequence[int], value: object) -> int | range:
    length = shape[axis]
    if isinstance(item, slice):
        return range(*item.indices(length))
    if not -length <= item < length:
        raise IndexError(
            f"Index {item} is out of range for axis {axis} of {value}, which has the shape "
            f"{tuple(shape)}. Use a smaller index; Tensor.shapes() has the shapes of all samples."
        )
    return item % length


def as_slices(positions: Sequence[int | range]) -> tuple[Axis, ...]:
    """Return positions as an index of NumPy."""
    return tuple(
        position if isinstance(position, int) else _as_slice(position) for position in positions
    )


def _as_slice(positions: range) -> slice:
    # A slice has no number for the position before the first one.
    stop = None if positions.stop < 0 else positions.stop
    return slice(positions.start, stop, positions.step) if positions else slice(0, 0)


def selected_ranges(
    positions: Sequence[int | range], shape: Sequence[int], width: int
) -> list[Range]:
    """Return the bytes of an array in C order that an index selects.

    Pieces that are up to a page of 16 KiB apart are one range.

    Parameters
    ----------
    positions : sequence of (int or range)
        Positions along each axis; see :meth:`AxisIndex.resolve`.
    shape : sequence of int
        Shape of the array.
    width : int
        Bytes of one element.

    Returns
    -------
    list of (int, int)
        Offsets of the first byte and after the last one of each range, ascending.

    Examples
    --------
    >>> selected_ranges((2, range(0, 500)), (4, 1000), 1)
    [(2000, 2500)]
    >>> selected_ranges((range(0, 3), 0), (4, 100_000), 1)
    [(0, 1), (100000, 100001), (200000, 200001)]
    """
    spans = [range(p, p + 1) if isinstance(p, int) else p for p in positions]
    if not all(spans):
        return []
    strides = [width * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    steps = [stride * abs(span.step) for span, stride in zip(spans, strides, strict=True)]
    inner = len(shape)
    while inner and (steps[inner - 1] <= _GAP or len(spans[inner - 1]) == 1):
        inner -= 1
    begins = np.zeros(1, np.int64)
    for span, stride in zip(spans[:inner], strides, strict=False):
        offsets = np.array(span if span.step > 0 else span[::-1], np.int64) * stride
        begins = np.add.outer(begins, offsets).reshape(-1)
    near = [*zip(spans[inner:], strides[inner:], strict=True)]
    begins += sum(min(span[0], span[-1]) * stride for span, stride in near)
    ends = begins + width + sum(abs(span[-1] - span[0]) * stride for span, stride in near)
    gaps = np.flatnonzero(begins[1:] - ends[:-1] > 0)
    firsts, lasts = np.r_[0, gaps + 1], np.r_[gaps, len(begins) - 1]
    return list(zip(begins[firsts].tolist(), ends[lasts].tolist(), strict=True))
