"""Values of users as arrays of one dtype and shape: what is checked, and what is converted.

Arrays must have the dtype of the spec or one that numpy casts to it safely. Python's numbers and
lists, and numpy's integer scalars, have no dtype of their own making: they are converted, and
refused where a value would be lost.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.compression import shorten
from dasklake.exceptions import SampleError

__all__ = ["fits_safely", "lossless", "refuse_masked", "to_array", "to_shape"]

_NUMBERS = "biufc"
_TIMES = (datetime, date, timedelta)


def to_array(value: object, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a value as an array of ``dtype``.

    Raises
    ------
    SampleError
        The value has another dtype, or a number would be lost.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "iu":
            return lossless(array, dtype)
    elif isinstance(value, bool | int | float | complex | list | tuple):
        return lossless(_parsed(value, dtype), dtype)
    elif isinstance(value, _TIMES):
        return lossless(_times(value, dtype), dtype)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    else:
        raise SampleError(
            f"{shorten(value)} of type {type(value).__name__} is not a number or array of "
            f"{dtype.name}. Convert it, or change the tensor's dtype."
        )
    return _cast(array, dtype)


def to_shape(
    array: npt.NDArray[Any], shape: tuple[int | None, ...] | None, ranks: tuple[int, ...] = ()
) -> npt.NDArray[Any]:
    """Check an array's shape against that of the spec; an empty vector fits every ragged one.

    Raises
    ------
    SampleError
        Rank, a fixed axis or the last axis differ.
    """
    if shape is None:
        if ranks and array.ndim not in ranks:
            known = " or ".join(str(rank) for rank in ranks)
            raise SampleError(
                f"shape {array.shape} has rank {array.ndim}; the rank must be {known}."
            )
        return array
    if array.shape == shape:
        return array
    if array.shape == (0,) and len(shape) > 1 and shape[0] is None:
        rest = [axis for axis in shape[1:] if axis is not None]
        if len(rest) == len(shape) - 1:
            return array.reshape((0, *rest))
    if array.ndim != len(shape):
        raise SampleError(
            f"shape {array.shape} has rank {array.ndim}, the tensor's shape {shape} has "
            f"rank {len(shape)}. Reshape the value, or change the tensor's shape."
        )
    for axis, (found, wanted) in enumerate(zip(array.shape, shape, strict=True)):
        if wanted is not None and found != wanted:
            name = "the last axis" if axis == len(shape) - 1 else f"axis {axis}"
            raise SampleError(
                f"{name} of shape {array.shape} is {found}, not {wanted} as in the tensor's shape "
                f"{shape}. Fix the value, or change the tensor's shape."
            )
    return array


def refuse_masked(value: object) -> None:
    """Refuse a masked array, whose mask numpy drops without a word.

    Raises
    ------
    SampleError
        The value is a masked array.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise SampleError("a masked array cannot be stored with its mask. Fill it with .filled().")


def fits_safely(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Return whether numpy casts ``found`` to ``wanted`` without loss; times only to times."""
    if found.kind in "mM" or wanted.kind in "mM":
        return found.kind == wanted.kind and np.can_cast(found, wanted, "safe")
    return np.can_cast(found, wanted, "safe")


def lossless(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Cast by value: floats may be rounded, everything else must come through unchanged.

    Raises
    ------
    SampleError
        A value would be lost.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind == "b" and array.dtype.kind != "b":
        raise SampleError(f"{shorten(array.ravel()[0])} is not a bool. Convert it with bool().")
    if array.dtype.kind == "c" and dtype.kind != "c":
        raise SampleError(f"{array.ravel()[0]} is complex and {dtype} is not. Take .real or abs().")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    lost = _lost(array, cast)
    if lost is not None and lost.any():
        value = array[lost].ravel()[0]
        raise SampleError(f"value {value} does not fit the tensor's dtype {dtype}{_limits(dtype)}.")
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
    """Return Python's numbers as an array of whatever dtype numpy finds for them."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(
            f"{shorten(value)} is not an array of {dtype.name}: {error}. Give lists of one length."
        ) from error
    if array.size == 0 and array.dtype.kind in _NUMBERS:
        return array.astype(dtype)
    if array.dtype.kind == "O":
        array = _times(value, dtype)
    if array.dtype.kind not in _NUMBERS + "mM" or (array.dtype.kind in "mM") != (
        dtype.kind in "mM"
    ):
        raise SampleError(f"{shorten(value)} is not of the tensor's dtype {dtype}. Convert it.")
    return array


def _times(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return Python's (and pandas') times as numpy's; refuse all other objects."""
    flat: list[Any] = np.asarray(value, dtype=object).ravel().tolist()
    bad = next((each for each in flat if not isinstance(each, _TIMES)), None)
    if bad is not None or not flat or dtype.kind not in "mM":
        what = shorten(value if bad is None else bad)
        raise SampleError(f"{what} does not fit the tensor's dtype {dtype}. Convert it.")
    if any(getattr(each, "tzinfo", None) is not None for each in flat):
        raise SampleError(
            f"{shorten(value)} has a time zone and {dtype} has none. Convert it to UTC "
            "without a zone, or use a timestamp type of Arrow."
        )
    make = np.datetime64 if dtype.kind == "M" else np.timedelta64
    try:
        # pandas' times are more precise than the datetime that they also are.
        found = np.array([each.asm8 if hasattr(each, "asm8") else make(each) for each in flat])
    except (ValueError, TypeError, OverflowError) as error:
        raise SampleError(f"{shorten(value)} does not fit {dtype}: {error}. Convert it.") from error
    return found.reshape(np.shape(value))


def _lost(array: npt.NDArray[Any], cast: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where casting changed a value; None if it cannot have."""
    source, target = array.dtype, cast.dtype
    if target.kind in "mM":
        back = cast.astype(source)
        return np.asarray((back != array) & ~(np.isnat(back) & np.isnat(array)))
    if source.kind in "fc" and target.kind in "fc":
        # Rounding to fewer digits is what a narrower float is for; losing the magnitude is not.
        return np.asarray(np.isfinite(array) & ~np.isfinite(cast))
    if np.can_cast(source, target, "safe"):
        return None
    if target.kind in "iu":
        limits = np.iinfo(target)
        inside = (array >= limits.min) & (array <= limits.max)
        return np.asarray(~inside | (cast != array))
    return np.asarray(cast.astype(source) != array)


def _limits(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return f" ({limits.min} to {limits.max}, whole numbers)"
    if dtype.kind == "f":
        return f" (up to {np.finfo(dtype).max:g}, {np.finfo(dtype).precision} digits)"
    return ""
