"""Numbers and times: scalars, arrays of one shape, ragged and compressed arrays, class labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, from_blob, shorten
from dasklake._codecs.constraints import Check, check_labels
from dasklake._codecs.convert import fits_safely, lossless, refuse_masked, to_array, to_shape
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.parameters import is_text
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import UnresolvedLabels
from dasklake.exceptions import SampleError

__all__ = ["ArrayCodec", "LabelCodec", "column_of"]


class ArrayCodec(Codec):
    """Codec of every htype of plain numbers and times.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    check : callable, optional
        Raises where a value, or a column of values, is not what it has to be.
    """

    def __init__(self, spec: TensorSpec, check: Check | None = None) -> None:
        super().__init__(spec)
        self._check = check
        self._dtype = np.dtype(cast("str", spec.dtype))
        self._element = self.storage.element or self._dtype
        self._layout = self.storage.layout
        self._ranks = spec.kind.ranks

    def encode(self, value: object) -> Encoded:
        """Check one value and return what the column stores."""
        return self._encoded(self._checked(value))

    def _encoded(self, array: npt.NDArray[Any]) -> Encoded:
        if self._layout is Layout.BLOB:
            array = np.ascontiguousarray(array) if array.ndim else array
            return as_blob(array, array.shape, self.spec.compression)
        if self._layout is Layout.TENSOR:
            return self._stored(array, self.storage.shape)
        return array[()] if self._dtype.kind not in "mM" else array.view(self._element)[()]

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once; ragged and compressed ones go one by one."""
        refuse_masked(values)
        if self._layout is Layout.BLOB:
            return None
        if isinstance(values, pd.Series) and not isinstance(values.dtype, np.dtype):
            values = pa.array(values)
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if isinstance(values, pa.Array):
            plain = values.type == self.storage.type and self._check is None
            return values if plain else None
        array = values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values)
        array = self._checked_column(array) if array.dtype.kind != "O" else None
        if array is None:
            return None
        if self._check is not None:
            self._check(array)
        return column_of(self._stored(array), self.spec)

    def decode(self, stored: Encoded) -> object:
        """Return a numpy scalar or an array of the spec's dtype."""
        if self._layout is Layout.BLOB:
            return from_blob(stored, self._dtype, self.spec.compression)
        if self._layout is Layout.ARROW:
            return stored.view(self._dtype) if self._dtype.kind in "mM" else stored
        if self._element == self._dtype:
            return stored
        return stored.view(self._dtype).reshape(self.spec.shape)[()]

    def _checked(self, value: object) -> npt.NDArray[Any]:
        array = to_shape(to_array(value, self._dtype), self.spec.shape, self._ranks)
        if self._check is not None:
            self._check(array)
        return array

    def _checked_column(self, array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Return a whole column as the spec's dtype; None if its shape does not fit."""
        if array.shape[1:] != self.spec.shape:
            return None
        if array.dtype == self._dtype:
            return array
        if array.ndim == 1 and array.dtype.kind in "iu":
            return self._integers(array)
        if array.size and not fits_safely(array.dtype, self._dtype):
            raise SampleError(
                f"the column's dtype {array.dtype} does not fit the tensor's dtype {self._dtype}. "
                f"Convert it with .astype({self._dtype.name!r}), or change the tensor's dtype."
            )
        return to_array(array, self._dtype)

    def _integers(self, array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
        """Convert a column of integers as one by one: by their values."""
        try:
            return lossless(array, self._dtype)
        except SampleError:
            return None

    def _stored(
        self, array: npt.NDArray[Any], shape: tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """View an array as the numbers its column stores."""
        if self._element == self._dtype:
            return array
        flat = np.ascontiguousarray(array).reshape(-1).view(self._element)
        return flat.reshape((len(array), *self.storage.shape) if shape is None else shape)


class LabelCodec(ArrayCodec):
    """Codec of ``class_label``: indices, or the names they stand for.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)  # its labels are checked where columns may hold nulls
        names = spec.class_names
        self._names = names
        self._index = {name: index for index, name in enumerate(names or ())}

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many labels at once; a categorical's codes are translated."""
        if self.spec.discover:
            return None  # one by one: the names are placed when each goes to its chunk
        if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
            return self._from_categories(values)
        array = super().encode_column(values)
        if array is None or self._names is None or self._layout is not Layout.ARROW:
            return array if self._names is None else None
        found = array.drop_null().to_numpy()
        bad = found.size and (found.max() >= len(self._names) or found.min() < 0)
        return None if bad else array

    def encode(self, value: object) -> Encoded:
        """Check labels; names that may be new ones get their numbers from the chunk."""
        if not self.spec.discover:
            return super().encode(value)
        if _has_names(value):
            names = np.array(value, object)
            flat = tuple(map(_name, names.flat))
        else:
            names = self._checked(value)
            flat = tuple(self._names[i] for i in names.flat) if self._names else ()
        blank = np.zeros(names.shape, self._dtype)
        shape = to_shape(blank, self.spec.shape, self._ranks).shape

        def stored(places: Sequence[int]) -> Encoded:
            return self._encoded(np.array(places, self._dtype).reshape(shape))

        return UnresolvedLabels(flat, shape, stored)

    def _checked(self, value: object) -> npt.NDArray[Any]:
        if _has_names(value):
            value = self._indices(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            # Indices are counted with whatever integers numpy makes by default: by value.
            value = lossless(value, self._dtype)
        array = super()._checked(value)
        if self._names is not None:
            check_labels(array, self._names)
        return array

    def _indices(self, value: Any) -> Any:
        if self._names is None:
            raise SampleError(
                f"{shorten(value)} is a name, but the tensor does not have class_names. Give the list of "
                "names as class_names, let the write collect it with discover=True, or give "
                "indices."
            )
        if isinstance(value, str):
            return self._of(value)
        return [self._indices(each) for each in value]

    def _of(self, name: str) -> int:
        try:
            return self._index[name]
        except (KeyError, TypeError):
            known = shorten(", ".join(map(repr, self._names or ())), 200)
            raise SampleError(
                f"{shorten(name)} is not one of the class names {known}. Fix the label, or add "
                "to class_names."
            ) from None

    def _from_categories(self, values: Any) -> pa.Array | None:
        places = [self._index.get(each, -1) for each in values.cat.categories]
        if self._names is None or self._layout is not Layout.ARROW or -1 in places:
            return None
        codes = values.cat.codes.to_numpy()
        found = np.array([*places, 0], self._dtype)[codes]
        return pa.array(found, self.storage.type, mask=codes < 0)


def column_of(array: npt.NDArray[Any], spec: TensorSpec) -> pa.Array:
    """Return stored numbers, axis 0 = samples, as a column of the spec's type, without a copy."""
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        flat = pa.array(np.ascontiguousarray(array).reshape(-1), storage.type.value_type)
        rows = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(storage.shape)))
        return pa.ExtensionArray.from_storage(storage.type, rows)
    if array.dtype == np.int64 and not pa.types.is_integer(storage.type):
        # A time that is no time stays one: by way of numpy's times Arrow makes it a null.
        return pa.array(array, pa.int64()).view(storage.type)
    if pa.types.is_boolean(storage.type):
        array = array.astype(bool, copy=False)
    return pa.array(array, storage.type, from_pandas=False)


def _name(value: object) -> str:
    """Return a label that is text as a plain string."""
    if not isinstance(value, str):
        raise SampleError(
            f"{shorten(value)} is not text, but other labels of the sample are. Give all as text, "
            "or all as indices."
        )
    if not is_text(value):
        raise SampleError(f"The name {value!r} is not valid text. Fix the label.")
    return str(value)


def _has_names(value: Any) -> bool:
    if isinstance(value, str):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "UT" or (
            value.dtype.kind == "O" and any(isinstance(each, str) for each in value.flat)
        )
    return isinstance(value, list | tuple) and any(isinstance(each, str) for each in value)
