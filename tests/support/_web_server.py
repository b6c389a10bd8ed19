"""A slow web server on loopback: ``python -m tests.support._web_server <seconds>``.

Prints its port and serves until its standard input is closed. Every response takes the given number
of seconds. The prefix of a path selects the response: ``good``, ``small``, ``cut`` (a truncated JPEG), ``text``, ``empty``, ``dead`` (404), ``gone`` (410), ``denied`` (403), ``busy`` (503 twice,
then as good), ``down`` (503 always), ``plain`` (good, from a server that does not know ranges).
``/requests`` returns the number of requests so far, ``/most`` the most that waited at the same time.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections import Counter

import numpy as np
from aiohttp import web
from PIL import Image

_STATUS = {"dead": 404, "gone": 410, "denied": 403, "down": 503}


def jpeg(height: int, width: int) -> bytes:
    """Make a JPEG of random noise."""
    sink = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(sink, "jpeg", quality=90)
    return sink.getvalue()


class Pages:
    """The pages of the server.

    Parameters
    ----------
    delay : float
        Seconds that each response takes.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.seen: Counter[str] = Counter()
        self.waiting = self.most = 0
        good = jpeg(240, 320)
        self.bodies = {
            **dict.fromkeys(("good", "busy", "plain"), good),
            "small": jpeg(20, 30),
            "cut": good[: len(good) // 2],
            "text": b"<html>sorry</html>" * 100,
            "empty": b"",
        }

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        if request.path == "/requests":
            return web.Response(text=str(self.seen.total()))
        if request.path == "/most":
            return web.Response(text=str(self.most))
        self.seen[request.path] += 1
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(self.delay)
        self.waiting -= 1
        kind = request.path.split("/")[1]
        status = _STATUS.get(kind, 503 if kind == "busy" and self.seen[request.path] <= 2 else 200)
        if status != 200:
            return web.Response(status=status, text="sorry")
        body, headers = self.bodies[kind], {"ETag": f'"{kind}"'}
        if "Range" not in request.headers or kind == "plain":
            return web.Response(body=body, headers=headers)
        start, _, stop = request.headers["Range"].removeprefix("bytes=").partition("-")
        if int(start) >= len(body):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
        part = body[int(start) : int(stop) + 1]
        headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(body)}"
        return web.Response(status=206, body=part, headers=headers)


async def main(delay: float) -> None:
    """Serve until standard input ends."""
    server = web.Server(Pages(delay).answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)  # noqa: T201 # the caller waits for it
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
