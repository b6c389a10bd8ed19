"""The stored values of some samples, one column for each tensor, and their decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec


class Form(Enum):
    """Form in which the values of a tensor are handed out."""

    #: Decoded, as in ``lake[i]``.
    DECODED = auto()
    #: As stored: a view of the bytes of a file or of compressed data.
    STORED = auto()
    #: The bytes of a file, as an object of their own.
    BYTES = auto()


class Numbers(NamedTuple):
    """Numbers of one shape.

    Attributes
    ----------
    values : numpy.ndarray
        Stored elements, samples on axis 0; arbitrary ones for samples without a value.
    present : numpy.ndarray
        bool: whether each sample has a value.
    """

    values: npt.NDArray[Any]
    present: npt.NDArray[np.bool_]

    def decoded(self, rows: Any, tensor: TensorFacts) -> npt.NDArray[Any] | list[Any]:
        """Return the values of some samples as one array, or as a list if a value is missing.

        Parameters
        ----------
        rows : slice or numpy.ndarray
            The samples.
        tensor : TensorFacts
            The tensor.
        """
        stored = self.values[rows]
        dtype, shape = tensor.dtype, tensor.spec.shape or ()
        values: npt.NDArray[Any] = stored if stored.dtype == dtype else stored.view(dtype)
        values = values.reshape(len(stored), *shape)
        if self.present[rows].all():
            return values
        # Copies, so that a value that is kept does not keep the batch.
        pairs = zip(values, self.present[rows], strict=True)
        return [value.copy() if ok else None for value, ok in pairs]


#: The values of one tensor: numbers of one shape, or a list of other values with None for no value.
Column = Numbers | list[Any]


class Fetched(NamedTuple):
    """The stored values of some samples.

    Attributes
    ----------
    rows : numpy.ndarray
        int64: numbers of the samples in the version.
    columns : mapping of str to Column
        The tensors.
    damaged : numpy.ndarray or None
        bool: whether each sample was left out, because its chunk is damaged. None if no sample was.
    """

    rows: npt.NDArray[np.int64]
    columns: Mapping[str, Column]
    damaged: npt.NDArray[np.bool_] | None = None

    def intact(self, begin: int, end: int) -> slice | npt.NDArray[np.int64]:
        """Return the samples from ``begin`` to before ``end`` that were not left out."""
        if self.damaged is None or not self.damaged[begin:end].any():
            return slice(begin, end)
        return np.flatnonzero(~self.damaged[begin:end]) + begin


def selected(values: Sequence[Any], rows: slice | npt.NDArray[np.int64]) -> list[Any]:
    """Return some values of a list."""
    return list(values[rows]) if isinstance(rows, slice) else [values[row] for row in rows]


class TensorFacts:
    """Properties of a tensor that every read needs.

    Parameters
    ----------
    spec : TensorSpec
        The tensor.

    Attributes
    ----------
    spec : TensorSpec
        The tensor.
    dtype : numpy.dtype or None
        The numpy dtype, if there is one.
    element : numpy.dtype or None
        Stored type of numbers of one shape; None for all other values.
    shape : tuple of int
        Stored shape of numbers of one shape.
    is_array : bool
        Whether values are stored as the bytes of arrays of different shapes, uncompressed.
    stacks : bool
        Whether decoded values have one shape and dtype.
    """

    def __init__(self, spec: TensorSpec) -> None:
        storage = storage_of(spec)
        blob = storage.layout is Layout.BLOB
        self.spec = spec
        self.dtype = spec.numpy_dtype
        self.element = None if blob else storage.element
        self.shape = storage.shape
        plain = spec.compression is None and spec.kind.codec == "array" and not spec.sequence
        self.is_array = blob and plain and self.dtype is not None
        self.stacks = spec.fixed and self.dtype is not None and not spec.linked


class Tensors(dict[str, TensorFacts]):
    """Properties of the tensors of a version, computed at their first use."""

    def __init__(self, schema: Mapping[str, TensorSpec]) -> None:
        super().__init__()
        self._schema = schema

    def __missing__(self, name: str) -> TensorFacts:
        facts = self[name] = TensorFacts(self._schema[name])
        return facts
