"""Make URLs absolute, and remove their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dasklake.exceptions import InvalidInputError

__all__ = ["LOCAL", "absolute_url", "safe_url"]

#: Protocols of local files.
LOCAL = frozenset({"file", "local"})

_PASSWORD = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
_TOKEN = re.compile(r"(\bhttps?://)[^/\s]+@")
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*")


def absolute_url(url: str | os.PathLike[str]) -> str:
    """Make a URL absolute, so that it does not depend on the working directory.

    Parameters
    ----------
    url : str or os.PathLike
        Path, which may be relative or begin with ``~``, or URL that fsspec supports.

    Returns
    -------
    str
        URL without redundant slashes; paths become ``file://`` URLs.

    Raises
    ------
    InvalidInputError
        ``url`` is empty, or neither a path nor a URL.

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
            f"url must be a string or a path, got {type(url).__name__}. Give a path or a URL."
        ) from error
    if not isinstance(text, str) or not text.strip():
        raise InvalidInputError(
            f"url must be a path or a URL, got {text!r}. Give for example s3://bucket/lake."
        )
    if "::" in text:
        return text.rstrip("/")
    protocol, separator, path = text.partition("://")
    if not separator:
        protocol, path = "file", text
    if protocol in LOCAL:
        return f"file://{Path(os.path.abspath(Path(path).expanduser())).as_posix()}"  # noqa: PTH100 # resolve() would follow links
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise InvalidInputError(
            f"url must name a bucket, got {safe_url(text)}. Add a bucket and a path."
        )
    if any(part in (".", "..") for part in parts):
        raise InvalidInputError(
            f"url must not contain '.' or '..', got {safe_url(text)}. Give the absolute path."
        )
    return f"{protocol}://{'/'.join(parts)}"


def safe_url(url: str) -> str:
    """Return a URL without user, password and query.

    Examples
    --------
    >>> safe_url("https://me:secret@host/lake?sig=secret")
    'https://host/lake'
    """
    return _QUERY.sub(r"\1", _TOKEN.sub(r"\1", _PASSWORD.sub("", url)))
