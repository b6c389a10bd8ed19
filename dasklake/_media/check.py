"""Verification of stored media files: that they are complete, or that they can be decoded."""

from __future__ import annotations

import importlib
from typing import Literal

from dasklake._media.complete import damage_of, frames_of, is_complete
from dasklake._media.file import READERS
from dasklake._media.image import (
    UNDECODABLE,
    ImageReader,
    decode_completely,
    jpeg_segments,
    jpeg_shape,
)
from dasklake._media.stream import decode_stream, truncation
from dasklake.exceptions import MissingExtraError, SampleError

__all__ = ["SMALL", "Verify", "decode_file", "decode_image_file", "verify_file"]

#: ``True`` checks header and completeness, ``"decode"`` decodes everything, ``False`` nothing.
Verify = bool | Literal["decode"]

#: Images of up to this many pixels are always decoded: a JPEG of this size takes 0.4 ms.
SMALL = 2**16

_REMEDY = (
    "Replace the file, skip the sample with on_error='skip', or store the file unverified with "
    "verify=False in the TensorSpec."
)

_EOI = b"\xff\xd9"


def verify_file(format_: str, data: bytes, shape: tuple[int, ...], verify: Verify) -> None:
    """Verify a media file before it is stored.

    Parameters
    ----------
    format_ : str
        Its format.
    data : bytes
        The file.
    shape : tuple of int
        Shape of its content.
    verify : bool or "decode"
        How thoroughly.

    Raises
    ------
    SampleError
        The file is truncated or damaged.
    """
    if not verify:
        return
    try:
        if verify == "decode":
            decode_file(format_, data)
        elif not isinstance(READERS[format_], ImageReader):
            _refuse_truncated(format_, data)
        else:
            _refuse_damaged(format_, data)
            pixels = shape[0] * shape[1] * frames_of(format_, data)
            is_small = pixels <= SMALL and format_ != "png"  # a PNG has checksums
            if is_small or not is_complete(format_, data):
                decode_completely(data)
    except MissingExtraError:
        # Storing a file does not need its library; decoding does.
        if verify == "decode":
            raise
    except SampleError as error:
        problem = error.message.removesuffix(_REMEDY).strip().partition(". ")[0].rstrip(".")
        raise SampleError(f"{problem}. {_REMEDY}") from error


def decode_file(format_: str, data: bytes) -> None:
    """Decode a media file in full, and discard the content.

    Parameters
    ----------
    format_ : str
        Its format.
    data : bytes
        The file.

    Raises
    ------
    SampleError
        The file cannot be decoded, or a decoder reports damage.
    MissingExtraError
        The library that decodes the format is not installed.
    """
    if isinstance(READERS[format_], ImageReader):
        decode_image_file(data)
        return
    _refuse_truncated(format_, data)
    decode_stream(format_, data)


def decode_image_file(data: bytes) -> tuple[str, tuple[int, int, int]]:
    """Decode all frames of an image, look for damage, and return its format and shape.

    Raises
    ------
    SampleError
        The image cannot be decoded, or a part of it is damaged.
    """
    format_, shape = decode_completely(data)
    _refuse_damaged(format_, data)
    if format_ == "jpeg":
        _decode_strictly(data)
    return format_, shape


def _refuse_damaged(format_: str, data: bytes) -> None:
    problem = damage_of(format_, data)
    if problem:
        raise SampleError(f"{UNDECODABLE}: {problem}. {_REMEDY}")


def _refuse_truncated(format_: str, data: bytes) -> None:
    problem = truncation(format_, data)
    if problem:
        raise SampleError(f"the file is truncated: {problem}. {_REMEDY}")


def _decode_strictly(data: bytes) -> None:
    """Decode a JPEG with FFmpeg, if it is installed, which reports damage that Pillow passes over."""
    try:
        av = importlib.import_module("av")
    except ImportError:
        return
    if jpeg_shape(data) is None:
        return  # kinds of JPEG that FFmpeg may not support
    scan = max((end for _, _, end in jpeg_segments(data)), default=0)
    end = data.find(_EOI, scan)
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(data[: end + 2] if end >= 0 else data))
        decoder.decode(None)
    except av.error.InvalidDataError as error:
        raise SampleError(f"{UNDECODABLE}: a part of its data is damaged. {_REMEDY}") from error
    except av.error.FFmpegError:
        return  # not supported
