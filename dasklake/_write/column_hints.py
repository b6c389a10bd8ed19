"""Propose the schema of columns whose dtype does not determine one, as code.

If the values are known here, the proposal is tried on them before it is shown. Values that no tensor
takes are converted by a line before the schema.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from dasklake._schema.schema import Schema, TensorSpec
from dasklake._write.column_specs import UNKNOWN_CATEGORIES, code_of
from dasklake._write.encoder import Encoder
from dasklake._write.known_values import present
from dasklake.exceptions import SampleError, SchemaError


class Hint(NamedTuple):
    """Proposal for one column.

    Attributes
    ----------
    code : str
        Code that creates the spec of its tensor.
    conversion : str, default ""
        Code of a function that its values need.
    reason : str, default ""
        Explanation of the choice; by default, the problem with the column.
    """

    code: str
    conversion: str = ""
    reason: str = ""


_JSON = TensorSpec("json")
_TEXT = TensorSpec("text")
_UNKNOWN = "its values are not known before they are computed"

#: Functions that convert values which no tensor takes, with their code and the tensor of the results.
_CONVERSIONS: tuple[tuple[str, Callable[[Any], Any], TensorSpec], ...] = (
    ("list", list, _JSON),
    ("numpy.ndarray.tolist", np.ndarray.tolist, _JSON),
    ("str", str, _TEXT),
)

#: Types of single values, and the dtypes of tensors that may take them, in order of preference.
_DTYPES: tuple[tuple[tuple[type, ...], tuple[Any, ...]], ...] = (
    ((bytes, bytearray, memoryview), ("binary",)),
    ((bool, np.bool_), ("bool",)),
    ((int, np.integer), ("int64", "uint64")),
    ((int, float, np.integer, np.floating), ("float64",)),
    ((int, float, complex, np.number), ("complex128",)),
    ((dt.datetime, np.datetime64), ("datetime64[us]", "datetime64[ns]", "datetime64[s]")),
    ((dt.date,), (pa.date32(),)),
    ((dt.timedelta, np.timedelta64), ("timedelta64[us]", "timedelta64[ns]")),
    ((dt.time,), (pa.time64("us"),)),
)


def column_hint(dtype: Any, values: list[Any] | None, *, level: bool = False) -> Hint:
    """Return a proposal for a column without a clear spec.

    Parameters
    ----------
    dtype : dtype
        The dtype of the column.
    values : list or None
        Its first values without missing ones, if they are known.
    level : bool, default False
        Whether it is a level of the index.
    """
    if isinstance(dtype, pd.CategoricalDtype):
        if dtype.categories.dtype != np.dtype(object):
            return _of_dtype(dtype.categories.dtype)
        categories = present(dtype.categories)
        if UNKNOWN_CATEGORIES in categories:
            return Hint(_code(_TEXT))
        return _of_values(categories, level=level)
    if isinstance(dtype, pd.SparseDtype):
        return _of_dtype(dtype.subtype)
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_dictionary(dtype.pyarrow_dtype):
        return _of_dtype(pd.ArrowDtype(dtype.pyarrow_dtype.value_type))
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return _of_numpy(dtype, ())
    return _of_values(values, level=level)


def array_hint(dtype: np.dtype[Any], shape: tuple[int | None, ...], values: Any) -> Hint:
    """Return a proposal for an array without a clear spec.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype of the array.
    shape : tuple of (int or None)
        The shape of its samples.
    values : list or None
        The first samples, if they are known.
    """
    rank = len(shape)
    nested = TensorSpec(dtype=_nested(pa.string(), rank))
    strings = TensorSpec("sequence[text]") if rank == 1 else nested
    if dtype.kind == "S":
        return Hint(_code(TensorSpec(dtype=_nested(pa.binary(), rank))))
    if dtype.kind != "O":
        return Hint(_code(strings)) if dtype.kind in "UT" else _of_numpy(dtype, shape)
    text = strings if rank else _TEXT
    if values is None and rank:
        return Hint(_code(text), "str", _UNKNOWN)
    hint = _of_values(values)
    # The samples of an array cannot become lists.
    return Hint(_code(text), "str", hint.reason) if hint.conversion else hint


def _of_dtype(dtype: Any) -> Hint:
    if dtype == np.dtype(object) or isinstance(dtype, pd.StringDtype):
        return Hint(_code(_TEXT))
    try:
        return Hint(_code(TensorSpec(dtype=dtype, shape=())))
    except SchemaError:
        return Hint(_code(_TEXT), "str")


def _of_numpy(dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> Hint:
    """Return a proposal for numbers that are too wide for Arrow."""
    narrow = "complex128" if dtype.kind == "c" else "float64"
    return Hint(_code(TensorSpec(dtype=narrow, shape=shape)), f"numpy.{narrow}")


def _of_values(values: list[Any] | None, *, level: bool = False) -> Hint:
    if values is None:
        if level:
            return Hint(_code(_TEXT), "str", _UNKNOWN)
        return Hint(_code(_JSON), "", f"{_UNKNOWN}; 'json' takes strings, numbers, lists and dicts")
    if not values:
        return Hint(_code(_TEXT), "", "all of its values are missing")
    types = " and ".join([*dict.fromkeys(type(value).__name__ for value in values)][:4])
    for spec in _candidates(values):
        if _takes(spec, values, level=level):
            return Hint(_code(spec), "", f"its values are of type {types}")
    reason = f"no tensor takes its values of type {types}"
    for conversion, convert, spec in _CONVERSIONS:
        converted = _converted(convert, values)
        if converted is not None and _takes(spec, converted, level=level):
            return Hint(_code(spec), conversion, reason)
    return Hint(_code(_TEXT), "str", reason)


def _candidates(values: list[Any]) -> Iterator[TensorSpec]:
    """Yield specs of tensors that may take the values."""
    if all(isinstance(value, str) for value in values):
        yield _TEXT
    for types, dtypes in _DTYPES:
        if all(isinstance(value, types) for value in values):
            yield from (TensorSpec(dtype=dtype, shape=()) for dtype in dtypes)
            break
    zone = getattr(values[0], "tzinfo", None)
    if zone is not None and all(getattr(value, "tzinfo", None) == zone for value in values):
        yield from (TensorSpec(dtype=pd.DatetimeTZDtype(u, zone)) for u in ("us", "ns"))
    if all(isinstance(value, decimal.Decimal) for value in values):
        yield from _arrow_specs(values, 0)
    if all(isinstance(value, pd.Period | pd.Interval) for value in values):
        yield from _pandas_specs(values)
    if all(isinstance(value, list | tuple | np.ndarray | pd.Series) for value in values):
        yield from _list_specs([np.asarray(v) if isinstance(v, pd.Series) else v for v in values])
    yield _JSON


def _pandas_specs(values: list[Any]) -> Iterator[TensorSpec]:
    dtype = pd.array(values).dtype
    if dtype != np.dtype(object):
        yield TensorSpec(dtype=dtype)


def _list_specs(values: list[Any]) -> Iterator[TensorSpec]:
    """Yield specs for lists and arrays: of numbers or times, else of strings, else of Arrow's types."""
    try:
        arrays = [_plain(np.asarray(value)) for value in values]
    except ValueError:  # lists of several lengths
        return
    full = [array for array in arrays if array.size] or arrays
    ranks = {array.ndim for array in full}
    if len(ranks) != 1:
        return
    rank = ranks.pop()
    kinds = {array.dtype.kind for array in full}
    if kinds <= set("biuf") or (len(kinds) == 1 and kinds <= set("cmM")):
        lengths = zip(*(array.shape for array in arrays if array.ndim == rank), strict=True)
        shape = tuple(axis[0] if len(set(axis)) == 1 else None for axis in lengths)
        yield TensorSpec(dtype=np.result_type(*(a.dtype for a in full)), shape=shape)
    if rank == 1 and kinds <= set("UT"):
        yield TensorSpec("sequence[text]")
    yield from _arrow_specs([array.ravel().tolist() for array in full], rank)


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of objects with the dtype that numpy infers."""
    return np.asarray(array.tolist()) if array.dtype.kind == "O" else array


def _arrow_specs(values: list[Any], rank: int) -> Iterator[TensorSpec]:
    """Yield the spec of the Arrow type of values, which are lists of ``rank`` levels."""
    try:
        inferred = pa.array(values).type
        item = inferred.value_type if rank else inferred
        if not pa.types.is_null(item) and not pa.types.is_nested(item):
            yield TensorSpec(dtype=_nested(item, rank))
    except (pa.ArrowException, SchemaError, TypeError, ValueError, OverflowError):
        return  # values of several types, or of one that Arrow does not have


def _nested(item: pa.DataType, rank: int) -> pa.DataType:
    return item if rank == 0 else pa.list_(_nested(item, rank - 1))


def _converted(convert: Callable[[Any], Any], values: Sequence[Any]) -> list[Any] | None:
    if convert is list and any(isinstance(value, str | bytes | dict) for value in values):
        return None
    try:
        return [convert(value) for value in values]
    except Exception:  # noqa: BLE001 # conversions of foreign objects may raise anything
        return None


def _takes(spec: TensorSpec, values: Iterable[Any], *, level: bool) -> bool:
    """Return whether a tensor, or a level of the index, takes all values."""
    try:
        encoder = Encoder(Schema({"x": replace(spec, index=level)}))
        for value in values:
            encoder.encode({"x": value})
    except (SampleError, SchemaError):
        return False
    return True


def _code(spec: TensorSpec) -> str:
    arrow = spec.arrow_type
    code = None if arrow is None or spec.htype != "generic" else _arrow_code(arrow)
    return code_of("", spec) if code is None else f"dasklake.TensorSpec(dtype={code})"


def _arrow_code(arrow: pa.DataType) -> str | None:
    """Return the code of an Arrow type whose name TensorSpec cannot parse, or None."""
    if pa.types.is_list(arrow):
        item = _arrow_code(arrow.value_type)
        return f"pyarrow.list_({item or f'pyarrow.{_factory(arrow.value_type)}'})"
    if pa.types.is_decimal(arrow):
        return f"pyarrow.{arrow}"
    if pa.types.is_date(arrow) or pa.types.is_time(arrow):
        return f"pyarrow.{_factory(arrow)}"
    return None


def _factory(arrow: pa.DataType) -> str:
    """Return the call that creates a type without parts."""
    name, _, unit = str(arrow).partition("[")
    unit = unit.rstrip("]")
    if name in ("date32", "date64", ""):
        unit = ""
    name = {"double": "float64", "bool": "bool_"}.get(name, name)
    return f"{name}({unit!r})" if unit else f"{name}()"


def converted_column(name: str, hint: Hint, *, level: bool) -> list[str]:
    """Return the lines that convert a column of a frame, or a level of its index."""
    if not hint.conversion:
        return []
    dtype = hint.conversion.removeprefix("numpy.")
    meta = repr(dtype) if dtype in ("float64", "complex128") else "object"
    call = f"map({hint.conversion}, na_action='ignore', meta=({name!r}, {meta}))"
    return ["frame = frame.reset_index()"] * level + [f"frame[{name!r}] = frame[{name!r}].{call}"]


def converted_array(variable: str, hint: Hint) -> list[str]:
    """Return the line that converts an array."""
    if not hint.conversion:
        return []
    dtype = hint.conversion.removeprefix("numpy.")
    return [f"{variable} = {variable}.astype({dtype if dtype == 'str' else repr(dtype)})"]


def unclear_types(
    kind: str,
    specs: Mapping[str, TensorSpec],
    problems: Mapping[str, SchemaError],
    hints: Mapping[str, Hint],
    conversions: Mapping[str, list[str]],
    roles: Mapping[str, bool | str],
) -> SchemaError:
    """Return the error for columns or arrays without a clear spec, with code that works.

    Parameters
    ----------
    kind : str
        ``"columns"`` or ``"arrays"``.
    specs : mapping of str to TensorSpec
        The others.
    problems : mapping of str to SchemaError
        Their problems.
    hints : mapping of str to Hint
        Their proposals.
    conversions : mapping of str to list of str
        Lines that convert their values.
    roles : mapping of str to (bool or str)
        Values of ``TensorSpec.index`` of the levels of the index.
    """
    tensors = {
        name: f"{_with_role(hints[name].code, roles.get(name))},  # edit this line: "
        f"{hints[name].reason or problem}"
        for name, problem in problems.items()
    }
    tensors |= {
        name: f"{_with_role(code_of(name, spec), roles.get(name))}," for name, spec in specs.items()
    }
    lines = [line for name in problems for line in conversions[name]]
    lines += ["schema = {", *(f"    {name!r}: {line}" for name, line in tensors.items()), "}"]
    libraries = [name for name in ("numpy", "pyarrow") if f"{name}." in "\n".join(lines)]
    return SchemaError(
        f"The metadata do not determine the type of the {kind} {', '.join(map(repr, problems))}. "
        "Give a schema with these tensors, such as:\n"
        + "\n".join([*(f"import {name}" for name in libraries), *lines])
    )


def _with_role(code: str, role: object) -> str:
    return code if role is None else f"{code[:-1]}, index={role!r})"
