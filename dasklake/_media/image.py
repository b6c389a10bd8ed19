"""Reader of images (Pillow): height x width x channels of 8 bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.depth import HEAD_OF_DEPTH, bits_per_channel
from dasklake._media.freed_memory import keep_freed_memory
from dasklake._media.reader import USE_BYTES, import_optional, select_rows
from dasklake._media.sniff import format_of
from dasklake.exceptions import SampleError

#: Beginning of the message of a file that is truncated or damaged.
UNDECODABLE = "the image cannot be decoded"

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


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the first byte and the end of each segment of a JPEG up to the first scan.

    The segments end early if the bytes are not those of a JPEG.
    """
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # a fill byte
            offset += 1
            continue
        if marker in _BARE and marker != _SCAN:
            return
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4])
        if end > len(data):
            return
        yield marker, offset + 4, end
        if marker == _SCAN:
            return
        offset = end


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the first byte and the end of each chunk of a PNG.

    The chunks end early if the bytes are not those of a PNG.
    """
    offset = 8
    while offset + 12 <= len(data):
        end = offset + 8 + int.from_bytes(data[offset : offset + 4])
        kind = data[offset + 4 : offset + 8]
        if end > len(data):
            return
        yield kind, offset + 8, end
        if kind == b"IEND":
            return
        offset = end + 4


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
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}

#: Other color modes of at most 8 bits, and the mode that shows the same.
_8_BIT_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}

#: Color modes of more bits, the dtype of their pixels, and modes that Pillow cannot convert.
_WIDE_DTYPES = {"I": "int32", "F": "float32"}
_UNRELATED = {"LAB"}

#: Formats of Pillow with several frames or pages.
_ANIMATED = {"GIF", "PNG", "WEBP", "TIFF"}

#: Modes that have the same pixels and an opaque alpha channel.
_WITH_ALPHA = {("RGB", 4): "RGBA", ("L", 2): "LA"}


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


def decode_image(data: Any, *, channels: int | None = None) -> npt.NDArray[np.uint8]:
    """Decode the bytes of an image.

    Parameters
    ----------
    data : bytes-like
        A whole file of any format that Pillow reads.
    channels : int, optional
        Number of channels that were written. Some formats drop an opaque alpha channel, which is
        added again.

    Returns
    -------
    numpy.ndarray
        uint8, height x width x channels, or height x width for one channel. Orientation tags are
        not applied.

    Raises
    ------
    SampleError
        ``data`` is not an image with 8 bits per channel.
    MissingExtraError
        Pillow is not installed.
    """
    keep_freed_memory()
    image = open_image(data)
    if channels is None:
        check_depth(image, data[:HEAD_OF_DEPTH])
    image = to_8_bit_mode(image)
    mode = _WITH_ALPHA.get((image.mode, channels or 0))
    return np.array(image if mode is None else image.convert(mode))


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
    check_depth(image, data[:HEAD_OF_DEPTH])
    return str(image.format).lower(), shape_of(image)


def open_image(data: Any) -> Any:
    """Open an image with Pillow, without decoding its pixels."""
    pil = pillow()
    try:
        return pil.open(io.BytesIO(data))
    except pil.DecompressionBombError as error:
        raise SampleError(
            f"the image is too large: {error} If this size is intended, raise "
            "PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        raise SampleError(
            f"the bytes are not a valid image: got {len(data)} bytes that begin with "
            f"{bytes(data[:8])!r}. Check the source of the file."
        ) from error


def check_size(height: int, width: int) -> None:
    """Check that Pillow will decode an image of this size.

    Raises
    ------
    SampleError
        The image is empty, or has more pixels than Pillow allows.
    """
    limit = pillow().MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise SampleError(
            f"the image is too large: {height} x {width} pixels are more than the limit of "
            f"{2 * limit} pixels, and could not be decoded. If this size is intended, raise "
            "PIL.Image.MAX_IMAGE_PIXELS here and where the image is read."
        )
    if height < 1 or width < 1:
        raise SampleError(
            "an image must have a height and width of at least 1, got "
            f"{height} x {width}. Fix the image."
        )


def check_depth(image: Any, head: bytes) -> None:
    """Check that a channel of an image has at most 8 bits.

    Raises
    ------
    SampleError
        A channel has more bits.
    """
    mode, bits = str(image.mode), bits_per_channel(image, head)
    if bits <= 8:
        return
    dtype = "uint16" if mode.startswith("I;16") else _WIDE_DTYPES.get(mode)
    if dtype is not None:
        raise SampleError(
            f"an image must have 8 bits per channel, got mode {mode} with {bits} bits. Store its "
            f"pixels, np.asarray(PIL.Image.open(file)), in a tensor TensorSpec(dtype={dtype!r}, "
            "shape=(None, None), compression='zstd')."
        )
    channels = len(image.getbands())
    raise SampleError(
        f"an image must have 8 bits per channel, got {bits} bits in {channels} channels. Keep 8 bits "
        f"with PIL.Image.open(file).convert({mode!r}), or decode the file with another library and "
        f"store the array in a tensor TensorSpec(dtype='uint16', shape=(None, None, {channels}), "
        "compression='zstd')."
    )


def shape_of(image: Any) -> tuple[int, int, int]:
    """Return height, width and channels of a Pillow image in its 8-bit mode."""
    return image.height, image.width, CHANNELS[_mode_of_8_bits(image)]


def _mode_of_8_bits(image: Any) -> str:
    mode = str(image.mode)
    if mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    mode = _8_BIT_MODES.get(mode, mode)
    if mode in CHANNELS:
        return mode
    check_depth(image, b"")
    remedy = (
        "Store its pixels, np.asarray(PIL.Image.open(file)), in a tensor TensorSpec(dtype='uint8', "
        "shape=(None, None, 3), compression='zstd')"
        if mode in _UNRELATED
        else f"Convert it with .convert({'RGBA' if mode.endswith('a') else 'RGB'!r})"
    )
    raise SampleError(
        f"an image must be gray, RGB or CMYK, each with or without alpha, got mode {mode}. {remedy}."
    )


def to_8_bit_mode(image: Any, remedy: str = USE_BYTES) -> Any:
    """Decode a Pillow image, and convert it to the mode of 8 bits per channel."""
    mode = _mode_of_8_bits(image)
    try:
        image.load()
        return image if image.mode == mode else image.convert(mode)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        text = str(error) or type(error).__name__
        raise SampleError(f"{UNDECODABLE}: {text.rstrip('.')}. {remedy}") from error


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


def is_unsupported(error: SampleError) -> bool:
    """Return whether an image is whole, but of a kind that is not read, such as 16 bits."""
    return error.message.startswith("an image must")


def decode_completely(data: bytes) -> tuple[str, tuple[int, int, int]]:
    """Decode all frames of an image to check it, and return its format and shape.

    Raises
    ------
    SampleError
        ``data`` is not an image, or is truncated.
    """
    format_and_shape = _format_and_shape(data)
    image = open_image(data)
    to_8_bit_mode(image)
    frame = 0
    try:
        # The further pictures of a JPEG are previews and depth maps, which are often damaged.
        frames = image.n_frames if image.format in _ANIMATED else 1
        for frame in range(1, frames):
            image.seek(frame)
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        text = f"frame {frame}: {str(error) or type(error).__name__}"
        raise SampleError(f"{UNDECODABLE}: {text.rstrip('.')}. {USE_BYTES}") from error
    return format_and_shape
