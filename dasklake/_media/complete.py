"""Completeness of image files, from their structure and without decoding their pixels.

A check answers whether a file certainly is complete. If it is not certain, the caller decodes the
file. Data after the end of an image is allowed: many cameras and tools append some.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dasklake._media.image import jpeg_segments, open_image, png_chunks
from dasklake.exceptions import SampleError

_SOF = {0xC0, 0xC1, 0xC2}
_DHT, _SOS, _EOI = 0xC4, 0xDA, b"\xff\xd9"

#: Zero bytes in a row that the pixels of a JPEG do not have.
_ZEROS = 64

#: Rows and bytes of the beginning of a JPEG that are decoded to check its tables.
_ROWS = 16
_BYTES = 64 * 2**10

#: Extension blocks and images of a GIF.
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B

#: Width in bytes of the types of TIFF, and the tags of the positions of the pixels.
_TIFF_WIDTHS = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8}
_TIFF_POSITIONS = {273: "offsets", 324: "offsets", 279: "sizes", 325: "sizes"}
_TIFF_REDUCED = 254


def is_complete(format_: str, data: bytes) -> bool:
    """Return whether the structure of an image file certainly is complete.

    Parameters
    ----------
    format_ : str
        Format of the file.
    data : bytes
        The file.
    """
    check = _CHECKS.get(format_)
    try:
        return check is not None and check(data)
    except (IndexError, struct.error, ValueError, SampleError):
        return False


def damage_of(format_: str, data: bytes) -> str | None:
    """Return damage that decoders pass over, as far as it is visible, or None.

    Parameters
    ----------
    format_ : str
        Format of the file.
    data : bytes
        The file.
    """
    if format_ == "jpeg":
        return _jpeg_damage(data)
    if format_ == "png":
        for kind, begin, end in png_chunks(data):
            if kind.isupper() and not _has_checksum(data, begin, end):
                return f"the checksum of its part {kind.decode('ascii', 'replace')} is wrong"
    return None


def frames_of(format_: str, data: bytes) -> int:
    """Return 1 for a single image, and a larger number for a file of several frames or pages.

    The number is exact for GIF, PNG and TIFF. The several pictures of a JPEG are not counted, because
    cameras use them for previews.
    """
    try:
        if format_ == "png":
            chunks = png_chunks(data)
            counts = (data[at : at + 4] for kind, at, _ in chunks if kind == b"acTL")
            return max(map(int.from_bytes, counts), default=1)
        if format_ == "webp":
            return 2 if data[12:16] == b"VP8X" and data[20] & 2 else 1
        if format_ == "gif":
            return _gif(data)[0]
        if format_ == "tiff":
            return sum(not page.get(_TIFF_REDUCED, [0])[0] & 1 for page in _tiff_pages(data))
    except (IndexError, struct.error, ValueError):
        pass
    return 1


def _jpeg(data: bytes) -> bool:
    """Check the segments, the tables and the end of a JPEG.

    The pixels end at the last end marker after the first scan begins; one before it is that of a
    preview. The tables are checked by decoding the first rows.
    """
    frame = scan = 0
    for marker, begin, end in jpeg_segments(data):
        if marker in _SOF:
            frame = begin
        if marker == _SOS:
            scan = end
    if not frame or not scan or data.rfind(_EOI, scan) < 0:
        return False
    height = min(_ROWS, int.from_bytes(data[frame + 1 : frame + 3]))
    start = data[: frame + 1] + height.to_bytes(2) + data[frame + 3 : scan]
    image = open_image(start + data[scan : scan + _BYTES] + _EOI)
    try:
        image.load()
    except Exception:  # noqa: BLE001 # damaged bytes can raise any error
        return False
    return True


def _png(data: bytes) -> bool:
    """Check the lengths and checksums of all chunks up to the end."""
    for kind, begin, end in png_chunks(data):
        if not _has_checksum(data, begin, end):
            return False
        if kind == b"IEND":
            return end + 4 <= len(data)
    return False


def _has_checksum(data: bytes, begin: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[begin - 4 : end]) == int.from_bytes(data[end : end + 4])


def _jpeg_damage(data: bytes) -> str | None:
    """Return whether the end marker of a JPEG is missing, or zeros replace a part of its pixels.

    Zeros are only found in baseline files. In a table of codes, the code of zero bits stands for the
    first symbol. Long runs of zero bits only occur if that is the end of a block in all tables: in
    pictures of one color.
    """
    baseline, symbols, scan = False, set[int](), 0
    for marker, begin, end in jpeg_segments(data):
        baseline = baseline or marker in (0xC0, 0xC1)
        if marker == _SOS:
            scan = end
        table = begin
        while marker == _DHT and table + 17 < end:
            if data[table] >> 4:  # codes of AC coefficients
                symbols.add(data[table + 17])
            table += 17 + sum(data[table + 1 : table + 17])
    if scan and data.rfind(_EOI, scan) < 0:
        return "its end marker is missing, so it is truncated"
    if not (baseline and scan and symbols - {0}):
        return None
    at = data.find(bytes(_ZEROS), scan)
    # Zeros after the first end marker are appended data. The marker is searched only if there are
    # zeros, because that search takes eight times as long as the one for zeros.
    return f"its pixels are zeros from byte {at}" if 0 <= at < data.find(_EOI, scan) else None


def _webp(data: bytes) -> bool:
    return len(data) >= int.from_bytes(data[4:8], "little") + 8


def _gif(data: bytes) -> tuple[int, bool]:
    """Return the number of images, and whether the end follows the last one."""
    flags, offset, frames = data[10], 13, 0
    offset += 3 << (flags & 7) + 1 if flags & 0x80 else 0
    while offset < len(data):
        kind = data[offset]
        if kind == _GIF_END:
            return frames, True
        if kind == _GIF_EXTENSION:
            offset += 2
        elif kind == _GIF_IMAGE:
            flags = data[offset + 9]
            offset += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            frames += 1
        else:
            break
        while size := data[offset]:
            offset += size + 1
        offset += 1
    return frames, False


def _tiff_pages(data: bytes) -> list[dict[int, list[int]]]:
    """Return the numbers in the fields of each page; other fields are left out."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(f"{order}H", data, 2) != (42,):
        raise ValueError("a BigTIFF")
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    pages: list[dict[int, list[int]]] = []
    seen = set()
    while offset and offset not in seen:
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        page = {}
        for at in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
            width = _TIFF_WIDTHS.get(kind)
            if width is None or not (tag in _TIFF_POSITIONS or tag == _TIFF_REDUCED):
                continue
            size = width * length
            where = at + 8 if size <= 4 else struct.unpack_from(f"{order}I", data, at + 8)[0]
            letter = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
            page[tag] = list(struct.unpack_from(f"{order}{length}{letter}", data, where))
        pages.append(page)
        (offset,) = struct.unpack_from(f"{order}I", data, offset + 2 + 12 * count)
    return pages


def _tiff(data: bytes) -> bool:
    """Check that the pixels of every page lie inside of the file."""
    for page in _tiff_pages(data):
        offsets, sizes = (
            next((page[tag] for tag in tags if tag in page), [])
            for tags in ((273, 324), (279, 325))
        )
        if not offsets or len(offsets) != len(sizes):
            return False
        if any(a + b > len(data) for a, b in zip(offsets, sizes, strict=True)):
            return False
    return True


def _bmp(data: bytes) -> bool:
    """Check that the rows of an uncompressed BMP lie inside of the file."""
    start, header, width, height = struct.unpack_from("<IIii", data, 10)
    bits, packing = struct.unpack_from("<HI", data, 28)
    stride = (width * bits + 31) // 32 * 4
    return header >= 40 and packing in (0, 3) and len(data) >= start + stride * abs(height)


def _jpeg2000(data: bytes) -> bool:
    """Check that the boxes lie inside of the file, and that the code stream has its end marker."""
    offset = 0
    if data[:4] == b"\xff\x4f\xff\x51":
        return data.endswith(_EOI)
    while offset < len(data):
        size, kind, header = int.from_bytes(data[offset : offset + 4]), data[offset + 4 :][:4], 8
        if size == 1:
            size, header = int.from_bytes(data[offset + 8 : offset + 16]), 16
        end = offset + size if size else len(data)
        if end > len(data) or (size and size < header):
            return False
        if kind == b"jp2c":
            # Pillow cannot decode some files with data after their end.
            return end == len(data) and data.endswith(_EOI)
        offset = end
    return False


def _ppm(data: bytes) -> bool:
    """Check the length of a binary PBM, PGM or PPM."""
    fields: list[bytes] = []
    stream = io.BytesIO(data)
    kind = stream.read(2)
    while len(fields) < (2 if kind == b"P4" else 3):
        word = b""
        while (byte := stream.read(1)) and not byte.isspace():
            if byte == b"#":
                stream.readline()
                break
            word += byte
        fields += [word] if word else []
        if not byte:
            return False
    width, height = int(fields[0]), int(fields[1])
    sizes = {b"P4": (width + 7) // 8, b"P5": width, b"P6": 3 * width}
    return kind in sizes and len(data) - stream.tell() >= sizes[kind] * height


def _tga(data: bytes) -> bool:
    """Check the length of an uncompressed TGA."""
    comment, has_map, kind = data[0], data[1], data[2]
    length, depth = struct.unpack_from("<HB", data, 5)
    width, height, bits = struct.unpack_from("<HHB", data, 12)
    start = 18 + comment + (length * ((depth + 7) // 8) if has_map else 0)
    return kind in (1, 2, 3) and len(data) >= start + width * height * ((bits + 7) // 8)


_CHECKS: Mapping[str, Callable[[bytes], bool]] = MappingProxyType(
    {
        "jpeg": _jpeg,
        "png": _png,
        "webp": _webp,
        "gif": lambda data: _gif(data)[1],
        "tiff": _tiff,
        "bmp": _bmp,
        "jpeg2000": _jpeg2000,
        "ppm": _ppm,
        "tga": _tga,
    }
)
