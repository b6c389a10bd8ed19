"""What a link points to, read over fsspec's own loop: some first bytes, some last ones, or all.

One answer of the storage says what is in it, how long it is and which version of it this is, where
the file system lets us see the whole answer; that saves every second request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dasklake._storage.errors import is_beyond
from dasklake._storage.fsspec_backend import file_system_of, whole_options
from dasklake._storage.urls import LOCAL, absolute_url

__all__ = ["Begin", "Target", "target_of"]

#: Where a version of a file may stand in what a file system knows of it.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified"),
    *("last_modified", "mtime", "created"),
)


class Begin(NamedTuple):
    """The first bytes of a target, its length where known, and the name of this version of it."""

    data: bytes
    size: int | None
    etag: str | None


class Target(Protocol):
    """One target; its errors are foreign ones."""

    async def first(self, count: int) -> Begin:
        """Read up to ``count`` bytes from the beginning."""

    async def last(self, count: int, size: int) -> bytes | None:
        """Read the last bytes of ``size``; None where that cannot be done."""

    async def whole(self) -> bytes:
        """Read all."""


def target_of(url: str, options: Mapping[str, Any], *, connections: int) -> Target:
    """Choose how a target is read.

    Parameters
    ----------
    url : str
        What the link says; paths are those of this machine.
    options : mapping
        Resolved storage options.
    connections : int
        Requests at the same time that will be asked for.
    """
    protocol, separator, _ = url.partition("://")
    options = dict(options)
    if protocol in ("s3", "s3a"):
        # botocore has 10 connections unless it is told otherwise.
        config = {"max_pool_connections": connections, **options.get("config_kwargs", {})}
        options["config_kwargs"] = config
    local = not separator or (protocol in LOCAL and "::" not in url)
    fs, path = file_system_of(absolute_url(url) if local else url, options)
    if not getattr(fs, "async_impl", False):
        return _Blocking(fs, path)
    if type(fs).__module__ == "fsspec.implementations.http":
        return _Http(fs, path)
    if type(fs).__module__ == "s3fs.core":
        return _S3(fs, path)
    return _Other(fs, path)


class _Http:
    """A page of the web: one request for bytes, length and version."""

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

    async def _get(self, wanted: str | None, most: int | None) -> tuple[Any, bytes]:
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
        if wanted is not None:
            headers["Range"] = wanted
        url = self._fs.encode_url(self._path)
        async with session.get(url, headers=headers, **options) as answer:
            if answer.status == 416:
                return answer, b""
            answer.raise_for_status()
            if most is None:
                return answer, bytes(await answer.read())
            # A server that does not know ranges sends everything: the rest is not waited for.
            parts: list[bytes] = []
            while most > 0 and (part := await answer.content.read(most)):
                parts.append(part)
                most -= len(part)
            return answer, b"".join(parts)


def _length(headers: Mapping[str, str], data: bytes, count: int, *, partial: bool) -> int | None:
    """Return the length of a file from the answer to a request for its first bytes."""
    text = headers.get("Content-Range", "").rpartition("/")[2]
    text = text if partial else headers.get("Content-Length", "")
    if text.isdecimal():
        return int(text)
    return len(data) if len(data) < count else None


class _S3:
    """An object of S3: one request for bytes, length and version."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        try:
            answer, data = await self._get(f"bytes=0-{count - 1}")
        except OSError as error:
            # An object without bytes has no first ones.
            if not is_beyond(error):
                raise
            info = await self._fs._info(self._path)  # noqa: SLF001 # fsspec's asynchronous interface
            return Begin(b"", int(info["size"]), _version(info))
        return Begin(data, int(answer["ContentRange"].rpartition("/")[2]), _version(answer))

    async def last(self, count: int, size: int) -> bytes | None:
        return (await self._get(f"bytes={max(size - count, 0)}-{size - 1}"))[1]

    async def whole(self) -> bytes:
        return bytes(await self._fs._cat_file(self._path, **whole_options(self._fs)))  # noqa: SLF001 # as above

    async def _get(self, wanted: str) -> tuple[Any, bytes]:
        bucket, key, version = self._fs.split_path(self._path)
        named = {"VersionId": version} if version else {}
        answer = await self._fs._call_s3(  # noqa: SLF001 # as above
            "get_object", Bucket=bucket, Key=key, Range=wanted, **named
        )
        async with answer["Body"] as body:
            return answer, bytes(await body.read())


class _Other:
    """Any other asynchronous file system: what is known of a file is a request of its own."""

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
    """A file system without coroutines, such as a disk: read in threads."""

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
        raise FileNotFoundError(f"a {info['type']}, not a file")
    return info


def _version(info: Mapping[str, Any]) -> str | None:
    """Return the name of a version of a file; None where the file system has none."""
    found = next((info[name] for name in _VERSIONS if info.get(name)), None)
    if found is None:
        return None
    return found.isoformat() if hasattr(found, "isoformat") else str(found).strip('"')
