"""Documents whose values are what they should be: anybody may have written them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, TypeVar

__all__ = ["MOST", "natural", "plain"]

#: No count, place or length is larger than this.
MOST = 2**63 - 1

#: Types of values, by the annotation of a field; fields of other types are checked elsewhere.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, NoneType),
    "int": (int,),
    "int | None": (int, NoneType),
    "bool": (bool,),
    "float": (float, int),
}

_T = TypeVar("_T")


def plain(kind: type[_T], document: Any) -> _T:
    """Make a dataclass of a JSON object, and check the types and ranges of its plain fields.

    Fields that it does not know are left alone: a later release of the same format may have added
    them.

    Parameters
    ----------
    kind : type
        A dataclass.
    document : mapping
        Its fields.

    Raises
    ------
    ValueError, TypeError
        A value is not of its type, a number is negative or beyond all measure, or one is missing.
    """
    if not isinstance(document, Mapping):
        raise TypeError(f"{document!r:.60} is no object")
    known: Any = fields(kind)  # type: ignore[arg-type]  # a dataclass, as its callers know
    values = {f.name: document[f.name] for f in known if f.name in document}
    for field in known:
        if field.name in values and field.type in _TYPES:
            value = values[field.name]
            if type(value) not in _TYPES[field.type]:
                raise TypeError(f"{field.name} is {value!r:.60}, which is no {field.type}")
            if isinstance(value, int | float) and not 0 <= value <= MOST:
                raise ValueError(f"{field.name} is {value!r:.60}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} is {value}")
    return kind(**values)


def natural(name: str, value: Any) -> int:
    """Return a whole number that is not negative.

    Raises
    ------
    ValueError
        It is none.
    """
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{name} is {value!r:.60}")
    return value
