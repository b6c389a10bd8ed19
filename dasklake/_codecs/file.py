"""Files: sound, video, medical pictures, surfaces, point clouds. Their bytes pass through.

A file is opened by the library that knows its format, and only when more than its bytes and shape
is asked for. ``FORMATS`` says which one that is.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten
from dasklake._codecs.convert import to_shape
from dasklake._media.file import File
from dasklake._media.sniff import FORMATS, format_of
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError

__all__ = ["FileCodec", "bytes_of"]


class FileCodec(Codec):
    """Codec of tensors whose compression is a format of files."""

    def encode(self, value: object) -> Encoded:
        """Return the bytes of a file as they are, and the shape of its content."""
        data = bytes_of(value)
        wanted = str(self.spec.compression)
        if data is None:
            raise SampleError(
                f"{shorten(value)} of type {type(value).__name__} is not a file. Give its bytes, a "
                "pathlib.Path, or dasklake.read(path_or_url)."
            )
        found = format_of(data)
        if found != wanted:
            what = f"are {found}" if found else f"begin with {data[:8]!r}, which is no known format"
            raise SampleError(
                f"the {len(data)} bytes {what}, and the tensor holds {wanted}. Convert the file, "
                "or change the tensor's compression."
            )
        shape = FORMATS[wanted].shape(data)
        to_shape(np.broadcast_to(np.uint8(0), shape), self.spec.shape, self.spec.kind.ranks)
        return Blob(data, shape)

    def decode(self, stored: Blob) -> object:
        """Return the file, not decoded."""
        # A copy: what the reader holds may be a part of something larger.
        return File(bytes(stored.data), shape=stored.shape, dtype=self.spec.dtype)


def bytes_of(value: object) -> bytes | None:
    """Return the bytes of a file as users may give it; None if it is none.

    Raises
    ------
    SampleError
        A path that cannot be read.
    StoreError
        A URL that cannot be read.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, File):
        return value.bytes()
    if not isinstance(value, os.PathLike):
        return None
    try:
        return Path(os.fsdecode(value)).read_bytes()
    except OSError as error:
        raise SampleError(f"the file cannot be read: {error}. Look at the path.") from error
