"""The values of one tensor of a version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from dasklake._read.partition import array_shape
from dasklake._read.reader import Reader, resolve_row, resolve_rows
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError


class Tensor:
    """One tensor of a version, as returned by ``lake[name]``.

    ``tensor[i]`` is the value of a sample. ``tensor[i:j]``, ``tensor[[i, j]]`` and
    ``tensor[mask]`` are one array if the tensor has a fixed shape and no values are missing, else
    a list of values. Only the selected values are fetched from storage.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    name : str
        Name of the tensor.

    Examples
    --------
    >>> import dasklake
    >>> lake = dasklake.empty("memory://tensor")
    >>> lake.create_tensor("boxes", htype="bbox", coords="pixel-ltwh")
    >>> lake.extend([{"boxes": [[0, 0, 5, 5]]}, {"boxes": [[1, 1, 2, 2], [3, 3, 4, 4]]}])
    >>> boxes = lake["boxes"]
    >>> boxes[1].shape
    (2, 4)
    >>> boxes.shapes().tolist()
    [[1, 4], [2, 4]]
    """

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self.name = name

    @property
    def spec(self) -> TensorSpec:
        """Description of the tensor: htype, dtype, shape and so on."""
        return self._reader.schema[self.name]

    @cached_property
    def _length(self) -> int:
        # Never changes: the reader is that of one version.
        return self._reader.origin.length([self.name])

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {len(self)} samples, {self.spec})"

    def __iter__(self) -> Iterator[Any]:
        samples = self._reader.stream([self.name])
        return (row[self.name] for row in samples)

    @overload
    def __getitem__(
        self, item: slice | Sequence[int] | npt.NDArray[Any]
    ) -> npt.NDArray[Any] | Any: ...  # or a list: only the schema knows

    @overload
    def __getitem__(self, item: int | np.integer[Any]) -> Any: ...

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice | list | tuple | np.ndarray):
            rows = resolve_rows(item, len(self))
            block = self._block(rows)
            if block is not None:
                return block
            return self._stacked([row[self.name] for row in self._reader.many(rows, [self.name])])
        return self._reader.one(resolve_row(item, self._length), [self.name])[self.name]

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
        stored = list(self._reader.shapes(self.name))
        if self.spec.sequence:
            # The other numbers describe the items.
            stored = [shape and shape[:1] for shape in stored]
        shapes = [shape for shape in stored if shape is not None]
        if len(shapes) < len(stored) or len({len(shape) for shape in shapes}) > 1:
            return stored
        return np.array(shapes, np.int64).reshape(len(shapes), -1)

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
        if not (self.spec.encoded or self.spec.linked):
            raise InvalidInputError(
                f"Tensor {self.name!r} does not contain files. Use lake[{self.name!r}][i]."
            )
        if self.spec.linked:
            linked = self[sample]
            return None if linked is None else linked.bytes()
        row = resolve_row(sample, len(self))
        blob = self._reader.stored(row, [self.name])[0]
        return None if blob is None else bytes(blob.data)

    def _block(self, rows: Sequence[int]) -> npt.NDArray[Any] | None:
        """Return consecutive values as one array, or None if they must be decoded one by one."""
        dtype = self.spec.numpy_dtype
        if dtype is None or not (isinstance(rows, range) and rows and rows.step == 1):
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
