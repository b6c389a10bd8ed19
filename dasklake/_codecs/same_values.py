"""Exact comparison of a decoded value with one that the caller may have changed in place."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np

from dasklake._media.file import File
from dasklake._schema.values import Link

#: Types whose objects cannot be changed in place.
IMMUTABLE = (
    *(type(None), str, bytes, bool, int, float, complex, np.generic, decimal.Decimal),
    *(dt.date, dt.time, dt.timedelta, Link, File),
)


def is_same(value: Any, other: Any) -> bool:
    """Return whether two values have the same types, order and bits.

    Examples
    --------
    >>> is_same([1, {"a": float("nan")}], [1, {"a": float("nan")}]), is_same([1], [True])
    (True, False)
    """
    if value is other:
        return True
    if type(value) is not type(other):
        return False
    if isinstance(value, np.ndarray):
        return _is_same_array(value, other)
    if isinstance(value, dict):
        keys = list(value) == list(other)
        return keys and all(is_same(value[key], other[key]) for key in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(is_same, value, other))
    if isinstance(value, float):
        return repr(value) == repr(other)  # NaN is itself, and -0.0 is not 0.0
    if isinstance(value, File):
        return bool(value.bytes() == other.bytes())
    return bool(value == other)


def _is_same_array(array: Any, other: Any) -> bool:
    if array.dtype != other.dtype or array.shape != other.shape:
        return False
    if array.dtype.hasobject:
        return is_same(array.tolist(), other.tolist())
    if not array.size:
        return True
    # As bytes, because NaN differs from itself.
    one, two = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (array, other))
    return bool(np.array_equal(one, two))
