"""Codecs of strings, and of values with an Arrow type that numpy does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten, wrong_value
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import SampleError

__all__ = ["ArrowCodec", "TextCodec", "checked_text", "string_column"]

#: Errors that Arrow raises for a value that does not fit a type.
_CONVERSION_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


class ArrowCodec(Codec):
    """Codec of a ``generic`` tensor with an Arrow type.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._type = self.storage.type

    def encode(self, value: object) -> Encoded:
        """Convert the value to an Arrow scalar of the column's type."""
        _check_lossless(value, self._type)
        try:
            return pa.scalar(value, type=self._type, from_pandas=True)
        except _CONVERSION_ERRORS as error:
            remedy = f"Convert it, or change the tensor's dtype. Cause: {error}."
            raise wrong_value(f"a valid {self._type}", value, remedy) from error

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once."""
        try:
            if pa.types.is_integer(self._type):
                # First to the type of the values, so that the cast does not cut off fractions.
                return _as_array(_as_array(values, None), self._type)
            if pa.types.is_nested(self._type) and not isinstance(values, pa.Array):
                values = pa.array(values)
            return _as_array(values, self._type)
        except _CONVERSION_ERRORS:
            return None

    def decode(self, stored: Encoded) -> object:
        """Return the stored value."""
        return stored


class TextCodec(Codec):
    """Codec of ``text``, and of ``generic`` strings."""

    def encode(self, value: object) -> Encoded:
        """Check that the value is a string that UTF-8 can encode."""
        if not isinstance(value, str):
            raise wrong_value("a string", value, "Convert it with str(), or decode bytes.")
        return checked_text(value)

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many strings at once."""
        try:
            return string_column(values, self.storage.type)
        except _CONVERSION_ERRORS:
            return None

    def decode(self, stored: Encoded) -> object:
        """Return the string."""
        return stored


def _check_lossless(value: Any, dtype: pa.DataType) -> None:
    """Refuse values of which Arrow would silently drop fractions or unknown fields."""
    if pa.types.is_integer(dtype):
        if isinstance(value, float | np.floating) and not float(value).is_integer():
            raise SampleError(
                f"the value must be a whole number of {dtype}, got {value}. Round it."
            )
    elif pa.types.is_struct(dtype) and isinstance(value, dict):
        types = {field.name: field.type for field in dtype}
        for name, member in value.items():
            if name not in types:
                raise SampleError(
                    f"the value has a field {name!r} that the type {dtype} does not have. Remove the "
                    "field, or add it to the tensor's dtype."
                )
            _check_lossless(member, types[name])
    elif _is_list(dtype) and isinstance(value, list | tuple | np.ndarray):
        for item in value:
            _check_lossless(item, dtype.value_type)


def _is_list(dtype: pa.DataType) -> bool:
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(dtype) for check in checks)


def checked_text(value: str) -> str:
    """Return a plain string that UTF-8 can encode.

    Raises
    ------
    SampleError
        ``value`` contains lone surrogates.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SampleError(
            f"the value must be valid text, got {shorten(ascii(value))}: {error.reason}. Decode it "
            "with errors='replace'."
        ) from error
    return str(value)


def string_column(values: Any, dtype: pa.DataType) -> pa.Array | None:
    """Return strings and missing values as a column, or None if there are other values."""
    if isinstance(values, np.ndarray) and values.ndim != 1:
        return None
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        values = pa.array(values)
    if isinstance(values, np.ndarray | pd.Series) and values.dtype.kind != "U":
        kind = pd.api.types.infer_dtype(values, skipna=True)
        if kind not in ("string", "empty"):
            return None
    if isinstance(values, pa.Array | pa.ChunkedArray):
        values = _as_array(values, None)
        if not (pa.types.is_large_string(values.type) or pa.types.is_string(values.type)):
            return None
    return _as_array(values, dtype)


def _as_array(values: Any, dtype: pa.DataType | None) -> pa.Array:
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, type=dtype, from_pandas=True)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values if dtype is None or values.type == dtype else values.cast(dtype)
