"""The target of one link: reads with timeouts, retries and renewed credentials.

Reads from a web host without a credentials key follow the limits of ``LinkPolicy``, and their failures
concern one sample. Reads from a storage are retried for longer, because its failures end a run.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TypeVar

from dasklake import creds
from dasklake._links.faults import Access, Fault, access_of, fault_of
from dasklake._links.limits import AT_ONCE, Host, LinkLimits, in_reader_thread
from dasklake._links.targets import Begin, Target, TooManyBytesError, target_of
from dasklake._schema.printable import printable, safe_str
from dasklake._storage.hidden import safe_text, with_url_secrets
from dasklake._storage.retry import RetryPolicy
from dasklake._storage.urls import safe_url
from dasklake.exceptions import (
    LakeError,
    LinkError,
    PermissionDeniedError,
    StoreError,
    UnsupportedStoreError,
)

#: Retries of one read from a storage.
_RETRIES = RetryPolicy(seconds=35.0, first=0.2, longest=10.0)

#: Timeouts in seconds of a request for a part, and for all, of a target on a storage. The second one
#: also limits a complete read from a web host.
_PART_SECONDS, _WHOLE_SECONDS = 60.0, 600.0

#: Longest first pause before a retry from a web host, in seconds.
_FIRST_PAUSE = 0.5

#: File systems that open without a connection, on the event loop.
_QUICK = {"http", "https", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "azure", "memory"}

#: Most characters of the cause in a message.
_CAUSE = 300

_T = TypeVar("_T")


class LinkTarget:
    """The target of a link, with its current credentials.

    Parameters
    ----------
    url : str
        URL of the target.
    key : mapping, callable, str or None
        Source of the credentials, mostly a credentials key.
    credentials : Credentials
        Its current values.
    limits : LinkLimits
        Limits of time, retries and bytes.

    Attributes
    ----------
    access : Access
        Way to the target.
    host : Host
        The host that it is read from; it is set before the first read.
    """

    host: Host

    def __init__(
        self,
        url: str,
        key: creds.StorageOptions,
        credentials: creds.Credentials,
        limits: LinkLimits,
    ) -> None:
        self.url = url
        self.key = key
        self.limits = limits
        self.access: Access = access_of(url, keyed=key is not None)
        self._credentials = credentials
        self._target: Target | None = None
        self._deadline = math.inf

    @property
    def most_at_once(self) -> int:
        """Most concurrent reads from the host."""
        # Threads cannot share the connections of ftplib.
        return 1 if self.access.protocol == "ftp" else min(self.limits.per_host, AT_ONCE)

    async def prepare(self) -> None:
        """Open the file system before the time of a verification starts: it may import libraries."""
        if self.access.protocol in _QUICK:
            with suppress(Exception):  # raised again by the first read
                self._target = await self._open()

    def start(self, seconds: float | None = None) -> None:
        """Start the time of a verification, or of a read that takes at most some seconds."""
        if self.access.web:
            limit = self.host.seconds(self.limits.seconds)
            self._deadline = time.monotonic() + max(limit, seconds or 0.0)

    def extend(self, seconds: float) -> None:
        """Extend the time of a verification that had to wait."""
        self._deadline += seconds

    async def first(self, count: int) -> Begin:
        """Read at most ``count`` bytes from the beginning."""
        return await self._call(lambda target: target.first(count), _PART_SECONDS)

    async def last(self, count: int, size: int) -> bytes | None:
        """Read the last bytes, or return None if the server has no ranges."""
        return await self._call(lambda target: target.last(count, size), _PART_SECONDS)

    async def whole(self, *, strict: bool) -> bytes:
        """Read all bytes.

        Parameters
        ----------
        strict : bool
            Whether the limit of bytes also holds if the server announces the length.
        """
        most = self.limits.max_bytes
        if math.isinf(self._deadline):
            self.start(_WHOLE_SECONDS)
        return await self._call(lambda target: target.whole(most, strict=strict), _WHOLE_SECONDS)

    async def _call(self, read: Callable[[Target], Awaitable[_T]], seconds: float) -> _T:
        """Read from the target, with retries and renewed credentials."""
        pauses, attempts, renewable = self._pauses(), 0, True
        while True:
            await self._refresh()
            try:
                result = await asyncio.wait_for(self._read(read), self._seconds(seconds))
            except (LakeError, MemoryError):
                raise
            except TooManyBytesError:
                raise self.too_large() from None
            except Exception as error:  # noqa: BLE001 # every storage library has errors of its own
                fault = fault_of(error, self.access, keyed=self.key is not None)
                attempts += 1
                if fault.timeout:
                    self.host.timed_out()
                # Expired credentials are renewed each time, others once.
                pause = next(pauses, None)
                expired = pause is not None and not self._credentials.fresh
                if fault.kind == "denied" and (renewable or expired) and await self._renewed():
                    renewable = False
                    continue
                pause = self._pause(fault, pause, attempts)
                if pause is None:
                    raise self._translated(error, fault) from None  # the cause may hold secrets
            else:
                self.host.answered()
                return result
            await asyncio.sleep(pause)

    async def _read(self, read: Callable[[Target], Awaitable[_T]]) -> _T:
        if self._target is None:
            self._target = await self._open()
        return await read(self._target)

    async def _open(self) -> Target:
        options = self._credentials.options
        seconds = self.host.seconds(self.limits.seconds) if self.access.web else None
        open_ = partial(target_of, self.url, options, connections=AT_ONCE, seconds=seconds)
        quick = self.access.local or self.access.protocol in _QUICK
        try:
            return open_() if quick else await in_reader_thread(open_)
        except (ValueError, UnsupportedStoreError) as error:
            cause = printable(safe_text(str(error), options))[:_CAUSE]
            raise LinkError(f"the link {self._name} cannot be read: {cause}") from None

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

    def _seconds(self, seconds: float) -> float:
        """Return the timeout of one read."""
        return max(self._deadline - time.monotonic(), 0.0) if self.access.web else seconds

    def _pauses(self) -> Iterator[float]:
        if not self.access.web:
            return _RETRIES.pauses()
        first = min(_FIRST_PAUSE, self.limits.seconds / 20)
        return (
            first * 2**retry * (0.5 + random.random() / 2)  # noqa: S311 # jitter
            for retry in range(self.limits.retries)
        )

    def _pause(self, fault: Fault, pause: float | None, attempts: int) -> float | None:
        """Return the pause before the next attempt, or None after the last one."""
        if pause is None or (fault.retries is not None and attempts > fault.retries):
            return None
        if not self.access.web:
            # Credentials that are refused, but cannot be renewed, stay refused.
            return pause if fault.kind == "storage" else None
        pause = max(pause, fault.pause)
        return pause if time.monotonic() + pause < self._deadline else None

    @property
    def _name(self) -> str:
        return printable(safe_url(self.url))

    def invalid(self, problem: str) -> LinkError:
        """Return the error of a target that is not what it should be."""
        return LinkError(f"the link {self._name} {problem}. Fix the link, or remove it.")

    def too_large(self) -> LinkError:
        """Return the error of a target with too many bytes."""
        return LinkError(
            f"the link {self._name} has more than {self.limits.max_bytes:,} bytes, and all of them are "
            "needed. Raise the limit with links=dasklake.LinkPolicy(max_bytes=...), or remove the link.",
            reason="unavailable",
        )

    def _translated(self, error: Exception, fault: Fault) -> LakeError:
        cause = " ".join(f"{type(error).__name__}: {safe_str(error)}".split())
        secrets = with_url_secrets(self._credentials.options, self.url)
        text = safe_text(printable(cause), secrets)[:_CAUSE]
        link = f"the link {self._name}"
        if fault.kind == "dead":
            return self.invalid(f"is dead ({text})")
        if fault.kind == "unavailable":
            return LinkError(
                f"{link} could not be read in {self.limits.seconds:g} seconds and "
                f"{self.limits.retries} retries ({text}). Try it again later, or give more with "
                "links=dasklake.LinkPolicy(timeout=..., retries=...).",
                reason="unavailable",
            )
        if fault.kind == "denied":
            return self._denied(f"ccess to {link} was denied ({text})")
        return StoreError(
            f"T{link[1:]} could not be read for {_RETRIES.seconds:.0f} seconds ({text}). "
            "Resume when its storage is available again."
        )

    def _denied(self, problem: str) -> LakeError:
        if self.key is not None:
            named = isinstance(self.key, str)
            source = f"under the key {self.key!r}" if named else "in the storage options"
            remedy = f"Check the credentials {source}"
            return PermissionDeniedError(f"A{problem}. {remedy}.")
        remedy = "Name credentials with dasklake.link(url, creds_key=...)"
        if self.access.web or self.access.local:
            return LinkError(f"a{problem}. {remedy}, or remove the link.", reason="denied")
        return PermissionDeniedError(f"A{problem}. {remedy}.")
