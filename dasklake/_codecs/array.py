"""Codecs of numbers, times and class labels: scalars, and fixed, ragged and compressed arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, from_blob, shorten
from dasklake._codecs.constraints import Check, check_labels
from dasklake._codecs.convert import (
    fit_shape,
    fits_safely,
    lossless,
    refuse_masked,
    to_array,
    to_shape,
)
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.parameters import is_text
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import UnresolvedLabels
from dasklake.exceptions import SampleError


class ArrayCodec(Codec):
    """Codec of all htypes of numbers and times.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    check : callable, optional
        Function that raises if a value, or a column of values, violates a constraint.
    """

    def __init__(self, spec: TensorSpec, check: Check | None = None) -> None:
        super().__init__(spec)
        self._check = check
        self._dtype = np.dtype(cast("str", spec.dtype))
        self._element = self.storage.element or self._dtype
        self._layout = self.storage.layout
        self._ranks = spec.kind.ranks

    def encode(self, value: object) -> Encoded:
        """Check one value, and encode it for its column."""
        return self._encoded(self._checked(value))

    def _encoded(self, array: npt.NDArray[Any]) -> Encoded:
        if self._layout is Layout.BLOB:
            array = np.ascontiguousarray(array) if array.ndim else array
            return as_blob(array, array.shape, self.spec.compression)
        if self._layout is Layout.TENSOR:
            return self._as_elements(array[np.newaxis])[0]
        return array[()] if self._dtype.kind not in "mM" else array.view(self._element)[()]

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once. Ragged and compressed arrays are encoded one by one."""
        refuse_masked(values)
        if self._layout is Layout.BLOB:
            return None
        if isinstance(values, pd.Series) and isinstance(values.dtype, pd.SparseDtype):
            values = values.sparse.to_dense()
        if isinstance(values, pd.Series) and not isinstance(values.dtype, np.dtype):
            values = pa.array(values)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if isinstance(values, pa.Array):
            checked = values.type == self.storage.type and self._check is None
            return values if checked else None
        array = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
        array = self._checked_column(array) if array.dtype.kind != "O" else None
        if array is None:
            return None
        if self._check is not None:
            self._check(array)
        return column_of(self._as_elements(array), self.spec)

    @property
    def _by_value(self) -> bool:
        """Return whether arrays are cast by value, as lists are: most sources have float64 boxes."""
        return self.spec.kind.name.startswith("bbox")

    def decode(self, stored: Encoded) -> object:
        """Return a numpy scalar or array with the dtype of the spec."""
        if self._layout is Layout.BLOB:
            return from_blob(stored, self._dtype, self.spec.compression)
        if self._layout is Layout.ARROW:
            return stored.view(self._dtype) if self._dtype.kind in "mM" else stored
        if self._element == self._dtype:
            return stored
        return stored.view(self._dtype).reshape(self.spec.shape)[()]

    def _checked(self, value: object) -> npt.NDArray[Any]:
        if self._by_value and hasattr(value, "__array__"):
            refuse_masked(value)
            array = np.asarray(value)
            value = lossless(array, self._dtype) if array.dtype.kind in "iuf" else value
        array = to_shape(to_array(value, self._dtype), self.spec.shape, self._ranks)
        if self._check is not None:
            self._check(array)
        return array

    def _checked_column(self, array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return a column with the dtype of the spec, or None if its shape does not fit."""
        if array.shape[1:] != self.spec.shape:
            return None
        if array.dtype == self._dtype:
            return array
        kinds = "iuf" if self._by_value else "iu" if array.ndim == 1 else ""
        if array.dtype.kind in kinds:
            with suppress(SampleError):
                return lossless(array, self._dtype)
            return None
        if array.size and not fits_safely(array.dtype, self._dtype):
            raise SampleError(
                f"the column must have the tensor's dtype {self._dtype}, got {array.dtype}. "
                f"Convert it with .astype({self._dtype.name!r}), or change the tensor's dtype."
            )
        return to_array(array, self._dtype)

    def _as_elements(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View the values along axis 0 with the element type of their column."""
        if self._element == self._dtype:
            return array
        flat = np.ascontiguousarray(array).reshape(-1).view(self._element)
        return flat.reshape((len(array), *self.storage.shape))


class LabelCodec(ArrayCodec):
    """Codec of ``class_label``: indices, or class names.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)  # without a check: a column of labels may contain nulls
        names = spec.class_names
        self._names = names
        self._index = {name: index for index, name in enumerate(names or ())}
        #: Whether the first labels were names, for a spec that has not decided it; None before them.
        self.has_names: bool | None = None

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many labels at once. The codes of a categorical are translated."""
        if self.spec.discover:
            return None  # names get their numbers when their sample is added to a chunk
        if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
            return self._from_categories(values)
        array = super().encode_column(values)
        if self._names is None:
            if array is not None and array.null_count < len(array) and self.spec.discover is None:
                self._decide(array, has_names=False)
            return array
        if array is None or self._layout is not Layout.ARROW:
            return None
        labels = array.drop_null().to_numpy()
        bad = labels.size and (labels.max() >= len(self._names) or labels.min() < 0)
        return None if bad else array

    def encode(self, value: object) -> Encoded:
        """Check labels. With ``discover``, the chunk assigns numbers to their names."""
        if self.spec.discover is False:
            return super().encode(value)
        has_names = _has_names(value)
        if self.spec.discover is None:
            if not has_names:
                array = self._checked(value)
                if array.size:
                    self._decide(value, has_names=False)
                return self._encoded(array)
            self._decide(value, has_names=True)
        if has_names:
            names = np.array(value, object)
            flat = tuple(map(_name, names.flat))
        else:
            names = self._checked(value)
            flat = tuple(self._names[i] for i in names.flat) if self._names else ()
        shape = fit_shape(names.shape, self.spec.shape, self._ranks)

        def stored(indices: Sequence[int]) -> Encoded:
            return self._encoded(np.array(indices, self._dtype).reshape(shape))

        return UnresolvedLabels(flat, shape, stored)

    def _decide(self, value: object, *, has_names: bool) -> None:
        """Remember what the first labels were, and refuse others."""
        if self.has_names is None:
            self.has_names = has_names
        elif self.has_names != has_names:
            raise SampleError(
                f"labels must be {'names' if self.has_names else 'indices'} like those before, got "
                f"{shorten(value)}. Convert the labels, or give class_names, with which a label "
                "may be a name or an index."
            )

    def _checked(self, value: object) -> npt.NDArray[Any]:
        if _has_names(value):
            value = self._indices(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            # Users do not choose the integer dtype of indices: convert them by value.
            value = lossless(value, self._dtype)
        array = super()._checked(value)
        if self._names is not None:
            check_labels(array, self._names)
        return array

    def _indices(self, value: Any) -> Any:
        if self._names is None:
            raise SampleError(
                f"labels must be indices, because the tensor has no class_names, got {shorten(value)}. "
                "Give class_names, or write the labels as indices."
            )
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return [self._indices(label) for label in value]
        name = _name(value)
        if name not in self._index:
            names = shorten(", ".join(map(repr, self._names)), 200)
            raise SampleError(
                f"{shorten(name)} is not one of the class names {names}. Fix the label, or add it "
                "to class_names."
            )
        return self._index[name]

    def _from_categories(self, values: Any) -> pa.Array | None:
        indices = [self._index.get(name, -1) for name in values.cat.categories]
        if self._names is None or self._layout is not Layout.ARROW or -1 in indices:
            return None
        codes = values.cat.codes.to_numpy()
        labels = np.array([*indices, 0], self._dtype)[codes]
        return pa.array(labels, self.storage.type, mask=codes < 0)


def column_of(array: npt.NDArray[Any], spec: TensorSpec) -> pa.Array:
    """Return elements as a column of the spec, without a copy. Axis 0 is the samples."""
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1), storage.type.value_type)
        rows = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(storage.shape)))
        return pa.ExtensionArray.from_storage(storage.type, rows)
    if array.dtype == np.int64 and not pa.types.is_integer(storage.type):
        # As integers: from numpy times, Arrow would convert NaT to null.
        return pa.array(array, pa.int64()).view(storage.type)
    if pa.types.is_boolean(storage.type):
        array = array.astype(bool, copy=False)
    return pa.array(array, storage.type, from_pandas=False)


def _name(value: object) -> str:
    """Return a text label as a plain string."""
    if not isinstance(value, str):
        raise SampleError(
            f"all labels of a sample must be text or all must be indices, got text and "
            f"{shorten(value)}. Convert the labels."
        )
    if not is_text(value):
        raise SampleError(f"a class name must be valid text, got {value!r}. Fix the label.")
    return str(value)


def _has_names(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "UT" or (
            value.dtype.kind == "O" and any(isinstance(label, str) for label in value.flat)
        )
    return isinstance(value, list | tuple) and any(isinstance(label, str) for label in value)
