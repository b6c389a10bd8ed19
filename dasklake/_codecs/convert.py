"""Check and convert values to arrays of one dtype and shape.

An array must have the dtype of the spec, or a dtype that numpy casts to it safely. The user does not
choose the dtype of Python numbers, lists and numpy integer scalars. They are converted by value, and
refused if the conversion would lose a value.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.compression import shorten, wrong_value
from dasklake.exceptions import SampleError

_NUMBERS = "biufc"

#: Smaller integers are exact as floats of 64 bits.
_EXACT = 2.0**53
_TIMES = (datetime, date, timedelta)


def to_array(value: object, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a value as an array of ``dtype``.

    Raises
    ------
    SampleError
        The dtype of ``value`` does not fit, or a number would be lost.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "iu" and dtype.kind not in "mM":
            return lossless(array, dtype)
    elif isinstance(value, bool | int | float | complex | list | tuple):
        return lossless(_parsed(value, dtype), dtype)
    elif isinstance(value, _TIMES):
        return lossless(_times(value, dtype), dtype)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    else:
        raise wrong_value(
            f"a number or array of {dtype.name}", value, "Convert it, or change the tensor's dtype."
        )
    return _cast(array, dtype)


def to_shape(
    array: npt.NDArray[Any], shape: tuple[int | None, ...] | None, ranks: tuple[int, ...] = ()
) -> npt.NDArray[Any]:
    """Check the shape of an array, and reshape an empty vector; see :func:`fit_shape`."""
    fitted = fit_shape(array.shape, shape, ranks)
    return array if fitted == array.shape else array.reshape(fitted)


def fit_shape(
    value: tuple[int, ...], shape: tuple[int | None, ...] | None, ranks: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Check the shape of a value against the shape of the spec, and return it.

    An empty vector fits every ragged shape: the fixed axes are added to its shape.

    Raises
    ------
    SampleError
        The rank or a fixed axis of ``value`` differs from ``shape``.
    """
    if shape is None:
        if ranks and len(value) not in ranks:
            allowed = " or ".join(map(str, ranks))
            raise SampleError(
                f"the rank must be {allowed}, got rank {len(value)} (shape {value}). Reshape the "
                "value."
            )
        return value
    if value == shape:
        return value
    if value == (0,) and len(shape) > 1 and shape[0] is None:
        fixed = [axis for axis in shape[1:] if axis is not None]
        if len(fixed) == len(shape) - 1:
            return (0, *fixed)
    if len(value) != len(shape):
        raise SampleError(
            f"shape {value} has rank {len(value)}, but the tensor's shape {shape} has rank "
            f"{len(shape)}. Reshape the value, or change the tensor's shape."
        )
    for axis, (length, expected) in enumerate(zip(value, shape, strict=True)):
        if expected is not None and length != expected:
            name = "the last axis" if axis == len(shape) - 1 else f"axis {axis}"
            raise SampleError(
                f"{name} must have length {expected}, as in the tensor's shape {shape}, got "
                f"{length} (shape {value}). Fix the value, or change the tensor's shape."
            )
    return value


def refuse_masked(value: object) -> None:
    """Refuse a masked array, because numpy would drop its mask silently.

    Raises
    ------
    SampleError
        ``value`` is a masked array.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise SampleError(
            "the value must not be a masked array: its mask would be lost. Fill it with .filled()."
        )


def fits_safely(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Return whether numpy casts ``source`` to ``target`` without loss. Times fit only times."""
    times = source.kind in "mM" or target.kind in "mM"
    return np.can_cast(source, target, "safe") and (not times or source.kind == target.kind)


def lossless(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Cast by value. Floats may be rounded; every other value must stay the same.

    Raises
    ------
    SampleError
        A value would be lost.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind == "b" and array.dtype.kind != "b":
        raise SampleError(
            f"the value must be a bool, got {shorten(array.ravel()[0])}. Convert it with bool()."
        )
    if array.dtype.kind != dtype.kind and (array.dtype.kind in "mM" or dtype.kind in "mM"):
        raise SampleError(
            f"the value must have the tensor's dtype {dtype}, got {array.dtype}. Convert it, or change "
            "the tensor's dtype."
        )
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise SampleError(
            f"the value must be a real number of {dtype}, got the complex number "
            f"{array.ravel()[0]}. Use .real or abs()."
        )
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    lost = _lost(array, cast)
    if lost is not None and lost.any():
        value = array[lost].ravel()[0]
        raise SampleError(
            f"value {value} does not fit the tensor's dtype {dtype}{_limits(dtype)}. Fix the value, "
            "or change the dtype."
        )
    return cast


def _cast(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    refuse_masked(array)
    if array.dtype == dtype:
        return array
    if array.size == 0 and array.dtype.kind in _NUMBERS:
        return np.empty(array.shape, dtype)
    if array.dtype.kind == "O":
        return lossless(_parsed(array.tolist(), dtype), dtype)
    if not fits_safely(array.dtype, dtype):
        raise SampleError(
            f"dtype {array.dtype} does not fit the tensor's dtype {dtype}. Convert the array "
            f"with .astype({dtype.name!r}), or change the tensor's dtype."
        )
    return lossless(array, dtype)


def _parsed(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return Python numbers as an array with the dtype that numpy infers."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(
            f"{shorten(value)} cannot be converted to an array of {dtype.name}: {str(error).rstrip('.')}. Give nested "
            "lists of one length."
        ) from error
    if array.size == 0 and array.dtype.kind in _NUMBERS:
        return array.astype(dtype)
    if array.dtype.kind in "fc" and (np.abs(array) >= _EXACT).any():
        _refuse_rounded_integers(value, array, dtype)
    if array.dtype.kind == "O":
        array = _times(value, dtype)
    if array.dtype.kind not in ("mM" if dtype.kind in "mM" else _NUMBERS):
        raise wrong_value(f"of the tensor's dtype {dtype}", value, "Convert it.")
    return array


def _refuse_rounded_integers(value: Any, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Refuse integers that numpy rounded because the list has floats as well."""
    flat = np.asarray(value, dtype=object).ravel().tolist()
    for number, cast in zip(flat, array.ravel().tolist(), strict=True):
        if isinstance(number, int | np.integer) and number != cast:
            raise SampleError(
                f"value {number} does not fit the tensor's dtype {dtype} in a list with floats. Fix "
                "the value, or change the dtype."
            )


def _times(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Convert times of Python and pandas to numpy; refuse all other objects."""
    flat: list[Any] = np.asarray(value, dtype=object).ravel().tolist()
    bad = next((item for item in flat if not isinstance(item, _TIMES)), None)
    if bad is not None or not flat or dtype.kind not in "mM":
        bad = value if bad is None else bad
        raise wrong_value(f"of the tensor's dtype {dtype}", bad, "Convert it.")
    if any(getattr(time, "tzinfo", None) is not None for time in flat):
        raise SampleError(
            f"a value of {dtype} must not have a time zone, got {shorten(value)}. Convert it to UTC "
            "without a time zone, or use an Arrow timestamp type."
        )
    make = np.datetime64 if dtype.kind == "M" else np.timedelta64
    try:
        # A pandas time is a datetime as well, but more precise.
        times = np.array([time.asm8 if hasattr(time, "asm8") else make(time) for time in flat])
    except (ValueError, TypeError, OverflowError) as error:
        raise wrong_value(
            f"of the tensor's dtype {dtype}", value, f"Convert it ({error})."
        ) from error
    return times.reshape(np.shape(value))


def _lost(array: npt.NDArray[Any], cast: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return a mask of the values that casting changed, or None if it cannot change any."""
    source, target = array.dtype, cast.dtype
    if target.kind in "mM":
        back = cast.astype(source)
        return np.asarray((back != array) & ~(np.isnat(back) & np.isnat(array)))
    if source.kind in "fc" and target.kind in "fc":
        # Rounding to fewer digits is expected of a narrower float; overflow to infinity and underflow
        # to zero are not.
        return np.asarray(np.isfinite(array) & ~np.isfinite(cast) | (array != 0) & (cast == 0))
    if source.kind in "iu" and target.kind in "fc":
        return _rounded(array, cast.real)
    if np.can_cast(source, target, "safe"):
        return None
    if target.kind in "iu":
        limits = np.iinfo(target)
        inside = (array >= limits.min) & (array <= limits.max)
        return np.asarray(~inside | (cast != array))
    return np.asarray(cast.astype(source) != array)


def _rounded(array: npt.NDArray[Any], cast: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return a mask of the integers that are not exact as floats, or None if all of them are."""
    limits = np.iinfo(array.dtype)
    if limits.max <= 2 ** (np.finfo(cast.dtype).nmant + 1):
        return None
    # The limits of the integers are powers of two, so they are exact as floats.
    wide = cast.astype(np.float64)
    inside = (wide >= float(limits.min)) & (wide < 2.0 ** (limits.bits - (limits.min < 0)))
    back = np.where(inside, wide, 0).astype(array.dtype)
    return np.asarray(~inside | (back != array))


def _limits(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return f" ({limits.min} to {limits.max}, whole numbers)"
    if dtype.kind == "f":
        return f" (up to {np.finfo(dtype).max:g}, {np.finfo(dtype).precision} digits)"
    return ""
