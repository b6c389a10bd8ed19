"""Bits per channel of an image: Pillow reduces many images of 16 bits to 8 without a message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

#: Bytes at the beginning of a file that hold the number of bits.
HEAD_OF_DEPTH = 4096

#: Layouts of Pillow in which a channel has 16 or 32 bits, such as ``RGB;16B``.
_WIDE = re.compile(r"(?:L|LA|La|RGB|RGBA|RGBa|RGBX+|CMYK)X*;(16|32)[BLN]")

#: Wide modes of Pillow.
_WIDE_MODES = MappingProxyType({"I": 32, "F": 32})

_TIFF_BITS = 258


def bits_per_channel(image: Any, head: bytes) -> int:
    """Return the bits of the widest channel of an image file.

    Parameters
    ----------
    image : PIL.Image.Image
        The opened file.
    head : bytes
        Its first bytes, at least ``HEAD_OF_DEPTH`` if the file has as many.
    """
    mode = str(image.mode)
    bits = 16 if mode.startswith("I;16") else _WIDE_MODES.get(mode, 8)
    tiles = list(getattr(image, "tile", None) or ())
    for tile in tiles:
        match = _WIDE.search(repr(tile[3:]))
        bits = max(bits, int(match[1]) if match else 8, 16 if tile[0] == "SGI16" else 8)
    of_format = _DEPTHS.get(str(image.format))
    return bits if of_format is None else max(bits, of_format(image, head, tiles))


def _png(_image: Any, head: bytes, _tiles: list[Any]) -> int:
    return head[24] if head[12:16] == b"IHDR" else 8


def _tiff(image: Any, _head: bytes, _tiles: list[Any]) -> int:
    return max(map(int, image.tag_v2.get(_TIFF_BITS) or (8,)))


def _ppm(_image: Any, _head: bytes, tiles: list[Any]) -> int:
    """Return the bits of the largest value, which the arguments of Pillow's decoder hold."""
    largest = max(map(int, re.findall(r"\b\d+\b", repr([tile[3:] for tile in tiles]))), default=0)
    return 16 if largest > 0xFF else 8


def _jpeg2000(_image: Any, head: bytes, _tiles: list[Any]) -> int:
    begin = head.find(b"\xff\x4f\xff\x51")
    channels = int.from_bytes(head[begin + 40 : begin + 42])
    depths = head[begin + 42 : begin + 42 + 3 * channels : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8) if begin >= 0 else 8


def _avif(_image: Any, head: bytes, _tiles: list[Any]) -> int:
    begin = head.find(b"pixi\0\0\0\0")
    return max(head[begin + 9 : begin + 9 + head[begin + 8]], default=8) if begin >= 0 else 8


_DEPTHS: Mapping[str, Callable[[Any, bytes, list[Any]], int]] = MappingProxyType(
    {
        "PNG": _png,
        "TIFF": _tiff,
        "PPM": _ppm,
        "JPEG2000": _jpeg2000,
        "AVIF": _avif,
        "HEIF": _avif,
    }
)
