"""Normalization of dtype names."""

from __future__ import annotations

import base64
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake.exceptions import SchemaError

#: Tests for types whose parts lie outside the buffers of a column, or that few readers support.
_UNSUITABLE = tuple(
    getattr(pa.types, f"is_{name}")
    for name in (
        "dictionary",
        "union",
        "run_end_encoded",
        "string_view",
        "binary_view",
        "list_view",
        "large_list_view",
    )
    if hasattr(pa.types, f"is_{name}")
)

#: Bytes of Arrow's widest numbers, by the kind of their dtype.
_WIDEST = MappingProxyType({"f": 8, "c": 16})


def normalize_dtype(dtype: Any) -> tuple[str | None, str | None]:
    """Normalize a dtype to its name, and its Arrow type if numpy lacks it.

    Parameters
    ----------
    dtype : str, numpy.dtype, pandas dtype, pyarrow.DataType or None
        Any spelling that numpy, pandas or Arrow accept.

    Returns
    -------
    name : str or None
        Name of the dtype in a schema, or None if ``dtype`` is None.
    arrow : str or None
        The serialized Arrow type, or None if numpy has the type.

    Raises
    ------
    SchemaError
        ``dtype`` is not a valid dtype, or cannot be stored.
    """
    if dtype is None:
        return None, None
    if isinstance(dtype, pa.DataType):
        try:
            plain = np.dtype(dtype.to_pandas_dtype())
        except (NotImplementedError, TypeError):
            plain = np.dtype(object)
        # pandas has no dates, and would take milliseconds for them.
        if plain.kind in "biufcmM" and not pa.types.is_date(dtype):
            return plain.name, None
        return _arrow_dtype(pd.ArrowDtype(dtype), dtype)
    if dtype is str or (isinstance(dtype, str) and dtype in ("string", "str")):
        return "string" if dtype == "string" else "str", _pack(pa.large_string())
    if dtype is bytes or (isinstance(dtype, str) and dtype in ("binary", "bytes")):
        return "binary", _pack(pa.large_binary())
    try:
        parsed = pd.api.types.pandas_dtype(dtype)
    except NotImplementedError as error:
        # pandas does not parse the names of Arrow types with parameters.
        raise SchemaError(
            f"dtype {dtype!r} cannot be given by its name. Give the type itself, such as "
            "pyarrow.decimal128(10, 2) or pyarrow.list_(pyarrow.string())."
        ) from error
    except (TypeError, ValueError) as error:
        raise SchemaError(f"Unknown dtype {dtype!r}. Use a numpy, pandas or Arrow type.") from error
    if isinstance(parsed, np.dtype):
        if parsed.kind not in "biufcmM":
            raise SchemaError(f"dtype {parsed} cannot be stored. Use numbers, times or strings.")
        if parsed.itemsize > _WIDEST.get(parsed.kind, parsed.itemsize):
            raise SchemaError(f"dtype {parsed} is too wide. Use float64 or complex128.")
        return (parsed.newbyteorder("=").name, None)
    return _arrow_dtype(parsed, None)


def _arrow_dtype(dtype: Any, arrow: pa.DataType | None) -> tuple[str, str]:
    if isinstance(dtype, pd.ArrowDtype):
        arrow = dtype.pyarrow_dtype
    if arrow is None:
        try:
            arrow = pa.array(pd.Series([], dtype=dtype), from_pandas=True).type
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise SchemaError(f"dtype {dtype} has no Arrow type. Use a plain one.") from error
    if pa.types.is_string(arrow):
        arrow = pa.large_string()
    name = _name_of(dtype)
    if pa.types.is_dictionary(arrow):
        if arrow.ordered:
            raise SchemaError(
                f"dtype {dtype} cannot be stored with its order. Use an ordered pandas.CategoricalDtype."
            )
        arrow = arrow.value_type
    unsuitable = _unsuitable(arrow)
    if unsuitable is not None:
        raise SchemaError(
            f"dtype {dtype} cannot be stored, because of {unsuitable}. Use plain strings, lists, "
            "structs, or times in microseconds."
        )
    return name, _pack(arrow)


def _name_of(dtype: Any) -> str:
    """Return the name of a dtype of pandas; that of strings omits where they are stored."""
    if isinstance(dtype, pd.StringDtype) and dtype.storage == "python":
        return "string[python]" if dtype.na_value is pd.NA else "str[python]"
    return str(dtype)


def _unsuitable(arrow: pa.DataType) -> pa.DataType | None:
    """Return the part of a type that a chunk cannot hold, or None."""
    if isinstance(arrow, pa.BaseExtensionType):
        return _unsuitable(arrow.storage_type)
    if any(test(arrow) for test in _UNSUITABLE):
        return arrow
    parts = [arrow.field(i).type for i in range(arrow.num_fields)] if arrow.num_fields else []
    # Python has no times of day in nanoseconds, and samples hold Python's values.
    unsuitable = (part if part == pa.time64("ns") else _unsuitable(part) for part in parts)
    return next((part for part in unsuitable if part is not None), None)


def _pack(arrow: pa.DataType) -> str:
    return base64.b64encode(pa.schema([("", arrow)]).serialize().to_pybytes()).decode()
