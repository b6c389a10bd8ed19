"""Pass stored values from one lake to another without decoding, if the target's spec allows it.

=============================================  ==================================================
source and target                              what is written
=============================================  ==================================================
same htype, dtype, compression and shape       the stored value
files of the same format                       the same file, checked against the target's spec
lists of class names that differ               the indices of the same names
links                                          the link and the stored properties of its target
anything else                                  the decoded value, encoded again
=============================================  ==================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, cast

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten
from dasklake._codecs.convert import fit_shape
from dasklake._codecs.decoded_origins import origin_of
from dasklake._codecs.same_values import IMMUTABLE, is_same
from dasklake._codecs.sample import StoredValue
from dasklake._schema.arrow_layout import storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import SampleError


class CopiedLink(dict[str, Any]):
    """An encoded link whose target was verified for the lake that it was copied from."""


class _Way(Enum):
    """Ways of a stored value to the column of another tensor."""

    UNCHANGED = auto()
    CHECK_SHAPE = auto()
    AS_FILE = auto()
    AS_LINK = auto()
    ENCODE = auto()


#: Ways by the ids of the two specs, which the entries keep alive: hashing class names takes long.
_ways: dict[tuple[int, int], tuple[_Way, TensorSpec, TensorSpec]] = {}
_MAX_WAYS = 10_000


def encode_value(value: Any, codec: Codec) -> Encoded:
    """Encode a value for its column. A value that is stored in a lake is passed through if possible.

    Parameters
    ----------
    value : object
        The value of one sample; never None.
    codec : Codec
        Codec of the tensor.

    Raises
    ------
    SampleError
        ``value`` does not fit the spec of the tensor.
    """
    if type(value) is StoredValue:
        return _encode_stored(value, codec)
    if isinstance(value, np.ndarray | Link):
        origin = origin_of(value)
        if origin is not None:
            passed = _passed(origin.stored, origin.codec.spec, codec)
            if passed is not None and (
                isinstance(value, IMMUTABLE) or is_same(value, origin.codec.decode(origin.stored))
            ):
                return passed
    return codec.encode(value)


def _encode_stored(value: StoredValue, codec: Codec) -> Encoded:
    source, target = value.spec, codec.spec
    passed = _passed(value.stored, source, codec)
    if passed is not None and value.is_unchanged():
        return passed
    for parameter in ("coords", "keypoints"):
        old, new = getattr(source, parameter), getattr(target, parameter)
        if None not in (old, new) and old != new:
            raise SampleError(
                f"the value must have the tensor's {parameter} {shorten(new)}, got "
                f"{shorten(old)} from tensor {value.name!r} of another lake. Convert it with a "
                "transform."
            )
    decoded = value.get()
    if source.class_names and (target.may_discover or target.class_names is not None):
        decoded = _renumbered(decoded, source.class_names, target)
    return codec.encode(decoded)


def _passed(stored: Encoded, source: TensorSpec, codec: Codec) -> Encoded | None:
    """Return the encoded value that is equal to a stored one, or None if it must be encoded."""
    way = _way(source, codec.spec)
    if way is _Way.UNCHANGED:
        return stored
    if way is _Way.CHECK_SHAPE:
        spec = codec.spec
        return stored._replace(shape=fit_shape(stored.shape, spec.shape, spec.kind.ranks))
    if way is _Way.AS_FILE:
        if codec.spec.sequence:
            return codec.encode([bytes(item.data) for item in cast("Any", codec).items(stored)])
        return codec.encode(bytes(stored.data))
    return _copied_link(stored, codec.spec) if way is _Way.AS_LINK else None


def _way(source: TensorSpec, target: TensorSpec) -> _Way:
    key = (id(source), id(target))
    entry = _ways.get(key)
    if entry is None:
        if len(_ways) >= _MAX_WAYS:
            _ways.clear()
        entry = _ways[key] = (_find_way(source, target), source, target)
    return entry[0]


def _find_way(source: TensorSpec, target: TensorSpec) -> _Way:
    if source.linked or target.linked:
        return _Way.AS_LINK if _links_match(source, target) else _Way.ENCODE
    if any(getattr(source, name) != getattr(target, name) for name in ("coords", "keypoints")):
        return _Way.ENCODE
    form, other = ((s.htype, s.dtype, s.arrow, s.compression) for s in (source, target))
    if form == other:
        if not _same_indices(source, target):
            return _Way.ENCODE
        if _is_checked(source, target):
            return _Way.AS_FILE
        if source.shape == target.shape:
            return _Way.UNCHANGED
        if target.kind.codec in ("mask", "json") and not target.sequence:
            return _Way.CHECK_SHAPE
    same_files = source.compression == target.compression and source.encoded and target.encoded
    return _Way.AS_FILE if same_files and source.kind.codec == target.kind.codec else _Way.ENCODE


def _is_checked(source: TensorSpec, target: TensorSpec) -> bool:
    """Return whether the target verifies files, or applies their tags, and the source did not."""
    if not (target.encoded or (target.sequence and target.item.encoded)):
        return False
    levels = (False, None, "decode")
    stricter = levels.index(target.verify) > levels.index(source.verify)
    return stricter or (target.exif == "apply" and source.exif != "apply")


def _same_indices(source: TensorSpec, target: TensorSpec) -> bool:
    """Return whether an index has the same class name in both specs."""
    if target.may_discover:
        return False
    if target.class_names is None:
        return True
    names = source.class_names
    return names is not None and target.class_names[: len(names)] == names


def _links_match(source: TensorSpec, target: TensorSpec) -> bool:
    """Return whether a stored link has all that the target stores of links."""
    form, other = ((s.htype, s.compression, s.dtype, s.linked) for s in (source, target))
    if form != other:
        return False
    if not target.verify:
        return True
    verified = source.verify in (target.verify, "decode")
    stored = source.create_shape_tensor or not target.create_shape_tensor
    described = source.create_sample_info_tensor or not target.create_sample_info_tensor
    shaped = target.shape in (source.shape, target.kind.shape)
    return bool(verified and stored and described and shaped)


def _copied_link(stored: Mapping[str, Any], target: TensorSpec) -> CopiedLink:
    names = [field.name for field in storage_of(target).type]
    return CopiedLink((name, stored.get(name)) for name in names)


def _renumbered(value: Any, names: tuple[str, ...], target: TensorSpec) -> Any:
    """Return labels with the target's index of each name, or as names if it collects them."""
    if isinstance(value, list):
        return [_renumbered(item, names, target) for item in value]
    labels = np.asarray(value)
    if not labels.size:
        return value
    if target.may_discover:
        named = np.array(names, object)[labels]
        return named if labels.ndim else str(named)
    index = {name: i for i, name in enumerate(target.class_names)}
    numbers = np.array([index.get(name, -1) for name in names], np.int64)[labels]
    if (numbers < 0).any():
        name = names[int(labels[numbers < 0].ravel()[0])]
        listed = shorten(", ".join(map(repr, target.class_names)), 200)
        raise SampleError(
            f"{shorten(name)!r} must be one of the class names {listed}. Add it to class_names."
        )
    return numbers.astype(labels.dtype)[()]
