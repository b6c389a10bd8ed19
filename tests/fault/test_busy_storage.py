"""A single busy response (HTTP 503) at each operation of a call in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, NamedTuple

import dask
import dask.bag as db
import pytest

import dasklake
from dasklake import TensorSpec, WriteOptions
from dasklake._api.lake import Lake
from dasklake._log.log import Log
from dasklake._storage.retry import STORE_RETRIES, RetryPolicy
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import TransformError
from dasklake.testing.faults import Fault, FaultStore
from tests.support.proxy import Fate, Proxy, Request
from tests.support.s3 import S3Bucket

SCHEMA = {"x": TensorSpec(dtype="int64", shape=())}

#: Makes botocore send each request once.
ONE_ATTEMPT = {"config_kwargs": {"retries": {"total_max_attempts": 1}}}

#: The default retry policy without pauses.
QUICK = RetryPolicy(
    STORE_RETRIES.seconds, wait=lambda _: None, transient_only=STORE_RETRIES.transient_only
)


def write(
    store: ObjectStore, *, broken: bool = False, mode: Literal["create", "resume"] = "resume"
) -> None:
    """Write six samples; a failing job fails in its last partition."""

    def sample(number: int) -> dict[str, int]:
        if broken and number == 5:
            raise ValueError(number)
        return {"x": number}

    numbers = db.from_sequence(range(6), npartitions=3)
    dasklake.to_lake(
        numbers,
        store,
        schema=SCHEMA,
        transform=sample,
        mode=mode,
        run="run",
        checkpoint_every=2,
        progress=False,
        options=WriteOptions(scheduler="sync"),
    )


def unfinished(store: ObjectStore) -> None:
    """Leave a failed run."""
    with suppress(TransformError):
        write(store, broken=True)


def lake(store: ObjectStore) -> Lake:
    """Open the lake."""
    log = Log(store)
    return Lake(store, log, log.require_head())


class Case(NamedTuple):
    """A call, and the state of the storage before it."""

    prepare: Callable[[ObjectStore], object]
    call: Callable[[ObjectStore], object]


CASES = {
    "begin": Case(lambda _: None, lambda store: write(store, mode="create")),
    "resume": Case(unfinished, write),
    "reset": Case(unfinished, lambda store: lake(store).reset()),
    "open": Case(write, lambda store: lake(store)[5]),
    "log": Case(write, lambda store: list(lake(store).log())),
}


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retry write tasks and commits without waiting."""
    monkeypatch.setattr("dasklake._write.retrying.RetryingStore._wait", lambda *_: False)
    with dask.config.set(scheduler="sync"):
        yield


def meets_fault(case: Case, number: int) -> bool:
    """Make a call with one busy operation; return whether the call reached the operation."""
    store = FaultStore(retries=QUICK)
    case.prepare(store)
    store.fail("any", Fault.BUSY, skip=number)
    case.call(store)
    met = store.pending == 0
    store.clear()
    return met


@pytest.mark.parametrize("name", CASES)
def test_one_busy_answer_ends_no_call(name: str) -> None:
    """A call succeeds if the storage is busy for any one operation."""
    count = next(number for number in itertools.count() if not meets_fault(CASES[name], number))
    assert count > 2


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", ["resume", "open", "log"])
def test_one_busy_answer_over_http(
    name: str, number: int, proxy: Proxy, s3_bucket: S3Bucket
) -> None:
    """A call succeeds if a server responds busy to one of its first requests."""
    url, case = f"{s3_bucket.url}/lake", CASES[name]
    case.prepare(ObjectStore(url, s3_bucket.options))
    requests = itertools.count()

    def decide(_: Request) -> Fate:
        return Fate.SLOW_DOWN if next(requests) == number else Fate.ANSWERED

    proxy.decide = decide
    case.call(ObjectStore(url, proxy.options | ONE_ATTEMPT))
    assert proxy.counts[Fate.SLOW_DOWN] == 1
