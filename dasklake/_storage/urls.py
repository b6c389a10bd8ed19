"""Make URLs absolute, and remove their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from dasklake.exceptions import InvalidInputError

#: Protocols of local files.
LOCAL = frozenset({"file", "local"})

#: Protocols that no chain begins with.
_STORAGES = LOCAL | {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "azure", "memory"}
_STORAGES |= {"http", "https", "ftp", "hdfs", "sftp"}

#: File systems that read from another one.
_WRAPPERS = {"simplecache", "filecache", "blockcache", "cached", "zip", "tar", "libarchive", "dir"}

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
    if is_chained(text):
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


def file_url(url: str | os.PathLike[str]) -> str:
    """Return the URL of a file: absolute for a local path, and unchanged for an object.

    Keys of objects may have empty parts and other names that paths do not have.

    Raises
    ------
    InvalidInputError
        ``url`` is neither a path nor a URL, or has no path.

    Examples
    --------
    >>> file_url("s3://bucket/raw//a.jpg")
    's3://bucket/raw//a.jpg'
    >>> file_url("/data/a::b.jpg")
    'file:///data/a::b.jpg'
    """
    text: Any = os.fspath(url) if isinstance(url, os.PathLike) else url
    named = isinstance(text, str) and (is_chained(text) or text.partition("://")[2].strip("/"))
    if named and not is_local(text):
        return str(text)
    url = absolute_url(text)
    # A slash at the end means a folder.
    return f"{url}/" if text.endswith(("/", os.sep)) and not url.endswith("/") else url


def is_chained(url: str) -> bool:
    """Return whether a URL chains several file systems, such as ``zip://a.txt::s3://b/c.zip``.

    Names of files and objects may have two colons, too.

    Examples
    --------
    >>> is_chained("simplecache::s3://b/x"), is_chained("s3://b/x::y"), is_chained("a::b.jpg")
    (True, False, False)
    """
    first, colons, rest = url.partition("::")
    protocol, separator, _ = first.partition("://")
    if not colons or (separator and protocol in _STORAGES):
        return False
    return bool(separator) or "://" in rest or protocol in _WRAPPERS


def is_local(url: str) -> bool:
    """Return whether a URL is a local path.

    Examples
    --------
    >>> is_local("a::b.jpg"), is_local("file:///a"), is_local("s3://b/a")
    (True, True, False)
    """
    protocol, separator, _ = url.partition("://")
    return not is_chained(url) and (not separator or protocol in LOCAL)


def safe_url(url: str) -> str:
    """Return a URL without user, password and query.

    Examples
    --------
    >>> safe_url("https://me:secret@host/lake?sig=secret")
    'https://host/lake'
    """
    return _QUERY.sub(r"\1", _TOKEN.sub(r"\1", _PASSWORD.sub("", url)))
