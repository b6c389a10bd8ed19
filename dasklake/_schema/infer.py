"""Infer the specs of tensors from values, sample by sample."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from dasklake._schema.printable import safe_repr, shorten_middle
from dasklake._schema.spec import Shape, TensorSpec, describe
from dasklake._schema.values import Link
from dasklake.exceptions import InvalidInputError, SchemaError

#: Characters of a value in a message.
_SHOWN = 60

#: Types of single values that numpy does not have, and the dtypes of their tensors.
_ARROW: tuple[tuple[type | tuple[type, ...], Any], ...] = (
    ((bytes, bytearray, memoryview), "binary"),
    (dt.date, pa.date32()),
    (dt.time, pa.time64("us")),
)


@dataclass(frozen=True, slots=True)
class _Observed:
    """Type of a tensor's values so far.

    Attributes
    ----------
    spec : TensorSpec or None
        Spec of other values than arrays of numbers and times.
    dtype : numpy.dtype or None
        Dtype of arrays; None if all of them are empty lists.
    shape : tuple of (int or None)
        Shape of arrays; None is an axis of several lengths.
    sample : int
        Number of the first sample with such a value.
    plain : bool
        Whether JSON can represent all values.
    """

    spec: TensorSpec | None
    dtype: np.dtype[Any] | None
    shape: Shape
    sample: int
    plain: bool

    @property
    def description(self) -> str:
        """Description for messages."""
        if self.spec is not None:
            return describe(self.spec)
        if self.dtype is None:
            return "an empty list"
        return f"{self.dtype} of shape {self.shape}" if self.shape else f"one {self.dtype}"


def infer_specs(
    samples: Iterable[Any], given: Mapping[str, TensorSpec], limit: int
) -> dict[str, TensorSpec]:
    """Return the specs of the tensors of some samples; see :meth:`Schema.infer`."""
    observed: dict[str, _Observed | None] = {}
    counts: dict[str, int] = {}
    number = -1
    for number, sample in enumerate(islice(samples, limit)):
        if not isinstance(sample, Mapping):
            raise InvalidInputError(
                f"A sample must be a mapping of tensor names to values, but sample {number} is "
                f"{_shown(sample)}. Give a list of dicts."
            )
        for name in sample:
            before = observed.setdefault(name, None)
            counts[name] = counts.get(name, 0) + 1
            value = _value(sample, name)
            if name not in given and not _is_missing(value):
                new = _observe(name, value, number)
                observed[name] = new if before is None else _merged(name, before, new)
    if number < 0:
        raise InvalidInputError("samples must have at least one sample, got none. Give some.")
    specs = {name: given.get(name) or _spec(name, types) for name, types in observed.items()}
    for name, spec in specs.items():
        if name not in given and counts[name] <= number:
            specs[name] = replace(spec, optional=True)
    return specs | dict(given)


def _value(sample: Mapping[Any, Any], name: Any) -> Any:
    """Return a value, undecoded if the sample was read from a lake."""
    return dict.__getitem__(sample, name) if isinstance(sample, dict) else sample[name]


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    # NA and NaT of pandas, which need no import of it here.
    return type(value).__name__ in ("NAType", "NaTType")


def _shown(value: object) -> str:
    return shorten_middle(safe_repr(value), _SHOWN)


def _observe(name: str, value: Any, number: int) -> _Observed:
    """Return the type of one value.

    Raises
    ------
    SchemaError
        No tensor is certain to take ``value``.
    """
    spec = _single(value)
    if spec is not None:
        plain = spec.htype in ("text", "json", "sequence[text]")
        return _Observed(spec, None, (), number, plain and not isinstance(value, np.ndarray))
    array = _array(value)
    if array is None:
        raise _unknown(name, value, number)
    plain = array.dtype.kind in "biuf" and not isinstance(value, np.ndarray)
    empty = not array.size and not isinstance(value, np.ndarray)
    return _Observed(None, None if empty else array.dtype, array.shape, number, plain)


def _single(value: Any) -> TensorSpec | None:
    """Return the spec of a value that is neither a number, a time nor an array of them."""
    stored = getattr(value, "stored_spec", None)
    if isinstance(stored, TensorSpec):
        return stored
    if isinstance(value, dt.datetime):
        return None if value.tzinfo is None else TensorSpec(dtype=pa.scalar(value).type)
    for types, dtype in _ARROW:
        if isinstance(value, types):
            return TensorSpec(dtype=dtype)
    is_text_array = isinstance(value, np.ndarray) and value.dtype.kind in "UT"
    if isinstance(value, str) or (is_text_array and value.ndim == 0):
        return TensorSpec("text")
    if (is_text_array and value.ndim == 1) or _is_list_of(str, value):
        return TensorSpec("sequence[text]")
    if isinstance(value, Mapping) or _is_list_of(Mapping, value):
        return TensorSpec("json")
    return None


def _is_list_of(kind: type, value: Any) -> bool:
    is_full = isinstance(value, list | tuple) and len(value) > 0
    return is_full and all(isinstance(item, kind) for item in value)


def _array(value: Any) -> Any:
    """Return numbers or times as an array, or None for other values."""
    if isinstance(value, dt.datetime):
        return np.asarray(np.datetime64(value, "us"))
    if isinstance(value, dt.timedelta):
        return np.asarray(np.timedelta64(value, "us"))
    is_array = isinstance(value, np.ndarray | np.generic)
    if not is_array and not isinstance(value, bool | int | float | complex | list | tuple):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        return None  # lists of several lengths
    if array.dtype.kind not in "biufcmM" or (not is_array and _mixes_types(value, array)):
        return None
    return array


def _mixes_types(value: Any, array: Any) -> bool:
    """Return whether numpy took booleans for numbers, or rounded integers."""
    if array.dtype.kind not in "iufc" or not array.ndim:
        return False
    flat = np.asarray(value, dtype=object).ravel().tolist()
    if any(isinstance(item, bool | np.bool_) for item in flat):
        return True
    whole = (int, np.integer)
    pairs = zip(flat, array.ravel().tolist(), strict=True)
    return array.dtype.kind in "fc" and any(isinstance(a, whole) and a != b for a, b in pairs)


def _merged(name: str, before: _Observed, new: _Observed) -> _Observed:
    """Return the type that has the values of both.

    Raises
    ------
    SchemaError
        No type keeps the values of both.
    """
    plain = before.plain and new.plain
    lists = [o for o in (before, new) if o.spec is not None and o.spec.htype == "sequence[text]"]
    empty = [o for o in (before, new) if o.spec is None and o.dtype is None]
    if before.spec is not None and (before.spec == new.spec or (lists and empty)):
        return replace(before, plain=plain)
    if lists and empty:
        return replace(new, plain=plain)
    if before.spec is not None or new.spec is not None:
        raise _conflict(name, before, new)
    dtype = _common(before.dtype, new.dtype)
    if dtype is None and not (before.dtype is None and new.dtype is None):
        raise _conflict(name, before, new)
    if len(before.shape) != len(new.shape):
        raise _conflict(name, before, new, dtype)
    axes = zip(before.shape, new.shape, strict=True)
    shape = tuple(a if a == b else None for a, b in axes)
    return replace(before, dtype=dtype, shape=shape, plain=plain)


def _common(one: np.dtype[Any] | None, other: np.dtype[Any] | None) -> np.dtype[Any] | None:
    """Return the dtype that has the values of two, or None if no dtype has."""
    if one is None or other is None or one == other:
        return other if one is None else one
    kinds = {one.kind, other.kind}
    numbers = kinds <= set("iufc")
    if not numbers and not (len(kinds) == 1 and kinds <= set("mM")):
        return None
    common = np.result_type(one, other)
    # int64 and uint64 would become floats, which round them.
    return None if kinds == {"i", "u"} and common.kind == "f" else common


def _spec(name: str, observed: _Observed | None) -> TensorSpec:
    """Return the spec of a tensor.

    Raises
    ------
    SchemaError
        No sample has a value, or the values have no dtype.
    """
    if observed is None or (observed.spec is None and observed.dtype is None):
        lack = "has no value" if observed is None else "is an empty list"
        raise SchemaError(
            f"Tensor {name!r} {lack} in all samples that were examined. Examine more of them with "
            f"limit=, or give its spec: Schema.infer(samples, tensors={{{name!r}: "
            "{'dtype': 'float32'}})."
        )
    if observed.spec is not None:
        return observed.spec
    return TensorSpec(dtype=observed.dtype, shape=observed.shape)


def _conflict(
    name: str, before: _Observed, new: _Observed, dtype: np.dtype[Any] | None = None
) -> SchemaError:
    remedy = "Convert the values to one type"
    if dtype is not None:
        spec = f"{{'dtype': {dtype.name!r}}}"
        remedy += f", or allow any shape: Schema.infer(samples, tensors={{{name!r}: {spec}}})"
    elif before.plain and new.plain:
        remedy += f", or store documents: Schema.infer(samples, tensors={{{name!r}: 'json'}})"
    return SchemaError(
        f"Tensor {name!r} must have values of one type, got {before.description} in sample "
        f"{before.sample}, and {new.description} in sample {new.sample}. {remedy}."
    )


def _unknown(name: str, value: object, number: int) -> SchemaError:
    htype = "link[image]" if isinstance(value, Link) else "image"
    spec: str | dict[str, str] = {"htype": htype, "compression": "png"}
    hint = "give its spec, such as for images"
    if _is_document(value):
        spec, hint = "json", "store documents"
    return SchemaError(
        f"The value of tensor {name!r} in sample {number} does not determine a spec: "
        f"{_shown(value)} of type {type(value).__name__}. Convert it, or {hint}: "
        f"Schema.infer(samples, tensors={{{name!r}: {spec!r}}})."
    )


def _is_document(value: object) -> bool:
    """Return whether JSON can represent a value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_document(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_document, value))
    return value is None or isinstance(value, str | bool | int | float)
