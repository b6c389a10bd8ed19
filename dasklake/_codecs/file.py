"""Codec of files: audio, video, medical images, surfaces and point clouds.

The bytes of a file are stored unchanged. The library of its format decodes it on access.
"""

from __future__ import annotations

import os
from pathlib import Path

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, wrong_value
from dasklake._codecs.convert import fit_shape
from dasklake._media.check import verify_file
from dasklake._media.file import READERS, File
from dasklake._media.sniff import format_of
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError


class FileCodec(Codec):
    """Codec of tensors whose compression is a file format."""

    def encode(self, value: object) -> Encoded:
        """Return the unchanged bytes of a file, and the shape of its content."""
        data = bytes_of(value)
        expected = str(self.spec.compression)
        if data is None:
            remedy = "Give its bytes, a pathlib.Path, or dasklake.read(path_or_url)."
            raise wrong_value("a file", value, remedy)
        actual = format_of(data)
        if actual != expected:
            content = actual or f"an unknown format that begins with {data[:8]!r}"
            raise SampleError(
                f"the file must be {expected}, the tensor's compression, got {content} "
                f"({len(data)} bytes). Convert the file, or change the tensor's compression."
            )
        shape = READERS[expected].shape(data)
        fit_shape(shape, self.spec.shape, self.spec.kind.ranks)
        verify_file(expected, data, shape, True if self.spec.verify is None else self.spec.verify)
        return Blob(data, shape)

    def decode(self, stored: Blob) -> object:
        """Return the file, undecoded."""
        # A copy: the stored bytes may be a view of a larger buffer.
        return File(bytes(stored.data), shape=stored.shape, dtype=self.spec.dtype)


def bytes_of(value: object) -> bytes | None:
    """Return the bytes of a file given as bytes, path or File; None for any other value.

    Raises
    ------
    SampleError
        ``value`` is a path that cannot be read.
    StoreError
        ``value`` is a File at a URL that cannot be read.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, File):
        return value.bytes()
    if not isinstance(value, os.PathLike):
        return None
    try:
        return Path(os.fsdecode(value)).read_bytes()
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the path
        raise SampleError(f"the file cannot be read: {error}. Check the path.") from error
