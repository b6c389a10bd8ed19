"""Pictures, by Pillow: height x width x channels of 8 bits."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake.codecs.headers import jpeg_shape, png_shape
from dasklake.codecs.opening import convert, rows_of_item
from dasklake.exceptions import MissingExtraError, SampleError

__all__ = [
    "CHANNELS",
    "Picture",
    "decode_image",
    "image_facts",
    "open_image",
    "pillow",
    "plain",
    "plain_mode",
    "quick_shape",
]

_MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}

#: What reads the shape from the first bytes.
_QUICK = {"jpeg": jpeg_shape, "png": png_shape}

#: Colour modes whose pixels are bytes, and their channels.
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}

#: Colour modes of fewer bits or with a palette, and the mode that shows the same.
_PLAINER = {"1": "L", "P": "RGB", "PA": "RGBA"}


class Picture:
    """Reads the files of pictures."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return height, width and channels; only the header is read."""
        for name in _QUICK:
            shape = quick_shape(name, data)
            if shape is not None:
                return shape
        image = open_image(data)
        return image.height, image.width, CHANNELS[plain_mode(image)]

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
    """Return the shape of an ordinary picture of a format; None where Pillow has to look."""
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
    image = plain(open_image(data))
    try:
        return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def image_facts(data: Any) -> tuple[str, tuple[int, int, int]]:
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
    return str(image.format).lower(), (height, width, CHANNELS[plain_mode(image)])


def open_image(data: Any) -> Any:
    """Return a picture as Pillow has it; its pixels are not decoded."""
    library = pillow()
    try:
        return library.Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"{len(data)} bytes that begin with {bytes(data[:8])!r} are not a picture that can be "
            "read. Look at where they came from."
        ) from error
    except library.Image.DecompressionBombError as error:
        raise SampleError(f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if it is meant.") from error


def plain_mode(image: Any) -> str:
    """Return the mode of 8 bits a channel that shows the same."""
    mode = str(image.mode)
    if mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    mode = _PLAINER.get(mode, mode)
    if mode not in CHANNELS:
        raise SampleError(
            f"a picture of mode {image.mode} has not 8 bits a channel. Store it as a generic "
            "tensor, or convert it."
        )
    return mode


def plain(image: Any) -> Any:
    """Return a picture in its plain mode."""
    mode = plain_mode(image)
    try:
        return image if image.mode == mode else image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def pillow() -> Any:
    """Import Pillow."""
    # An optional door: lakes without pictures do not need Pillow.
    try:
        import PIL.Image  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("The htype 'image'", "images") from error
    return PIL
