"""A FaultStore raises the scheduled faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dasklake._storage.local_backend import temporary_target
from dasklake.exceptions import CorruptionError, ObjectExistsError, StoreError
from dasklake.testing.faults import CRASHES, LOSSES, Crash, Fault, FaultStore


@pytest.fixture
def store() -> Iterator[FaultStore]:
    """Make an empty storage."""
    store = FaultStore()
    yield store
    store.clear()


@pytest.mark.parametrize("fault", LOSSES)
@pytest.mark.parametrize("operation", ["put", "create", "delete"])
def test_losses(store: FaultStore, operation: str, fault: Fault) -> None:
    """A fault raises one StoreError; only its kind decides whether the request takes effect."""
    happened = fault in (Fault.AFTER, Fault.TIMEOUT)
    if operation == "delete":
        store.put("a", b"old")
    store.fail(operation, fault, "a")
    with pytest.raises(StoreError) as caught:
        store.delete(["a"]) if operation == "delete" else getattr(store, operation)("a", b"new")
    assert isinstance(caught.value, ObjectExistsError) == (fault is Fault.REFUSED)
    assert store.exists("a") == (happened != (operation == "delete"))
    store.put("a", b"after")


@pytest.mark.parametrize("fault", CRASHES)
def test_crashes(store: FaultStore, fault: Fault) -> None:
    """Operations of a killed process have no effect; another process sees what it wrote."""
    store.fail("any", fault)
    for key in ("a", "b"):
        with pytest.raises(Crash):
            store.put(key, b"1234")
    other = store.another()
    assert other.exists("a") == (fault is Fault.CRASH_AFTER)
    assert not other.exists("b")
    half = [(temporary_target(key), size) for key, size in other.walk("", temporary=True)]
    assert half.count(("a", 2)) == (fault is Fault.CRASH_MIDDLE)
    assert other.names("") == (["a"] if fault is Fault.CRASH_AFTER else [])


def test_short_reads(store: FaultStore) -> None:
    """A short read raises no StoreError; only a short range is detected."""
    store.put("a", b"1234")
    store.fail("get", Fault.SHORT)
    assert store.get("a") == b"12"
    store.fail("get", Fault.SHORT)
    with pytest.raises(CorruptionError):
        store.get_range("a", 0, 4)
    store.fail("names", Fault.SHORT)
    with pytest.raises(StoreError):
        store.names("")


def test_late_requests(store: FaultStore) -> None:
    """A request that was held up arrives when it is let through."""
    store.fail("put", Fault.LATE)
    with pytest.raises(StoreError):
        store.put("a", b"1")
    assert not store.exists("a")
    store.another().arrive_all()
    assert store.get("a") == b"1"


def test_orders(store: FaultStore) -> None:
    """Orders are for the operation, the key and the turn they name, and for one process."""
    seen: list[bool] = []
    store.at("put", lambda: seen.append(store.exists("b1")), "b", skip=1)
    for key in ("a", "b0", "b1"):
        store.another().put(f"other/{key}", b"")
        store.put(key, b"")
    assert seen == [False]
    assert store.exists("b1")
