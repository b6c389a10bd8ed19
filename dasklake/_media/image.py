"""Images, read with Pillow: height x width x channels of 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, library, rows_of_item
from dasklake.exceptions import SampleError

__all__ = [
    "CHANNELS",
    "HEAD",
    "MORE",
    "TAIL",
    "ImageReader",
    "decode_completely",
    "decode_image",
    "ends_like",
    "image_format_and_shape",
    "jpeg_shape",
    "mode_of_8_bits",
    "open_image",
    "pillow",
    "png_shape",
    "quick_shape",
    "starts_like_image",
    "to_8_bit_mode",
]

#: Bytes that say what most files are; where they do not, so many; and those at its end.
HEAD = 16 * 2**10
MORE = 1 * 2**20
TAIL = 64

#: First bytes of JPEG and PNG, whose headers are parsed here.
_MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}

#: First bytes of the files that may be images.
_IMAGE_STARTS = (
    *_MAGIC.values(),
    *(b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)

#: How a whole file of a format ends; some writers add a few zeros.
_ENDS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\x3b"}

#: Markers of a JPEG that begin a frame: baseline, extended and progressive, Huffman coded.
_FRAMES = {0xC0, 0xC1, 0xC2}

#: Markers without a length, and the one after which pixels begin.
_BARE = {0x01, 0xFF, *range(0xD0, 0xDA)}
_SCAN = 0xDA

#: Channels of the colour types of PNG; palettes are not ordinary.
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels of a JPEG of 8 bits; None for unusual files."""
    place, end = 2, len(data) - 10
    while place < end:
        marker = data[place + 1]
        if data[place] != 0xFF or marker in _BARE or marker == _SCAN:
            return None
        if marker in _FRAMES:
            height = int.from_bytes(data[place + 5 : place + 7])
            width = int.from_bytes(data[place + 7 : place + 9])
            channels = data[place + 9]
            if data[place + 4] != 8 or channels not in (1, 3) or not height or not width:
                return None
            return height, width, channels
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def png_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels of a PNG of 8 bits; None for unusual files."""
    if data[12:16] != b"IHDR" or len(data) < 29 or data[24] != 8:
        return None
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    channels = _PNG_CHANNELS.get(data[25])
    return (height, width, channels) if channels and height and width else None


#: What reads the shape from the first bytes.
_QUICK = {"jpeg": jpeg_shape, "png": png_shape}

#: Colour modes whose pixels are bytes, and their channels.
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}

#: Colour modes of fewer bits or with a palette, and the mode that shows the same.
_PLAINER = {"1": "L", "P": "RGB", "PA": "RGBA"}


class ImageReader:
    """Reads the files of pictures."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return height, width and channels; only the header is read."""
        return _format_and_shape(data)[1]

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the mode of colours."""
        return {"mode": open_image(data).mode}

    def open(self, data: bytes) -> Any:
        """Return a ``PIL.Image.Image``."""
        return open_image(data)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return rows of pixels."""
        found = decode_image(data)
        found = found if found.ndim == 3 else found[:, :, np.newaxis]
        return convert(found[np.asarray(rows_of_item(item, len(found)), int)], item, dtype)


def quick_shape(form: str | None, data: bytes) -> tuple[int, int, int] | None:
    """Return the shape of an ordinary picture of a format; None if Pillow has to look."""
    if form not in _QUICK or not data.startswith(_MAGIC[form]):
        return None
    return _QUICK[form](data)


def decode_image(data: Any) -> npt.NDArray[np.uint8]:
    """Decode the bytes of a picture.

    Parameters
    ----------
    data : bytes-like
        A whole file of any format that Pillow reads.

    Returns
    -------
    numpy.ndarray
        uint8, height x width x channels, or height x width for one channel.

    Raises
    ------
    SampleError
        The bytes are not a picture of 8 bits a channel.
    MissingExtraError
        Pillow is not installed.
    """
    image = to_8_bit_mode(open_image(data))
    try:
        return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def _format_and_shape(data: Any) -> tuple[str, tuple[int, int, int]]:
    """Return format and shape of a picture from its first bytes.

    Raises
    ------
    SampleError
        They are not those of a picture of 8 bits a channel, or too few to tell.
    """
    for name in _QUICK:
        shape = quick_shape(name, data)
        if shape is not None:
            return name, shape
    image = open_image(data)
    width, height = image.size
    return str(image.format).lower(), (height, width, CHANNELS[mode_of_8_bits(image)])


def open_image(data: Any) -> Any:
    """Return a picture as Pillow has it; its pixels are not decoded."""
    pil = pillow()
    try:
        return pil.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"{len(data)} bytes that begin with {bytes(data[:8])!r} are not a picture that can be "
            "read. Check their source."
        ) from error
    except pil.DecompressionBombError as error:
        raise SampleError(f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if it is meant.") from error


def mode_of_8_bits(image: Any) -> str:
    """Return the mode of 8 bits a channel that shows the same."""
    mode = str(image.mode)
    if mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    mode = _PLAINER.get(mode, mode)
    if mode not in CHANNELS:
        raise SampleError(
            f"a picture of mode {image.mode} does not have 8 bits per channel. Store it as a generic "
            "tensor, or convert it."
        )
    return mode


def to_8_bit_mode(image: Any) -> Any:
    """Return a picture in its plain mode."""
    mode = mode_of_8_bits(image)
    try:
        return image if image.mode == mode else image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def pillow() -> Any:
    """Import Pillow's module of images."""
    return library("PIL.Image", "The htype 'image'", "images")


def starts_like_image(head: bytes) -> bool:
    """Return whether a file may be an image, from its first bytes."""
    return head.startswith(_IMAGE_STARTS)


def image_format_and_shape(head: bytes) -> tuple[str, tuple[int, int, int]] | None:
    """Return the format and shape of an image, or None if these bytes do not give them."""
    try:
        return _format_and_shape(head)
    except SampleError:
        return None


def ends_like(format_: str, tail: bytes) -> bool:
    """Return whether the last bytes are those of a complete file; False if unknown."""
    end = _ENDS.get(format_)
    return end is not None and tail.rstrip(b"\0").endswith(end.rstrip(b"\0"))


def decode_completely(data: bytes) -> tuple[str, tuple[int, int, int]]:
    """Decode a picture; return its format and shape.

    Raises
    ------
    SampleError
        ``data`` is not an image, or is truncated.
    """
    format_and_shape = _format_and_shape(data)
    decode_image(data)
    return format_and_shape
