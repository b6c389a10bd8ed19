"""Validation of stored values, which may come from an untrusted lake."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")


def validate(document: Any, kind: type[_T]) -> _T:
    """Convert plain values to a type, and check the types and ranges of all fields.

    Unknown fields are ignored: a later release of the same format may have added them.

    Parameters
    ----------
    document : object
        Decoded JSON, or rows of a table.
    kind : type
        A dataclass, a ``msgspec.Struct``, or a container of such.

    Raises
    ------
    ValueError
        A value has another type, is out of range, or is missing.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        # Before msgspec 0.20 it was not a ValueError.
        raise ValueError(str(error)) from error
