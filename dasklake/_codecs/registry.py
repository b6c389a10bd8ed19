"""Which codec a tensor has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import pyarrow as pa

from dasklake._codecs.array import ArrayCodec, LabelCodec
from dasklake._codecs.constraints import constraint_for
from dasklake._codecs.file import FileCodec
from dasklake._codecs.image import ImageCodec
from dasklake._codecs.json import JsonCodec
from dasklake._codecs.link import LinkCodec
from dasklake._codecs.mask import MaskCodec
from dasklake._codecs.protocol import Codec
from dasklake._codecs.sequence import SequenceCodec
from dasklake._codecs.text import ArrowCodec, TextCodec
from dasklake._schema.schema import TensorSpec

__all__ = ["CODECS", "Codec", "codec_for"]


def _array(spec: TensorSpec, *, strict: bool) -> Codec:
    arrow = spec.arrow_type
    if arrow is not None:
        strings = pa.types.is_large_string(arrow) or pa.types.is_string(arrow)
        return TextCodec(spec) if strings else ArrowCodec(spec)
    if spec.kind.name == "class_label":
        return LabelCodec(spec)
    return ArrayCodec(spec, constraint_for(spec, strict=strict))


def _polygon(spec: TensorSpec, *, strict: bool) -> Codec:
    return SequenceCodec(spec, ArrayCodec(spec.item, constraint_for(spec, strict=strict)))


def _plain(spec: TensorSpec, *, strict: bool, make: Callable[[TensorSpec], Codec]) -> Codec:
    del strict  # it has no constraints that a basic write does not check
    return make(spec)


#: By the codec's name in the table of htypes, ``"link"`` for linked data.
CODECS: Mapping[str, Callable[..., Codec]] = MappingProxyType(
    {
        "array": _array,
        "mask": partial(_plain, make=MaskCodec),
        "image": partial(_plain, make=ImageCodec),
        "file": partial(_plain, make=FileCodec),
        "text": partial(_plain, make=TextCodec),
        "json": partial(_plain, make=JsonCodec),
        "polygon": _polygon,
        "link": partial(_plain, make=LinkCodec),
    }
)


def codec_for(spec: TensorSpec, *, strict: bool = True) -> Codec:
    """Return the codec of a tensor.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    strict : bool, default True
        Whether encoding checks the constraints of the htype as well as dtype and shape.

    Returns
    -------
    Codec
        A fresh codec; making it costs some microseconds.

    Examples
    --------
    >>> from dasklake import TensorSpec
    >>> codec_for(TensorSpec(dtype="uint8", shape=())).encode(7)
    np.uint8(7)
    """
    if spec.sequence and spec.htype.startswith("sequence["):
        return SequenceCodec(spec, codec_for(spec.item, strict=strict))
    name = "link" if spec.linked else spec.kind.codec
    if spec.encoded and name == "array":
        name = "file"
    return CODECS[name](spec, strict=strict)
