"""Measure the verification of links during writing, over a storage with 50 ms latency."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import dask.bag as db

import dasklake
from dasklake._links.limits import PER_HOST
from dasklake._media import image
from tests.benchmarks.common import scratch
from tests.support.web import Web, web_server

LINKS = 2_000
DELAY = 0.05
ROUNDS = 3

#: Share of each kind of link, in percent.
WRONG = ("dead", "text", "cut")
SHARE = 5

SCHEMA = {"image": dasklake.TensorSpec("link[image]", compression="jpeg")}


def kind_of(number: int) -> str:
    """Return the kind of a link's target."""
    kind = number % 100 // SHARE
    return WRONG[kind] if kind < len(WRONG) else "good"


def sample(number: int, url: str) -> dict[str, Any]:
    """Make the sample of a link."""
    return {"image": dasklake.link(f"{url}/{kind_of(number)}/{number}.jpg")}


async def bare(url: str, numbers: Sequence[int], at_once: int) -> None:
    """Make only the requests that the verification of links needs."""
    gate = asyncio.Semaphore(at_once)

    async def get(
        session: aiohttp.ClientSession, page: str, byte_range: str | None
    ) -> tuple[int, int]:
        headers = {} if byte_range is None else {"Range": f"bytes={byte_range}"}
        async with session.get(page, headers=headers) as answer:
            await answer.read()
            size = answer.headers.get("Content-Range", "/0").rpartition("/")[2]
            return answer.status, int(size)

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        kind = kind_of(number)
        page = f"{url}/{kind}/{number}.jpg"
        async with gate:
            status, size = await get(session, page, f"0-{image.HEAD - 1}")
            if status == 206 and kind != "text" and size > image.HEAD:
                await get(session, page, f"{max(size - image.TAIL, 0)}-{size - 1}")
            if kind == "cut":
                await get(session, page, None)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, number) for number in numbers))


def written(web: Web, lake: str) -> dasklake.WriteReport:
    """Write the links."""
    report: dasklake.WriteReport = dasklake.to_lake(
        db.from_sequence(range(LINKS), npartitions=4),
        lake,
        schema=SCHEMA,
        transform=sample,
        transform_kwargs={"url": web.url},
        on_error="skip",
        max_failures=None,
        options=dasklake.WriteOptions(scheduler="threads"),
        progress=False,
    )
    return report


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def main() -> None:
    """Print the speed of writing links, and the references."""
    with web_server(DELAY) as web, scratch() as folder:
        few = range(0, LINKS, 19)
        one_by_one = timed(lambda: asyncio.run(bare(web.url, few, 1))) * LINKS / len(few)
        print(
            f"one request after the other, {len(few)} links scaled to {LINKS}: {one_by_one:.1f} s"
        )
        for number in range(ROUNDS):
            lake = f"{folder}/{number}"
            before = web.requests()
            alone = timed(lambda: asyncio.run(bare(web.url, range(LINKS), PER_HOST)))
            between = web.requests()
            duration = timed(lambda lake=lake: written(web, lake))  # type: ignore[misc] # bound now
            after = web.requests()
            failures = dasklake.open(lake).failures()["message"]
            reasons = {
                reason: int(failures.str.contains(reason).sum())
                for reason in ("is dead", "is not an image", "is truncated")
            }
            print(
                f"{LINKS} links, {PER_HOST} at once: written in {duration:.2f} s "
                f"({after - between} requests), bare client {alone:.2f} s "
                f"({between - before} requests): {duration / alone:.2f} of it (goal 1.5), "
                f"{one_by_one / duration:.0f} times as fast as one by one (goal 20); {reasons}, "
                f"{len(dasklake.open(lake))} in the lake"
            )


if __name__ == "__main__":
    main()
