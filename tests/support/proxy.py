"""A proxy in front of an S3 server that simulates busy storages and bad networks.

Each connection carries one request, unless the proxy keeps connections. :attr:`Proxy.decide` chooses
the fate of a request; a test may replace it at any time. The choices are counted.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:  # a separate plugin, which pytest has to import first
    from tests.support.s3 import S3Server


#: Bytes that are sent at once.
_SLICE = 64 * 2**10


class Fate(Enum):
    """The fate of a request; only the first two reach the server."""

    ANSWERED = "answered"
    #: The request arrives, but the response is lost.
    DROPPED = "dropped"
    #: The connection is reset before the request arrives.
    RESET = "reset"
    SLOW_DOWN = (503, "SlowDown", "Please reduce your request rate.")
    DENIED = (403, "AccessDenied", "Access Denied")
    EXPIRED = (400, "ExpiredToken", "The provided token has expired.")


@dataclass(frozen=True)
class Request:
    """A request as seen by the proxy.

    Attributes
    ----------
    method : str
        The HTTP method, such as ``"PUT"``.
    path : str
        Bucket and key.
    headers : mapping of str to str
        Header names and values, in lower case.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def puts(self, part: str) -> bool:
        """Return whether the request writes an object whose key contains ``part``."""
        return self.method == "PUT" and part in self.path


Decide = Callable[[Request], Fate]


def fair(_: Request) -> Fate:
    """Answer every request."""
    return Fate.ANSWERED


class Weather:
    """Throttle, reset and drop given percentages of requests, in a seeded random order.

    Parameters
    ----------
    seed : int
        Seed of the order.
    slow_down, reset, dropped : int
        Percentage of requests.
    """

    def __init__(self, seed: int, *, slow_down: int, reset: int, dropped: int) -> None:
        bad = {Fate.SLOW_DOWN: slow_down, Fate.RESET: reset, Fate.DROPPED: dropped}
        self._hundred = [fate for fate, count in bad.items() for _ in range(count)]
        self._hundred += [Fate.ANSWERED] * (100 - len(self._hundred))
        self._random = random.Random(seed)  # noqa: S311 # no secret
        self._left: list[Fate] = []

    def __call__(self, _: Request) -> Fate:
        """Choose the fate of a request."""
        if not self._left:
            self._left = self._random.sample(self._hundred, 100)
        return self._left.pop()


class Proxy:
    """A proxy on loopback in its own thread.

    Parameters
    ----------
    server : S3Server
        The server behind the proxy.

    Attributes
    ----------
    decide : callable
        Chooses the fate of a request; called on the proxy's thread.
    latency : float
        Delay added to each request, in seconds.
    bandwidth : float
        Bytes per second of each connection.
    keeps_connections : bool
        Whether a connection carries many requests, as those of S3 do, but not those of moto.
    requests, sent : int
        Number of answered requests, and bytes of their answers.
    counts : Counter
        Number of requests by fate.
    """

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self.decide: Decide = fair
        self.latency = 0.0
        self.bandwidth = math.inf
        self.keeps_connections = False
        self.requests = self.sent = 0
        self.counts: Counter[Fate] = Counter()
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def options(self) -> dict[str, Any]:
        """Storage options with which s3fs reaches the server through the proxy."""
        return {**self._server.options, "endpoint_url": f"http://127.0.0.1:{self.port}"}

    def close(self) -> None:
        """Stop the proxy and close every connection."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when the proxy ends with this connection still open.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._request(reader, writer)
            while self.keeps_connections:
                await self._request(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        fate = self.decide(Request(method, unquote(target), headers))
        self.counts[fate] += 1
        await asyncio.sleep(self.latency)
        if fate is Fate.RESET:
            # Without lingering, the client sees "connection reset by peer".
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return
        if fate in (Fate.ANSWERED, Fate.DROPPED):
            plain = ("connection", "expect")
            forwarded = [line for line in lines if line and line.split(":")[0].lower() not in plain]
            sent = "\r\n".join([first, *forwarded, "Connection: close", "", ""]).encode("latin-1")
            answer = await self._ask(sent + body)
            if self.keeps_connections:
                answer = answer.replace(b"Connection: close\r\n", b"", 1)
        else:
            answer = _refusal(fate, with_body=method != "HEAD")
        if fate is Fate.DROPPED:
            await reader.read()  # until the client times out
            return
        self.requests += 1
        self.sent += len(answer)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for start in range(0, len(answer), _SLICE):
            writer.write(answer[start : start + _SLICE])
            await writer.drain()
            # Sleeps are too long, but do not add up.
            early = began + min(start + _SLICE, len(answer)) / self.bandwidth - loop.time()
            if early > 0:
                await asyncio.sleep(early)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


def _refusal(fate: Fate, *, with_body: bool) -> bytes:
    status, code, message = fate.value
    document = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode()
    head = (
        f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    """Put a proxy in front of the shared server."""
    proxy = Proxy(s3_server)
    yield proxy
    proxy.close()
