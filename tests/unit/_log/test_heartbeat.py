"""Tests of heartbeats: two reads of a counter, and no clock but the observer's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from dasklake._format import object_keys
from dasklake._format.heartbeat import Heartbeat, heartbeat_bytes
from dasklake._log import heartbeat
from dasklake._log.heartbeat import is_alive, newest_heartbeat
from dasklake.exceptions import StoreError
from tests.support.flaky import Fault, FlakyStore

KEY = object_keys.heartbeat_key("main", "run")
BEAT = Heartbeat(2, "one", 7)


class Clock:
    """An observer's clock, whose sleeps can run actions."""

    def __init__(self) -> None:
        self.now = 100.0
        self.meanwhile: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the machine's clock."""
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    return clock


@pytest.fixture
def store() -> Iterator[FlakyStore]:
    """Make an empty storage."""
    store = FlakyStore()
    yield store
    store.clear()


def beat(store: FlakyStore, beat: Heartbeat) -> None:
    """Write a heartbeat."""
    store.put(KEY, heartbeat_bytes(beat))


def alive(store: FlakyStore, epoch: int = 2) -> bool:
    """Return whether the run is active."""
    return is_alive(store, "main", "run", epoch)


def test_no_heartbeat(store: FlakyStore, clock: Clock) -> None:
    """A run without a heartbeat is inactive, at once."""
    assert newest_heartbeat(store, "main", "run") is None
    assert not alive(store)
    assert clock.now == 100.0


def test_stopped(store: FlakyStore, clock: Clock) -> None:
    """A coordinator that reported its stop is inactive, at once."""
    beat(store, replace(BEAT, state="stopped"))
    assert not alive(store)
    assert clock.now == 100.0


def test_moving(store: FlakyStore, clock: Clock) -> None:
    """A counter that changes means an active run, reported at once."""
    beat(store, BEAT)
    clock.meanwhile = [lambda: None, lambda: beat(store, replace(BEAT, counter=8))]
    assert alive(store)
    assert clock.now < 101.0


def test_another_coordinator(store: FlakyStore, clock: Clock) -> None:
    """A newer coordinator's heartbeat counts too, even with a lower counter."""
    beat(store, BEAT)
    clock.meanwhile = [lambda: beat(store, Heartbeat(3, "two", 1))]
    assert alive(store)


def test_standing_still(store: FlakyStore, clock: Clock) -> None:
    """A heartbeat that does not change for the interval means an inactive run."""
    beat(store, replace(BEAT, counter=10**18))
    assert not alive(store)
    assert heartbeat.OBSERVE_SECONDS <= clock.now - 100.0 < heartbeat.OBSERVE_SECONDS + 1.0


def test_stops_meanwhile(store: FlakyStore, clock: Clock) -> None:
    """A coordinator that stops during the check is inactive at once."""
    for last in (
        lambda: beat(store, replace(BEAT, counter=8, state="stopped")),
        lambda: store.delete([KEY]),
    ):
        beat(store, BEAT)
        clock.meanwhile = [last]
        before = clock.now
        assert not alive(store)
        assert clock.now - before < 1.0


def test_closed_epoch(store: FlakyStore, clock: Clock) -> None:
    """A coordinator of an older epoch never counts."""
    beat(store, BEAT)
    clock.meanwhile = [
        lambda number=number: beat(store, replace(BEAT, counter=number))  # type: ignore[misc] # bound early
        for number in range(8, 100)
    ]
    assert not alive(store, epoch=3)


def test_covered_by_a_zombie(store: FlakyStore, clock: Clock) -> None:
    """Heartbeats of an older epoch do not hide those of the active one."""
    zombie, living = replace(BEAT, epoch=1, coordinator="zombie"), BEAT
    beat(store, replace(zombie, state="stopped"))
    clock.meanwhile = [
        lambda: beat(store, living),
        lambda: beat(store, replace(zombie, counter=8)),
        lambda: beat(store, replace(living, counter=8)),
    ]
    assert alive(store)


@pytest.mark.parametrize("data", [b"", b"{", b'{"epoch":"x"}'])
def test_torn(store: FlakyStore, clock: Clock, data: bytes) -> None:
    """An unreadable heartbeat counts as none."""
    store.put(KEY, data)
    assert newest_heartbeat(store, "main", "run") is None
    assert not alive(store)


def test_heartbeats_are_logged(store: FlakyStore, caplog: pytest.LogCaptureFixture) -> None:
    """Each heartbeat that is sent is a debug record."""
    caplog.set_level("DEBUG", "dasklake._log.heartbeat")
    with heartbeat.send_heartbeats(store, "main", "run"):
        deadline = time.monotonic() + 5.0
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    assert caplog.messages[0] == "Heartbeat 1 of run 'run'"


def test_storage_fails(store: FlakyStore) -> None:
    """A storage error is not reported as an inactive run."""
    beat(store, BEAT)
    store.fail("get", Fault.BEFORE, KEY)
    with pytest.raises(StoreError):
        alive(store)


def test_beats_are_more_frequent_than_looks() -> None:
    """An observer checks for longer than two heartbeat intervals."""
    assert 2 * heartbeat.BEAT_SECONDS < heartbeat.OBSERVE_SECONDS
