"""Retries of storage operations: which errors, for how long, and how they are reported."""

from __future__ import annotations

import logging
import random
from dataclasses import replace

import pytest

from dasklake._storage.retry import NO_RETRIES, STORE_RETRIES, RetryPolicy
from dasklake.exceptions import (
    CorruptionError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
)
from dasklake.testing.faults import Fault, FaultStore


class Action:
    """Fails with some errors, one after the other, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.waits: list[float] = []
        self.reasons: list[str | None] = []

    def __call__(self) -> str:
        """Raise the next error, if any."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def wait(self, seconds: float) -> bool:
        """Note the pause, without waiting."""
        self.waits.append(seconds)
        return False

    def policy(self, seconds: float = 1e9, *, transient_only: bool = False) -> RetryPolicy:
        """Return a policy that reports to this action."""
        return RetryPolicy(
            seconds,
            wait=self.wait,
            permanent=(PermissionDeniedError,),
            on_retry=self.reasons.append,
            transient_only=transient_only,
        )


def transient(text: str) -> StoreError:
    """Return the error of a busy storage."""
    error = StoreError(text)
    error.transient = True
    return error


def test_operations_in_threads_leave_retries_to_the_enclosing_call() -> None:
    """Reads in a pool of threads are not retried below a call that retries all of them."""
    store = FaultStore(retries=replace(STORE_RETRIES, wait=lambda _: pytest.fail("nested retry")))
    store.put("a", b"1")
    store.put("b", b"2")
    store.fail("get", Fault.BUSY, "b")
    outer = RetryPolicy(10.0, wait=lambda _: False)
    assert outer.call(lambda: store.get_many(["a", "b"])) == [b"1", b"2"]
    store.clear()


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing operation is repeated after growing pauses."""
    monkeypatch.setattr(random, "random", lambda: 1.0)
    action = Action(*(StoreError(f"no {n}") for n in range(12)))
    assert action.policy().call(action) == "done"
    assert action.calls == 13
    assert action.waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert action.waits[-1] == 15.0
    assert action.reasons == [*(f"no {n}" for n in range(12)), None]


@pytest.mark.parametrize("error", [PermissionDeniedError("no"), CorruptionError("no")])
def test_permanent_and_foreign_errors_are_raised_at_once(error: Exception) -> None:
    """Neither a refusal nor an error that is not the storage's is retried."""
    action = Action(error)
    with pytest.raises(type(error)) as caught:
        action.policy().call(action)
    assert caught.value is error
    assert (action.calls, action.waits) == (1, [])


def test_only_transient_errors_are_retried_on_request() -> None:
    """With ``transient_only`` an error of another kind is raised at once."""
    action = Action(transient("busy"), StoreError("bad request"))
    with pytest.raises(StoreError, match="bad request"):
        action.policy(transient_only=True).call(action)
    assert action.calls == 2


def test_time_is_bounded() -> None:
    """When the time is over the last error is raised, and the reason stays reported."""
    action = Action(StoreError("first"), ObjectNotFoundError("second"))
    with pytest.raises(StoreError, match="first"):
        action.policy(seconds=0.0).call(action)
    assert (action.calls, action.reasons) == (1, ["first"])


def test_wait_cancels() -> None:
    """A true result of ``wait`` ends the retries with the last error."""
    action = Action(StoreError("first"), StoreError("second"))
    answers = iter([False, True])
    with pytest.raises(StoreError, match="second"):
        RetryPolicy(1e9, wait=lambda _: next(answers), permanent=()).call(action)
    assert action.calls == 2


def test_an_enclosing_call_retries_for_those_inside() -> None:
    """Inside another call an operation is tried once, so that attempts do not multiply."""
    inner, outer = Action(StoreError("inner"), StoreError("inner")), Action()
    assert outer.policy().call(lambda: inner.policy().call(inner)) == "done"
    assert (inner.calls, inner.waits, len(outer.waits)) == (3, [], 2)
    assert NO_RETRIES.call(outer) == "done"


def test_retries_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each retry is a warning with its number and reason."""
    action = Action(StoreError("busy"))
    with caplog.at_level(logging.WARNING, "dasklake"):
        action.policy().call(action)
    assert [record.name for record in caplog.records] == ["dasklake._storage.retry"]
    assert "Attempt 2" in caplog.text
    assert "busy" in caplog.text
