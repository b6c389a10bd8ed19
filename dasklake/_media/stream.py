"""Completeness of audio, video, medical and spatial files, and decoding in bounded memory."""

from __future__ import annotations

import gzip
import io
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from dasklake._media.audio import AudioReader
from dasklake._media.file import READERS
from dasklake._media.medical import DicomReader, NiftiReader
from dasklake._media.reader import translate_errors
from dasklake._media.video import VideoReader

#: Sizes that a writer stores which does not know the size yet.
_UNKNOWN = {0, 0xFFFFFFFF}

#: Samples of sound, and bytes, that are decoded at once.
_BLOCK = 2**16
_BYTES = 2**20

#: Sizes in bytes of the types of a PLY.
_PLY = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}

#: Boxes at the top of an MP4.
_BOXES = frozenset(
    b"ftyp moov mdat free skip wide udta uuid moof mfra styp sidx ssix pdin meta emsg prft".split()
)

#: Ids of Matroska: the header and the segment.
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"


def truncation(format_: str, data: bytes) -> str | None:
    """Return how a file is truncated, as far as its structure shows it; None if it is complete.

    Parameters
    ----------
    format_ : str
        Format of the file.
    data : bytes
        The file.
    """
    check = _CHECKS.get(format_)
    try:
        needed = 0 if check is None else check(data)
    except (IndexError, KeyError, struct.error, ValueError):
        return "its structure is damaged or ends early"
    if needed is None:
        return "its end is missing"
    return f"it must have {needed} bytes, got {len(data)}" if needed > len(data) else None


def decode_stream(format_: str, data: bytes) -> None:
    """Decode a file in full and in parts, and discard the content.

    Raises
    ------
    SampleError
        The file cannot be decoded.
    MissingExtraError
        The library that decodes the format is not installed.
    """
    reader = READERS[format_]
    if isinstance(reader, AudioReader):
        with reader.open(data) as file, translate_errors("audio"):
            count = 0
            while block := len(file.read(_BLOCK, always_2d=True)):
                count += block
            if count < file.frames:
                raise EOFError(f"it ends before sample {count} of {file.frames}")
    elif isinstance(reader, VideoReader):
        frames = reader.shape(data)[0]
        with reader.open(data) as container, translate_errors("video"):
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            count = sum(1 for _ in container.decode(stream))
            if count < frames:
                raise EOFError(f"it ends before frame {count} of {frames}")
    else:
        reader.read(data, slice(None), None)


def _riff(data: bytes) -> int:
    """Return the size that the header of a WAV or AVI gives, and that of the samples of a WAV."""
    size = int.from_bytes(data[4:8], "little")
    if data[8:12] != b"WAVE":
        return 0 if size in _UNKNOWN else size + 7  # the last byte may be padding
    offset = 12
    while offset + 8 <= len(data):
        length = int.from_bytes(data[offset + 4 : offset + 8], "little")
        if data[offset : offset + 4] == b"data":
            return 0 if length in _UNKNOWN else offset + 8 + length
        offset += 8 + length + length % 2
    return offset + 8


def _ogg(data: bytes) -> int:
    """Return the end of the last page."""
    page = data.rfind(b"OggS")
    if len(data) < page + 27:
        return page + 27
    table = page + 27
    segments = data[page + 26]
    return table + segments + sum(data[table : table + segments])


def _mp3(data: bytes) -> int:
    """Return the size in the header of Xing or LAME, or 0 without one."""
    start = 0
    if data[:3] == b"ID3":
        start = 10 + sum((data[6 + i] & 0x7F) << 7 * (3 - i) for i in range(4))
    match = re.compile(rb"Xing|Info").search(data, start, start + 200)
    if match is None:
        return 0
    flags = int.from_bytes(data[match.end() : match.end() + 4])
    at = match.end() + (8 if flags & 1 else 4)
    return start + int.from_bytes(data[at : at + 4]) if flags & 2 else 0


def _flac(data: bytes) -> int | None:
    """Return None if the last samples of a FLAC are missing."""
    with READERS["flac"].open(data) as file:
        if not file.frames:
            return 0
        try:
            file.seek(file.frames - 1)
            return 0 if len(file.read(1)) else None
        except Exception:  # noqa: BLE001 # libsndfile has errors of its own
            return None


def _mp4(data: bytes) -> int | None:
    """Return the end of the last box, or None if the index of the samples is missing."""
    offset, kinds = 0, set()
    while offset < len(data):
        if len(data) - offset < 8:
            return offset + 8 if b"moov" not in kinds else 0
        size, kind = struct.unpack_from(">I4s", data, offset)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, offset + 8)
        if kind not in _BOXES or (size and size < 8):
            break  # data after the last box
        kinds.add(kind)
        offset = offset + size if size else len(data)
    return offset if b"moov" in kinds else None


def _matroska(data: bytes) -> int:
    """Return the end of the segment, or 0 if the writer did not know it."""
    offset = 0
    for name in (_EBML, _SEGMENT):
        if data[offset : offset + 4] != name:
            offset = data.find(name, offset)
            if offset < 0:
                return len(data) + 1
        first = data[offset + 4]
        width = 9 - first.bit_length()
        size = int.from_bytes(data[offset + 4 : offset + 4 + width]) & (1 << 7 * width) - 1
        if size == (1 << 7 * width) - 1:
            return 0
        offset += 4 + width + size
    return offset


def _dicom(data: bytes) -> int | None:
    """Return None if the pixels are shorter than the header says."""
    reader = DicomReader()
    with translate_errors("DICOM file"):
        dataset = reader.open(data)
        pixels = dataset.get("PixelData")
        if pixels is None or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            return 0
        bits = math.prod(reader.shape(data)) * int(dataset.BitsAllocated)
    return 0 if len(pixels) * 8 >= bits else None


def _nifti(data: bytes) -> int:
    return NiftiReader().size(data)


def _nifti_gzip(data: bytes) -> int | None:
    """Return None if a gzip file does not have the size of its volume, or a wrong checksum.

    The last bytes hold the size. If it is another one, the file is decompressed.
    """
    needed = _nifti(data)
    if int.from_bytes(data[-4:], "little") == needed % 2**32:
        return 0
    size = 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while block := file.read(_BYTES):
                size += len(block)
    except (OSError, EOFError, ValueError):
        return None
    return 0 if size >= needed else None


def _elements(header: bytes) -> Iterator[tuple[int, int]]:
    """Yield the count and the least size in bytes of each element of a PLY."""
    for block in re.split(rb"^element ", header, flags=re.MULTILINE)[1:]:
        first, *lines = block.decode("latin-1").splitlines()
        properties = [line.split() for line in lines if line.startswith("property ")]
        size = sum(
            _PLY[field[2]] + 3 * _PLY[field[3]] if field[1] == "list" else _PLY[field[1]]
            for field in properties
        )
        yield int(first.split()[1]), size


def _ply(data: bytes) -> int:
    """Return the least size of a PLY; its faces have at least three corners."""
    header, end, _ = data.partition(b"end_header")
    if not end:
        return len(data) + 1
    start = data.index(b"\n", len(header)) + 1
    elements = list(_elements(header))
    if b"format ascii" in header:
        lines = data.count(b"\n", start) + (not data.endswith(b"\n"))
        return 0 if lines >= sum(count for count, _ in elements) else len(data) + 1
    return start + sum(count * size for count, size in elements)


def _stl(data: bytes) -> int | None:
    return None if data.startswith(b"solid") and b"endsolid" not in data[-512:] else 0


def _las(data: bytes) -> int:
    """Return the end of the points of an uncompressed LAS."""
    (offset,) = struct.unpack_from("<I", data, 96)
    kind, length, count = struct.unpack_from("<BHI", data, 104)
    if data[24:26] >= b"\x01\x04":
        count = struct.unpack_from("<Q", data, 247)[0] or count
    return 0 if kind & 0x80 else int(offset + length * count)


_CHECKS: Mapping[str, Callable[[bytes], int | None]] = MappingProxyType(
    {
        "wav": _riff,
        "avi": _riff,
        "ogg": _ogg,
        "mp3": _mp3,
        "flac": _flac,
        "mp4": _mp4,
        "mkv": _matroska,
        "webm": _matroska,
        "dcm": _dicom,
        "nii": _nifti,
        "nii.gz": _nifti_gzip,
        "ply": _ply,
        "stl": _stl,
        "las": _las,
    }
)
