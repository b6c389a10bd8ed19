"""The stored values from which arrays and links of this process were decoded.

A caller may take a value out of a sample and put it into a plain dict, as ``{**sample, "label": 5}``
does. If it was encoded with loss, a writer that sees only the pixels would lose again. So a decoded
object is remembered together with its stored form for as long as it lives. Writers compare the two
before they use the stored form: an array may have been changed in place.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded


class Origin(NamedTuple):
    """The stored form of a decoded object, and the codec that decoded it."""

    reference: weakref.ref[Any]
    stored: Encoded
    codec: Codec


#: Origins by the id of the decoded object. An entry is deleted together with the object.
_origins: dict[int, Origin] = {}


def remember(value: Any, stored: Encoded, codec: Codec) -> None:
    """Remember the stored form of a decoded object until the object is deleted.

    Parameters
    ----------
    value : object
        The decoded object, which supports weak references.
    stored : Encoded
        Its stored form, which does not change.
    codec : Codec
        The codec that decoded it.
    """
    key = id(value)

    def forget(reference: weakref.ref[Any]) -> None:
        origin = _origins.get(key)
        if origin is not None and origin.reference is reference:
            del _origins[key]

    _origins[key] = Origin(weakref.ref(value, forget), stored, codec)


def forget(value: Any) -> None:
    """Forget the stored form of a decoded object, which may keep the memory of many samples."""
    _origins.pop(id(value), None)


def origin_of(value: Any) -> Origin | None:
    """Return the origin of a decoded object, or None if it was not decoded from a lake."""
    origin = _origins.get(id(value))
    return origin if origin is not None and origin.reference() is value else None
