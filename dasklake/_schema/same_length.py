"""How many objects a value describes, and which tensors of a sample have to agree on that."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from dasklake._schema.htypes import Htype
from dasklake.exceptions import SchemaError

__all__ = ["count_axis", "groups_of"]

#: Ranks from which on a value has an axis for its objects, where that is not 1.
_LEAST_RANK = MappingProxyType(
    {"binary_mask": 3, "keypoints_coco": 2, "bbox": 2, "bbox.3d": 2, "point": 2}
)


class _Counted(Protocol):
    """What has to be known of a tensor; schemas are made of such, so none is imported here."""

    @property
    def htype(self) -> str: ...
    @property
    def shape(self) -> tuple[int | None, ...] | None: ...
    @property
    def same_length(self) -> str | None: ...
    @property
    def kind(self) -> Htype: ...
    @property
    def linked(self) -> bool: ...
    @property
    def sequence(self) -> bool: ...
    @property
    def encoded(self) -> bool: ...


def groups_of(tensors: Mapping[str, _Counted]) -> tuple[tuple[str, ...], ...]:
    """Return the names of the tensors that have the same length, by their specs.

    Raises
    ------
    SchemaError
        A group has one tensor, or one that counts nothing, or lengths that cannot agree.
    """
    groups: dict[str, list[str]] = {}
    for name, spec in tensors.items():
        if spec.same_length is not None:
            groups.setdefault(spec.same_length, []).append(name)
    for names in groups.values():
        if len(names) == 1:
            raise SchemaError(f"same_length of {names[0]!r} names no other tensor.")
        for name in names:
            if count_axis(tensors[name]) is None:
                raise SchemaError(
                    f"tensor {name!r} of htype {tensors[name].htype!r} and shape "
                    f"{tensors[name].shape} counts nothing. Leave it out of same_length."
                )
        fixed = {name: n for name in names if (n := _fixed_count(tensors[name])) is not None}
        if len(set(fixed.values())) > 1:
            raise SchemaError(f"same_length needs equal lengths, but the shapes have {fixed}.")
    return tuple(map(tuple, groups.values()))


def count_axis(spec: _Counted) -> int | None:
    """Return the axis of a value that counts its objects; None if it counts nothing."""
    if spec.sequence:
        return 0
    if spec.linked or spec.encoded:
        return None
    # A lone plane, box or point has no axis for it.
    least = _LEAST_RANK.get(spec.kind.name, 1)
    return None if spec.shape is not None and len(spec.shape) < least else spec.kind.count


def _fixed_count(spec: _Counted) -> int | None:
    """Return how many objects each value has; None if that is not always the same."""
    axis = count_axis(spec)
    return None if axis is None or spec.sequence or spec.shape is None else spec.shape[axis]
