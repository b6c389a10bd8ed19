"""Validation and normalization of the parameters of specs."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from dasklake._schema.htypes import COORDS, Htype
from dasklake.exceptions import SchemaError

__all__ = [
    "class_names_of",
    "connections_of",
    "coords_of",
    "is_text",
    "keypoints_of",
    "named_groups",
]

_PAIR = 2


def class_names_of(names: Any) -> tuple[str, ...] | None:
    """Check class names."""
    return _names("class_names", names)


def keypoints_of(names: Any) -> tuple[str, ...] | None:
    """Check the names of keypoints."""
    return _names("keypoints", names)


def _names(what: str, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise SchemaError(f"{what} must be a list of names, got {names!r}.")
    found = tuple(names)
    if not all(isinstance(name, str) for name in found):
        raise SchemaError(f"{what} must be strings.")
    if not all(map(is_text, found)):
        raise SchemaError(f"{what} must be valid text. Decode them with errors='replace'.")
    if len(set(found)) != len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise SchemaError(f"{what} names {', '.join(map(repr, twice))} twice. Name each once.")
    return found


def is_text(name: str) -> bool:
    """Return whether UTF-8 can encode a string, which then has no lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def coords_of(coords: Any, htype: Htype) -> str | None:
    """Check how the numbers of a box are meant; ``{"type": …, "mode": …}`` is another spelling."""
    known = htype.coords or COORDS
    if isinstance(coords, Mapping):
        strange = sorted(map(repr, coords.keys() - {"type", "mode"}))
        if strange:
            raise SchemaError(f"coords must have only 'type' and 'mode', got {', '.join(strange)}.")
        mode = str(coords.get("mode", "")).lower()
        coords = f"{coords.get('type', 'pixel')}-{mode}" if known == COORDS else mode
    if coords is not None and coords not in known:
        raise SchemaError(f"Unknown coords {coords!r}. Use one of: {', '.join(known)}.")
    return cast("str | None", coords)


def connections_of(
    pairs: Any, keypoints: Sequence[str] | None
) -> tuple[tuple[int, int], ...] | None:
    """Check which keypoints a drawing joins."""
    if pairs is None:
        return None
    try:
        found = tuple(tuple(map(operator.index, pair)) for pair in pairs)
    except TypeError as error:
        raise SchemaError(
            f"connections must be pairs of keypoint numbers, got {pairs!r}."
        ) from error
    most = len(keypoints) if keypoints is not None else None
    for pair in found:
        if len(pair) != _PAIR or any(n < 0 or (most is not None and n >= most) for n in pair):
            limit = "" if most is None else f" below {most}, the number of keypoints"
            raise SchemaError(f"A connection must be a pair of numbers{limit}, got {list(pair)}.")
    return cast("tuple[tuple[int, int], ...]", found)


def named_groups(names: Any) -> list[tuple[str, ...]]:
    """Read ``same_length``: names of tensors, or lists of them."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise SchemaError(f"same_length must be a list of tensor names, got {names!r}.")
    found = list(names)
    groups = [tuple(found)] if all(isinstance(each, str) for each in found) else found
    for group in groups:
        if isinstance(group, str) or not all(isinstance(name, str) for name in group):
            raise SchemaError(
                "same_length must be a list of tensor names, or a list of such lists."
            )
    return [tuple(group) for group in groups if group]
