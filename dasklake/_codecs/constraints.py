"""What values have to be, beyond dtype and shape: the constraints of the table of htypes.

A check takes an array whose leading axes do not matter, so that it serves a value as well as a
whole column of values. Class labels and the last axis are checked by every write; what the table
calls constraints by strict ones only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dasklake._schema.same_length import count_axis
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob, UnresolvedLabels
from dasklake.exceptions import SampleError

__all__ = ["CONSTRAINTS", "Check", "LengthCheck", "check_labels", "constraint_for"]

Array: TypeAlias = npt.NDArray[Any]

#: Raises a SampleError where an array is not what it has to be.
Check = Callable[[Array], None]

#: A fraction that was computed from pixels may be off by that much.
_ROUNDING = 1e-3

#: Corners that an outline has at least.
_CORNERS = 3

#: Numbers of a keypoint: x, y, and whether it is seen.
_TRIPLE = 3


def constraint_for(spec: TensorSpec, *, strict: bool) -> Check | None:
    """Return the check that each value of a tensor has to pass; None if there is none.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    strict : bool
        Whether the constraints of its htype are checked as well.
    """
    kind = spec.kind
    checks: list[Check] = []
    if len(kind.last) > 1 and (spec.shape is None or spec.shape[-1] is None):
        checks.append(partial(_check_last, allowed=kind.last))
    if spec.class_names is not None:
        checks.append(partial(check_labels, names=spec.class_names))
    if strict:
        checks += [partial(CONSTRAINTS[name], spec=spec) for name in kind.constraints]
    return partial(_check_all, checks=tuple(checks)) if checks else None


def _check_all(array: Array, checks: tuple[Check, ...]) -> None:
    for check in checks:
        check(array)


def check_labels(array: Array, names: tuple[str, ...]) -> None:
    """Raise if an index is not that of a class name."""
    if not array.size:
        return
    wrong = int(array.max())
    if wrong < len(names):
        wrong = int(array.min()) if array.dtype.kind == "i" else 0
    if not names:
        raise SampleError(
            f"label {wrong} is an index, and there are no class names yet. Give labels as text, or "
            "give class_names."
        )
    if not 0 <= wrong < len(names):
        raise SampleError(
            f"label {wrong} is out of range: there are {len(names)} class names, "
            f"so 0 to {len(names) - 1}. Fix the label, or add to class_names."
        )


class LengthCheck:
    """Refuses samples whose tensors describe different numbers of objects.

    Parameters
    ----------
    group : mapping of str to TensorSpec
        The tensors that have to agree; those without a value do not count.
    """

    def __init__(self, group: Mapping[str, TensorSpec]) -> None:
        self._group = [(name, count_axis(spec) or 0, spec.shape) for name, spec in group.items()]

    def __call__(self, encoded: Mapping[str, Any]) -> None:
        """Check what the codecs made of a sample."""
        first, wanted = "", None
        for name, axis, fixed in self._group:
            value = encoded[name]
            if value is None:
                continue
            shape = value.shape if isinstance(value, Blob | UnresolvedLabels) else fixed
            if not shape:
                raise SampleError("a scalar counts nothing. Give a list.", tensor=name)
            found = shape[axis]
            if wanted is None:
                first, wanted = name, found
            elif found != wanted:
                raise SampleError(
                    f"it has {found} objects and {first!r} has {wanted}; same_length says that "
                    "they agree. Fix the sample.",
                    tensor=name,
                )


def _check_last(array: Array, allowed: tuple[int, ...]) -> None:
    if array.size and array.shape[-1] not in allowed:
        known = " or ".join(map(str, allowed))
        raise SampleError(
            f"the last axis of shape {array.shape} is {array.shape[-1]}, not {known}. "
            "Fix the value."
        )


def _check_finite(array: Array, spec: TensorSpec) -> None:
    del spec  # the same for all
    if array.dtype.kind in "iu":
        return
    flat = array.reshape(-1)
    # Several times as fast as looking at each number; the square of a finite one may be infinite.
    if math.isfinite(np.dot(flat, flat)) or np.isfinite(array).all():
        return
    place = _first(~np.isfinite(array))
    raise SampleError(
        f"value {array[place]} at {list(place)} is not finite. Fix the value, or leave it out."
    )


def _check_box(array: Array, spec: TensorSpec) -> None:
    if spec.coords is None or not array.size:
        return
    unit, _, mode = spec.coords.partition("-")
    if mode == "ltrb":
        bad = array[..., 2:] < array[..., :2]
        what = "right or bottom before left or top"
    else:
        bad = array[..., 2:] < 0
        what = "a negative width or height"
    if bad.any():
        _refuse_box(array, bad, what, spec)
    if unit == "fractional":
        bad = (array < -_ROUNDING) | (array > 1 + _ROUNDING)
        if bad.any():
            _refuse_box(array, bad, "a number outside 0 to 1", spec)


def _refuse_box(array: Array, bad: npt.NDArray[np.bool_], what: str, spec: TensorSpec) -> None:
    place = _first(bad)[:-1]
    where = f"box {place[-1]}, {array[place].tolist()}," if place else f"{array.tolist()}"
    raise SampleError(
        f"{where} has {what}, for coords {spec.coords!r}. Fix the box, or the coords."
    )


def _check_box_3d(array: Array, spec: TensorSpec) -> None:
    if spec.coords is None or not array.size:
        return
    if spec.coords == "vertex":
        if array.shape[-2:] != (8, 3):
            raise SampleError(
                f"shape {array.shape} does not end in (8, 3): eight corners of three numbers, for "
                "coords 'vertex'. Fix the boxes, or the coords."
            )
        return
    bad = array[..., 3:6] < 0
    if bad.any():
        _refuse_box(array, bad, "a negative size", spec)


def _check_keypoints(array: Array, spec: TensorSpec) -> None:
    rows = array.shape[-2]
    wanted = _TRIPLE * len(spec.keypoints) if spec.keypoints else None
    if rows % _TRIPLE or (wanted is not None and rows != wanted and array.size):
        limit = "a multiple of 3" if wanted is None else f"{wanted}, three for each keypoint"
        raise SampleError(
            f"shape {array.shape} has {rows} rows, not {limit}: x, y and visibility of each. "
            "Fix the keypoints, or transpose them."
        )
    seen = array[..., 2::_TRIPLE, :]
    bad = (seen != 0) & (seen != 1) & (seen != 2)
    if bad.any():
        place = _first(bad)
        point, thing = place[-2:]
        raise SampleError(
            f"visibility {seen[place]} of keypoint {point} of object {thing} must be 0 "
            "(not labelled), 1 (hidden) or 2 (visible). Fix the keypoints."
        )


def _check_camera(array: Array, spec: TensorSpec) -> None:
    del spec  # the same for all
    if array.shape[-2] != _TRIPLE:
        raise SampleError(f"shape {array.shape} must have 3 rows. Fix the matrix.")
    lengths = array[..., (0, 1), (0, 1)]
    if (lengths <= 0).any():
        wrong = lengths[_first(lengths <= 0)]
        raise SampleError(f"focal length {wrong} is not positive. Fix the matrix.")


def _check_area(array: Array, spec: TensorSpec) -> None:
    del spec  # the same for all
    if array.shape[-2] < _CORNERS:
        raise SampleError(
            f"an outline of {array.shape[-2]} points has no area. Give 3 at least, or leave it out."
        )


def _first(bad: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(axis[0]) for axis in np.nonzero(bad))


#: The checks of the table of htypes, by name.
CONSTRAINTS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "finite": _check_finite,
        "box": _check_box,
        "box-3d": _check_box_3d,
        "keypoints": _check_keypoints,
        "camera": _check_camera,
        "area": _check_area,
    }
)
