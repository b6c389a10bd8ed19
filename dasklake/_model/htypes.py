"""One table says what each htype means: its dtype, ranks, last axis, parameters and compressions.

The schema checks against it, the codecs are chosen by it, and the reference page is made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dasklake.exceptions import SchemaError

__all__ = ["COMPRESSION_ALIASES", "COORDS", "HTYPES", "Htype", "parse_htype"]

CodecName = Literal["array", "mask", "image", "text", "link"]

#: Other spellings of a compression.
COMPRESSION_ALIASES = MappingProxyType({"jpg": "jpeg", "tif": "tiff", "none": None})

#: How the four numbers of a box are to be read: unit, then left-top-width-height,
#: left-top-right-bottom or centre-width-height.
COORDS = tuple(
    f"{unit}-{mode}" for unit in ("pixel", "fractional") for mode in ("ltwh", "ltrb", "ccwh")
)

_BYTES = (None, "lz4", "zstd")
_MASKS = ("packbits-zstd", "packbits-lz4", "zstd", "lz4", None)
_IMAGES = ("jpeg", "png")


@dataclass(frozen=True, slots=True)
class Htype:
    """What every tensor of one htype has in common.

    Attributes
    ----------
    name : str
        The word users write.
    codec : str
        The codec that turns its values into bytes and back.
    dtype : str or None
        Default dtype; None where the user or the data must say it.
    dtypes : str
        The numpy kinds (``np.dtype.kind``) that are allowed; empty where dtype is fixed.
    shape : tuple of (int or None) or None
        Default shape; ``None`` as an axis is ragged, ``None`` as a shape leaves the rank open.
    ranks : tuple of int
        Allowed ranks; empty where any is.
    last : int or None
        Required length of the last axis.
    compressions : tuple of (str or None)
        Allowed compressions, the default first.
    must_compress : bool
        Whether the user has to choose the compression.
    parameters : tuple of str
        Further fields of ``TensorSpec`` that have a meaning for it.
    extra : str or None
        The extra that brings the needed library.
    summary : str
        One sentence for the reference page.
    """

    name: str
    codec: CodecName
    summary: str
    dtype: str | None = None
    dtypes: str = ""
    shape: tuple[int | None, ...] | None = None
    ranks: tuple[int, ...] = ()
    last: int | None = None
    compressions: tuple[str | None, ...] = (None,)
    must_compress: bool = False
    parameters: tuple[str, ...] = ()
    extra: str | None = None


_TABLE = (
    Htype(
        "generic",
        "array",
        "Numbers, times, strings or any Arrow type; scalars, fixed or ragged arrays.",
        dtypes="biufcmM",
        compressions=_BYTES,
    ),
    Htype(
        "image",
        "image",
        "A picture; JPEG or PNG bytes and files pass through unchanged, arrays are encoded.",
        dtype="uint8",
        shape=(None, None, None),
        ranks=(2, 3),
        compressions=_IMAGES,
        must_compress=True,
        extra="images",
    ),
    Htype(
        "class_label",
        "array",
        "Indices into a list of class names.",
        dtype="uint32",
        dtypes="ui",
        ranks=(0, 1),
        compressions=_BYTES,
        parameters=("class_names",),
    ),
    Htype(
        "bbox",
        "array",
        "Boxes, four numbers each.",
        dtype="float32",
        dtypes="fiu",
        shape=(None, 4),
        ranks=(1, 2),
        last=4,
        compressions=_BYTES,
        parameters=("coords",),
    ),
    Htype(
        "binary_mask",
        "mask",
        "One boolean plane for each object: height x width x objects.",
        dtype="bool",
        shape=(None, None, None),
        ranks=(2, 3),
        compressions=_MASKS,
    ),
    Htype("text", "text", "A string.", dtype="str", shape=(), ranks=(0,)),
    Htype(
        "embedding",
        "array",
        "A vector.",
        dtype="float32",
        dtypes="f",
        shape=(None,),
        ranks=(1,),
        compressions=_BYTES,
    ),
)

#: Name to meaning.
HTYPES = MappingProxyType({htype.name: htype for htype in _TABLE})

#: Htypes of which a tensor may hold links.
LINKABLE = ("image",)

_LINK = re.compile(r"link\[(.+)\]")


def parse_htype(name: str) -> tuple[Htype, bool]:
    """Look an htype up.

    Parameters
    ----------
    name : str
        A name of the table, or ``link[name]``.

    Returns
    -------
    htype : Htype
        Its row of the table.
    linked : bool
        Whether values are links to data of that htype.

    Raises
    ------
    SchemaError
        The table has no such row.

    Examples
    --------
    >>> parse_htype("link[image]")[1]
    True
    """
    if not isinstance(name, str):
        raise SchemaError(f"An htype is a name such as 'generic', not {name!r}.")
    link = _LINK.fullmatch(name)
    inner = link.group(1) if link else name
    if inner not in HTYPES or (link and inner not in LINKABLE):
        known = ", ".join([*HTYPES, *(f"link[{each}]" for each in LINKABLE)])
        raise SchemaError(f"Unknown htype {name!r}. Use one of: {known}.")
    return HTYPES[inner], link is not None
