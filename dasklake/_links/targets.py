"""Read the target of a link on fsspec's event loop: its first bytes, its last bytes, or all.

For HTTP and S3, one response contains the first bytes, the length and the version of the file,
which saves a second request. No more than the requested bytes are read, whatever a server sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

from dasklake._links.limits import in_reader_thread
from dasklake._schema.printable import printable
from dasklake._storage.errors import is_beyond
from dasklake._storage.fsspec_backend import user_file_of, whole_options

#: Bytes that one step reads from a stream.
_STEP = 2**18

#: Lengths that a lake can store.
_MAX_LENGTH = 2**63 - 1

#: Names under which file systems report the version of a file.
_VERSIONS = (
    *("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified"),
    *("last_modified", "mtime", "created"),
)


class TooManyBytesError(Exception):
    """The target has more bytes than the limit."""


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

    async def whole(self, limit: int, *, strict: bool = True) -> bytes:
        """Read all bytes.

        Parameters
        ----------
        limit : int
            Most bytes to read from a web server.
        strict : bool, default True
            Whether the limit also holds if the server announces the length.

        Raises
        ------
        TooManyBytesError
            The target has more bytes.
        """


def target_of(
    url: str, options: Mapping[str, Any], *, connections: int, seconds: float | None = None
) -> Target:
    """Open the target of a link.

    Parameters
    ----------
    url : str
        URL of the link, or a local path.
    options : mapping
        Resolved storage options.
    connections : int
        Maximum number of concurrent requests.
    seconds : float, optional
        Timeout of a connection and of each read from a web server; by default the library's.
    """
    protocol = url.partition("://")[0]
    options = dict(options)
    if protocol == "ftp" and seconds is not None:
        options.setdefault("timeout", max(round(seconds), 1))
    if protocol in ("s3", "s3a"):
        # The default of botocore is 10 connections.
        config = {"max_pool_connections": connections, **options.get("config_kwargs", {})}
        options["config_kwargs"] = config
    fs, path = user_file_of(url, options)
    if not getattr(fs, "async_impl", False):
        return _Blocking(fs, path)
    if type(fs).__module__ == "fsspec.implementations.http":
        return _Http(fs, path, seconds)
    if type(fs).__module__ == "s3fs.core":
        return _S3(fs, path)
    return _Other(fs, path)


class _Http:
    """File on a web server: one request for bytes, length and version."""

    def __init__(self, fs: Any, path: str, seconds: float | None) -> None:
        self._fs = fs
        self._path = path
        self._seconds = seconds

    async def first(self, count: int) -> Begin:
        async with await self._request(f"bytes=0-{count - 1}") as answer:
            data = await _read(answer, count)
            size = _length(answer, data, count)
            return Begin(data, size, _version(answer.headers))

    async def last(self, count: int, size: int) -> bytes | None:
        async with await self._request(f"bytes={max(size - count, 0)}-{size - 1}") as answer:
            # A server without ranges sends the whole file: it is not read.
            return await _read(answer, count) if answer.status == 206 else None

    async def whole(self, limit: int, *, strict: bool = True) -> bytes:
        async with await self._request(None) as answer:
            announced = _announced(answer)
            if strict and announced is not None and announced > limit:
                raise TooManyBytesError
            most = limit if strict or announced is None else announced
            return await _read(answer, most + 1, refuse_more=True)

    async def _request(self, byte_range: str | None) -> Any:
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
        if byte_range is not None:
            headers["Range"] = byte_range
        if self._seconds is not None and "timeout" not in options:
            options["timeout"] = _timeout(self._seconds)
        url = self._fs.encode_url(self._path)
        return session.get(url, headers=headers, **options)


def _timeout(seconds: float) -> Any:
    import aiohttp  # noqa: PLC0415 # optional, and imported already if there is a target on the web

    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)


async def _read(answer: Any, count: int, *, refuse_more: bool = False) -> bytes:
    """Read less than, or at most, ``count`` bytes of a response, and not the rest."""
    if answer.status == 416:  # the file is empty
        return b""
    answer.raise_for_status()
    data = bytearray()
    try:
        while len(data) < count:
            part = await answer.content.read(min(count - len(data), _STEP))
            if not part:
                break
            data += part
        if refuse_more and len(data) == count:
            raise TooManyBytesError
        return bytes(data)
    finally:
        data.clear()  # the traceback of an error would keep it


def _limited(data: bytes, limit: int | None) -> bytes:
    if limit is not None and len(data) > limit:
        raise TooManyBytesError
    return data


def _announced(answer: Any) -> int | None:
    """Return the length of a response's body, or None if it is unknown or compressed."""
    text = answer.headers.get("Content-Length", "")
    encoding = answer.headers.get("Content-Encoding", "identity")
    return _number(text) if encoding == "identity" else None


def _number(text: str) -> int | None:
    number = int(text) if text.isdecimal() and len(text) < 20 else None
    return number if number is not None and number <= _MAX_LENGTH else None


def _length(answer: Any, data: bytes, count: int) -> int | None:
    """Return the length of a file from the response for its first bytes, or None."""
    if answer.status in (206, 416):
        size = _number(answer.headers.get("Content-Range", "").rpartition("/")[2])
    else:
        size = _announced(answer)
    return len(data) if size is None and len(data) < count else size


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

    async def whole(self, limit: int, *, strict: bool = True) -> bytes:
        if strict:
            return _limited((await self._get(f"bytes=0-{limit}"))[1], limit)
        if self._path.endswith("/"):
            return (await self._get(None))[1]
        return bytes(await self._fs._cat_file(self._path, **whole_options(self._fs)))  # noqa: SLF001 # as above

    async def _get(self, byte_range: str | None) -> tuple[Any, bytes]:
        bucket, key, version = self._fs.split_path(self._path)
        if self._path.endswith("/"):  # releases of s3fs before 2025 remove the slash
            key = self._path.partition("/")[2]
        arguments = {"VersionId": version} if version else {}
        if byte_range is not None:
            arguments["Range"] = byte_range
        answer = await self._fs._call_s3(  # noqa: SLF001 # as above
            "get_object", Bucket=bucket, Key=key, **arguments
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

    async def whole(self, limit: int, *, strict: bool = True) -> bytes:
        if not strict:
            return await self._read(None, None)
        return _limited(await self._read(0, limit + 1), limit)

    async def _read(self, start: int | None, end: int | None) -> bytes:
        return bytes(await self._fs._cat_file(self._path, start=start, end=end))  # noqa: SLF001 # as above


class _Blocking:
    """File on a file system without coroutines, such as a disk: read in threads."""

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    async def first(self, count: int) -> Begin:
        return await in_reader_thread(partial(self._first, count))

    def _first(self, count: int) -> Begin:
        info = _file(self._fs.info(self._path))
        data = self._fs.cat_file(self._path, start=0, end=count) if info["size"] != 0 else b""
        return Begin(bytes(data), info["size"], _version(info))

    async def last(self, count: int, size: int) -> bytes | None:
        start = max(size - count, 0)
        read = partial(self._fs.cat_file, self._path, start=start, end=size)
        return bytes(await in_reader_thread(read))

    async def whole(self, limit: int, *, strict: bool = True) -> bytes:
        part = {"start": 0, "end": limit + 1} if strict else {}
        data = await in_reader_thread(partial(self._fs.cat_file, self._path, **part))
        return _limited(bytes(data), limit if strict else None)


def _file(info: Mapping[str, Any]) -> Mapping[str, Any]:
    if info["type"] != "file":
        raise FileNotFoundError(f"must be a file, is a {info['type']}")
    return info


def _version(info: Mapping[str, Any]) -> str | None:
    """Return the identifier of a file's version, or None if the file system reports none."""
    version = next((info[name] for name in _VERSIONS if info.get(name)), None)
    if version is None:
        return None
    text = version.isoformat() if hasattr(version, "isoformat") else str(version).strip('"')
    return printable(text)  # headers may have any bytes
