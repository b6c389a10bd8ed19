"""URLs: the same on every machine, and without secrets where they are shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dasklake.exceptions import InvalidInputError

__all__ = ["LOCAL", "absolute_url", "safe_url"]

#: Protocols of files on this machine.
LOCAL = frozenset({"file", "local"})

_PASSWORD = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
_TOKEN = re.compile(r"(\bhttps?://)[^/\s]+@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*")


def absolute_url(url: str | os.PathLike[str]) -> str:
    """Make a URL mean the same on every machine and in every working directory.

    Parameters
    ----------
    url : str or os.PathLike
        A path, which may be relative or begin with ``~``, or a URL that fsspec knows.

    Returns
    -------
    str
        The URL without superfluous slashes; paths become ``file://`` URLs.

    Raises
    ------
    InvalidInputError
        It is neither a path nor a URL, or empty.

    Examples
    --------
    >>> absolute_url("s3://bucket//coco/train/")
    's3://bucket/coco/train'
    >>> absolute_url("file:///data/../lakes/coco/")
    'file:///lakes/coco'
    """
    try:
        text: Any = os.fspath(url)
    except TypeError as error:
        raise InvalidInputError(
            f"A URL is a string or a path, not {type(url).__name__}."
        ) from error
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(f"{text!r} is no URL. Give a path, or a URL such as s3://bucket/x.")
    if "::" in text:
        return text.rstrip("/")
    protocol, separator, path = text.partition("://")
    if not separator:
        protocol, path = "file", text
    if protocol in LOCAL:
        return f"file://{Path(os.path.abspath(Path(path).expanduser())).as_posix()}"  # noqa: PTH100 # links stay
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise InvalidInputError(f"{safe_url(text)} names no place. Add a bucket and a path.")
    if any(part in (".", "..") for part in parts):
        raise InvalidInputError(f"{safe_url(text)} has a relative part. Write the place out.")
    return f"{protocol}://{'/'.join(parts)}"


def safe_url(url: str) -> str:
    """Return a URL without user, password and query.

    Examples
    --------
    >>> safe_url("https://me:secret@host/lake?sig=secret")
    'https://host/lake'
    """
    return _QUERY.sub(r"\1", _TOKEN.sub(r"\1", _PASSWORD.sub("", url)))
