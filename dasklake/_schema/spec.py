"""The description of one tensor: ``TensorSpec``."""

from __future__ import annotations

import base64
import operator
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dasklake._schema.dtypes import normalize_dtype
from dasklake._schema.htypes import COMPRESSION_ALIASES, Htype, parse_htype
from dasklake._schema.parameters import (
    LINK_CHOICES,
    check_index,
    normalize_connections,
    normalize_coords,
    normalize_names,
    normalize_verification,
)
from dasklake.exceptions import SchemaError

Shape = tuple[int | None, ...]

#: Parameters that only some htypes have.
_HTYPE_PARAMETERS = (
    "class_names",
    "coords",
    "keypoints",
    "connections",
    "reencode",
    "exif",
    "discover",
    "ordered",
)

#: Parameters that a description shows if they are set.
_DESCRIBED = (
    "discover",
    "ordered",
    "keypoints",
    "connections",
    "reencode",
    "same_length",
    "optional",
    "index",
)

#: Number of class names that a description shows.
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Description of one tensor.

    Parameters
    ----------
    htype : str, default "generic"
        Meaning of the values; see the table of htypes.
    dtype : str, numpy.dtype, pandas dtype or pyarrow.DataType, optional
        Type of one element. Numbers and times have numpy's names. Tables may also have types of
        pandas and Arrow (``"string"``, ``"Int64"``, ``pa.decimal128(10, 2)``).
    shape : sequence of (int or None), optional
        Length of each axis of one sample, or ``None`` for a ragged axis. ``()`` is a scalar.
        The default is the htype's shape, or any shape.
    compression : str, optional
        Compression or file format of a sample. The default is the htype's.
    class_names : sequence of str, optional
        Names of the indices of a class label.
    discover : bool, optional
        Whether a class label given as text may have a name that is missing from ``class_names``.
        The name is added when its sample is written. The default is False with ``class_names``.
        Without them, the first labels that are committed decide: names are discovered, and indices
        stay indices. All later labels must be of the same kind.
    ordered : bool, default False
        Whether the class names have an order, as in an ordered categorical of pandas.
    index : bool or "unnamed", default False
        Whether the tensor is the index of a frame, or one of its levels. It must have one value per
        sample. The level has the tensor's name; with ``"unnamed"`` it has none.
    coords : str or mapping, optional
        Format of the four numbers of a box, such as ``"pixel-ltwh"``.
    keypoints : sequence of str, optional
        Names of the keypoints of an object.
    connections : sequence of (int, int), optional
        Pairs of keypoints that a drawing connects.
    reencode : bool, default False
        Whether an image file of another format than ``compression`` is decoded and encoded
        again. By default it is an error.
    same_length : str, optional
        Name of a group of tensors that have the same number of objects in each sample.
        ``Schema(..., same_length=[...])`` sets it.
    optional : bool, default False
        Whether a sample may leave the tensor out. Its value is then None.
    exif : {"keep", "apply"}, default "keep"
        What happens to the orientation tag of an image. ``"keep"`` stores pixels as they are in
        the file, and keeps the tags and the ICC profile if the image is encoded again.
        ``"apply"`` turns the pixels when they are written, and removes the tag.
    verify : bool or "decode", default True
        For links and media files: whether each file is checked when its sample is written, by its
        header and its end. ``"decode"`` reads and decodes the whole file.
    create_shape_tensor, create_sample_info_tensor : bool, optional
        For verified links: whether to store the shape of the target, and its size, etag and
        format. The default is True.

    Raises
    ------
    SchemaError
        A parameter is invalid, or does not fit the htype.

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
    keypoints: Any = None
    connections: Any = None
    reencode: bool = False
    same_length: str | None = None
    optional: bool = False
    verify: Any = None
    create_shape_tensor: Any = None
    create_sample_info_tensor: Any = None
    discover: bool | None = None
    ordered: bool = False
    index: Any = False
    exif: str = "keep"
    arrow: str | None = field(default=None, repr=False)
    settled: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        htype, linked, sequence = parse_htype(self.htype)
        for name in ("optional", "reencode", "discover", "ordered"):
            is_default = name == "discover" and self.discover is None
            if not is_default and not isinstance(getattr(self, name), bool):
                raise SchemaError(
                    f"{name} must be True or False, got {getattr(self, name)!r}. Fix it."
                )
        put = object.__setattr__
        dtype, arrow = self.dtype if self.dtype is not None else htype.dtype, self.arrow
        if arrow is None:
            dtype, arrow = normalize_dtype(dtype)
        put(self, "dtype", dtype)
        put(self, "arrow", arrow)
        put(self, "shape", _shape(self, htype))
        put(self, "compression", _compression(self.compression, htype))
        put(self, "class_names", normalize_names("class_names", self.class_names))
        if self.discover:
            put(self, "class_names", self.class_names or ())
        elif not _may_decide(self, htype):
            put(self, "discover", False)  # noqa: FBT003 # the value of the field
        put(self, "settled", _settled(self))
        put(self, "coords", normalize_coords(self.coords, htype))
        put(self, "keypoints", normalize_names("keypoints", self.keypoints))
        put(self, "connections", normalize_connections(self.connections, self.keypoints))
        for name, value in normalize_verification(self, linked=linked and not sequence).items():
            put(self, name, value)
        _check(self, htype, linked=linked)
        exif: Any = self.exif
        if not isinstance(exif, str) or exif not in ("keep", "apply"):
            raise SchemaError(f"exif must be 'keep' or 'apply', got {self.exif!r}. Fix it.")

    @property
    def kind(self) -> Htype:
        """Row of the htype in the table of htypes."""
        return parse_htype(self.htype).htype

    @property
    def with_settled_names(self) -> TensorSpec:
        """Copy with only the class names whose indices are settled."""
        if self.settled is None:
            return self
        return replace(self, class_names=self.class_names[: self.settled], settled=None)

    @property
    def may_discover(self) -> bool:
        """Return whether a label may have a new name: ``discover`` is true or not decided yet."""
        return self.discover is not False

    @property
    def linked(self) -> bool:
        """Return whether the values are links, and not lists of links."""
        _, linked, sequence = parse_htype(self.htype)
        return linked and not sequence

    @property
    def sequence(self) -> bool:
        """Return whether a value is a list of any length. :attr:`item` is the spec of its items."""
        htype, linked, sequence = parse_htype(self.htype)
        return sequence or (htype.codec == "polygon" and not linked)

    @property
    def item(self) -> TensorSpec:
        """Spec of one item of a list."""
        htype = self.htype.removeprefix("sequence[").removesuffix("]")
        if htype == self.htype:
            return TensorSpec("generic", self.dtype, self.shape, self.compression)
        return replace(
            self,
            htype=htype,
            compression=self.compression or "none",
            verify=False if htype.startswith("link[") else self.verify,
            same_length=None,
            ordered=False,
            optional=False,
        )

    @property
    def encoded(self) -> bool:
        """Return whether a value is stored as the bytes of a whole file."""
        return self.compression in self.kind.files and not (self.linked or self.sequence)

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype, or None for strings, Arrow's own types and lists."""
        plain = self.arrow is None and self.dtype is not None and not self.sequence
        return np.dtype(self.dtype) if plain else None

    @property
    def arrow_type(self) -> pa.DataType | None:
        """The Arrow type of the values, or None if numpy has the type."""
        if self.arrow is None:
            return None
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.arrow)))
        return schema.field(0).type

    @property
    def fixed(self) -> bool:
        """Return whether every sample has the same shape."""
        return self.shape is not None and None not in self.shape and not self.sequence

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document that a commit stores: the fields that are set."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.compression is None and self.kind.compressions[0] is not None:
            values["compression"] = "none"  # explicit, since a missing field means the default
        if self.exif == "keep":
            del values["exif"]
        if self.discover is None:
            values["discover"] = "auto"  # explicit, since a missing field means False
        if not self.linked and values.pop("verify") is not None:
            # Earlier releases know ``verify`` of links only, and ignore unknown fields.
            values["verify_files"] = "decode" if self.verify else "none"
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if _set(v)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> TensorSpec:
        """Read a document of :meth:`to_json`. Unknown fields are ignored."""
        values = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        if str(values.get("htype")).startswith("link["):
            # A missing field is False in a document, but True in a call.
            values = {**dict.fromkeys(LINK_CHOICES, False), **values}
        discover = document.get("discover", False)
        values["discover"] = None if discover == "auto" else discover
        for key in ("shape", "class_names"):
            if key in values:
                values[key] = tuple(values[key])
        if "verify_files" in document:
            values["verify"] = document["verify_files"] == "decode" and "decode"
        return cls(**values)


def _set(value: object) -> bool:
    return value is not None and value is not False


def _may_decide(spec: TensorSpec, htype: Htype) -> bool:
    """Return whether the first labels can decide if the tensor discovers names."""
    plain = spec.htype == htype.name == "class_label" and spec.dtype == htype.dtype
    return plain and spec.class_names is None and spec.compression is None


def _settled(spec: TensorSpec) -> int | None:
    """Return the number of class names with permanent indices, or None for all."""
    names = len(spec.class_names or ()) if spec.discover else 0
    if spec.settled is None:
        return None
    if type(spec.settled) is not int or not 0 <= spec.settled <= names:
        raise SchemaError(
            f"settled must be from 0 to {names}, the number of names, got {spec.settled!r}. Fix it."
        )
    return None if spec.settled == names else spec.settled


def _shape(spec: TensorSpec, htype: Htype) -> Shape | None:
    shape = htype.shape if spec.shape is None else spec.shape
    if spec.arrow is not None and shape is None:
        return ()
    if shape is None:
        return None
    problem = f"shape must be a sequence of lengths and None, got {shape!r}. Give a tuple."
    if isinstance(shape, str | bytes | Mapping | AbstractSet):
        raise SchemaError(problem)
    try:
        axes = tuple(None if axis is None else operator.index(axis) for axis in shape)
    except TypeError as error:
        raise SchemaError(problem) from error
    if any(axis is not None and axis < 0 for axis in axes):
        raise SchemaError(f"shape must not have a negative length, got {shape!r}. Fix it.")
    return axes


def _compression(compression: Any, htype: Htype) -> str | None:
    if compression is None:
        return None if htype.must_compress else htype.compressions[0]
    if not isinstance(compression, str):
        raise SchemaError(f"compression must be a name such as 'lz4', got {compression!r}. Fix it.")
    return COMPRESSION_ALIASES.get(compression, compression)


def _check(spec: TensorSpec, htype: Htype, *, linked: bool) -> None:
    name = spec.htype
    if spec.dtype is None and htype.codec != "file":
        raise SchemaError(f"htype {name!r} needs a dtype, such as TensorSpec(dtype='float32').")
    if htype.name != "generic" and htype.dtype != spec.dtype:
        kind = "" if spec.arrow is not None else np.dtype(spec.dtype).kind
        if not kind or kind not in htype.dtypes:
            raise SchemaError(f"htype {name!r} cannot have dtype {spec.dtype}. Leave dtype out.")
    if htype.must_compress and not linked and spec.compression is None:
        allowed = " or ".join(map(repr, htype.compressions))
        raise SchemaError(f"htype {name!r} needs a compression. Use one of: {allowed}.")
    if spec.compression is not None and spec.compression not in htype.compressions:
        allowed = ", ".join(map(repr, htype.compressions))
        raise SchemaError(
            f"htype {name!r} does not support compression {spec.compression!r}. "
            f"Use one of: {allowed}."
        )
    plain = htype.codec in ("array", "text")
    if spec.arrow is not None and plain and (spec.shape != () or spec.compression is not None):
        raise SchemaError(
            f"dtype {spec.dtype} holds one value per sample. Leave shape and compression out."
        )
    _check_shape(spec, htype)
    for parameter in _HTYPE_PARAMETERS:
        is_set = _set(getattr(spec, parameter)) and (parameter, spec.exif) != ("exif", "keep")
        if is_set and parameter not in htype.parameters:
            raise SchemaError(f"htype {name!r} does not support {parameter}. Leave it out.")
    if spec.discover and (htype.name != name or spec.compression or spec.dtype != htype.dtype):
        raise SchemaError(
            f"discover=True needs htype {htype.name!r} with dtype {htype.dtype!r} and without "
            "compression. Leave these out, or give all class_names and no discover."
        )
    if spec.ordered and (spec.class_names is None or spec.discover):
        raise SchemaError("ordered=True needs all class_names, in their order. Give class_names.")
    check_index(spec.index, spec.shape, plain=plain and htype.name == name)


def _check_shape(spec: TensorSpec, htype: Htype) -> None:
    if spec.shape is None:
        return
    if htype.ranks and len(spec.shape) not in htype.ranks:
        ranks = " or ".join(map(str, htype.ranks))
        raise SchemaError(f"htype {spec.htype!r} cannot have shape {spec.shape}. Use rank {ranks}.")
    # A ragged last axis allows each value any of several lengths.
    allowed = (*htype.last, None) if len(htype.last) > 1 else htype.last
    if allowed and spec.shape[-1] not in allowed:
        lengths = " or ".join(map(str, htype.last))
        raise SchemaError(
            f"The last axis of htype {spec.htype!r} must be {lengths}, got {spec.shape}. Fix it."
        )


def describe(spec: TensorSpec) -> str:
    """Return the call that creates a spec, without its defaults."""
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
    parts += _describe_names(spec)
    if spec.coords is not None:
        parts.append(f"coords={spec.coords!r}")
    for name in _DESCRIBED:
        if _set(getattr(spec, name)):
            value = getattr(spec, name)
            parts.append(f"{name}={list(value) if isinstance(value, tuple) else value!r}")
    if spec.verify in (False, "decode"):
        parts.append(f"verify={spec.verify!r}")
    if spec.exif != "keep":
        parts.append(f"exif={spec.exif!r}")
    if spec.linked and spec.verify:
        parts += [f"{n}=False" for n in LINK_CHOICES[1:] if not getattr(spec, n)]
    return f"TensorSpec({', '.join(parts)})"


def _describe_names(spec: TensorSpec) -> list[str]:
    if spec.class_names is None:
        decided = spec.discover is False and _may_decide(spec, spec.kind)
        return ["discover=False"] if decided else []
    shown = [repr(name) for name in spec.class_names]
    if len(shown) > _SHOWN:
        shown[1:] = [f"… {len(shown)} names"]
    return [f"class_names=[{', '.join(shown)}]"]
