"""Encoding of images: modes and sizes that a format has, and metadata that it keeps."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dasklake._media.image import pillow
from dasklake._media.reader import import_optional
from dasklake.exceptions import SampleError

#: Color modes that a format stores without another change than its own losses.
_MODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "jpeg": ("L", "RGB", "CMYK"),
        "png": ("L", "LA", "RGB", "RGBA"),
        "webp": ("RGB", "RGBA"),
        "tiff": ("L", "LA", "RGB", "RGBA", "CMYK"),
        "bmp": ("L", "RGB"),
        "gif": ("RGB",),
        "jpeg2000": ("L", "LA", "RGB", "RGBA"),
        "ppm": ("L", "RGB"),
        "tga": ("L", "LA", "RGB", "RGBA"),
    }
)

#: Longest sides, in pixels, of the formats that limit them.
_LONGEST = MappingProxyType({"jpeg": 65_500, "webp": 16_383, "gif": 65_535, "tga": 65_535})

#: Options for encoding pixels: losses are hard to see, and the file has a tenth of their size.
_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"jpeg": {"quality": 95}, "webp": {"quality": 95, "exact": True}}
)

#: Formats that keep EXIF tags and ICC profiles, and the color spaces of profiles by mode.
_WITH_METADATA = ("jpeg", "png", "webp", "tiff")
_SPACES = MappingProxyType(
    {"L": b"GRAY", "LA": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}
)

#: Conversions of arrays from a mode to another.
_AS_ARRAY = MappingProxyType(
    {
        ("RGBA", "RGB"): "array[:, :, :3]",
        ("LA", "L"): "array[:, :, :1]",
        ("LA", "RGB"): "np.dstack([array[:, :, 0]] * 3)",
        ("L", "RGB"): "np.dstack([array] * 3)",
    }
)

_ORIENTATION = 274
_EXIF_PREFIX = b"Exif\0\0"

#: Tags of TIFF that describe the layout of its pixels, and not the image.
_LAYOUT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 284, 290, 291}
    | {292, 293, 297, 317, 320, 322, 323, 324, 325, 330, 332, 336, 338, 339, 347, 512, 513, 514}
    | {515, 519, 520, 521, 529, 530, 531, 532, 34675}
)


def check_sides(compression: str, height: int, width: int) -> None:
    """Check that a format can store, and its decoder read, an image of this size.

    Raises
    ------
    SampleError
        A side is too long.
    """
    longest = _LONGEST.get(compression)
    if longest is not None and max(height, width) > longest:
        raise SampleError(
            f"a {compression} image must have sides of at most {longest:,} pixels, got "
            f"{height} x {width}. Split the image, or use compression='png'."
        )


def is_turned(image: Any) -> bool:
    """Return whether the orientation tag says that an image must be turned to be shown.

    Pillow turns a TIFF whenever it decodes one.
    """
    try:
        return image.format != "TIFF" and image.getexif().get(_ORIENTATION) in range(2, 9)
    except Exception:  # noqa: BLE001 # damaged tags can raise any error
        return False


def is_sideways(image: Any) -> bool:
    """Return whether turning an image as its orientation tag says exchanges height and width."""
    return is_turned(image) and image.getexif().get(_ORIENTATION) in range(5, 9)


def upright(image: Any) -> Any:
    """Turn the pixels of an image as its orientation tag says, and remove the tag."""
    operations = import_optional("PIL.ImageOps", "The htype 'image'", "images")
    try:
        return operations.exif_transpose(image)
    except Exception as error:
        raise SampleError(
            f"the orientation tag of the image cannot be applied: {error}. Fix the file, or set "
            "exif='keep' in the TensorSpec."
        ) from error


def encode_image(image: Any, compression: str, source: Any, *, fixed: bool) -> bytes:
    """Encode an image of 8 bits per channel.

    Parameters
    ----------
    image : PIL.Image.Image
        The decoded image.
    compression : str
        Format of the file.
    source : PIL.Image.Image
        The image that it was made from, with its metadata.
    fixed : bool
        Whether the htype fixes the color mode, so that converting the image is no remedy.

    Raises
    ------
    SampleError
        The format cannot store the image.
    """
    _check_mode(compression, image.mode, source.mode, fixed=fixed)
    check_sides(compression, image.height, image.width)
    sink = io.BytesIO()
    options = {**_OPTIONS.get(compression, {}), **_metadata(image, compression, source)}
    try:
        image.save(sink, format=compression, **options)
    except MemoryError:
        raise
    except Exception as error:  # the encoders have errors of their own
        raise SampleError(
            f"the {image.width} x {image.height} image of mode {image.mode} cannot be encoded as "
            f"{compression}: {str(error) or type(error).__name__}. Convert it to an array with "
            "np.asarray(image), or use compression='png'."
        ) from error
    return sink.getvalue()


def _check_mode(compression: str, mode: str, original: str, *, fixed: bool) -> None:
    """Check that a format stores images of a color mode."""
    modes = _MODES[compression]
    if mode in modes:
        return
    remedy = "Use compression='png'."
    if not fixed:
        opaque = "L" if mode == "LA" and "L" in modes else "RGB"
        # Without the first conversion, Pillow keeps a transparent color.
        convert = f'.convert("{mode}")' if mode[-1] == "A" and mode != original else ""
        convert = f'{convert}.convert("{opaque}")'
        array = _AS_ARRAY.get((mode, opaque))
        convert += f" (an array with {array})" if array else ""
        remedy = f"Convert the image with {convert}, or use another compression."
    if mode in ("LA", "RGBA"):
        raise SampleError(
            f"a {compression} image cannot have transparency, got mode {mode} with {len(mode)} "
            f"channels. {remedy}"
        )
    raise SampleError(
        f"a {compression} image must have {' or '.join(modes)} channels, got mode {mode}. {remedy}"
    )


def _metadata(image: Any, compression: str, source: Any) -> dict[str, Any]:
    """Return the EXIF tags and the ICC profile of the source as options of the encoder."""
    if compression not in _WITH_METADATA:
        refuse_turned(compression, source)
        return {}
    # None, because Pillow otherwise takes the profile from the image.
    options: dict[str, Any] = {"icc_profile": None}
    profile = source.info.get("icc_profile")
    if isinstance(profile, bytes) and profile[16:20] == _SPACES[image.mode]:
        options["icc_profile"] = profile
    # Pillow turns a TIFF whenever it decodes one.
    exif = _exif_of(source, with_orientation="TIFF" not in (source.format, compression.upper()))
    if exif:
        options["exif"] = exif
    return options


def refuse_turned(compression: str, source: Any) -> None:
    """Refuse to drop an orientation tag that changes how a file is shown.

    An image that was made from another one, as by rotating it, may have the tag although its pixels
    were turned already.

    Raises
    ------
    SampleError
        The image has such a tag, and ``compression`` cannot keep it.
    """
    if source.format is not None and is_turned(source):
        raise SampleError(
            f"{compression} cannot keep the orientation tag {source.getexif()[_ORIENTATION]} of the "
            "image. Set exif='apply' in the TensorSpec to turn the pixels, or use "
            "compression='png'."
        )


def _exif_of(source: Any, *, with_orientation: bool) -> bytes:
    """Return the EXIF tags of an image, or no bytes if it has no tags or damaged ones."""
    exif = source.info.get("exif")
    try:
        tags = source.getexif()
        if isinstance(exif, bytes) and exif and with_orientation:
            stored = pillow().Exif()
            stored.load(exif)
            # Orientation may also be in XMP data, which is not kept.
            if stored.get(_ORIENTATION) == tags.get(_ORIENTATION):
                return exif if exif.startswith(_EXIF_PREFIX) else _EXIF_PREFIX + exif
        copied = pillow().Exif()
        for tag, value in tags.items():
            if tag not in _LAYOUT and (with_orientation or tag != _ORIENTATION):
                copied[tag] = tags.get_ifd(tag) if tag in (0x8769, 0x8825) else value
        return bytes(copied.tobytes()) if len(copied) else b""
    except Exception:  # noqa: BLE001 # damaged tags can raise any error
        return b""
