"""Checked casts to Arrow types: a value stays equal, or it is refused.

Arrow converts silently where a value does not fit: it cuts off fractions of times, drops or adds time
zones, parses strings, and turns NaN into null. The functions of this module allow only conversions that
keep the value. Python floats may be rounded to a narrower float, because the user did not choose
their dtype; numbers of numpy and Arrow must stay equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.types as pt

from dasklake._codecs.compression import wrong_value
from dasklake.exceptions import SampleError

#: Errors that Arrow raises for a value that does not fit a type.
CONVERSION_ERRORS = (
    pa.ArrowException,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
    NotImplementedError,
)

#: Nanoseconds in one unit of time.
_NANOSECONDS = MappingProxyType({"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1})

#: Units of numpy that are finer than Arrow's.
_FINER = ("ps", "fs", "as")

_SEQUENCES = (list, tuple, pd.Series, pd.Index, pd.api.extensions.ExtensionArray)

#: Types of Python that Arrow converts to a type unchanged, or refuses.
_UNCHANGED: Mapping[pa.DataType, set[type]] = MappingProxyType(
    {
        pa.float64(): {float},
        pa.int64(): {int},
        pa.bool_(): {bool},
        pa.string(): {str},
        pa.large_string(): {str},
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 2**63
_REMEDY = "Convert it, or change the tensor's dtype."


def _is_missing(value: object) -> bool:
    """Return whether a value means "no value". NaN is a number."""
    return value is None or value is pd.NA or value is pd.NaT


def as_exact(value: Any, kind: pa.DataType) -> Any:
    """Return a value that ``pyarrow.array`` converts to the type ``kind`` without any change.

    Parameters
    ----------
    value : object
        A Python, numpy or pandas value, possibly nested. Missing values are allowed.
    kind : pyarrow.DataType
        Type of the column.

    Raises
    ------
    SampleError
        The conversion would change the value.
    """
    if _is_missing(value) or (
        isinstance(value, np.datetime64 | np.timedelta64) and np.isnat(value)
    ):
        return None
    if isinstance(value, pa.Scalar):
        return value if value.type == kind else as_exact(value.as_py(), kind)
    for test, convert in _CONVERSIONS:
        if test(kind):
            return convert(value, kind)
    return _by_comparison(value, kind)


def _refuse(value: Any, kind: pa.DataType, remedy: str = _REMEDY) -> SampleError:
    return wrong_value(f"a valid {kind}", value, remedy)


def _by_comparison(value: Any, kind: pa.DataType) -> Any:
    """Accept a value of a rare type if Arrow returns an equal one."""
    # Arrow returns bools and UUIDs of extension types that it makes of numbers and bytes.
    parts = {bool: int, UUID: lambda value: value.bytes}
    storage: Any = parts.get(type(value), lambda value: value)
    for candidate in (value, storage(value)):
        with suppress(*CONVERSION_ERRORS):
            equal = pa.scalar(candidate, kind, from_pandas=False).as_py()
            if type(equal) is type(value) and equal == value:
                return candidate
    raise _refuse(value, kind)


def _bool(value: Any, kind: pa.DataType) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _refuse(value, kind, "Convert it with bool().")


def _int(value: Any, kind: pa.DataType) -> int:
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            raise _refuse(value, kind, "Give None for a missing value.")
        if not float(value).is_integer():
            raise SampleError(f"the value must be a whole number of {kind}, got {value}. Round it.")
        value = int(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise _refuse(value, kind)
    bits = kind.bit_width
    first, stop = (
        (0, 2**bits) if pt.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    )
    if not first <= value < stop:
        raise SampleError(
            f"value {value} does not fit the tensor's dtype {kind} ({first} to {stop - 1}). Fix the "
            "value, or change the dtype."
        )
    return int(value)


def _float(value: Any, kind: pa.DataType) -> Any:
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool | np.bool_) or not number:
        raise _refuse(value, kind)
    make: Any = np.dtype(f"f{kind.bit_width // 8}").type
    try:
        with np.errstate(all="ignore"):
            cast = make(value)
    except OverflowError:
        cast = make(np.inf)
    if np.isnan(cast):
        return cast
    rounded = type(value) is float and bool(np.isfinite(cast)) and bool(cast) == bool(value)
    if not rounded and (float(cast) if np.isinf(cast) else cast.item()) != _number(value):
        cure = "Fix the value" if type(value) is float else "Convert it with float()"
        raise SampleError(
            f"value {value} does not fit the tensor's dtype {kind} (up to {np.finfo(make).max:g}): it "
            f"would become {cast}. {cure if np.isfinite(cast) else 'Fix the value'}, or change the dtype."
        )
    return cast


def _number(value: Any) -> Any:
    """Return a number as Python's type, which compares ints and floats exactly."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any, kind: pa.DataType) -> str:
    if not isinstance(value, str):
        raise _refuse(value, kind, "Convert it with str(), or give None for a missing value.")
    return str(value)


def _bytes(value: Any, kind: pa.DataType) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _refuse(value, kind, "Convert it to bytes, such as with .encode() or .tobytes().")
    data = bytes(value)
    if pt.is_fixed_size_binary(kind) and len(data) != kind.byte_width:
        raise _refuse(value, kind, f"Give {kind.byte_width} bytes.")
    return data


def _decimal(value: Any, kind: pa.DataType) -> Decimal:
    if isinstance(value, np.integer) or type(value) is int:
        value = Decimal(int(value))
    if not isinstance(value, Decimal):
        raise _refuse(value, kind, "Convert it with decimal.Decimal(str(value)).")
    if not value.is_finite():
        raise _refuse(value, kind, "Give None for a missing value.")
    with suppress(*CONVERSION_ERRORS):
        if pa.scalar(value, kind).as_py() == value:
            return value
    raise _refuse(value, kind, "Round it with .quantize(), or change the tensor's dtype.")


def _date(value: Any, kind: pa.DataType) -> date:
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value) if np.datetime_data(value)[0] != "D" else value.item()
    if isinstance(value, datetime):
        if (
            value.tzinfo is not None
            or value.time() != time()
            or getattr(value, "nanosecond", False)
        ):
            raise _refuse(value, kind, "Convert it with .date(), or use a timestamp type.")
        value = value.date()
    if not isinstance(value, date):
        raise _refuse(value, kind)
    return value


def _time(value: Any, kind: pa.DataType) -> time:
    if not isinstance(value, time):
        raise _refuse(value, kind)
    if value.tzinfo is not None:
        raise _refuse(value, kind, "Remove the time zone with .replace(tzinfo=None).")
    if value.microsecond * 1000 % _NANOSECONDS[kind.unit]:
        raise _refuse(value, kind, "Round it, or use a type with a finer unit.")
    return value


def _timestamp(value: Any, kind: pa.DataType) -> int:
    """Return the count of the type's units since 1970, in UTC if the type has a time zone."""
    if isinstance(value, np.datetime64):
        zoned = False
    elif isinstance(value, date):
        zoned = isinstance(value, datetime) and value.tzinfo is not None
    else:
        raise _refuse(value, kind)
    if zoned and kind.tz is None:
        raise _refuse(
            value,
            kind,
            "It must not have a time zone. Convert it to UTC without a time zone, or use a type with one.",
        )
    if kind.tz is not None and not zoned:
        raise _refuse(
            value, kind, "It must have a time zone. Add one with tz_localize() or replace()."
        )
    if isinstance(value, pd.Timestamp):
        return _units(value.to_datetime64(), value, kind)
    if isinstance(value, np.datetime64):
        return _units(value, value, kind)
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    moment = value if zoned else value.replace(tzinfo=UTC)
    return _units(moment - _EPOCH, value, kind)


def _duration(value: Any, kind: pa.DataType) -> int:
    if isinstance(value, pd.Timedelta):
        return _units(value.to_timedelta64(), value, kind)
    if isinstance(value, timedelta | np.timedelta64):
        return _units(value, value, kind)
    raise _refuse(value, kind)


def _units(elapsed: Any, value: Any, kind: pa.DataType) -> int:
    """Return elapsed time as a whole number of the type's units."""
    if isinstance(elapsed, timedelta):
        microseconds = elapsed // timedelta(microseconds=1)
        count, rest = divmod(1000 * microseconds, _NANOSECONDS[kind.unit])
    else:
        elapsed = _in_known_unit(elapsed, value, kind)
        unit, multiple = np.datetime_data(elapsed.dtype)
        nanoseconds = int(elapsed.astype("int64")) * _NANOSECONDS[unit] * multiple
        count, rest = divmod(nanoseconds, _NANOSECONDS[kind.unit])
    if rest:
        raise _refuse(value, kind, "Round it, or use a type with a finer unit.")
    if not -_INT64 < count < _INT64:
        raise _refuse(value, kind, "It is out of range. Use a type with a coarser unit.")
    return count


def _in_known_unit(elapsed: Any, value: Any, kind: pa.DataType) -> Any:
    """Return a time of numpy in a unit that Arrow has."""
    unit = np.datetime_data(elapsed.dtype)[0]
    if unit in _NANOSECONDS:
        return elapsed
    converted = elapsed.astype(f"{elapsed.dtype.kind}8[{'ns' if unit in _FINER else 's'}]")
    if converted.astype(elapsed.dtype) != elapsed:
        raise _refuse(value, kind, "Round it to nanoseconds.")
    return converted


def _list(value: Any, kind: pa.DataType) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        raise _refuse(value, kind, "Its mask would be lost. Fill it with .filled().")
    if hasattr(value, "__array__") and not isinstance(value, _SEQUENCES):
        value = np.asarray(value)
    if type(value) in (list, tuple) and set(map(type, value)) <= _UNCHANGED.get(
        kind.value_type, set()
    ):
        items: Any = value
    elif isinstance(value, np.ndarray) and value.ndim:
        if value.ndim == 1 and _same_numbers(value.dtype, kind.value_type):
            items = value
        else:
            items = [as_exact(item, kind.value_type) for item in value]
    elif isinstance(value, _SEQUENCES):
        items = [as_exact(item, kind.value_type) for item in value]
    else:
        raise _refuse(value, kind, "Give a list.")
    if pt.is_fixed_size_list(kind) and len(items) != kind.list_size:
        raise _refuse(value, kind, f"Give a list of {kind.list_size} items.")
    return items


def _same_numbers(dtype: np.dtype[Any], kind: pa.DataType) -> bool:
    """Return whether Arrow converts numpy numbers unchanged."""
    return dtype.kind in "biuf" and dtype.isnative and pa.from_numpy_dtype(dtype) == kind


def _struct(value: Any, kind: pa.DataType) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(value, kind, "Give a mapping of the fields.")
    types = {field.name: field.type for field in kind}
    for name in value:
        if name not in types:
            raise SampleError(
                f"the value has a field {name!r} that the type {kind} does not have. Remove the field, "
                "or add it to the tensor's dtype."
            )
    return {name: as_exact(member, types[name]) for name, member in value.items()}


def _map(value: Any, kind: pa.DataType) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, Mapping) else value
    try:
        items = [(key, item) for key, item in pairs]
    except (TypeError, ValueError):
        raise _refuse(value, kind, "Give a mapping, or a list of pairs.") from None
    if any(_is_missing(key) for key, _ in items):
        raise _refuse(value, kind, "The keys of a map must not be missing.")
    return [(as_exact(key, kind.key_type), as_exact(item, kind.item_type)) for key, item in items]


def any_of(*names: str) -> Callable[[pa.DataType], bool]:
    """Return a test for any of some kinds of Arrow types; older releases lack some of them."""
    tests = [getattr(pt, f"is_{name}") for name in names if hasattr(pt, f"is_{name}")]
    return lambda kind: any(test(kind) for test in tests)


IS_TEXT = any_of("string", "large_string", "string_view")
IS_BINARY = any_of("binary", "large_binary", "binary_view", "fixed_size_binary")
_IS_LIST = any_of("list", "large_list", "fixed_size_list", "list_view", "large_list_view")

_CONVERSIONS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, Any], Any]], ...] = (
    (pt.is_boolean, _bool),
    (pt.is_integer, _int),
    (pt.is_floating, _float),
    (pt.is_decimal, _decimal),
    (IS_TEXT, _text),
    (IS_BINARY, _bytes),
    (pt.is_date, _date),
    (pt.is_time, _time),
    (pt.is_timestamp, _timestamp),
    (pt.is_duration, _duration),
    (pt.is_map, _map),
    (_IS_LIST, _list),
    (pt.is_struct, _struct),
)
