"""Codecs of strings, and of values with an Arrow type that numpy does not have."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._codecs.arrow_cast import CONVERSION_ERRORS, as_exact
from dasklake._codecs.arrow_column_cast import as_column
from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten, wrong_value
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import SampleError


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
        """Convert the value to an equal Arrow scalar of the column's type."""
        exact = as_exact(value, self._type)
        try:
            return pa.scalar(exact, type=self._type, from_pandas=False)
        except CONVERSION_ERRORS as error:
            remedy = f"Convert it, or change the tensor's dtype. Cause: {error}."
            raise wrong_value(f"a valid {self._type}", value, remedy) from error

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once."""
        return as_column(values, self._type)

    def decode(self, stored: Encoded) -> object:
        """Return the stored value."""
        return stored


class PandasCodec(ArrowCodec):
    """Codec of a ``generic`` tensor with a dtype that only pandas has: periods and intervals.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._dtype: Any = pd.api.types.pandas_dtype(spec.dtype)

    def encode(self, value: object) -> Encoded:
        """Convert the value to an Arrow scalar from which pandas restores it."""
        with suppress(*CONVERSION_ERRORS):
            column = pa.array(pd.array([value], dtype=self._dtype), self._type)
            if self._restored(column) == value:
                return column[0]
        remedy = "Convert it, or change the tensor's dtype."
        raise wrong_value(f"a valid {self._dtype}", value, remedy)

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once."""
        if not (isinstance(values, pd.Series) and values.dtype == self._dtype):
            return None
        return super().encode_column(values)

    def decode(self, stored: Encoded) -> object:
        """Return the value as pandas has it."""
        storage = pa.array([stored], self._type.storage_type)
        return self._restored(pa.ExtensionArray.from_storage(self._type, storage))

    def _restored(self, column: pa.Array) -> Any:
        return self._dtype.__from_arrow__(column)[0]


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
        except CONVERSION_ERRORS:
            return None

    def decode(self, stored: Encoded) -> object:
        """Return the string."""
        return stored


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
    if isinstance(values, pd.Series) and isinstance(
        values.dtype, pd.CategoricalDtype | pd.ArrowDtype
    ):
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
