"""File formats: detection by content, and the reader of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dasklake._media.audio import AudioReader
from dasklake._media.image import ImageReader
from dasklake._media.medical import DicomReader, NiftiReader
from dasklake._media.mesh import LasReader, PlyReader, StlReader, is_stl
from dasklake._media.reader import MediaReader
from dasklake._media.video import VideoReader

__all__ = ["FORMATS", "format_of"]

_picture, _sound, _video, _nifti = ImageReader(), AudioReader(), VideoReader(), NiftiReader()

#: What reads the files of each format.
FORMATS: Mapping[str, MediaReader] = MappingProxyType(
    {
        **dict.fromkeys(("jpeg", "png", "webp", "tiff", "bmp", "gif"), _picture),
        **dict.fromkeys(("jpeg2000", "ppm", "tga"), _picture),
        **dict.fromkeys(("wav", "flac", "mp3", "ogg"), _sound),
        **dict.fromkeys(("mp4", "mkv", "webm", "avi"), _video),
        "dcm": DicomReader(),
        "nii": _nifti,
        "nii.gz": _nifti,
        "ply": PlyReader(),
        "stl": StlReader(),
        "las": LasReader(),
    }
)

#: How the first bytes of a format look; the first one that matches counts.
_STARTS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (name, re.compile(pattern, re.DOTALL))
    for name, pattern in (
        ("jpeg", rb"\xff\xd8\xff"),
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("gif", rb"GIF8[79]a"),
        ("webp", rb"RIFF....WEBP"),
        ("tiff", rb"II[*+]\0|MM\0[*+]"),
        ("jpeg2000", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
        ("wav", rb"RIFF....WAVE"),
        ("avi", rb"RIFF....AVI "),
        ("flac", rb"fLaC"),
        ("ogg", rb"OggS"),
        ("mp4", rb"....ftyp"),
        ("webm", rb"\x1aE\xdf\xa3.{1,60}?webm"),
        ("mkv", rb"\x1aE\xdf\xa3.{1,60}?matroska"),
        ("dcm", rb".{128}DICM"),
        ("nii", rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n[+]1\0"),
        ("nii", rb"(?:\x1c\x02\0\0|\0\0\x02\x1c)n[+]2\0"),
        ("nii.gz", rb"\x1f\x8b"),
        ("ply", rb"ply\r?\n"),
        ("las", rb"LASF"),
        ("mp3", rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]"),
        ("bmp", rb"BM....\0\0\0\0"),
        ("ppm", rb"P[1-6]\s"),
    )
)

#: Formats without a mark at the beginning.
_OTHERS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("stl", is_stl),
    ("tga", lambda data: data[-18:-2] == b"TRUEVISION-XFILE"),
)


def format_of(data: bytes) -> str | None:
    """Return the format of a file, by its bytes; or None if unknown.

    Examples
    --------
    >>> format_of(b"fLaC....")
    'flac'
    """
    for name, start in _STARTS:
        if start.match(data):
            return name
    return next((name for name, found in _OTHERS if found(data)), None)
