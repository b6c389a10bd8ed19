"""Convert batches of NumPy arrays to tensors."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError, SampleError

#: Results for values of different shapes.
Ragged = Literal["list", "pad", "nested"]

#: Axes of images: height, width, channels, or channels first.
Layout = Literal["HWC", "CHW"]

#: Kinds of NumPy dtypes that tensors have.
_KINDS = "biufc"


class TensorList(list[Any]):
    """Tensors of different shapes: a list that is sent between processes as one tensor.

    A loader's worker sends each tensor through a file of its own. For the 32 images of a batch, that
    takes longer than reading them.

    Examples
    --------
    >>> import torch
    >>> from dasklake.torch import TensorList
    >>> boxes = TensorList([torch.ones(2, 4), torch.ones(0, 4)])
    >>> [tensor.shape for tensor in boxes]
    [torch.Size([2, 4]), torch.Size([0, 4])]
    """

    #: One tensor that all items are parts of, in their order, if it is in shared memory.
    _shared: torch.Tensor | None = None
    _parts: tuple[torch.Tensor, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self._parts
        same = len(self) == len(parts) and all(map(operator.is_, self, parts))
        if self._shared is not None and same:
            return _split, (self._shared, [tuple(item.shape) for item in self])
        if not self or not all(isinstance(item, torch.Tensor) for item in self):
            return TensorList, (list(self),)
        if len({(item.dtype, item.device, item.layout, item.requires_grad) for item in self}) > 1:
            return TensorList, (list(self),)
        shapes = [tuple(item.shape) for item in self]
        return _split, (torch.cat([item.reshape(-1) for item in self]), shapes)

    def __copy__(self) -> TensorList:
        copied = TensorList(self)
        return copied if self._shared is None else copied.sent_as(self._shared, self._parts)

    def sent_as(self, shared: torch.Tensor, parts: Iterable[torch.Tensor]) -> TensorList:
        """Set the tensor that consists of some parts, and return the list.

        It is sent instead of the items as long as the items are these parts.
        """
        self._shared, self._parts = shared, tuple(parts)
        return self

    def pin_memory(self) -> TensorList:
        """Return copies of the tensors in page-locked memory, for fast transfers to a GPU."""
        return TensorList(
            item.pin_memory() if isinstance(item, torch.Tensor) else item for item in self
        )

    def to(self, *args: Any, **kwargs: Any) -> TensorList:
        """Return the tensors on another device, or of another dtype, as ``torch.Tensor.to`` does."""
        return TensorList(
            item.to(*args, **kwargs) if isinstance(item, torch.Tensor) else item for item in self
        )


def _in_shared_memory(column: Sequence[Any], *, channels_first: bool) -> TensorList | None:
    """Copy arrays once, to the memory in which a worker hands them over.

    Returns
    -------
    TensorList or None
        None if the values are not arrays of one dtype.
    """
    arrays = [
        np.frombuffer(value, np.uint8) if type(value) is memoryview else value for value in column
    ]
    if not all(isinstance(array, np.ndarray) for array in arrays):
        return None
    if len({array.dtype for array in arrays}) != 1 or arrays[0].dtype.kind not in _KINDS:
        return None
    if channels_first:
        arrays = [a[None] if a.ndim == 2 else np.moveaxis(a, -1, 0) for a in arrays]
    size = sum(array.size for array in arrays)
    # As the loader's own function does, which joins samples to batches.
    storage = torch.UntypedStorage._new_shared(size * arrays[0].itemsize)  # type: ignore[no-untyped-call] # noqa: SLF001 # as said
    flat = torch.from_numpy(np.empty(0, arrays[0].dtype)).set_(storage)
    shared = _split(flat, [array.shape for array in arrays])
    for part, array in zip(shared, arrays, strict=True):
        np.copyto(part.numpy(), array)
    return shared.sent_as(flat, shared)


def _split(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> TensorList:
    parts = torch.split(flat, [int(np.prod(shape)) for shape in shapes])
    return TensorList(part.view(shape) for part, shape in zip(parts, shapes, strict=True))


@dataclass(frozen=True, slots=True)
class Conversion:
    """Conversion of the values of each tensor.

    Attributes
    ----------
    ragged : "list", "pad" or "nested"
        Results for values of different shapes.
    images : frozenset of str
        Tensors whose channels are moved to the front.
    ragged_axes : mapping of str to int
        Axes of a sample, from the first, among which some have no fixed length.
    """

    ragged: Ragged
    images: frozenset[str]
    ragged_axes: Mapping[str, int]

    def batch(self, columns: Mapping[str, Any], *, shared: bool = False) -> dict[str, Any]:
        """Return the columns of a batch as tensors.

        Parameters
        ----------
        columns : mapping of str to (numpy.ndarray or list)
            The columns.
        shared : bool, default False
            Copy values of different shapes to shared memory, for another process.

        Raises
        ------
        SampleError
            A value is missing, or the values have different dtypes or numbers of axes, and they
            cannot be padded.
        """
        batch: dict[str, Any] = {}
        for name, column in columns.items():
            if isinstance(column, np.ndarray):
                batch[name] = self._oriented(name, to_tensor(column), axes=1)
                continue
            if self.ragged == "list" and shared:
                tensors = _in_shared_memory(column, channels_first=name in self.images)
                if tensors is not None:
                    batch[name] = tensors
                    continue
            values = [self._oriented(name, to_tensor(value), axes=0) for value in column]
            if not any(isinstance(value, torch.Tensor) for value in values):
                batch[name] = values
            elif self.ragged == "list":
                batch[name] = TensorList(values)
            else:
                _check_alike(name, values, self.ragged)
                if self.ragged == "nested":
                    batch[name] = _nested(values)
                else:
                    batch[name], batch[f"{name}_mask"] = self._padded(name, values)
        return batch

    def sample(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Return the only sample of a batch."""
        return {
            name: self._oriented(name, to_tensor(column[0]), axes=0)
            for name, column in columns.items()
        }

    def _oriented(self, name: str, value: Any, axes: int) -> Any:
        """Return an image with the channels first; ``axes`` is the number of axes before it."""
        if name not in self.images or not isinstance(value, torch.Tensor):
            return value
        if value.ndim == axes + 2:
            return value.unsqueeze(axes)
        return value.movedim(-1, axes)

    def _padded(
        self, name: str, values: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the values in one tensor with zeros after them, and a mask of the values."""
        shape = np.max([tuple(value.shape) for value in values], axis=0).tolist()
        padded = values[0].new_zeros((len(values), *shape))
        axes = min(self.ragged_axes.get(name, len(shape)), len(shape))
        mask = torch.zeros((len(values), *shape[:axes]), dtype=torch.bool)
        for number, value in enumerate(values):
            part = tuple(slice(length) for length in value.shape)
            padded[number][part] = value
            mask[number][part[:axes]] = True
        return padded, mask


def make_conversion(
    specs: Mapping[str, TensorSpec], decoded: Iterable[str], ragged: str, layout: str
) -> Conversion:
    """Validate the options of a conversion.

    Parameters
    ----------
    specs : mapping of str to TensorSpec
        The tensors that are read.
    decoded : iterable of str
        Those whose values are decoded.
    ragged, layout : str
        The options.

    Raises
    ------
    InvalidInputError
        An option is invalid.
    """
    for name, value, allowed in (
        ("ragged", ragged, get_args(Ragged)),
        ("layout", layout, get_args(Layout)),
    ):
        if value not in allowed:
            options = ", ".join(map(repr, allowed))
            raise InvalidInputError(f"{name} must be one of {options}, got {value!r}.")
    is_decoded = set(decoded)
    images = {
        name
        for name, spec in specs.items()
        if layout == "CHW"
        and name in is_decoded
        and spec.kind.codec == "image"
        and not spec.sequence
    }
    axes = {}
    for name, spec in specs.items():
        if spec.shape is not None and name in is_decoded:
            axes[name] = max(
                (axis + 1 for axis, n in enumerate(spec.shape) if n is None), default=0
            )
    for name in images & axes.keys():
        # The channels come first: every axis may differ.
        del axes[name]
    return Conversion(ragged, frozenset(images), axes)  # type: ignore[arg-type] # it was checked


def to_tensor(value: Any) -> Any:
    """Return a value as a tensor if it is an array or a number, and other values unchanged.

    Files in memory become one-dimensional uint8 tensors. Lists and dicts are converted inside.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            return value.tolist() if value.dtype.kind in "OSUT" else list(value)
        if not value.flags.writeable or any(stride < 0 for stride in value.strides):
            value = value.copy()
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return torch.tensor(value) if value.dtype.kind in _KINDS else value.item()
    if isinstance(value, memoryview):
        return (
            torch.frombuffer(bytearray(value), dtype=torch.uint8)
            if len(value)
            else torch.empty(0, dtype=torch.uint8)
        )
    if isinstance(value, Mapping):
        return {key: to_tensor(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_tensor(item) for item in value)
    return copy.copy(value)


def _check_alike(name: str, values: Sequence[Any], ragged: str) -> None:
    """Refuse values that have no common tensor."""
    kinds = {
        (value.ndim, value.dtype) if isinstance(value, torch.Tensor) else None for value in values
    }
    if len(kinds) > 1:
        index = next(
            (i for i, value in enumerate(values) if not isinstance(value, torch.Tensor)), 0
        )
        problem = (
            f"sample {index} of the batch has no array"
            if None in kinds
            else "the samples of a batch have arrays of different dtypes or numbers of axes"
        )
        raise SampleError(
            f"Tensor {name!r} cannot be joined with ragged={ragged!r}: {problem}. Use "
            "ragged='list', or a transform."
        )


def _nested(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a nested tensor: jagged if only the first axis differs, which more operations allow."""
    jagged = values[0].ndim and len({value.shape[1:] for value in values}) == 1
    layout = torch.jagged if jagged else torch.strided
    nested: torch.Tensor = torch.nested.nested_tensor(list(values), layout=layout)
    return nested
