"""Checked casts of whole columns to Arrow types.

Values of another type are cast together if every one of them certainly stays equal. Otherwise they are
encoded one by one, so that the error names the sample.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.types as pt

from dasklake._codecs.arrow_cast import CONVERSION_ERRORS, IS_BINARY, IS_TEXT, any_of

#: Families of types: a column is cast within its family only.
_FAMILIES = (
    any_of("integer", "floating"),
    any_of("decimal", "integer"),
    IS_TEXT,
    IS_BINARY,
    pt.is_date,
    pt.is_time,
    pt.is_duration,
)


def as_column(values: Any, kind: pa.DataType) -> pa.Array | None:
    """Return many values as a column, or None if some value is not certain to stay equal.

    Parameters
    ----------
    values : numpy.ndarray, pandas.Series or pyarrow.Array
        The values.
    kind : pyarrow.DataType
        Type of the column.
    """
    with suppress(*CONVERSION_ERRORS):
        column = _as_array(values)
        return None if column is None else _cast(column, kind)
    return None


def _as_array(values: Any) -> pa.Array | None:
    """Return values as an array of their own type; None for objects other than bytes."""
    if isinstance(values, np.ndarray | pd.Series) and isinstance(values.dtype, np.dtype):
        if values.dtype.kind == "O":
            if pd.api.types.infer_dtype(values, skipna=False) != "bytes":
                return None
            values = pa.array(values, pa.large_binary())
        elif values.dtype.kind in "biuf":
            # As an array of numpy: from pandas, Arrow would turn NaN into null.
            values = pa.array(np.asarray(values), from_pandas=False)
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        values = pa.array(values)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.dictionary_decode() if pt.is_dictionary(values.type) else values


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    have = column.type
    if have == kind:
        return column
    if pt.is_null(have):
        return column.cast(kind)
    if pt.is_timestamp(have) and pt.is_timestamp(kind):
        return column.cast(kind) if (have.tz is None) == (kind.tz is None) else None
    if not any(family(have) and family(kind) for family in _FAMILIES):
        return None
    cast = column.cast(kind)  # Arrow checks all casts within a family except those of floats
    floats = pt.is_floating(have) or pt.is_floating(kind)
    return cast if not floats or _equal(column, cast) else None


def _equal(column: pa.Array, cast: pa.Array) -> bool:
    """Return whether a cast from or to floats has kept all numbers."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    before, after = (
        np.asarray(a.fill_null(0).to_numpy(zero_copy_only=False)) for a in (column, cast)
    )
    # Compared as Python does where a dtype of both would round.
    same = (before == after) | ((before != before) & (after != after)) | missing  # noqa: PLR0124 # NaN
    if {before.dtype.kind, after.dtype.kind} == {"f"}:
        return bool(same.all())
    return bool(same.all()) and _within_digits(before, after)


def _within_digits(before: Any, after: Any) -> bool:
    """Return whether ints and floats are small enough for each other's digits."""
    digits = min(np.finfo(a.dtype).nmant + 1 for a in (before, after) if a.dtype.kind == "f")
    return bool((np.abs(after.astype("f8")) <= 2.0**digits).all())
