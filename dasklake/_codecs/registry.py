"""Selection of the codec of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pandas as pd
import pyarrow as pa

from dasklake._codecs.array import ArrayCodec, LabelCodec
from dasklake._codecs.codec import Codec
from dasklake._codecs.constraints import constraint_for
from dasklake._codecs.file import FileCodec
from dasklake._codecs.image import ImageCodec
from dasklake._codecs.json import JsonCodec
from dasklake._codecs.link import LinkCodec
from dasklake._codecs.mask import MaskCodec
from dasklake._codecs.sequence import SequenceCodec
from dasklake._codecs.text import ArrowCodec, PandasCodec, TextCodec
from dasklake._schema.htypes import parse_htype
from dasklake._schema.schema import TensorSpec

__all__ = ["Codec", "codec_for"]


def _array_codec(spec: TensorSpec, *, strict: bool) -> Codec:
    arrow = spec.arrow_type
    if arrow is not None:
        strings = pa.types.is_large_string(arrow) or pa.types.is_string(arrow)
        if isinstance(arrow, pa.BaseExtensionType) and _is_of_pandas(spec):
            return PandasCodec(spec)
        return TextCodec(spec) if strings else ArrowCodec(spec)
    if spec.kind.name == "class_label":
        return LabelCodec(spec)
    return ArrayCodec(spec, constraint_for(spec, strict=strict))


def _is_of_pandas(spec: TensorSpec) -> bool:
    """Return whether pandas has the dtype of a tensor, and converts it from Arrow."""
    try:
        dtype = pd.api.types.pandas_dtype(spec.dtype)
    except (TypeError, ValueError, NotImplementedError):
        return False
    return hasattr(dtype, "__from_arrow__") and not isinstance(dtype, pd.ArrowDtype)


#: Codecs without constraints, by their names in the table of htypes.
_CODECS: Mapping[str, Callable[[TensorSpec], Codec]] = MappingProxyType(
    {
        "mask": MaskCodec,
        "image": ImageCodec,
        "file": FileCodec,
        "text": TextCodec,
        "json": JsonCodec,
    }
)


def codec_for(spec: TensorSpec, *, strict: bool = True) -> Codec:
    """Return the codec of a tensor.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    strict : bool, default True
        Whether encoding also checks the constraints of the htype.

    Returns
    -------
    Codec
        A new codec. Creating it takes a few microseconds.

    Examples
    --------
    >>> from dasklake import TensorSpec
    >>> codec_for(TensorSpec(dtype="uint8", shape=())).encode(7)
    np.uint8(7)
    """
    if parse_htype(spec.htype).sequence:
        return SequenceCodec(spec, codec_for(spec.item, strict=strict))
    if spec.linked:
        return LinkCodec(spec)
    name = spec.kind.codec
    if name == "polygon":
        return SequenceCodec(spec, ArrayCodec(spec.item, constraint_for(spec, strict=strict)))
    if name == "array" and not spec.encoded:
        return _array_codec(spec, strict=strict)
    return _CODECS["file" if name == "array" else name](spec)
