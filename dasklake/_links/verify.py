"""Verify links concurrently: each target must exist, be readable, complete and of its format.

Each verification is a coroutine on fsspec's loop, and its caller holds a future. A ``LinkError``
reports an invalid target, or a web host that does not deliver it, and concerns one sample. A
``StoreError`` reports a failure of the storage, or refused credentials, and concerns all samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from dasklake import creds
from dasklake._codecs.image_encoding import is_sideways
from dasklake._links.limits import (
    LinkLimits,
    in_decoder_thread,
    limits_in_use,
    loop_limits,
)
from dasklake._links.link_target import LinkTarget
from dasklake._links.targets import Begin
from dasklake._media import image
from dasklake._media.check import decode_file, decode_image_file
from dasklake._media.file import READERS
from dasklake._media.sniff import format_of
from dasklake._schema.schema import TensorSpec
from dasklake._storage.fsspec_backend import io_loop
from dasklake.exceptions import MissingExtraError, SampleError

#: Pixels above which images are decoded one at a time.
_LARGE_IMAGE = 16_000_000


class VerifyOptions(NamedTuple):
    """Checks to perform on a target.

    Attributes
    ----------
    is_image : bool
        Whether the target must be an image.
    decode : bool
        Whether to fetch and decode the target completely.
    upright : bool
        Whether the shape of an image is that of the pixels turned as its orientation tag says.
    formats : tuple of str
        Formats that a target other than an image may have. They are checked if it is decoded.
    """

    is_image: bool = True
    decode: bool = False
    upright: bool = False
    formats: tuple[str, ...] = ()

    @classmethod
    def of(cls, spec: TensorSpec, *, decode: bool) -> VerifyOptions:
        """Return the checks of a tensor of links."""
        return cls(spec.kind.codec == "image", decode, spec.exif == "apply", spec.kind.files)


class Findings(NamedTuple):
    """Properties of a verified target; None for unknown ones.

    Attributes
    ----------
    size : int or None
        Length in bytes.
    etag : str or None
        Identifier that the storage gives to this version of the file.
    format : str or None
        Format of an image or of decoded content, such as ``"jpeg"``.
    shape : tuple of int or None
        Height, width and channels of an image; the shape of other content if it was decoded.
    """

    size: int | None = None
    etag: str | None = None
    format: str | None = None
    shape: tuple[int, ...] | None = None


def verify_link(
    url: str, creds_key: str | None, options: VerifyOptions, limits: LinkLimits | None = None
) -> Future[Findings]:
    """Start to verify a link.

    Parameters
    ----------
    url : str
        URL of the target.
    creds_key : str or None
        Key of the credentials for the target.
    options : VerifyOptions
        Checks to perform.
    limits : LinkLimits, optional
        Limits of time, retries and bytes. By default, those of the enclosing ``use_limits``.

    Returns
    -------
    concurrent.futures.Future
        Future of the findings. It raises ``LinkError`` if the target is missing, truncated or not
        an image, or a web host does not deliver it, and ``StoreError`` if a storage fails or
        refuses access.

    Raises
    ------
    PermissionDeniedError
        This process has no credentials under ``creds_key``.
    """
    return _submit(url, creds_key, limits, partial(_verify, options=options))


def fetch(
    url: str,
    creds_key: creds.StorageOptions,
    limits: LinkLimits | None = None,
    *,
    credentials: creds.Credentials | None = None,
) -> Future[bytes]:
    """Start to read a target completely; see :func:`verify_link`.

    ``credentials`` are the current values of ``creds_key``, if the caller keeps them.
    """
    return _submit(url, creds_key, limits, _fetch, credentials)


async def _fetch(link: LinkTarget) -> bytes:
    async with loop_limits().whole(link.host, web=link.access.web):
        return await link.whole(strict=False)


async def _verify(link: LinkTarget, options: VerifyOptions) -> Findings:
    await link.prepare()
    link.start()
    begin = await link.first(image.HEAD)
    findings = Findings(begin.size, begin.etag)
    if not begin.data:
        raise link.invalid("is empty: it has no bytes")
    if not options.is_image and not options.decode:
        return findings
    if options.is_image and not image.starts_like_image(begin.data):
        raise link.invalid(f"is not an image: it begins with {begin.data[:8]!r}")
    # An orientation tag may come after the pixels.
    whole = options.decode or options.upright
    properties = None if whole else await _format_and_shape(link, begin)
    if properties is None:
        properties, size = await _decode(link, begin, options)
        findings = findings._replace(size=size)
    return findings._replace(format=properties[0], shape=properties[1])


async def _format_and_shape(link: LinkTarget, begin: Begin) -> tuple[str, tuple[int, ...]] | None:
    """Return format and shape from both ends of an image, or None if all of it is needed."""
    size, head = begin.size, begin.data
    if size is None:
        return None
    properties = _properties(head)
    if properties is None and len(head) < size:
        properties = _properties((await link.first(image.MORE)).data)
    if properties is None:
        return None
    tail: bytes | None = head[-image.TAIL :]
    if len(head) < size:
        tail = await link.last(image.TAIL, size)
    return properties if tail is not None and image.ends_like(properties[0], tail) else None


def _properties(head: bytes) -> tuple[str, tuple[int, ...]] | None:
    try:
        return image.image_format_and_shape(head)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 # decoders raise errors of many types for damaged headers
        return None


_Properties = tuple[str, tuple[int, ...]]


async def _decode(
    link: LinkTarget, begin: Begin, options: VerifyOptions
) -> tuple[_Properties, int]:
    """Read and decode a target completely; return its format, shape and size."""
    if begin.size is not None and begin.size > link.limits.max_bytes:
        raise link.too_large()
    async with _held(link):
        data = begin.data if begin.size == len(begin.data) else await link.whole(strict=True)
        format_ = None if options.is_image else format_of(data)
        if not options.is_image and format_ not in options.formats:
            content = format_ or f"a file that begins with {data[:8]!r}"
            raise link.invalid(f"must be a file of {' or '.join(options.formats)}, got {content}")
        try:
            if format_ is None:
                return await _decode_in_thread(data, options), len(data)
            return await in_decoder_thread(partial(_decode_media, format_, data)), len(data)
        except MissingExtraError:
            raise
        except SampleError as error:
            reason = error.message.partition(". ")[0].rstrip(".")
            if image.is_unsupported(error):
                problem = f"cannot be read as an image ({reason}), and needs verify=False"
                raise link.invalid(problem) from None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 # decoders raise errors of many types
            reason = f"{type(error).__name__}: {error}"
    raise link.invalid(f"is truncated or damaged: {reason}")


@asynccontextmanager
async def _held(link: LinkTarget) -> Any:
    """Wait until a target may be held completely; the link's time does not include this."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with loop_limits().whole(link.host, web=link.access.web):
        link.extend(clock() - began)
        yield


def _decode_media(format_: str, data: bytes) -> _Properties:
    decode_file(format_, data)
    return format_, READERS[format_].shape(data)


def _decode_image(data: bytes, *, upright: bool) -> _Properties:
    format_, shape = decode_image_file(data)
    if upright and is_sideways(image.open_image(data)):
        shape = (shape[1], shape[0], shape[2])
    return format_, shape


async def _decode_in_thread(data: bytes, options: VerifyOptions) -> _Properties:
    decode = partial(_decode_image, data, upright=options.upright)
    properties = _properties(data)
    height, width = properties[1][:2] if properties is not None else (0, 0)
    if height * width <= _LARGE_IMAGE:
        return await in_decoder_thread(decode)
    async with loop_limits().large_image:
        return await in_decoder_thread(decode)


def _submit(
    url: str,
    creds_key: creds.StorageOptions,
    limits: LinkLimits | None,
    action: Callable[[LinkTarget], Awaitable[Any]],
    credentials: creds.Credentials | None = None,
) -> Future[Any]:
    credentials = credentials or creds.current(creds_key)
    link = LinkTarget(url, creds_key, credentials, limits or limits_in_use())
    future: Future[Any] = Future()

    async def run() -> None:
        async with loop_limits().link(link.access.host, link.most_at_once) as link.host:
            if not future.set_running_or_notify_cancel():
                return  # the caller cancelled it
            try:
                future.set_result(await action(link))
            except Exception as error:  # noqa: BLE001 # raised by the future
                # The frames of a traceback would keep the bytes that were read.
                error.__context__ = None
                future.set_exception(error.with_traceback(None))

    asyncio.run_coroutine_threadsafe(run(), io_loop())
    return future
