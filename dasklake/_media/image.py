"""Reader of images (Pillow): height x width x channels of 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import USE_BYTES, import_optional, select_rows
from dasklake._media.sniff import format_of
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
    "open_image",
    "pillow",
    "png_shape",
    "quick_shape",
    "shape_of",
    "starts_like_image",
    "to_8_bit_mode",
]

#: Bytes at the beginning that hold the header of most files, of almost all, and bytes at the end.
HEAD = 16 * 2**10
MORE = 1 * 2**20
TAIL = 64

#: Formats that a linked image may have.
_LINKED_FORMATS = {"jpeg", "png", "gif", "webp", "tiff", "bmp", "jpeg2000"}

#: Last bytes of a complete file; some writers append a few zeros.
_ENDS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\x3b"}

#: Markers of a JPEG that begin a frame: baseline, extended and progressive, Huffman coded.
_FRAMES = {0xC0, 0xC1, 0xC2}

#: Markers without a length, and the marker before the pixels.
_BARE = {0x01, 0xFF, *range(0xD0, 0xDA)}
_SCAN = 0xDA

#: Channels of the colour types of PNG, without palettes.
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels of an 8-bit JPEG, or None for unusual files."""
    offset, end = 2, len(data) - 10
    while offset < end:
        marker = data[offset + 1]
        if data[offset] != 0xFF or marker in _BARE or marker == _SCAN:
            return None
        if marker in _FRAMES:
            height = int.from_bytes(data[offset + 5 : offset + 7])
            width = int.from_bytes(data[offset + 7 : offset + 9])
            channels = data[offset + 9]
            if data[offset + 4] != 8 or channels not in (1, 3) or not height or not width:
                return None
            return height, width, channels
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4])
    return None


def png_shape(data: bytes) -> tuple[int, int, int] | None:
    """Return height, width and channels of an 8-bit PNG, or None for unusual files."""
    if data[12:16] != b"IHDR" or len(data) < 29 or data[24] != 8:
        return None
    height, width = int.from_bytes(data[20:24]), int.from_bytes(data[16:20])
    channels = _PNG_CHANNELS.get(data[25])
    return (height, width, channels) if channels and height and width else None


#: Color modes of 8 bits per channel, and their numbers of channels.
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}

#: Color modes of fewer bits or with a palette, and the 8-bit mode that shows the same.
_8_BIT_MODES = {"1": "L", "P": "RGB", "PA": "RGBA"}


class ImageReader:
    """Reader of image files."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return height, width and channels from the header."""
        return _format_and_shape(data)[1]

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the color mode."""
        return {"mode": open_image(data).mode}

    def open(self, data: bytes) -> Any:
        """Return a ``PIL.Image.Image``."""
        return open_image(data)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode rows of pixels."""
        pixels = decode_image(data)
        return select_rows(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis], item, dtype)


def quick_shape(format_: str | None, data: bytes) -> tuple[int, int, int] | None:
    """Return the shape of an ordinary JPEG or PNG, or None if Pillow has to read the header."""
    if format_ == "jpeg":
        return jpeg_shape(data)
    return png_shape(data) if format_ == "png" else None


def decode_image(data: Any) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image.

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
        ``data`` is not an image with 8 bits per channel.
    MissingExtraError
        Pillow is not installed.
    """
    return np.array(to_8_bit_mode(open_image(data)))


def _format_and_shape(data: Any) -> tuple[str, tuple[int, int, int]]:
    """Return format and shape of an image from its first bytes.

    Raises
    ------
    SampleError
        ``data`` is not an image with 8 bits per channel, or is too short.
    """
    format_ = format_of(data)
    shape = quick_shape(format_, data)
    if format_ is not None and shape is not None:
        return format_, shape
    image = open_image(data)
    return str(image.format).lower(), shape_of(image)


def open_image(data: Any) -> Any:
    """Open an image with Pillow, without decoding its pixels."""
    pil = pillow()
    try:
        return pil.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the bytes are not a valid image: got {len(data)} bytes that begin with "
            f"{bytes(data[:8])!r}. Check the source of the file."
        ) from error
    except pil.DecompressionBombError as error:
        raise SampleError(
            f"the image is too large: {error} If this size is intended, raise "
            "PIL.Image.MAX_IMAGE_PIXELS."
        ) from error


def shape_of(image: Any) -> tuple[int, int, int]:
    """Return height, width and channels of a Pillow image in its 8-bit mode."""
    return image.height, image.width, CHANNELS[_mode_of_8_bits(image)]


def _mode_of_8_bits(image: Any) -> str:
    mode = str(image.mode)
    if mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    mode = _8_BIT_MODES.get(mode, mode)
    if mode not in CHANNELS:
        raise SampleError(
            f"an image must have 8 bits per channel, got mode {image.mode}. Convert it, or store "
            "its pixels in a generic tensor."
        )
    return mode


def to_8_bit_mode(image: Any) -> Any:
    """Decode a Pillow image, and convert it to the mode of 8 bits per channel."""
    mode = _mode_of_8_bits(image)
    try:
        image.load()
        return image if image.mode == mode else image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(f"the image cannot be decoded: {error}. {USE_BYTES}") from error


def pillow() -> Any:
    """Import ``PIL.Image``."""
    return import_optional("PIL.Image", "The htype 'image'", "images")


def starts_like_image(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of an image format."""
    return format_of(head) in _LINKED_FORMATS


def image_format_and_shape(head: bytes) -> tuple[str, tuple[int, int, int]] | None:
    """Return the format and shape of an image, or None if the first bytes do not give them."""
    try:
        return _format_and_shape(head)
    except SampleError:
        return None


def ends_like(format_: str, tail: bytes) -> bool:
    """Return whether the last bytes are those of a complete file. False if unknown."""
    end = _ENDS.get(format_)
    return end is not None and tail.rstrip(b"\0").endswith(end.rstrip(b"\0"))


def decode_completely(data: bytes) -> tuple[str, tuple[int, int, int]]:
    """Decode an image to check it, and return its format and shape.

    Raises
    ------
    SampleError
        ``data`` is not an image, or is truncated.
    """
    format_and_shape = _format_and_shape(data)
    decode_image(data)
    return format_and_shape
