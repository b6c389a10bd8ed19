"""Decompress files whose names end with the extension of a compression."""

from __future__ import annotations

import io

from fsspec.compression import compr
from fsspec.utils import infer_compression

from dasklake.exceptions import InvalidInputError


def decompressed(name: str, data: bytes) -> bytes:
    """Return the content of a file, decompressed if its name says so.

    Parameters
    ----------
    name : str
        Name of the file; extensions such as ``.gz`` and ``.xz`` name the compression.
    data : bytes
        Bytes of the file.

    Raises
    ------
    InvalidInputError
        The file is not of the compression in ``name``.

    Examples
    --------
    >>> decompressed("a.json", b"{}")
    b'{}'
    """
    compression = infer_compression(name)
    # A web server may have sent the decompressed file.
    if compression is None or data.lstrip()[:1] in (b"{", b"["):
        return data
    try:
        with compr[compression](io.BytesIO(data), mode="rb") as file:
            return bytes(file.read())
    except MemoryError:
        raise
    except Exception as error:
        # Each library has errors of its own: OSError, EOFError, zlib.error, LZMAError, BadZipFile.
        raise InvalidInputError(
            f"{name} must be a complete {compression} file, got one that cannot be decompressed "
            f"({type(error).__name__}: {error}). Check the file, or its name."
        ) from error
