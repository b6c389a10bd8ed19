"""Checks of values beyond dtype and shape: the constraints of the table of htypes.

A check ignores the leading axes of an array, so it works for one value and for a whole column. Every
write checks class labels and the last axis. Only a strict write checks the constraints of the table.
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

Array: TypeAlias = npt.NDArray[Any]

#: Function that raises a SampleError if an array violates a constraint.
Check = Callable[[Array], None]

#: Tolerance for fractions that were computed from pixels.
_ROUNDING = 1e-3

#: Minimum number of points of an outline.
_MIN_POINTS = 3

#: Rows of a keypoint: x, y and visibility.
_TRIPLE = 3


def constraint_for(spec: TensorSpec, *, strict: bool) -> Check | None:
    """Return the check of the values of a tensor, or None if it has no constraints.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    strict : bool
        Whether to check the constraints of its htype.
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
    """Raise a SampleError if a label is not the index of a class name."""
    if not array.size:
        return
    wrong = int(array.max())
    if wrong < len(names):
        wrong = int(array.min()) if array.dtype.kind == "i" else 0
    if not names:
        raise SampleError(
            f"labels must be text while the list of class names is empty, got index {wrong}. Give "
            "labels as text, or give class_names."
        )
    if not 0 <= wrong < len(names):
        raise SampleError(
            f"labels must be indices of class_names (0 to {len(names) - 1}), got {wrong}. Fix the "
            "label, or add to class_names."
        )


class LengthCheck:
    """Check that the tensors of a group have the same number of objects in a sample.

    Parameters
    ----------
    group : mapping of str to TensorSpec
        The tensors of the group. A tensor without a value in a sample is ignored.
    """

    def __init__(self, group: Mapping[str, TensorSpec]) -> None:
        self._group = [(name, count_axis(spec) or 0, spec.shape) for name, spec in group.items()]

    def __call__(self, encoded: Mapping[str, Any]) -> None:
        """Check the encoded values of a sample."""
        first, expected = "", None
        for name, axis, fixed in self._group:
            value = encoded[name]
            if value is None:
                continue
            shape = value.shape if isinstance(value, Blob | UnresolvedLabels) else fixed
            if not shape:
                raise SampleError(
                    "a tensor in same_length must have a list of objects, got a scalar. Give a list.",
                    tensor=name,
                )
            count = shape[axis]
            if expected is None:
                first, expected = name, count
            elif count != expected:
                raise SampleError(
                    f"it must have as many objects as {first!r} ({expected}), because of same_length, "
                    f"got {count}. Fix the sample.",
                    tensor=name,
                )


def _check_last(array: Array, allowed: tuple[int, ...]) -> None:
    if array.size and array.shape[-1] not in allowed:
        lengths = " or ".join(map(str, allowed))
        raise SampleError(
            f"the last axis must have length {lengths}, got {array.shape[-1]} (shape {array.shape}). "
            "Fix the value."
        )


def _check_finite(array: Array, spec: TensorSpec) -> None:
    del spec  # every check has the same signature
    if array.dtype.kind in "iu":
        return
    flat = array.reshape(-1)
    # Several times as fast as isfinite alone, but the square of a large finite number is infinite.
    if math.isfinite(np.dot(flat, flat)) or np.isfinite(array).all():
        return
    index = _first(~np.isfinite(array))
    raise SampleError(
        f"numbers must be finite, got {array[index]} at {list(index)}. Fix the value, or leave it out."
    )


def _check_box(array: Array, spec: TensorSpec) -> None:
    if spec.coords is None or not array.size:
        return
    unit, _, mode = spec.coords.partition("-")
    if mode == "ltrb":
        bad = array[..., 2:] < array[..., :2]
        problem = "right or bottom before left or top"
    else:
        bad = array[..., 2:] < 0
        problem = "a negative width or height"
    if bad.any():
        _refuse_box(array, bad, problem, spec)
    if unit == "fractional":
        bad = (array < -_ROUNDING) | (array > 1 + _ROUNDING)
        if bad.any():
            _refuse_box(array, bad, "a number outside 0 to 1", spec)


def _refuse_box(array: Array, bad: npt.NDArray[np.bool_], problem: str, spec: TensorSpec) -> None:
    index = _first(bad)[:-1]
    box = f"box {index[-1]}" if index else "the box"
    raise SampleError(
        f"{box} must be valid for coords {spec.coords!r}, got {array[index].tolist()} with {problem}. "
        "Fix the box, or the coords."
    )


def _check_box_3d(array: Array, spec: TensorSpec) -> None:
    if spec.coords is None or not array.size:
        return
    if spec.coords == "vertex":
        if array.shape[-2:] != (8, 3):
            raise SampleError(
                "boxes with coords 'vertex' must have a shape that ends in (8, 3), eight corners of "
                f"three numbers, got {array.shape}. Fix the boxes, or the coords."
            )
        return
    bad = array[..., 3:6] < 0
    if bad.any():
        _refuse_box(array, bad, "a negative size", spec)


def _check_keypoints(array: Array, spec: TensorSpec) -> None:
    rows = array.shape[-2]
    expected = _TRIPLE * len(spec.keypoints) if spec.keypoints else None
    if rows % _TRIPLE or (expected is not None and rows != expected and array.size):
        limit = "a multiple of 3" if expected is None else str(expected)
        raise SampleError(
            f"the number of rows must be {limit} (x, y and visibility of each keypoint), got {rows} "
            f"(shape {array.shape}). Fix the keypoints, or transpose them."
        )
    visibility = array[..., 2::_TRIPLE, :]
    bad = (visibility != 0) & (visibility != 1) & (visibility != 2)
    if bad.any():
        index = _first(bad)
        raise SampleError(
            "visibility must be 0 (not labelled), 1 (hidden) or 2 (visible), got "
            f"{visibility[index]} for keypoint {index[-2]} of object {index[-1]}. Fix the keypoints."
        )


def _check_camera(array: Array, spec: TensorSpec) -> None:
    del spec  # every check has the same signature
    if array.shape[-2] != _TRIPLE:
        raise SampleError(
            f"a camera matrix must have 3 rows, got shape {array.shape}. Fix the matrix."
        )
    lengths = array[..., (0, 1), (0, 1)]
    if (lengths <= 0).any():
        wrong = lengths[_first(lengths <= 0)]
        raise SampleError(f"focal lengths must be positive, got {wrong}. Fix the matrix.")


def _check_area(array: Array, spec: TensorSpec) -> None:
    del spec  # every check has the same signature
    if array.shape[-2] < _MIN_POINTS:
        raise SampleError(
            f"an outline must have at least 3 points, got {array.shape[-2]}. Fix it, or leave it out."
        )


def _first(bad: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the index of the first True."""
    return tuple(int(axis[0]) for axis in np.nonzero(bad))


#: Checks of the constraints in the table of htypes, by name.
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
