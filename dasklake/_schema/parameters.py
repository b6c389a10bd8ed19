"""Validation and normalization of the parameters of specs."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from dasklake._schema.htypes import COORDS, Htype
from dasklake.exceptions import SchemaError

#: Parameters of link tensors; stored media files have the first.
LINK_CHOICES = ("verify", "create_shape_tensor", "create_sample_info_tensor")

_PAIR = 2


def normalize_names(parameter: str, names: Any) -> tuple[str, ...] | None:
    """Validate a list of unique names and return it as a tuple, or None if it is None."""
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise SchemaError(f"{parameter} must be a list of names, got {names!r}. Give a list.")
    if not all(isinstance(name, str) for name in names):
        raise SchemaError(f"{parameter} must be strings. Convert them with str().")
    if not all(map(is_text, names)):
        raise SchemaError(f"{parameter} must be valid text. Decode them with errors='replace'.")
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise SchemaError(
            f"{parameter} must be unique, got {', '.join(map(repr, repeated))} twice. "
            "Remove the duplicates."
        )
    return tuple(names)


def is_text(name: str) -> bool:
    """Return whether UTF-8 can encode a string, which then has no lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def normalize_coords(coords: Any, htype: Htype) -> str | None:
    """Validate the format of a box, given as a string or as ``{"type": …, "mode": …}``."""
    allowed = htype.coords or COORDS
    if isinstance(coords, Mapping):
        unknown = sorted(map(repr, coords.keys() - {"type", "mode"}))
        if unknown:
            raise SchemaError(
                f"coords must have only 'type' and 'mode', got {', '.join(unknown)}. "
                "Leave other keys out."
            )
        mode = str(coords.get("mode", "")).lower()
        coords = f"{coords.get('type', 'pixel')}-{mode}" if allowed == COORDS else mode
    if coords is not None and (not isinstance(coords, str) or coords not in allowed):
        raise SchemaError(f"Unknown coords {coords!r}. Use one of: {', '.join(allowed)}.")
    return coords


def normalize_connections(
    pairs: Any, keypoints: Sequence[str] | None
) -> tuple[tuple[int, int], ...] | None:
    """Validate the pairs of keypoints that a drawing connects."""
    if pairs is None:
        return None
    try:
        connections = tuple(tuple(map(operator.index, pair)) for pair in pairs)
    except TypeError as error:
        raise SchemaError(
            f"connections must be pairs of keypoint numbers, got {pairs!r}. Give a list of pairs."
        ) from error
    count = len(keypoints) if keypoints is not None else None
    for pair in connections:
        if len(pair) != _PAIR or any(n < 0 or (count is not None and n >= count) for n in pair):
            limit = "" if count is None else f" below {count}, the number of keypoints"
            raise SchemaError(
                f"A connection must be a pair of numbers{limit}, got {list(pair)}. Fix it."
            )
    return cast("tuple[tuple[int, int], ...]", connections)


def check_index(index: Any, shape: tuple[int | None, ...] | None, *, plain: bool) -> None:
    """Check that a tensor with the role of an index has one value per sample.

    Parameters
    ----------
    index : bool or "unnamed"
        The role.
    shape : tuple of (int or None) or None
        Shape of the tensor.
    plain : bool
        Whether its values are numbers, times, strings, or cells of a table.
    """
    if not isinstance(index, bool | str) or index not in (True, False, "unnamed"):
        raise SchemaError(f"index must be True, False or 'unnamed', got {index!r}. Fix it.")
    if index and not (plain and shape == ()):
        raise SchemaError("An index must have one value per sample. Use shape=(), or no index.")


def normalize_groups(same_length: Any) -> list[tuple[str, ...]]:
    """Validate ``same_length``: names of tensors, or lists of names."""
    if isinstance(same_length, str) or not isinstance(same_length, Iterable):
        raise SchemaError(
            f"same_length must be a list of tensor names, got {same_length!r}. Give a list."
        )
    groups = list(same_length)
    if all(isinstance(name, str) for name in groups):
        groups = [groups]
    for group in groups:
        names = isinstance(group, Iterable) and all(isinstance(name, str) for name in group)
        if isinstance(group, str) or not names:
            raise SchemaError(
                f"same_length must be a list of tensor names, or of lists of names, got {group!r}. "
                "Give names."
            )
    return [tuple(group) for group in groups if group]


def normalize_verification(spec: Any, *, linked: bool) -> dict[str, Any]:
    """Return the parameters of links with their defaults; None for other tensors.

    ``verify`` of media files is None for the default.
    """
    choices = {name: getattr(spec, name) for name in LINK_CHOICES}
    files = spec.compression in spec.kind.files and "link[" not in spec.htype
    for name, value in choices.items():
        if value is not None and not (linked or (name == "verify" and files)):
            content = "links and media files" if name == "verify" else "links"
            raise SchemaError(
                f"{name} is for {content} only. Leave it out for htype {spec.htype!r} with "
                f"compression {spec.compression!r}."
            )
    if choices["verify"] not in (None, True, False, "decode"):
        raise SchemaError(
            f"verify must be True, False or 'decode', got {choices['verify']!r}. Fix it."
        )
    if not linked:
        return {**choices, "verify": None if choices["verify"] is True else choices["verify"]}
    verify = choices["verify"] = True if spec.verify is None else spec.verify
    for name in LINK_CHOICES[1:]:
        value = bool(verify) if choices[name] is None else choices[name]
        if not isinstance(value, bool) or (value and not verify):
            raise SchemaError(
                f"{name} must be True or False, and False with verify=False, got {value!r}. Fix it."
            )
        choices[name] = value
    return choices
