"""Decide from statistics which chunks may have samples that match a filter.

The answer is never too small: a chunk without statistics may match. Comparisons are those of exact
values; where libraries compare differently (integers as floats, float32 with a Python float, missing
values and NaN), a chunk is kept if it may match in any of these ways.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dasklake._model.statistics import TensorStatistics
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.measurable import bound_kind, time_type
from dasklake._schema.schema import TensorSpec

__all__ = ["OPERATORS", "Condition", "chunks_that_may_match"]

#: Operators of conditions. The last three do not have a value.
OPERATORS = (
    *("==", "!=", "<", "<=", ">", ">=", "in", "not in"),
    *("is null", "is valid", "is nan"),
)

#: Integers from here on may be equal to a float only after they are rounded.
_EXACT = 2**53


class Condition(NamedTuple):
    """A condition on the values of one tensor.

    Attributes
    ----------
    tensor : str
        Name of the tensor.
    operator : str
        One of ``OPERATORS``; ``"="`` is ``"=="``.
    value : object
        The value to compare with, or a collection of them for ``"in"`` and ``"not in"``. Classes
        are indices of the version.
    part : "value", "objects" or int
        What is compared: the value of a scalar, the number of objects of a value, or the length of
        an axis. For lists of class labels, a ``"value"`` condition holds if it holds for any label
        of the list.
    """

    tensor: str
    operator: str
    value: Any = None
    part: str | int = "value"


#: Returns whether a chunk may match a condition. The statistics are None if they are unknown.
_Test = Callable[[TensorStatistics | None], bool]


def chunks_that_may_match(
    statistics: VersionStatistics, filters: Sequence[Sequence[Condition]]
) -> npt.NDArray[np.bool_]:
    """Return a mask of the chunks of a version that may have matching samples.

    Parameters
    ----------
    statistics : VersionStatistics
        The statistics of the version: ``Reader.statistics()``.
    filters : sequence of sequence of Condition
        Alternatives, each a list of conditions that must all hold: disjunctive normal form. Plain
        tuples ``(tensor, operator, value)`` are conditions, too.

    Returns
    -------
    numpy.ndarray
        bool: one element for each chunk of the manifest. Empty chunks never match. Without
        alternatives, nothing matches; an alternative without conditions matches everything.

    Raises
    ------
    KeyError
        The version does not have a tensor.
    ValueError
        An operator is unknown.
    """
    alternatives = [
        [
            (condition[0], _test(Condition(*condition), statistics.schema))
            for condition in conditions
        ]
        for conditions in filters
    ]
    names = {name for conditions in alternatives for name, _ in conditions}
    mask = np.zeros(len(statistics), bool)
    for chunk in np.flatnonzero(statistics.rows).tolist():
        entries = statistics.of(chunk, names)
        mask[chunk] = any(
            all(test(entries.get(name)) for name, test in conditions) for conditions in alternatives
        )
    return mask


def _test(condition: Condition, schema: Any) -> _Test:
    spec: TensorSpec = schema[condition.tensor]
    operator = "==" if condition.operator == "=" else condition.operator
    if operator not in OPERATORS:
        raise ValueError(f"unknown operator {operator!r}; use one of {OPERATORS}")
    if operator == "is null":
        return lambda s: s is None or s.nulls > 0
    if operator == "is valid":
        return lambda s: s is None or s.present > 0
    if operator == "is nan":
        return lambda s: s is None or s.nan > 0
    is_list = operator in ("in", "not in")
    values = list(condition.value) if is_list else [condition.value]
    if condition.part != "value":
        return _test_of_lengths(operator, values, condition.part)
    return _ValueTest(operator, values, spec)


class _ValueTest:
    """Test of the values of scalars or labels."""

    def __init__(self, operator: str, values: Sequence[Any], spec: TensorSpec) -> None:
        plain = [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]
        self._negative = operator in ("!=", "not in")
        self._nan = any(_is_nan(value) for value in plain)
        # Some libraries take NaN in a list of values for a missing value.
        self._null = self._nan or any(value is None for value in plain)
        #: NaT is stored as the least of all times, and some libraries compare it so.
        self._times = time_type(spec) is not None
        ordinary = [value for value in plain if value is not None and not _is_nan(value)]
        self._meets = _Comparison(operator, [interval(value, spec) for value in ordinary])

    def __call__(self, s: TensorStatistics | None) -> bool:
        if s is None:
            return True
        if s.nulls and (self._negative or self._null):
            return True
        if s.nan and (self._negative or self._nan or self._times):
            return True
        if s.present <= s.nan:
            return False
        if s.classes is not None:
            return any(self._meets(index, index) for index in s.classes)
        return s.min is None or self._meets(s.min, s.max)


class _Comparison:
    """Comparison of the bounds of values with the values of a condition.

    Parameters
    ----------
    operator : str
        The operator.
    intervals : sequence of (object, object) or None
        The values as bounds; None for a value that cannot be compared.
    """

    def __init__(self, operator: str, intervals: Sequence[tuple[Any, Any] | None]) -> None:
        self._operator = operator
        self._comparable = [pair for pair in intervals if pair is not None]
        self._unknown = len(self._comparable) < len(intervals)
        self._exact = [low for low, high in self._comparable if low == high]

    def __call__(self, least: Any, most: Any) -> bool:
        """Return whether a value from ``least`` to ``most`` may match; ``most`` may be None."""
        if self._unknown:
            return True
        if self._operator in ("!=", "not in"):
            # Only one value, and it is excluded.
            return bool(least != most or least not in self._exact)
        return any(self._one(least, most, *pair) for pair in self._comparable)

    def _one(self, least: Any, most: Any, low: Any, high: Any) -> bool:
        """Compare with one value, which lies from ``low`` to ``high``."""
        operator = self._operator
        if operator in ("<", "<="):
            return bool(least < high or (least == high and (operator == "<=" or low != high)))
        if operator in (">", ">="):
            return bool(
                most is None or most > low or (most == low and (operator == ">=" or low != high))
            )
        return bool(least <= high and (most is None or most >= low))


def _test_of_lengths(operator: str, values: Sequence[Any], part: str | int) -> _Test:
    plain = [value.as_py() if isinstance(value, pa.Scalar) else value for value in values]
    meets = _Comparison(operator, [_integer_interval(value) for value in plain])
    with_nulls = operator in ("!=", "not in") or None in plain

    def test(s: TensorStatistics | None) -> bool:
        if s is None or (with_nulls and s.nulls):
            return True
        if not s.present:
            return False
        if part == "objects":
            return s.objects is None or meets(*s.objects[:2])
        axis = int(part)
        if s.shape is None or not -len(s.shape[0]) <= axis < len(s.shape[0]):
            return True
        return meets(s.shape[0][axis], s.shape[1][axis])

    return test


def interval(value: Any, spec: TensorSpec) -> tuple[Any, Any] | None:
    """Return bounds of the stored values that may count as equal to a value of a filter.

    Parameters
    ----------
    value : object
        A number, time or string that is not NaN or NaT.
    spec : TensorSpec
        Description of the tensor.

    Returns
    -------
    (object, object) or None
        In the terms of statistics: times are integers. None if ``value`` is of another kind.
    """
    if spec.kind.name == "class_label":
        return _integer_interval(value)
    kind = bound_kind(spec)
    if kind == "text":
        return (str(value), str(value)) if isinstance(value, str) else None
    if kind == "decimal":
        return (value, value) if isinstance(value, Decimal | int) else None
    if kind == "float":
        return _float_interval(value, spec)
    if kind not in ("int", "bool"):
        return None
    dtype = time_type(spec)
    return _integer_interval(value) if dtype is None else _time_interval(value, spec, dtype)


def _integer_interval(value: Any) -> tuple[Any, Any] | None:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | Decimal):
        return value, value
    if not isinstance(value, float):
        return None
    if math.isinf(value) or abs(value) < _EXACT:
        return value, value
    return math.nextafter(value, -math.inf), math.nextafter(value, math.inf)


def _float_interval(value: Any, spec: TensorSpec) -> tuple[Any, Any] | None:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, int | float):
        return None
    dtype = spec.numpy_dtype or np.dtype(spec.arrow_type.to_pandas_dtype())  # type: ignore[union-attr] # one of both is there
    with np.errstate(over="ignore"):
        try:
            rounded = [value, float(value), float(dtype.type(value))]
        except OverflowError:  # an integer beyond the range of floats
            return None
    return min(rounded), max(rounded)


def _time_interval(value: Any, spec: TensorSpec, dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Return a time as an integer in the unit of a tensor, if it is one exactly."""
    kind_of_time: type = np.datetime64 if dtype.kind == "M" else np.timedelta64
    zone = None if spec.numpy_dtype is not None else getattr(spec.arrow_type, "tz", None)
    try:
        if isinstance(value, dt.datetime | str) and dtype.kind == "M":
            stamp = pd.Timestamp(value)
            if (stamp.tzinfo is None) != (zone is None):
                return None
            if stamp.tzinfo is not None:
                stamp = stamp.tz_convert("UTC").tz_localize(None)
            value = stamp.to_datetime64()
        elif isinstance(value, dt.date | dt.timedelta):
            value = kind_of_time(value)
        if not isinstance(value, kind_of_time):
            return None
        converted = value.astype(dtype)  # type: ignore[attr-defined] # a numpy time
        if converted.astype(value.dtype) != value:  # type: ignore[attr-defined] # the same
            return None
    except (ValueError, TypeError, OverflowError):
        return None
    count = int(converted.astype(np.int64))
    return count, count


def _is_nan(value: Any) -> bool:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return value is pd.NaT or (isinstance(value, float | np.floating) and math.isnan(value))
