"""Limits of concurrent reads, per host and per loop."""

from __future__ import annotations

import asyncio

import pytest

from dasklake._links import limits
from dasklake._links.limits import LinkLimits, LoopLimits, limits_in_use, use_limits


def test_a_host_has_its_own_limit() -> None:
    """Links that wait for one host do not use up the limit of the loop."""

    async def run() -> list[str]:
        loop = LoopLimits()
        order: list[str] = []
        release = asyncio.Event()

        async def read(name: str) -> None:
            async with loop.link(name, 2):
                order.append(name)
                if name == "slow":
                    await release.wait()

        slow = [asyncio.create_task(read("slow")) for _ in range(3 * limits.AT_ONCE)]
        await asyncio.sleep(0)
        await asyncio.gather(*(read("quick") for _ in range(5)))
        seen = list(order)
        release.set()
        await asyncio.gather(*slow)
        assert not loop._hosts.by_name  # hosts without users are forgotten
        return seen

    assert asyncio.run(run()) == ["slow"] * 2 + ["quick"] * 5


def test_storages_share_only_the_limit_of_the_loop() -> None:
    """Without a host there is no limit per host."""

    async def run() -> int:
        loop = LoopLimits()
        reading = 0
        release = asyncio.Event()

        async def read() -> None:
            nonlocal reading
            async with loop.link(None, 2):
                reading += 1
                await release.wait()

        tasks = [asyncio.create_task(read()) for _ in range(200)]
        await asyncio.sleep(0.05)
        most = reading
        release.set()
        await asyncio.gather(*tasks)
        return most

    assert asyncio.run(run()) == limits.AT_ONCE


def test_hosts_that_time_out_get_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """After several timeouts in a row a host gets less time, until it answers or time has passed."""

    async def run() -> list[float]:
        times = []
        async with LoopLimits().link("host", 2) as host:
            for _ in range(5):
                times.append(host.seconds(10.0))
                host.timed_out()
            host.answered()
            times.append(host.seconds(10.0))
            for _ in range(4):
                host.timed_out()
            monkeypatch.setattr(limits, "_SHORT_SECONDS", 0.0)
            times.append(host.seconds(10.0))
        return times

    assert asyncio.run(run()) == [10.0, 10.0, 10.0, 10.0, 1.0, 10.0, 10.0]


def test_hosts_with_timeouts_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with millions of hosts that are down does not fill the memory."""
    monkeypatch.setattr(limits, "_MAX_HOSTS", 3)

    async def run() -> int:
        loop = LoopLimits()
        for number in range(20):
            async with loop.link(f"host{number}", 2) as host:
                host.timed_out()
        return len(loop._hosts.by_name)

    assert asyncio.run(run()) == 3


def test_limits_in_use() -> None:
    """The limits of the innermost block are in use, and the defaults outside."""
    with use_limits(LinkLimits(retries=7)):
        assert limits_in_use().retries == 7
        with use_limits(LinkLimits(retries=8)):
            assert limits_in_use().retries == 8
        assert limits_in_use().retries == 7
    assert limits_in_use() == LinkLimits()
