"""Verify links concurrently: each target must exist, be readable, complete and of its format.

Each verification is a coroutine on fsspec's loop, and its caller holds a future. A ``LinkError``
reports an invalid target and concerns one sample. A ``StoreError`` reports a failure of the
storage, a rate limit or refused credentials, and concerns all samples.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

from dasklake import creds
from dasklake._links.targets import Begin, Target, target_of
from dasklake._media import image
from dasklake._storage.errors import is_dead, kind_of, safe_text
from dasklake._storage.fsspec_backend import io_loop
from dasklake._storage.retry import RetryPolicy
from dasklake._storage.urls import safe_url
from dasklake.exceptions import (
    LakeError,
    LinkError,
    PermissionDeniedError,
    SampleError,
    StoreError,
    UnsupportedStoreError,
)

__all__ = ["AT_ONCE", "Findings", "VerifyOptions", "fetch", "verify_link"]

#: Maximum numbers of targets that one process reads, and holds completely, at the same time.
AT_ONCE = 64
_WHOLE = 8

#: Retries of one read of a target.
_RETRIES = RetryPolicy(seconds=35.0, first=0.2, longest=10.0)

#: Timeouts in seconds of a request for a part, and for all, of a target.
_PART_SECONDS, _WHOLE_SECONDS = 60.0, 600.0

_T = TypeVar("_T")


class VerifyOptions(NamedTuple):
    """Checks to perform on a target.

    Attributes
    ----------
    is_image : bool
        Whether the target must be an image.
    decode : bool
        Whether to fetch and decode an image completely.
    """

    is_image: bool = True
    decode: bool = False


class Findings(NamedTuple):
    """Properties of a verified target; None for unknown ones.

    Attributes
    ----------
    size : int or None
        Length in bytes.
    etag : str or None
        Identifier that the storage gives to this version of the file.
    format : str or None
        Image format, such as ``"jpeg"``.
    shape : tuple of int or None
        Height, width and channels of an image.
    """

    size: int | None = None
    etag: str | None = None
    format: str | None = None
    shape: tuple[int, ...] | None = None


def verify_link(url: str, creds_key: str | None, options: VerifyOptions) -> Future[Findings]:
    """Start to verify a link.

    Parameters
    ----------
    url : str
        URL of the target.
    creds_key : str or None
        Key of the credentials for the target.
    options : VerifyOptions
        Checks to perform.

    Returns
    -------
    concurrent.futures.Future
        Future of the findings. It raises ``LinkError`` if the target is missing, truncated or not
        an image, and ``StoreError`` if the storage fails or refuses access.

    Raises
    ------
    PermissionDeniedError
        This process has no credentials under ``creds_key``.
    """
    link = _LinkTarget(url, creds_key, creds.current(creds_key))
    return _submit(link, partial(_verify, options=options))


def fetch(url: str, creds_key: str | None) -> Future[bytes]:
    """Start to read a target completely; see :func:`verify_link`."""
    return _submit(_LinkTarget(url, creds_key, creds.current(creds_key)), _fetch)


class _LinkTarget:
    """The target of a link, with its current credentials."""

    def __init__(self, url: str, key: str | None, credentials: creds.Credentials) -> None:
        self.url = url
        self.key = key
        self._credentials = credentials
        self._target: Target | None = None

    @property
    def target(self) -> Target:
        if self._target is None:
            try:
                self._target = target_of(self.url, self._credentials.options, connections=AT_ONCE)
            except (ValueError, UnsupportedStoreError) as error:
                raise LinkError(f"the link {safe_url(self.url)} cannot be read: {error}") from None
        return self._target

    async def call_with_retries(
        self, read: Callable[[Target], Awaitable[_T]], seconds: float = _PART_SECONDS
    ) -> _T:
        """Read from the target, with retries and renewed credentials."""
        pauses, renewable = _RETRIES.pauses(), True
        while True:
            await self._refresh()
            try:
                return await asyncio.wait_for(read(self.target), seconds)
            except (LakeError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 # every storage library has errors of its own
                denied = kind_of(error) is PermissionDeniedError
                # Expired credentials are renewed each time, others once.
                pause = next(pauses, None)
                expired = pause is not None and not self._credentials.fresh
                if denied and (renewable or expired) and await self._renewed():
                    renewable = False
                    continue
                if denied or pause is None or is_dead(error):
                    raise self._translated(error) from None  # the cause may hold secrets
            await asyncio.sleep(pause)

    async def _refresh(self) -> None:
        """Renew credentials that expired while the link waited."""
        if not self._credentials.fresh:
            self._credentials = await asyncio.to_thread(creds.current, self.key)
            self._target = None

    async def _renewed(self) -> bool:
        """Look up the credentials again, and return whether they changed."""
        if self.key is None:
            return False
        credentials = await asyncio.to_thread(creds.replaced, self.key, self._credentials)
        if credentials is None:
            return False
        self._credentials, self._target = credentials, None
        return True

    def _translated(self, error: Exception) -> LakeError:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        text = safe_text(cause, self._credentials.options)[:300]
        link = f"the link {safe_url(self.url)}"
        if is_dead(error):
            return LinkError(f"{link} is dead ({text}). Fix the link, or remove it.")
        if kind_of(error) is PermissionDeniedError:
            remedy = (
                f"Check the credentials under the key {self.key!r}"
                if self.key is not None
                else "Name credentials with dasklake.link(url, creds_key=...)"
            )
            return PermissionDeniedError(f"Access to {link} was denied ({text}). {remedy}.")
        return StoreError(
            f"T{link[1:]} could not be read for {_RETRIES.seconds:.0f} seconds ({text}). "
            "Resume when its storage is available again."
        )


async def _fetch(link: _LinkTarget) -> bytes:
    async with _limits().whole:
        return await link.call_with_retries(lambda target: target.whole(), _WHOLE_SECONDS)


async def _verify(link: _LinkTarget, options: VerifyOptions) -> Findings:
    begin = await link.call_with_retries(lambda target: target.first(image.HEAD))
    findings = Findings(begin.size, begin.etag)
    if not begin.data:
        raise _invalid(link, "is empty: it has no bytes")
    if not options.is_image:
        return findings
    if not image.starts_like_image(begin.data):
        raise _invalid(link, f"is not an image: it begins with {begin.data[:8]!r}")
    properties = None if options.decode else await _format_and_shape(link, begin)
    if properties is None:
        complete = begin.size == len(begin.data)
        data = begin.data if complete else await _fetch(link)
        try:
            properties = await asyncio.to_thread(image.decode_completely, data)
        except SampleError as error:
            reason = error.message.partition(". ")[0].rstrip(".")
            raise _invalid(link, f"is truncated or damaged: {reason}") from None
        findings = findings._replace(size=len(data))
    return findings._replace(format=properties[0], shape=properties[1])


async def _format_and_shape(link: _LinkTarget, begin: Begin) -> tuple[str, tuple[int, ...]] | None:
    """Return format and shape from both ends of an image, or None if all of it is needed."""
    size, head = begin.size, begin.data
    if size is None:
        return None
    properties = image.image_format_and_shape(head)
    if properties is None and len(head) < size:
        more = await link.call_with_retries(lambda target: target.first(image.MORE))
        properties = image.image_format_and_shape(more.data)
    if properties is None:
        return None
    tail: bytes | None = head[-image.TAIL :]
    if len(head) < size:
        tail = await link.call_with_retries(lambda target: target.last(image.TAIL, size))
    return properties if tail is not None and image.ends_like(properties[0], tail) else None


def _invalid(link: _LinkTarget, problem: str) -> LinkError:
    return LinkError(f"the link {safe_url(link.url)} {problem}. Fix the link, or remove it.")


class _Limits:
    """Limits of the concurrent reads on one loop."""

    def __init__(self) -> None:
        self.links = asyncio.Semaphore(AT_ONCE)
        self.whole = asyncio.Semaphore(_WHOLE)


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Limits] = (
    weakref.WeakKeyDictionary()
)


def _limits() -> _Limits:
    return _by_loop.setdefault(asyncio.get_running_loop(), _Limits())


def _submit(link: _LinkTarget, action: Callable[[_LinkTarget], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    async def run() -> None:
        async with _limits().links:
            if not future.set_running_or_notify_cancel():
                return  # the caller cancelled it
            try:
                future.set_result(await action(link))
            except Exception as error:  # noqa: BLE001 # raised by the future
                future.set_exception(error)

    asyncio.run_coroutine_threadsafe(run(), io_loop())
    return future
