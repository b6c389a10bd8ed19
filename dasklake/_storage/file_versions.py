"""Identify versions of files by size and etag, or by size and time, without reading them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Properties that identify the content of a file, in the order of preference.
_CONTENT = ("etag", "content-md5", "content_md5", "md5hash", "md5", "checksum", "generation")
_TIMES = ("mtime_ns", "mtime", "lastmodified", "last_modified", "updated", "modified", "created")

#: Number of files that are looked up at the same time.
_PARALLEL = 16

_USER = re.compile(r"(?<=://)[^/@]*@")

#: Names of parameters in the query of a URL that hold credentials or change with them.
_SIGNED = re.compile(
    r"^(x-(amz|goog|oss|ms)-.*|.*(sign|token|secret|password|credential|key).*|se|sig|sp|spr|sr|st"
    r"|sv|skoid|sktid|skt|ske|sks|skv|expires|policy|awsaccesskeyid|googleaccessid)$",
    re.IGNORECASE,
)


def file_versions(filesystem: Any, paths: Sequence[str]) -> list[list[str]]:
    """Return the path, size and version of files, for a comparison with an earlier state.

    Parameters
    ----------
    filesystem : fsspec or pyarrow file system
        The file system of the files.
    paths : sequence of str
        The files.

    Returns
    -------
    list of list of str
        For each file its path without credentials, its size, and its etag or else its time of
        modification. None of them depends on the options of the file system.

    Raises
    ------
    OSError
        A file cannot be looked up.
    """
    if hasattr(filesystem, "get_file_info"):  # pyarrow
        infos = [_arrow_info(info) for info in filesystem.get_file_info(list(paths))]
    else:
        # The listing may be older than the files.
        filesystem.invalidate_cache()
        with ThreadPoolExecutor(max_workers=_PARALLEL) as pool:
            infos = list(pool.map(filesystem.info, paths))
    return [
        [safe_path(path), str(info.get("size")), _version(info)]
        for path, info in zip(paths, infos, strict=True)
    ]


def local_file_versions(values: Any) -> list[list[str]]:
    """Return the versions of all local files that strings and paths in some arguments name.

    Parameters
    ----------
    values : object
        The arguments; lists, tuples and dicts are searched.
    """
    stack, versions = [values], []
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, list | tuple):
            stack += value
        elif isinstance(value, str | os.PathLike):
            with suppress(OSError, ValueError):  # not a file, or not even a name
                path = Path(os.fsdecode(value).removeprefix("file://"))
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    version = f"mtime_ns={status.st_mtime_ns}"
                    versions.append([str(path), str(status.st_size), version])
    return sorted(versions)


def folder_versions(filesystem: Any, folder: str) -> list[list[str]]:
    """Return the path, size and version of all files below a folder.

    Parameters
    ----------
    filesystem : fsspec file system or None
        The file system; None for a local disk.
    folder : str
        The folder.

    Raises
    ------
    OSError
        The folder cannot be listed, or has no files.
    """
    if filesystem is None:
        versions = local_file_versions(list(Path(folder).rglob("*")))
    else:
        filesystem = _blocking(filesystem)
        filesystem.invalidate_cache()
        infos = filesystem.find(folder, detail=True)
        versions = [
            [safe_path(path), str(info.get("size")), _version(info)]
            for path, info in sorted(infos.items())
        ]
    if not versions:
        raise FileNotFoundError(folder)
    return versions


def _blocking(filesystem: Any) -> Any:
    """Return a file system that can be used outside of an event loop."""
    filesystem = getattr(filesystem, "sync_fs", filesystem)
    if not getattr(filesystem, "asynchronous", False):
        return filesystem
    options = {**filesystem.storage_options, "asynchronous": False}
    return type(filesystem)(*filesystem.storage_args, **options)


def safe_path(path: str) -> str:
    """Return a path without a user name, a password or the signature of a URL.

    Examples
    --------
    >>> safe_path("https://user:secret@host/a.csv?id=3&X-Amz-Signature=f00")
    'https://host/a.csv?id=3'
    """
    if "://" not in path:
        return path
    address, separator, query = _USER.sub("", path).partition("?")
    parameters = [part for part in query.split("&") if not _SIGNED.match(part.partition("=")[0])]
    return address + separator * bool(parameters) + "&".join(parameters)


def _arrow_info(info: Any) -> dict[str, Any]:
    if not info.is_file:
        raise FileNotFoundError(info.path)
    return {"size": info.size, "mtime_ns": info.mtime_ns}


def _version(info: dict[str, Any]) -> str:
    properties = {str(name).lower(): value for name, value in info.items()}
    for name in (*_CONTENT, *_TIMES):
        if properties.get(name) is not None:
            return f"{name}={properties[name]}"
    return ""
