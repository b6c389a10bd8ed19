"""Strings, and every other value that has an Arrow type and no numpy one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import SampleError

__all__ = ["ArrowCodec", "TextCodec", "checked_text", "string_column"]

#: What Arrow raises for a value that is not of the type asked for.
_REFUSALS = (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError)


class ArrowCodec(Codec):
    """Codec of a ``generic`` tensor with one of Arrow's own types.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._type = self.storage.type

    def encode(self, value: object) -> Encoded:
        """Return the value as an immutable scalar of the column's type."""
        _check_kept(value, self._type)
        try:
            return pa.scalar(value, type=self._type, from_pandas=True)
        except _REFUSALS as error:
            raise SampleError(
                f"{shorten(value)} of type {type(value).__name__} is not a value of type "
                f"{self._type}: {error}. Convert it, or change the tensor's dtype."
            ) from error

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many values at once."""
        try:
            if pa.types.is_integer(self._type):
                # By way of the values' own type: a fraction is then not cut off.
                return _as_array(_as_array(values, None), self._type)
            if pa.types.is_nested(self._type) and not isinstance(values, pa.Array):
                values = pa.array(values)
            return _as_array(values, self._type)
        except _REFUSALS:
            return None

    def decode(self, stored: Encoded) -> object:
        """Return the value as Python knows it."""
        return stored


class TextCodec(Codec):
    """Codec of ``text``, and of ``generic`` strings."""

    def encode(self, value: object) -> Encoded:
        """Check that the value is a string that UTF-8 can write."""
        if not isinstance(value, str):
            raise SampleError(
                f"{shorten(value)} of type {type(value).__name__} is not a string. Convert it "
                "with str(), or decode bytes."
            )
        return checked_text(value)

    def encode_column(self, values: object) -> pa.Array | None:
        """Check many strings at once."""
        try:
            return string_column(values, self.storage.type)
        except _REFUSALS:
            return None

    def decode(self, stored: Encoded) -> object:
        """Return the string."""
        return stored


def _check_kept(value: Any, kind: pa.DataType) -> None:
    """Refuse what Arrow would drop without a word: fractions of integers, unknown fields."""
    if pa.types.is_integer(kind):
        if isinstance(value, float | np.floating) and not float(value).is_integer():
            raise SampleError(f"value {value} does not fit {kind}: it is not whole. Round it.")
    elif pa.types.is_struct(kind) and isinstance(value, dict):
        known = {field.name: field.type for field in kind}
        for name, each in value.items():
            if name not in known:
                raise SampleError(f"the type {kind} has no field {name!r}. Remove it, or add it.")
            _check_kept(each, known[name])
    elif _is_list(kind) and isinstance(value, list | tuple | np.ndarray):
        for each in value:
            _check_kept(each, kind.value_type)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def checked_text(value: str) -> str:
    """Return a plain string that UTF-8 can write.

    Raises
    ------
    SampleError
        It has halves of surrogate pairs.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SampleError(
            f"{shorten(ascii(value))} is not valid text: {error.reason}. Decode it with "
            "errors='replace'."
        ) from error
    return str(value)


def string_column(values: Any, wanted: pa.DataType) -> pa.Array | None:
    """Return strings and missing ones as a column; None if there is anything else."""
    if isinstance(values, np.ndarray) and values.ndim != 1:
        return None
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        values = pa.array(values)
    if isinstance(values, np.ndarray | pd.Series) and values.dtype.kind != "U":
        kind = pd.api.types.infer_dtype(values, skipna=True)
        if kind not in ("string", "empty"):
            return None
    found = _as_array(values, None) if isinstance(values, pa.Array | pa.ChunkedArray) else values
    if isinstance(found, pa.Array) and not (
        pa.types.is_large_string(found.type) or pa.types.is_string(found.type)
    ):
        return None
    return _as_array(found, wanted)


def _as_array(values: Any, wanted: pa.DataType | None) -> pa.Array:
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values, type=wanted, from_pandas=True)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values if wanted is None or values.type == wanted else values.cast(wanted)
