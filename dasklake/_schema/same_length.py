"""Groups of tensors that have the same number of objects in each sample."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dasklake._schema.spec import TensorSpec
from dasklake.exceptions import SchemaError

#: Least rank of a value that has an axis for its objects, if that is not 1.
_LEAST_RANK = MappingProxyType(
    {"binary_mask": 3, "keypoints_coco": 2, "bbox": 2, "bbox.3d": 2, "point": 2}
)


def same_length_groups(tensors: Mapping[str, TensorSpec]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of tensor names that the specs declare.

    Raises
    ------
    SchemaError
        A group has a single tensor, a tensor without an axis for objects, or fixed lengths that
        differ.
    """
    groups: dict[str, list[str]] = {}
    for name, spec in tensors.items():
        if spec.same_length is not None:
            groups.setdefault(spec.same_length, []).append(name)
    for names in groups.values():
        if len(names) == 1:
            raise SchemaError(
                f"same_length of {names[0]!r} must name another tensor. Add one, or leave it out."
            )
        for name in names:
            if count_axis(tensors[name]) is None:
                raise SchemaError(
                    f"tensor {name!r} of htype {tensors[name].htype!r} and shape "
                    f"{tensors[name].shape} counts nothing. Leave it out of same_length."
                )
        fixed = {name: n for name in names if (n := _fixed_count(tensors[name])) is not None}
        if len(set(fixed.values())) > 1:
            raise SchemaError(f"same_length must have equal lengths, got {fixed}. Fix the shapes.")
    return tuple(map(tuple, groups.values()))


def count_axis(spec: TensorSpec) -> int | None:
    """Return the axis along which a value lists its objects, or None if it lists none."""
    if spec.sequence:
        return 0
    if spec.linked or spec.encoded:
        return None
    # A single plane, box or point lacks this axis.
    least = _LEAST_RANK.get(spec.kind.name, 1)
    return None if spec.shape is not None and len(spec.shape) < least else spec.kind.count


def _fixed_count(spec: TensorSpec) -> int | None:
    """Return the number of objects of every value, or None if it varies."""
    axis = count_axis(spec)
    return None if axis is None or spec.sequence or spec.shape is None else spec.shape[axis]
