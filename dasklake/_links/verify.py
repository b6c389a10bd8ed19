"""Links looked at, many at a time: the target is there, readable, what it should be, and whole.

Each look is a coroutine on fsspec's loop, and its caller holds a future. What is wrong with the
target is a ``LinkError`` and concerns one sample; what is wrong with the storage, its patience or
our credentials is a ``StoreError`` and concerns all of them.
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

__all__ = ["AT_ONCE", "Findings", "Wanted", "fetch", "look"]

#: Targets that one process reads at the same time; and those of which it holds all bytes.
AT_ONCE = 64
_WHOLE = 8

#: How long a target's storage is retried.
_RETRIES = RetryPolicy(seconds=35.0, first=0.2, longest=10.0)

#: Seconds after which a request is given up: for some bytes, and for all.
_SOON, _LATE = 60.0, 600.0

_T = TypeVar("_T")


class Wanted(NamedTuple):
    """What is to be found out about a target.

    Attributes
    ----------
    picture : bool
        Whether it has to be a picture.
    decode : bool
        Whether all of it is to be fetched and decoded.
    """

    picture: bool = True
    decode: bool = False


class Findings(NamedTuple):
    """What was found out about a target; None for what is not known.

    Attributes
    ----------
    size : int or None
        Its length, in bytes.
    etag : str or None
        The storage's name of this version of it.
    format : str or None
        Its format, such as ``"jpeg"``.
    shape : tuple of int or None
        Height, width and channels.
    """

    size: int | None = None
    etag: str | None = None
    format: str | None = None
    shape: tuple[int, ...] | None = None


def look(url: str, creds_key: str | None, wanted: Wanted) -> Future[Findings]:
    """Start to look at a target.

    Parameters
    ----------
    url : str
        Where it lies.
    creds_key : str or None
        Name of the credentials to read it with.
    wanted : Wanted
        What is to be found out.

    Returns
    -------
    concurrent.futures.Future
        Its result is what was found out; it raises ``LinkError`` for a target that is not there,
        not a picture or not whole, and ``StoreError`` where the storage does not let us know.

    Raises
    ------
    PermissionDeniedError
        This process knows no credentials under the key.
    """
    return _submit(_Place(url, creds_key, creds.current(creds_key)), partial(_look, wanted=wanted))


def fetch(url: str, creds_key: str | None) -> Future[bytes]:
    """Start to read all of a target; as :func:`look`."""
    return _submit(_Place(url, creds_key, creds.current(creds_key)), _fetch)


class _Place:
    """A link, and how it is read at the moment."""

    def __init__(self, url: str, key: str | None, known: creds.Credentials) -> None:
        self.url = url
        self.key = key
        self._known = known
        self._target: Target | None = None

    @property
    def target(self) -> Target:
        if self._target is None:
            try:
                self._target = target_of(self.url, self._known.options, connections=AT_ONCE)
            except (ValueError, UnsupportedStoreError) as error:
                where = safe_url(self.url)
                raise LinkError(f"the link {where} cannot be read: {error}") from None
        return self._target

    async def tried(self, read: Callable[[Target], Awaitable[_T]], seconds: float = _SOON) -> _T:
        """Read from the target, and retry while its storage fails."""
        pauses, renewable = _RETRIES.pauses(), True
        while True:
            await self._refresh()
            try:
                return await asyncio.wait_for(read(self.target), seconds)
            except (LakeError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001 # every storage library has errors of its own
                denied = kind_of(error) is PermissionDeniedError
                # Those that have just expired are renewed again, others once.
                pause = next(pauses, None)
                expired = pause is not None and not self._known.fresh
                if denied and (renewable or expired) and await self._renewed():
                    renewable = False
                    continue
                if denied or pause is None or is_dead(error):
                    raise self._mapped(error) from None  # the cause may hold secrets
            await asyncio.sleep(pause)

    async def _refresh(self) -> None:
        """Look credentials up again that have expired while others were read."""
        if not self._known.fresh:
            self._known = await asyncio.to_thread(creds.current, self.key)
            self._target = None

    async def _renewed(self) -> bool:
        """Look the credentials up again; tell whether they have changed."""
        if self.key is None:
            return False
        found = await asyncio.to_thread(creds.replaced, self.key, self._known)
        if found is None:
            return False
        self._known, self._target = found, None
        return True

    def _mapped(self, error: Exception) -> LakeError:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        text = safe_text(cause, self._known.options)[:300]
        link = f"the link {safe_url(self.url)}"
        if is_dead(error):
            return LinkError(f"{link} is dead ({text}). Mend it, or leave it out.")
        if kind_of(error) is PermissionDeniedError:
            cure = (
                f"Look at the credentials under the key {self.key!r}"
                if self.key is not None
                else "Name credentials with dasklake.link(url, creds_key=...)"
            )
            return PermissionDeniedError(f"T{link[1:]} may not be read ({text}). {cure}.")
        return StoreError(
            f"T{link[1:]} could not be read for {_RETRIES.seconds:.0f} seconds ({text}). "
            "Resume when its storage answers."
        )


async def _fetch(place: _Place) -> bytes:
    async with _gates().whole:
        return await place.tried(lambda target: target.whole(), _LATE)


async def _look(place: _Place, wanted: Wanted) -> Findings:
    begin = await place.tried(lambda target: target.first(image.HEAD))
    found = Findings(begin.size, begin.etag)
    if not begin.data:
        raise _wrong(place, "is empty: it has no bytes")
    if not wanted.picture:
        return found
    if not image.starts_like_image(begin.data):
        raise _wrong(place, f"is not a picture: it begins with {begin.data[:8]!r}")
    sure = None if wanted.decode else await _facts(place, begin)
    if sure is None:
        complete = begin.size == len(begin.data)
        data = begin.data if complete else await _fetch(place)
        try:
            sure = await asyncio.to_thread(image.decode_completely, data)
        except SampleError as error:
            reason = error.message.partition(". ")[0].rstrip(".")
            raise _wrong(place, f"is truncated or damaged: {reason}") from None
        found = found._replace(size=len(data))
    return found._replace(format=sure[0], shape=sure[1])


async def _facts(place: _Place, begin: Begin) -> tuple[str, tuple[int, ...]] | None:
    """Return format and shape from the two ends of a file; None where they do not suffice."""
    size, head = begin.size, begin.data
    if size is None:
        return None
    facts = image.image_format_and_shape(head)
    if facts is None and len(head) < size:
        more = await place.tried(lambda target: target.first(image.MORE))
        facts = image.image_format_and_shape(more.data)
    if facts is None:
        return None
    tail: bytes | None = head[-image.TAIL :]
    if len(head) < size:
        tail = await place.tried(lambda target: target.last(image.TAIL, size))
    return facts if tail is not None and image.ends_like(facts[0], tail) else None


def _wrong(place: _Place, what: str) -> LinkError:
    return LinkError(f"the link {safe_url(place.url)} {what}. Mend it, or leave it out.")


class _Gates:
    """How much one loop does at the same time."""

    def __init__(self) -> None:
        self.links = asyncio.Semaphore(AT_ONCE)
        self.whole = asyncio.Semaphore(_WHOLE)


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Gates] = weakref.WeakKeyDictionary()


def _gates() -> _Gates:
    return _by_loop.setdefault(asyncio.get_running_loop(), _Gates())


def _submit(place: _Place, action: Callable[[_Place], Any]) -> Future[Any]:
    future: Future[Any] = Future()

    async def run() -> None:
        async with _gates().links:
            if not future.set_running_or_notify_cancel():
                return  # given up meanwhile
            try:
                future.set_result(await action(place))
            except Exception as error:  # noqa: BLE001 # whoever holds the future gets it
                future.set_exception(error)

    asyncio.run_coroutine_threadsafe(run(), io_loop())
    return future
