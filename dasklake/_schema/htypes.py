"""The table of htypes: dtype, shape, constraints, parameters and compressions.

The schema checks against it, the codecs are chosen by it, and the reference page is made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple

from dasklake.exceptions import SchemaError

CodecName = Literal["array", "mask", "image", "file", "text", "json", "polygon"]

#: Names of the checks of a strict write; ``_codecs/constraints.py`` implements them.
Constraint = Literal["finite", "box", "box-3d", "keypoints", "camera", "area"]

#: Alternative names of compressions.
COMPRESSION_ALIASES = MappingProxyType(
    {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000", "none": None}
)

#: Formats of a box: unit, then left-top-width-height, left-top-right-bottom or
#: centre-width-height.
COORDS = tuple(
    f"{unit}-{mode}" for unit in ("pixel", "fractional") for mode in ("ltwh", "ltrb", "ccwh")
)

#: Formats of a box in space: centre, size and rotation, or eight corners.
COORDS_3D = ("center", "vertex")

_BYTES = (None, "lz4", "zstd")
_MAPS = ("zstd", "lz4", None)
_MASKS = ("packbits-zstd", "packbits-lz4", "rle", "zstd", "lz4", None)
_IMAGES = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "ppm", "tga")
_PIXELS = (*_IMAGES, "lz4", "zstd")
_VIDEOS = ("mp4", "mkv", "webm", "avi")
_SOUNDS = ("wav", "flac", "mp3", "ogg")


@dataclass(frozen=True, slots=True)
class Htype:
    """Row of the table: the properties of every tensor of one htype.

    Attributes
    ----------
    name : str
        Name in ``TensorSpec(htype=...)``.
    codec : str
        Name of the codec that encodes and decodes its values.
    summary : str
        One sentence for the reference page.
    dtype : str or None
        Default dtype, or None if the user, the data or the file determines it.
    dtypes : str
        Allowed numpy kinds (``np.dtype.kind``); empty if ``dtype`` is fixed.
    shape : tuple of (int or None) or None
        Default shape; ``None`` as an axis is ragged, ``None`` as a shape leaves the rank open.
    ranks : tuple of int
        Allowed ranks; empty if any is allowed.
    last : tuple of int
        Allowed lengths of the last axis; empty if any is allowed.
    count : int or None
        Axis along which a value lists its objects, for ``same_length``, or None.
    constraints : tuple of str
        Checks that a strict write makes on its values.
    compressions : tuple of (str or None)
        Allowed compressions, the default first.
    files : tuple of str
        Compressions that are file formats; the bytes of such files are stored unchanged.
    must_compress : bool
        Whether the user must choose the compression.
    parameters : tuple of str
        Further parameters of ``TensorSpec`` that it accepts.
    coords : tuple of str
        Allowed values of ``coords``.
    extra : str or None
        The extra that installs the library for its files.
    decoder : str or None
        The name of that library.
    linkable : bool
        Whether ``link[...]`` accepts it; ``sequence[...]`` accepts every htype.
    """

    name: str
    codec: CodecName
    summary: str
    dtype: str | None = None
    dtypes: str = ""
    shape: tuple[int | None, ...] | None = None
    ranks: tuple[int, ...] = ()
    last: tuple[int, ...] = ()
    count: int | None = None
    constraints: tuple[Constraint, ...] = ()
    compressions: tuple[str | None, ...] = (None,)
    files: tuple[str, ...] = ()
    must_compress: bool = False
    parameters: tuple[str, ...] = ()
    coords: tuple[str, ...] = ()
    extra: str | None = None
    decoder: str | None = None
    linkable: bool = False


class ParsedHtype(NamedTuple):
    """Row of an htype, and whether values are links to it or lists of it."""

    htype: Htype
    linked: bool
    sequence: bool


def _image(name: str, summary: str, channels: int | None) -> Htype:
    return Htype(
        name,
        "image",
        summary,
        dtype="uint8",
        shape=(None, None, channels),
        ranks=(2, 3) if channels is None else (3,),
        compressions=_PIXELS,
        files=_IMAGES,
        must_compress=True,
        parameters=("reencode", "exif"),
        extra="images",
        decoder="Pillow",
        linkable=True,
    )


def _media(name: str, summary: str, files: tuple[str, ...], extra: str, decoder: str) -> Htype:
    return Htype(
        name,
        "file",
        summary,
        dtypes="fiu",
        compressions=files,
        files=files,
        must_compress=True,
        extra=extra,
        decoder=decoder,
        linkable=True,
    )


_TABLE = (
    Htype(
        "generic",
        "array",
        "Numbers, times, strings or any Arrow type; scalars, fixed or ragged arrays.",
        dtypes="biufcmM",
        count=0,
        compressions=_BYTES,
    ),
    _image("image", "An image; files are stored unchanged, arrays of pixels are encoded.", None),
    _image("image.rgb", "An image of three channels; others are converted.", 3),
    _image("image.gray", "An image of one channel; others are converted.", 1),
    Htype(
        "class_label",
        "array",
        "Indices into a list of class names.",
        dtype="uint32",
        dtypes="ui",
        ranks=(0, 1),
        count=0,
        compressions=_BYTES,
        parameters=("class_names", "discover", "ordered"),
    ),
    Htype(
        "tag",
        "json",
        "A list of words from an open vocabulary.",
        dtype="str",
        shape=(None,),
        ranks=(1,),
        count=0,
    ),
    Htype(
        "bbox",
        "array",
        "Boxes, four numbers each.",
        dtype="float32",
        dtypes="fiu",
        shape=(None, 4),
        ranks=(1, 2),
        last=(4,),
        count=0,
        constraints=("finite", "box"),
        compressions=_BYTES,
        parameters=("coords",),
        coords=COORDS,
    ),
    Htype(
        "bbox.3d",
        "array",
        "Boxes in space: centre, size and rotation, or eight corners.",
        dtype="float32",
        dtypes="fiu",
        shape=(None, 8),
        ranks=(1, 2, 3),
        last=(3, 7, 8, 9),
        count=0,
        constraints=("finite", "box-3d"),
        compressions=_BYTES,
        parameters=("coords",),
        coords=COORDS_3D,
    ),
    Htype(
        "binary_mask",
        "mask",
        "One boolean plane for each object: height x width x objects.",
        dtype="bool",
        shape=(None, None, None),
        ranks=(2, 3),
        count=-1,
        compressions=_MASKS,
    ),
    Htype(
        "instance_label",
        "array",
        "The object number of each pixel.",
        dtype="uint32",
        dtypes="ui",
        shape=(None, None),
        ranks=(2, 3),
        compressions=_MAPS,
    ),
    Htype(
        "segment_mask",
        "array",
        "The class of each pixel, as an index into a list of class names.",
        dtype="uint32",
        dtypes="ui",
        shape=(None, None),
        ranks=(2, 3),
        compressions=_MAPS,
        parameters=("class_names",),
    ),
    Htype(
        "polygon",
        "polygon",
        "Polygons, each a list of points.",
        dtype="float32",
        dtypes="fiu",
        shape=(None, 2),
        ranks=(2,),
        last=(2, 3),
        count=0,
        constraints=("finite", "area"),
        compressions=_BYTES,
    ),
    Htype(
        "keypoints_coco",
        "array",
        "Keypoints of objects: x, y and visibility of each point, one column for each object.",
        dtype="int32",
        dtypes="fi",
        shape=(None, None),
        ranks=(2,),
        count=-1,
        constraints=("finite", "keypoints"),
        compressions=_BYTES,
        parameters=("keypoints", "connections"),
    ),
    Htype(
        "point",
        "array",
        "Points, two or three numbers each.",
        dtype="int32",
        dtypes="fiu",
        shape=(None, 2),
        ranks=(1, 2),
        last=(2, 3),
        count=0,
        constraints=("finite",),
        compressions=_BYTES,
    ),
    Htype(
        "point_cloud",
        "array",
        "Points in space, with further values of each; LAS files are stored unchanged.",
        dtype="float32",
        dtypes="fiu",
        shape=(None, 3),
        ranks=(2,),
        count=0,
        compressions=(*_BYTES, "las"),
        files=("las",),
        extra="spatial",
        decoder="laspy",
        linkable=True,
    ),
    Htype(
        "embedding",
        "array",
        "A vector.",
        dtype="float32",
        dtypes="f",
        shape=(None,),
        ranks=(1,),
        constraints=("finite",),
        compressions=_BYTES,
    ),
    Htype(
        "intrinsics",
        "array",
        "Camera matrices, one or several.",
        dtype="float32",
        dtypes="f",
        shape=(3, 3),
        ranks=(2, 3),
        last=(3, 4),
        constraints=("finite", "camera"),
        compressions=_BYTES,
    ),
    Htype("text", "text", "A string.", dtype="str", shape=(), ranks=(0,)),
    Htype(
        "json",
        "json",
        "Any JSON value.",
        dtype="str",
        shape=(),
        ranks=(0,),
    ),
    Htype(
        "list",
        "json",
        "A list of JSON values.",
        dtype="str",
        shape=(None,),
        ranks=(1,),
        count=0,
    ),
    _media("audio", "Sound: samples x channels.", _SOUNDS, "audio", "soundfile"),
    _media("video", "Video: frames x height x width x channels.", _VIDEOS, "video", "PyAV"),
    _media("dicom", "A medical image or series.", ("dcm",), "medical", "pydicom"),
    _media("nifti", "A medical volume.", ("nii.gz", "nii"), "medical", "nibabel"),
    _media("mesh", "A triangle mesh: vertices x 3.", ("ply", "stl"), "spatial", "trimesh"),
)

#: Rows by name.
HTYPES = MappingProxyType({htype.name: htype for htype in _TABLE})

#: Names of the htypes that ``link[...]`` accepts.
LINKABLE = tuple(htype.name for htype in _TABLE if htype.linkable)

_LINK = re.compile(r"link\[(.+)\]")
_SEQUENCE = re.compile(r"sequence\[(.+)\]")


def parse_htype(name: str) -> ParsedHtype:
    """Parse the name of an htype.

    Parameters
    ----------
    name : str
        A name of the table, ``link[name]``, ``sequence[name]`` or ``sequence[link[name]]``.

    Returns
    -------
    ParsedHtype
        Its row of the table, and whether values are links or lists.

    Raises
    ------
    SchemaError
        ``name`` is not in the table.

    Examples
    --------
    >>> parse_htype("sequence[link[image]]")[1:]
    (True, True)
    """
    if not isinstance(name, str):
        raise SchemaError(f"htype must be a name such as 'generic', got {name!r}. Give a string.")
    return _parse(name)


@cache  # specs read their row often; an unknown name raises and is not cached
def _parse(name: str) -> ParsedHtype:
    sequence = _SEQUENCE.fullmatch(name)
    inner = sequence.group(1) if sequence else name
    link = _LINK.fullmatch(inner)
    inner = link.group(1) if link else inner
    if inner not in (LINKABLE if link else HTYPES):
        raise SchemaError(
            f"Unknown htype {name!r}. Use one of: {', '.join(HTYPES)}; link[...] of "
            f"{', '.join(LINKABLE)}; sequence[...] of any of these."
        )
    return ParsedHtype(HTYPES[inner], link is not None, sequence is not None)
