"""The stored shapes of many samples as one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake.exceptions import InvalidInputError

Shape = tuple[int, ...]

#: Most axes of an array of NumPy. A shape with more is damaged.
_MAX_AXES = 64

#: Number of axes to read so that longer shapes are noticed.
ALL_AXES = _MAX_AXES + 1


@dataclass(frozen=True, slots=True)
class ShapeTable:
    """Shapes of consecutive samples.

    Attributes
    ----------
    axes : numpy.ndarray
        int64, samples x axes. Samples with fewer axes have zeros at the end.
    counts : numpy.ndarray
        int64, the number of axes of each sample, or -1 if it has no value or its shape was not
        stored.
    """

    axes: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of_one_shape(cls, shape: Sequence[int], has: npt.NDArray[np.bool_]) -> ShapeTable:
        """Return the table of samples that have the same shape, or no value."""
        axes = np.broadcast_to(np.array(shape, np.int64), (len(has), len(shape)))
        return cls(axes, np.where(has, len(shape), -1))

    @classmethod
    def of_axes(cls, axes: npt.NDArray[np.int64], has: npt.NDArray[np.bool_]) -> ShapeTable:
        """Return the table of an array, samples x axes, of which some rows have no value."""
        return cls(axes, np.where(has, axes.shape[1], -1))

    @classmethod
    def of_lists(cls, lists: pa.ListArray, most: int) -> ShapeTable:
        """Return the table of a valid column of lists.

        Parameters
        ----------
        lists : pyarrow.ListArray
            One list for each sample, which begins with its shape.
        most : int
            Number of axes that are read of each list; the rest is no part of the shape.

        Raises
        ------
        ValueError
            A shape has more axes than an array can have, or a null.
        """
        has = lists.is_valid().to_numpy(zero_copy_only=False)
        starts = lists.offsets.to_numpy()[:-1].astype(np.int64)
        counts = np.minimum(np.diff(lists.offsets.to_numpy()), most) * has
        widest = int(counts.max(initial=0))
        if widest > _MAX_AXES:
            raise ValueError(f"a shape has {widest} axes")
        axes = np.zeros((len(lists), widest), np.int64)
        if lists.values.null_count:
            raise ValueError("an axis of a shape is null")
        values = lists.values.to_numpy()
        for axis in range(widest):
            rows = counts > axis
            axes[rows, axis] = values[starts[rows] + axis]
        return cls(axes, np.where(has, counts, -1))

    @classmethod
    def concatenate(cls, tables: Sequence[ShapeTable]) -> ShapeTable:
        """Join tables of consecutive samples."""
        if not tables:
            return cls(np.zeros((0, 0), np.int64), np.zeros(0, np.int64))
        widest = max(table.axes.shape[1] for table in tables)
        axes = [np.pad(t.axes, ((0, 0), (0, widest - t.axes.shape[1]))) for t in tables]
        return cls(np.concatenate(axes), np.concatenate([table.counts for table in tables]))

    def where(self, has: npt.NDArray[np.bool_]) -> ShapeTable:
        """Return the table without the shapes of samples that have no value."""
        return ShapeTable(self.axes, np.where(has, self.counts, -1))

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> ShapeTable:
        """Return the table of some rows, in their order."""
        return ShapeTable(self.axes[rows], self.counts[rows])

    @property
    def present(self) -> ShapeTable:
        """The table of the samples that have a shape."""
        has = self.counts >= 0
        return self if has.all() else ShapeTable(self.axes[has], self.counts[has])

    def shapes(self) -> npt.NDArray[np.int64] | list[Shape | None]:
        """Return an array, samples x axes; or a list of tuples and None if that is not exact."""
        first = int(self.counts[0]) if len(self.counts) else 0
        if first >= 0 and (self.counts == first).all():
            return np.array(self.axes[:, :first])
        pairs = zip(self.axes.tolist(), self.counts.tolist(), strict=True)
        return [None if count < 0 else tuple(axes[:count]) for axes, count in pairs]

    def bounds(self, name: str) -> tuple[Shape, Shape] | None:
        """Return the least and the greatest length along each axis; None if there is no shape.

        Raises
        ------
        InvalidInputError
            The samples of the tensor ``name`` do not have the same number of axes.
        """
        shapes = self.present
        if not len(shapes.counts):
            return None
        least, most = int(shapes.counts.min()), int(shapes.counts.max())
        if least != most:
            raise InvalidInputError(
                f"The samples of tensor {name!r} must have the same number of axes, and have "
                f"{least} to {most}. Use shapes()."
            )
        lower, upper = shapes.axes.min(axis=0), shapes.axes.max(axis=0)
        return tuple(lower[:most].tolist()), tuple(upper[:most].tolist())
