"""Limits of the reads of links: per link, per host, and per event loop.

A host that is slow or down takes only its own share of the concurrent reads, so that the links to
other hosts continue. After several timeouts in a row its links get a shorter time, until it answers.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

#: Maximum number of targets that one process reads at the same time, and of one web host by default.
AT_ONCE = 96
PER_HOST = 32

#: Maximum numbers of targets that one process holds completely, of all hosts and of one web host.
_WHOLE, _WHOLE_OF_HOST = 8, 4

#: Threads that read from file systems without coroutines, and threads that decode.
_READERS, _DECODERS = 32, 4

#: Timeouts in a row after which a host gets a shorter time, its share, and how long this lasts.
_TIMEOUTS, _SHARE, _SHORT_SECONDS = 4, 0.1, 120.0

#: Most hosts whose timeouts are remembered.
_MAX_HOSTS = 10_000

_T = TypeVar("_T")


class LinkLimits(NamedTuple):
    """Limits for the reads of one link; the parsed form of ``LinkPolicy``.

    Attributes
    ----------
    retries : int
        Number of retries if a web host is busy or does not answer.
    seconds : float
        Time for one link of a web host, including the retries.
    max_bytes : int
        Most bytes to read for a verification, or from a target of unknown length.
    per_host : int
        Most concurrent reads from one web host.
    """

    retries: int = 3
    seconds: float = 30.0
    max_bytes: int = 64 * 2**20
    per_host: int = PER_HOST


_in_use: ContextVar[LinkLimits | None] = ContextVar("dasklake_link_limits", default=None)


@contextmanager
def use_limits(limits: LinkLimits) -> Iterator[None]:
    """Use some limits for the links that this thread reads in the block."""
    token = _in_use.set(limits)
    try:
        yield
    finally:
        _in_use.reset(token)


def limits_in_use() -> LinkLimits:
    """Return the limits of the enclosing :func:`use_limits`, or the defaults."""
    return _in_use.get() or LinkLimits()


@dataclass(slots=True)
class Host:
    """The reads from one host.

    Attributes
    ----------
    links, whole : asyncio.Semaphore
        Free concurrent reads, and free complete reads.
    users : int
        Number of links that read from the host or wait for it.
    timeouts : int
        Number of timeouts in a row.
    last : float
        Time of the last timeout, on the monotonic clock.
    """

    links: asyncio.Semaphore
    whole: asyncio.Semaphore
    users: int = 0
    timeouts: int = 0
    last: float = 0.0

    def seconds(self, limit: float) -> float:
        """Return the time for the next link: ``limit``, or less after several timeouts."""
        down = self.timeouts >= _TIMEOUTS and time.monotonic() - self.last < _SHORT_SECONDS
        return limit * _SHARE if down else limit

    def answered(self) -> None:
        """Forget earlier timeouts."""
        self.timeouts = 0

    def timed_out(self) -> None:
        """Count a timeout."""
        self.timeouts += 1
        self.last = time.monotonic()


@dataclass(slots=True, weakref_slot=True)
class _Hosts:
    by_name: dict[tuple[str, int], Host] = field(default_factory=dict)

    @contextmanager
    def use(self, name: str, most: int) -> Iterator[Host]:
        key = (name, most)
        host = self.by_name.get(key)
        if host is None:
            whole = min(most, _WHOLE_OF_HOST)
            host = self.by_name[key] = Host(asyncio.Semaphore(most), asyncio.Semaphore(whole))
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            # Crawled lists have millions of hosts.
            if not host.users and (not host.timeouts or len(self.by_name) > _MAX_HOSTS):
                self.by_name.pop(key, None)


class LoopLimits:
    """Limits of the concurrent reads on one event loop, and threads for its blocking work."""

    def __init__(self) -> None:
        self._links = asyncio.Semaphore(AT_ONCE)
        self._whole = asyncio.Semaphore(_WHOLE)
        self._hosts = _Hosts()
        #: Held while one large image is decoded.
        self.large_image = asyncio.Lock()

    @cached_property
    def readers(self) -> ThreadPoolExecutor:
        """Threads that read from file systems without coroutines."""
        return ThreadPoolExecutor(_READERS, thread_name_prefix="dasklake-links")

    @cached_property
    def decoders(self) -> ThreadPoolExecutor:
        """Threads that decode images."""
        return ThreadPoolExecutor(_DECODERS, thread_name_prefix="dasklake-decode")

    @asynccontextmanager
    async def link(self, name: str | None, most: int) -> AsyncIterator[Host]:
        """Wait until a link may be read.

        Parameters
        ----------
        name : str or None
            The web host; None for a disk or an object storage, which only share the loop's limit.
        most : int
            Most concurrent reads from the host.
        """
        # First the host: links that wait for a slow one must not use up the limit of the loop.
        with self._hosts.use(name or "", most if name is not None else AT_ONCE) as host:
            async with host.links, self._links:
                yield host

    @asynccontextmanager
    async def whole(self, host: Host, *, web: bool) -> AsyncIterator[None]:
        """Wait until a target may be held completely."""
        if not web:
            async with self._whole:
                yield
            return
        async with host.whole, self._whole:
            yield


_by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopLimits] = (
    weakref.WeakKeyDictionary()
)


def loop_limits() -> LoopLimits:
    """Return the limits of the running event loop."""
    loop = asyncio.get_running_loop()
    limits = _by_loop.get(loop)
    if limits is None:
        limits = _by_loop[loop] = LoopLimits()
    return limits


async def in_reader_thread(action: Callable[[], _T]) -> _T:
    """Call a blocking function in a thread for reads."""
    return await asyncio.get_running_loop().run_in_executor(loop_limits().readers, action)


async def in_decoder_thread(action: Callable[[], _T]) -> _T:
    """Call a blocking function in a thread for decoding."""
    return await asyncio.get_running_loop().run_in_executor(loop_limits().decoders, action)
