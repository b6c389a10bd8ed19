"""Asking again: what is asked again, for how long, and who is told."""

from __future__ import annotations

import random

import pytest

from dasklake._storage.retry import call_with_retries
from dasklake.exceptions import (
    CorruptionError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
)


class Action:
    """Fails with some errors, one after the other, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.waits: list[float] = []
        self.told: list[str | None] = []

    def __call__(self) -> str:
        """Do it."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def wait(self, seconds: float) -> bool:
        """Note how long, without waiting."""
        self.waits.append(seconds)
        return False

    def retried(self, seconds: float = 1e9) -> str:
        """Run it."""
        return call_with_retries(
            self,
            retry_seconds=seconds,
            wait=self.wait,
            final=(PermissionDeniedError,),
            on_retry=self.tell,
        )

    def tell(self, trouble: str | None) -> None:
        """Note what is told."""
        self.told.append(trouble)


def test_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing storage is asked again after longer and longer pauses, up to a longest one."""
    monkeypatch.setattr(random, "random", lambda: 1.0)
    action = Action(*(StoreError(f"no {n}") for n in range(12)))
    assert action.retried() == "done"
    assert action.calls == 13
    assert action.waits[:4] == [0.05, 0.1, 0.2, 0.4]
    assert action.waits[-1] == 15.0
    assert action.told == [*(f"no {n}" for n in range(12)), None]


@pytest.mark.parametrize("error", [PermissionDeniedError("no"), CorruptionError("no")])
def test_not_asked_again(error: Exception) -> None:
    """What asking again cannot mend, and what is none of the storage's, is raised at once."""
    action = Action(error)
    with pytest.raises(type(error)) as caught:
        action.retried()
    assert caught.value is error
    assert (action.calls, action.waits) == (1, [])


def test_time_is_bounded() -> None:
    """When the time is over the last error is raised, and the trouble stays told."""
    action = Action(StoreError("first"), ObjectNotFoundError("second"))
    with pytest.raises(StoreError, match="first"):
        action.retried(seconds=0.0)
    assert (action.calls, action.told) == (1, ["first"])


def test_given_up() -> None:
    """Who waits can give up."""
    action = Action(StoreError("first"), StoreError("second"))
    answers = iter([False, True])
    with pytest.raises(StoreError, match="second"):
        call_with_retries(action, retry_seconds=1e9, wait=lambda _: next(answers), final=())
    assert action.calls == 2
