"""The values of one tensor of a version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from types import EllipsisType
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.axis_index import AxisIndex, as_slices
from dasklake._read.crops import CropReader, stacked
from dasklake._read.partition import array_shape
from dasklake._read.reader import Reader
from dasklake._read.row_index import resolve_row, resolve_rows
from dasklake._read.rows import Rows, numbers_at
from dasklake._read.shape_table import Shape, ShapeTable
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError


class Tensor:
    """One tensor of a version, as returned by ``lake[name]``.

    ``tensor[i]`` is the value of a sample. ``tensor[i:j]``, ``tensor[[i, j]]`` and
    ``tensor[mask]`` are one array if the tensor has a fixed shape and no values are missing, else
    a list of values. Only the selected values are fetched from storage.

    ``tensor[i, a:b, ..., c]`` is a part of a value, with integers, slices and ``...`` as in NumPy.
    ``tensor[i:j, a:b]`` and ``tensor[[i, j], ..., c]`` are one array if all parts have the same
    shape and no values are missing, else a list of parts. Of uncompressed arrays, only the bytes
    of the part are fetched. Of lists such as ``sequence[image]``, whose first axis is the list,
    only the selected items are fetched and decoded. Other values are fetched and decoded before
    the part is taken. Masks stored as run lengths and files such as videos decode only the
    selected masks and the frames up to the last selected one.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    name : str
        Name of the tensor.
    rows : range or numpy.ndarray, optional
        Numbers of the samples of a view. By default, all samples.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://tensor")
    >>> lake.create_tensor("boxes", htype="bbox", coords="pixel-ltwh")
    >>> lake.extend([{"boxes": [[0, 0, 5, 5]]}, {"boxes": [[1, 1, 2, 2], [3, 3, 4, 4]]}])
    >>> boxes = lake["boxes"]
    >>> boxes[1].shape
    (2, 4)
    >>> boxes[:, 0, 2:].tolist()
    [[5.0, 5.0], [2.0, 2.0]]
    >>> boxes.shape, boxes.min_shape, boxes.max_shape
    ((2, None, 4), (1, 4), (2, 4))
    """

    def __init__(self, reader: Reader, name: str, rows: Rows | None = None) -> None:
        self._reader = reader
        self._selected = rows
        self.name = name

    @property
    def spec(self) -> TensorSpec:
        """Description of the tensor: htype, dtype, shape and so on."""
        return self._reader.schema[self.name]

    @cached_property
    def _rows(self) -> Rows:
        # Never changes: the reader is that of one version.
        if self._selected is not None:
            return self._selected
        return range(self._reader.origin.length([self.name]))

    @cached_property
    def _is_encoded(self) -> bool:
        return self.spec.encoded

    @cached_property
    def _length(self) -> int:
        return len(self._rows)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {len(self)} samples, {self.spec})"

    def __iter__(self) -> Iterator[Any]:
        if self._selected is None:
            samples = self._reader.stream([self.name])
        else:
            samples = self._reader.selected(self._selected, [self.name])
        return (row[self.name] for row in samples)

    @overload
    def __getitem__(self, item: tuple[Any, ...] | EllipsisType) -> Any: ...

    @overload
    def __getitem__(
        self, item: slice | Sequence[int] | npt.NDArray[Any]
    ) -> npt.NDArray[Any] | Any: ...  # or a list: only the schema knows

    @overload
    def __getitem__(self, item: int | np.integer[Any]) -> Any: ...

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, tuple) and len(item) != 1:
            return self._parts(item)
        (item,) = item if isinstance(item, tuple) else (item,)
        if item is Ellipsis:
            item = slice(None)
        if isinstance(item, slice | list | np.ndarray):
            rows = numbers_at(self._rows, resolve_rows(item, self._length))
            block = self._block(rows)
            if block is not None:
                return block
            return self._stacked([row[self.name] for row in self._reader.many(rows, [self.name])])
        return self._reader.one(self._number(item), [self.name])[self.name]

    def _number(self, item: Any) -> int:
        """Return the number of a sample in the version."""
        return int(self._rows[resolve_row(item, self._length)])

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Number of samples, then the length of each axis of a value, or None if it varies.

        It follows from the schema and nothing is read, unless the schema allows any shape. A list,
        as in ``sequence[image]``, has one axis of any length.

        Raises
        ------
        InvalidInputError
            The schema allows any shape, and the samples have different numbers of axes.
        """
        spec = self.spec
        if spec.sequence:
            return len(self), None
        if spec.shape is not None:
            return len(self), *spec.shape
        pairs = zip(self.min_shape or (), self.max_shape or (), strict=True)
        return len(self), *(low if low == high else None for low, high in pairs)

    @property
    def ndim(self) -> int:
        """Number of axes, with that of the samples; see :attr:`shape`."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any] | pa.DataType | None:
        """Dtype of the values, an Arrow type if NumPy does not have it, or None for files.

        The dtype of a list is that of its items. Values of JSON have none.
        """
        spec = self.spec.item if self.spec.sequence else self.spec
        if spec.kind.codec == "json":
            return None
        return spec.arrow_type if spec.numpy_dtype is None else spec.numpy_dtype

    @property
    def min_shape(self) -> tuple[int, ...] | None:
        """Smallest length along each axis of the values; None without values.

        It is read from the stored shapes, not from the values.

        Raises
        ------
        InvalidInputError
            Shapes are not stored, or the samples have different numbers of axes.
        """
        return self._bounds and self._bounds[0]

    @property
    def max_shape(self) -> tuple[int, ...] | None:
        """Largest length along each axis of the values; None without values.

        It is read from the stored shapes, not from the values.

        Raises
        ------
        InvalidInputError
            Shapes are not stored, or the samples have different numbers of axes.
        """
        return self._bounds and self._bounds[1]

    @cached_property
    def _bounds(self) -> tuple[Shape, Shape] | None:
        spec = self.spec
        if spec.fixed and not spec.linked:
            shape = tuple(axis for axis in spec.shape if axis is not None)
            return (shape, shape) if len(self) else None
        return self._shape_table().bounds(self.name)

    def _shape_table(self) -> ShapeTable:
        return self._reader.shape_table(self.name, self._selected)

    def numpy(self) -> npt.NDArray[Any] | list[Any]:
        """Return the values of all samples.

        Returns
        -------
        numpy.ndarray or list
            One array if the tensor has a fixed shape and no values are missing, else a list.

        Raises
        ------
        CorruptionError
            A chunk is damaged.
        """
        values: npt.NDArray[Any] | list[Any] = self._stacked(list(self))
        return values

    def shapes(self) -> npt.NDArray[np.int64] | list[tuple[int, ...] | None]:
        """Return the shapes of all values without reading the values.

        Returns
        -------
        numpy.ndarray or list
            An int64 array, samples x axes, if all samples have a value and the same number of
            axes; else a list of tuples, with None for no value. The shape of a sequence is its
            number of items.

        Raises
        ------
        InvalidInputError
            Shapes are not stored: the values have none, or are links that were written with
            ``verify=False``.
        """
        return self._shape_table().shapes()

    def bytes(self, sample: int) -> bytes | None:
        """Return the bytes of a file, such as a JPEG image, as they were written.

        Parameters
        ----------
        sample : int
            Number of the sample.

        Returns
        -------
        bytes or None
            The file, or None for no value.

        Raises
        ------
        InvalidInputError
            The tensor does not contain files.
        """
        if self._is_encoded:
            return self._reader.content(self._number(sample), self.name)
        if not self.spec.linked:
            raise InvalidInputError(
                f"Tensor {self.name!r} does not contain files. Use lake[{self.name!r}][i]."
            )
        linked = self[self._number(sample)]
        return None if linked is None else linked.bytes()

    def _parts(self, items: tuple[Any, ...]) -> Any:
        """Return the same part of one sample or of several ones."""
        if not items or items[0] is Ellipsis:
            # The first axis is always that of the samples.
            items = (slice(None), Ellipsis, *items[1:])
        index = AxisIndex.parse(items[1:])
        reader = CropReader(self._reader, self.name, index)
        if not isinstance(items[0], slice | list | tuple | np.ndarray):
            return reader.one(self._number(items[0]))
        rows = numbers_at(self._rows, resolve_rows(items[0], self._length))
        block = self._block(rows) if reader.is_small else None
        if block is not None:
            positions = index.resolve(block.shape[1:], f"tensor {self.name!r}")
            return block[(slice(None), *as_slices(positions))].copy()
        numbers = rows if isinstance(rows, range) else rows.tolist()
        return stacked(reader.many(numbers)) if numbers else reader.none()

    def _block(self, rows: Rows) -> npt.NDArray[Any] | None:
        """Return consecutive values as one array, or None if they must be decoded one by one."""
        dtype = self.spec.numpy_dtype
        if dtype is None or not (isinstance(rows, range) and rows):
            return None
        block = self._reader.block(rows, self.name)
        # As :meth:`ArrayCodec.decode` does for one sample.
        return None if block is None else block.view(dtype).reshape(len(rows), *self.spec.shape)

    def _stacked(self, values: list[Any]) -> Any:
        spec = self.spec
        fixed = spec.fixed and spec.numpy_dtype is not None and not spec.linked
        if not fixed or any(value is None for value in values):
            return values
        if not values:
            return np.empty((0, *array_shape(self.name, spec)), spec.numpy_dtype)
        return np.stack(values)
