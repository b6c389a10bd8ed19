"""Detection of file formats by content."""

from __future__ import annotations

import re

#: Patterns of the first bytes of each format. The first pattern that matches counts.
_SIGNATURES: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
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

#: A binary STL file: 80 arbitrary bytes, the number of triangles, and 50 bytes per triangle.
_STL_HEADER = 84
_STL_TRIANGLE = 50


def format_of(data: bytes) -> str | None:
    """Return the format of a file by its bytes, or None if unknown.

    Examples
    --------
    >>> format_of(b"fLaC....")
    'flac'
    """
    for name, signature in _SIGNATURES:
        if signature.match(data):
            return name
    # These formats have no signature at the beginning.
    if is_binary_stl(data) or (data.startswith(b"solid") and b"facet" in data[:1000]):
        return "stl"
    return "tga" if data[-18:-2] == b"TRUEVISION-XFILE" else None


def is_binary_stl(data: bytes) -> bool:
    """Return whether the length of the data is that of a binary STL file."""
    size = _STL_HEADER + _STL_TRIANGLE * stl_triangles(data)
    return len(data) >= _STL_HEADER and len(data) == size


def stl_triangles(data: bytes) -> int:
    """Return the number of triangles in the header of a binary STL file."""
    return int.from_bytes(data[_STL_HEADER - 4 : _STL_HEADER], "little")
