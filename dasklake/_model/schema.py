"""What a lake's tensors are: ``TensorSpec`` describes one, ``Schema`` all of them by name."""

from __future__ import annotations

import base64
import operator
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pyarrow as pa

from dasklake._model.dtypes import dtype_names
from dasklake._model.htypes import COMPRESSION_ALIASES, COORDS, Htype, parse_htype
from dasklake.exceptions import SchemaError

__all__ = ["Schema", "TensorSpec"]

Shape = tuple[int | None, ...]

#: Class names that a description shows.
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What one tensor holds.

    Parameters
    ----------
    htype : str, default "generic"
        What the values mean; see the table of htypes.
    dtype : str, numpy.dtype, pandas dtype or pyarrow.DataType, optional
        Type of one element. Numbers and times have numpy's names; tables may also hold what
        pandas and Arrow know (``"string"``, ``"Int64"``, ``pa.decimal128(10, 2)``).
    shape : sequence of (int or None), optional
        Length of each axis of one sample, ``None`` for a ragged one. ``()`` is a scalar.
        Left out, the htype's own shape, or any shape.
    compression : str, optional
        How the bytes of a sample are stored; left out, the htype's default.
    class_names : sequence of str, optional
        The names of a class label's indices.
    coords : str or mapping, optional
        How the four numbers of a box are meant, such as ``"pixel-ltwh"``.
    optional : bool, default False
        Whether a sample may leave the tensor out (it then has no value there).

    Raises
    ------
    SchemaError
        The parameters do not fit together.

    Examples
    --------
    >>> TensorSpec("bbox", coords="pixel-ltwh").shape
    (None, 4)
    >>> TensorSpec(dtype="float32", shape=(224, 224, 3)).htype
    'generic'
    """

    htype: str = "generic"
    dtype: Any = None
    shape: Any = None
    compression: str | None = None
    class_names: Any = None
    coords: Any = None
    optional: bool = False
    arrow: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        htype, linked = parse_htype(self.htype)
        if not isinstance(self.optional, bool):
            raise SchemaError(f"optional is True or False, not {self.optional!r}.")
        put = object.__setattr__
        wanted = self.dtype if self.dtype is not None else htype.dtype
        dtype, arrow = (wanted, self.arrow) if self.arrow is not None else dtype_names(wanted)
        put(self, "dtype", dtype)
        put(self, "arrow", arrow)
        put(self, "shape", _shape(self, htype))
        put(self, "compression", _compression(self.compression, htype))
        put(self, "class_names", _class_names(self.class_names))
        put(self, "coords", _coords(self.coords))
        _check(self, htype, linked=linked)

    @property
    def kind(self) -> Htype:
        """The row of the table of htypes."""
        return parse_htype(self.htype)[0]

    @property
    def linked(self) -> bool:
        """Whether the values are links."""
        return parse_htype(self.htype)[1]

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The dtype as numpy knows it; None for strings and for Arrow's own types."""
        return None if self.arrow is not None or self.dtype is None else np.dtype(self.dtype)

    @property
    def arrow_type(self) -> pa.DataType | None:
        """The Arrow type of a value that numpy has no type for."""
        if self.arrow is None:
            return None
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow)))
        return schema.field(0).type

    @property
    def fixed(self) -> bool:
        """Whether every sample has the same shape."""
        return self.shape is not None and None not in self.shape

    def to_json(self) -> dict[str, Any]:
        """Return what a commit stores: the fields that are set, in plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.compression is None and self.kind.compressions[0] is not None:
            values["compression"] = "none"  # said, because leaving it out means the default
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if _set(v)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TensorSpec:
        """Read what :meth:`to_json` wrote; unknown fields are left alone."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in document.items() if key in known}
        for key in ("shape", "class_names"):
            if key in values:
                values[key] = tuple(values[key])
        return cls(**values)


def _set(value: object) -> bool:
    return value is not None and value is not False


def _shape(spec: TensorSpec, htype: Htype) -> Shape | None:
    shape = htype.shape if spec.shape is None else spec.shape
    if spec.arrow is not None and shape is None:
        return ()
    if shape is None:
        return None
    if isinstance(shape, str | bytes | Mapping | AbstractSet):
        raise SchemaError(f"shape={shape!r} is not a sequence of lengths and None.")
    try:
        axes = tuple(None if axis is None else operator.index(axis) for axis in shape)
    except TypeError as error:
        raise SchemaError(f"shape={shape!r} is not a sequence of lengths and None.") from error
    if any(axis is not None and axis < 0 for axis in axes):
        raise SchemaError(f"shape={shape!r} has a negative length.")
    return axes


def _compression(compression: Any, htype: Htype) -> str | None:
    if compression is None:
        return None if htype.must_compress else htype.compressions[0]
    if not isinstance(compression, str):
        raise SchemaError(f"A compression is a name such as 'lz4', not {compression!r}.")
    return COMPRESSION_ALIASES.get(compression, compression)


def _class_names(names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise SchemaError(f"class_names must be a list of names, not {names!r}.")
    found = tuple(names)
    if not all(isinstance(name, str) for name in found):
        raise SchemaError("class_names must be strings.")
    if not all(map(_is_text, found)):
        raise SchemaError("class_names must be valid text. Decode them with errors='replace'.")
    if len(set(found)) != len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise SchemaError(f"class_names names {', '.join(map(repr, twice))} twice. Name each once.")
    return found


def _coords(coords: Any) -> str | None:
    if isinstance(coords, Mapping):
        coords = f"{coords.get('type', 'pixel')}-{str(coords.get('mode', '')).lower()}"
    if coords is not None and coords not in COORDS:
        raise SchemaError(f"Unknown coords {coords!r}. Use one of: {', '.join(COORDS)}.")
    return cast("str | None", coords)


def _check(spec: TensorSpec, htype: Htype, *, linked: bool) -> None:
    name = spec.htype
    if spec.dtype is None:
        raise SchemaError(f"htype {name!r} needs a dtype, such as TensorSpec(dtype='float32').")
    if htype.name != "generic" and htype.dtype != spec.dtype:
        kind = "" if spec.arrow is not None else np.dtype(spec.dtype).kind
        if not kind or kind not in htype.dtypes:
            raise SchemaError(f"htype {name!r} cannot have dtype {spec.dtype}.")
    if htype.must_compress and not linked and spec.compression is None:
        choices = " or ".join(repr(each) for each in htype.compressions)
        raise SchemaError(f"htype {name!r} needs a compression: {choices}.")
    if spec.compression is not None and spec.compression not in htype.compressions:
        known = ", ".join(map(repr, htype.compressions))
        raise SchemaError(f"htype {name!r} has no compression {spec.compression!r}; use {known}.")
    if spec.arrow is not None and (spec.shape != () or spec.compression is not None):
        raise SchemaError(f"dtype {spec.dtype} has one value a sample: no shape, no compression.")
    if spec.shape is not None:
        if htype.ranks and len(spec.shape) not in htype.ranks:
            raise SchemaError(f"htype {name!r} cannot have shape {spec.shape}.")
        if htype.last is not None and spec.shape[-1:] != (htype.last,):
            raise SchemaError(f"The last axis of htype {name!r} is {htype.last}, not {spec.shape}.")
    for parameter in ("class_names", "coords"):
        if getattr(spec, parameter) is not None and parameter not in htype.parameters:
            raise SchemaError(f"htype {name!r} has no {parameter}.")


@dataclass(frozen=True, slots=True)
class Schema(Mapping[str, TensorSpec]):
    """The tensors of a lake, by name, in order.

    Parameters
    ----------
    tensors : mapping of str to TensorSpec, str or mapping
        A string is an htype; a mapping holds the parameters of ``TensorSpec``.

    Raises
    ------
    SchemaError
        A name or a description cannot be used.

    Examples
    --------
    >>> schema = Schema({"label": "class_label", "x": TensorSpec(dtype="float32", shape=(3,))})
    >>> list(schema)
    ['label', 'x']
    """

    tensors: Any

    def __post_init__(self) -> None:
        if not (isinstance(self.tensors, Mapping) and self.tensors):
            raise SchemaError("A schema is a mapping of at least one tensor name to its spec.")
        found = {_name(name): _spec(name, value) for name, value in self.tensors.items()}
        object.__setattr__(self, "tensors", MappingProxyType(found))

    def __getitem__(self, name: str) -> TensorSpec:
        return cast("TensorSpec", self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        return Schema, (dict(self.tensors),)

    def __hash__(self) -> int:
        return hash(tuple(self.tensors.items()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schema):
            return NotImplemented
        return list(self.tensors.items()) == list(other.tensors.items())

    def __repr__(self) -> str:
        rows = [f"    {name!r}: {describe(spec)}," for name, spec in self.tensors.items()]
        return "\n".join(["Schema({", *rows, "})"])

    def to_json(self) -> dict[str, Any]:
        """Return what a commit stores."""
        return {name: spec.to_json() for name, spec in self.tensors.items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Schema:
        """Read what :meth:`to_json` wrote."""
        return cls({name: TensorSpec.from_json(spec) for name, spec in document.items()})

    def differences(self, other: Schema) -> list[str]:
        """Say in words what ``other`` has differently, tensor by tensor."""
        found = [f"{name!r} is missing" for name in self if name not in other]
        found += [f"{name!r} is new" for name in other if name not in self]
        for name in self:
            if name in other and self[name] != other[name]:
                found.append(f"{name!r} {_difference(self[name], other[name])}")
        return found


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise SchemaError(f"A tensor's name is a string that is not empty, not {name!r}.")
    if not _is_text(name):
        raise SchemaError(f"The tensor name {name!r} is not valid text. Choose another.")
    if name.endswith(":shape") or any(ord(c) < ord(" ") for c in name):
        raise SchemaError(f"The tensor name {name!r} is reserved or has control characters.")
    return name


def _is_text(name: str) -> bool:
    """Whether UTF-8 can write a string: it has no halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spec(name: str, value: object) -> TensorSpec:
    try:
        if isinstance(value, TensorSpec):
            return value
        if isinstance(value, str):
            return TensorSpec(value)
        if isinstance(value, Mapping):
            return TensorSpec(**_parameters(value))
    except SchemaError as error:
        raise SchemaError(f"tensor {name!r}: {error}") from error
    raise SchemaError(f"tensor {name!r}: {value!r} is neither a TensorSpec nor an htype.")


def _difference(ours: TensorSpec, theirs: TensorSpec) -> str:
    """Say what ``theirs`` has differently, also where a description is too short to show it."""
    wanted, found = describe(ours), describe(theirs)
    words = [f"is {found}, not {wanted}"] if found != wanted else []
    if ours.class_names and theirs.class_names and ours.class_names != theirs.class_names:
        words.append(_other_names(ours.class_names, theirs.class_names))
    if ours.dtype == theirs.dtype and ours.arrow != theirs.arrow:
        words.append(f"has values of type {theirs.arrow_type}, not {ours.arrow_type}")
    return " and ".join(words)


def _other_names(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    pairs = enumerate(zip_longest(theirs, ours))
    index, (found, wanted) = next(each for each in pairs if each[1][0] != each[1][1])
    count = f"{len(theirs)} class_names, not {len(ours)}: " if len(ours) != len(theirs) else ""
    this, that = ("nothing" if each is None else repr(each) for each in (found, wanted))
    return f"has {count or 'other class_names: '}index {index} is {this}, not {that}"


def _parameters(value: Mapping[Any, Any]) -> dict[str, Any]:
    known = [each.name for each in fields(TensorSpec) if each.repr]
    for key in value:
        if key not in (*known, "arrow"):
            raise SchemaError(f"TensorSpec has no {key!r}. It has {', '.join(known)}.")
    return dict(value)


def describe(spec: TensorSpec) -> str:
    """Write a spec as the call that makes it, without its defaults."""
    htype = spec.kind
    shape = () if spec.arrow is not None and htype.shape is None else htype.shape
    compression = None if htype.must_compress else htype.compressions[0]
    parts = [repr(spec.htype)]
    if spec.dtype != htype.dtype:
        parts.append(f"dtype={spec.dtype!r}")
    if spec.shape != shape:
        parts.append(f"shape={spec.shape!r}")
    if spec.compression != compression:
        parts.append(f"compression={spec.compression or 'none'!r}")
    if spec.class_names is not None:
        shown = [repr(name) for name in spec.class_names]
        if len(shown) > _SHOWN:
            shown[1:] = [f"… {len(shown)} names"]
        parts.append(f"class_names=[{', '.join(shown)}]")
    if spec.coords is not None:
        parts.append(f"coords={spec.coords!r}")
    if spec.optional:
        parts.append("optional=True")
    return f"TensorSpec({', '.join(parts)})"
