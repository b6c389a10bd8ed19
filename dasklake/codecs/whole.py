"""Whether a file is the picture that it claims to be, and all of it: from its first and last bytes."""

from __future__ import annotations

from dasklake.codecs.media import decode_image, image_facts
from dasklake.exceptions import SampleError

__all__ = ["HEAD", "MORE", "TAIL", "claims", "ends", "picture", "whole_picture"]

#: Bytes that say what most files are; where they do not, so many; and those at its end.
HEAD = 16 * 2**10
MORE = 1 * 2**20
TAIL = 64

#: How files begin of which this package may be able to read pictures.
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)

#: How a whole file of a format ends; some writers add a few zeros.
_ENDS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82", "gif": b"\x3b"}


def claims(head: bytes) -> bool:
    """Tell whether a file begins like a picture, so that it is worth while to read on."""
    return head.startswith(_MAGIC)


def picture(head: bytes) -> tuple[str, tuple[int, int, int]] | None:
    """Return format and shape of a picture; None where these bytes do not say it."""
    try:
        return image_facts(head)
    except SampleError:
        return None


def ends(format_: str, tail: bytes) -> bool:
    """Tell whether the last bytes are those of a whole file; False also where nobody knows."""
    end = _ENDS.get(format_)
    return end is not None and tail.rstrip(b"\0").endswith(end.rstrip(b"\0"))


def whole_picture(data: bytes) -> tuple[str, tuple[int, int, int]]:
    """Decode a picture; return its format and shape.

    Raises
    ------
    SampleError
        It is none, or not all of it is there.
    """
    facts = image_facts(data)
    decode_image(data)
    return facts
