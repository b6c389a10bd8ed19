"""Read the target of a link on fsspec's event loop: its first bytes, its last bytes, or all.

For HTTP and S3, one response contains the first bytes, the length and the version of the file,
which saves a second request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dasklake._storage.errors import is_beyond
from dasklake._storage.fsspec_backend import file_system_of, whole_options
from dasklake._storage.urls import LOCAL, absolute_url, is_chained

__all__ = ["Begin", "Target", "target_of"]

#: Names under which file systems report the version of a file.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified"),
    *("last_modified", "mtime", "created"),
)


class Begin(NamedTuple):
    """First bytes of a target, its length if known, and the identifier of its version."""

    data: bytes
    size: int | None
    etag: str | None


class Target(Protocol):
    """Target of a link. Its methods raise the errors of the storage library."""

    async def first(self, count: int) -> Begin:
        """Read at most ``count`` bytes from the beginning."""

    async def last(self, count: int, size: int) -> bytes | None:
        """Read the last ``count`` of ``size`` bytes, or return None if the server has no ranges."""

    async def whole(self) -> bytes:
        """Read all bytes."""


def target_of(url: str, options: Mapping[str, Any], *, connections: int) -> Target:
    """Open the target of a link.

    Parameters
    ----------
    url : str
        URL of the link, or a local path.
    options : mapping
        Resolved storage options.
    connections : int
        Maximum number of concurrent requests.
    """
    protocol, separator, _ = url.partition("://")
    options = dict(options)
    if protocol in ("s3", "s3a"):
        # The default of botocore is 10 connections.
        config = {"max_pool_connections": connections, **options.get("config_kwargs", {})}
        options["config_kwargs"] = config
    local = not is_chained(url) and (not separator or protocol in LOCAL)
    fs, path = file_system_of(absolute_url(url) if local else url, options)
    if not getattr(fs, "async_impl", False):
        return _Blocking(fs, path)
    if type(fs).__module__ == "fsspec.implementations.http":
        return _Http(fs, path)
    if type(fs).__module__ == "s3fs.core":
        return _S3(fs, path)
    return _Other(fs, path)


class _Http:
    """File on a web server: one request for bytes, length and version."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        answer, data = await self._get(f"bytes=0-{count - 1}", count)
        headers = answer.headers
        size = _length(headers, data, count, partial=answer.status != 200)
        return Begin(data, size, _version(headers))

    async def last(self, count: int, size: int) -> bytes | None:
        answer, data = await self._get(f"bytes={max(size - count, 0)}-{size - 1}", count)
        return data if answer.status == 206 else None

    async def whole(self) -> bytes:
        _, data = await self._get(None, None)
        return data

    async def _get(self, byte_range: str | None, max_bytes: int | None) -> tuple[Any, bytes]:
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        url = self._fs.encode_url(self._path)
        async with session.get(url, headers=headers, **options) as answer:
            if answer.status == 416:
                return answer, b""
            answer.raise_for_status()
            if max_bytes is None:
                return answer, bytes(await answer.read())
            # A server without ranges sends the whole file: do not read the rest.
            parts: list[bytes] = []
            while max_bytes > 0 and (part := await answer.content.read(max_bytes)):
                parts.append(part)
                max_bytes -= len(part)
            return answer, b"".join(parts)


def _length(headers: Mapping[str, str], data: bytes, count: int, *, partial: bool) -> int | None:
    """Return the length of a file from the response for its first bytes, or None."""
    text = headers.get("Content-Range", "").rpartition("/")[2]
    text = text if partial else headers.get("Content-Length", "")
    if text.isdecimal():
        return int(text)
    return len(data) if len(data) < count else None


class _S3:
    """Object on S3: one request for bytes, length and version."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        try:
            answer, data = await self._get(f"bytes=0-{count - 1}")
        except OSError as error:
            # An empty object has no ranges.
            if not is_beyond(error):
                raise
            info = await self._fs._info(self._path)  # noqa: SLF001 # fsspec's asynchronous interface
            return Begin(b"", int(info["size"]), _version(info))
        return Begin(data, int(answer["ContentRange"].rpartition("/")[2]), _version(answer))

    async def last(self, count: int, size: int) -> bytes | None:
        return (await self._get(f"bytes={max(size - count, 0)}-{size - 1}"))[1]

    async def whole(self) -> bytes:
        return bytes(await self._fs._cat_file(self._path, **whole_options(self._fs)))  # noqa: SLF001 # as above

    async def _get(self, byte_range: str) -> tuple[Any, bytes]:
        bucket, key, version = self._fs.split_path(self._path)
        arguments = {"VersionId": version} if version else {}
        answer = await self._fs._call_s3(  # noqa: SLF001 # as above
            "get_object", Bucket=bucket, Key=key, Range=byte_range, **arguments
        )
        async with answer["Body"] as body:
            return answer, bytes(await body.read())


class _Other:
    """File on another asynchronous file system: length and version need a second request."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        info = _file(await self._fs._info(self._path))  # noqa: SLF001 # fsspec's asynchronous interface
        data = await self._read(0, count) if info["size"] != 0 else b""
        return Begin(data, info["size"], _version(info))

    async def last(self, count: int, size: int) -> bytes | None:
        return await self._read(max(size - count, 0), size)

    async def whole(self) -> bytes:
        return await self._read(None, None)

    async def _read(self, start: int | None, end: int | None) -> bytes:
        return bytes(await self._fs._cat_file(self._path, start=start, end=end))  # noqa: SLF001 # as above


class _Blocking:
    """File on a file system without coroutines, such as a disk: read in threads."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        return await asyncio.to_thread(self._first, count)

    def _first(self, count: int) -> Begin:
        info = _file(self._fs.info(self._path))
        data = self._fs.cat_file(self._path, start=0, end=count) if info["size"] != 0 else b""
        return Begin(bytes(data), info["size"], _version(info))

    async def last(self, count: int, size: int) -> bytes | None:
        start = max(size - count, 0)
        return bytes(await asyncio.to_thread(self._fs.cat_file, self._path, start=start, end=size))

    async def whole(self) -> bytes:
        return bytes(await asyncio.to_thread(self._fs.cat_file, self._path))


def _file(info: Mapping[str, Any]) -> Mapping[str, Any]:
    if info["type"] != "file":
        raise FileNotFoundError(f"must be a file, is a {info['type']}")
    return info


def _version(info: Mapping[str, Any]) -> str | None:
    """Return the identifier of a file's version, or None if the file system reports none."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    if version is None:
        return None
    return version.isoformat() if hasattr(version, "isoformat") else str(version).strip('"')
