"""Generated pictures of every color mode, format, size and depth, and ways to damage them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["FORMATS", "MODES", "SIZES", "damaged", "file_of", "make", "png16", "smooth"]

FORMATS = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "ppm", "tga")
SIZES = ((1, 1), (7, 5), (33, 1), (1, 18))

#: Modes of Pillow; "P+" has a transparent color, "RGBA+" is opaque.
MODES = (
    *("1", "L", "LA", "P", "P+", "PA", "RGB", "RGBA", "RGBA+", "CMYK"),
    *("YCbCr", "LAB", "HSV", "I", "F", "I;16"),
)


def smooth(width: int, height: int, channels: int) -> np.ndarray[Any, Any]:
    """Make pixels that lossy formats hardly change."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 2
    steps = [40 + channel * 30 for channel in range(channels)]
    return np.stack([ramp + step for step in steps], -1).clip(0, 255).astype(np.uint8)


def make(mode: str, size: tuple[int, int]) -> Image.Image:
    """Make a picture of a mode."""
    width, height = size
    if mode in ("I", "F", "I;16"):
        dtype = {"I": "int32", "F": "float32", "I;16": "uint16"}[mode]
        wide = np.add.outer(np.arange(height), np.arange(width)) * 1000 + 300
        return Image.fromarray(wide.astype(dtype))
    if mode == "1":
        return Image.fromarray((smooth(*size, 1)[:, :, 0] > 60).astype(np.uint8) * 255).convert("1")
    if mode in ("P", "P+", "PA"):
        image = Image.fromarray(smooth(*size, 3)).quantize(16)
        if mode == "P+":
            image.info["transparency"] = 0
        return image.convert("PA") if mode == "PA" else image
    channels = {"L": 1, "LA": 2, "RGBA": 4, "RGBA+": 4, "CMYK": 4}.get(mode, 3)
    pixels = smooth(*size, channels)
    if mode == "RGBA+":
        pixels[:, :, 3] = 255
    return Image.frombytes(mode.rstrip("+"), size, pixels.tobytes())


def file_of(image: Image.Image, form: str, **options: Any) -> bytes | None:
    """Return a file of a picture; None if Pillow does not write its mode, or writes another."""
    sink = io.BytesIO()
    if form == "gif" and image.mode not in ("1", "L", "P"):
        return None
    try:
        image.save(sink, form, **options)
    except (OSError, ValueError):
        return None
    return sink.getvalue()


def png16(channels: int, color: int, size: tuple[int, int] = (6, 4)) -> bytes:
    """Make a PNG of 16 bits per channel."""
    width, height = size
    values = (np.arange(width * height * channels) * 700 % 65536).astype(">u2")
    rows = values.reshape(height, width * channels)

    def part(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = (part(b"IHDR", header), part(b"IDAT", pixels), part(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def damaged(data: bytes, step: int) -> Iterator[tuple[str, bytes]]:
    """Yield kinds of damage and the damaged files; each ``step``-th byte of the header is changed."""
    size = len(data)
    for cut in (1, 2, 5, 20, size // 4, size // 2, size * 3 // 4, size - 30, size - 10):
        if 0 < cut < size:
            yield "truncated", data[:-cut]
    for begin, length in ((size // 2, 16), (size // 3, size // 4), (size * 2 // 3, size // 8)):
        yield "zeroed", data[:begin] + bytes(length) + data[begin + length :]
    for offset in range(0, min(40, size), step):
        yield "flipped", data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]
    yield "padded", data[: size // 2] + bytes(size - size // 2)
    yield "padded", data[: size // 2] + b"garbage" * size
    yield "other", b""
    yield "other", b"only a text\n" * 20
    yield "other", data[size // 2 :]
