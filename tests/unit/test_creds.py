"""Storage options: mappings, functions and credential keys, resolved in each process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import dask
import pytest

from dasklake.creds import ENTRY_POINTS, current, populate, replaced, resolve
from dasklake.exceptions import InvalidInputError, PermissionDeniedError


def from_entry_point() -> dict[str, str]:
    """Return what an installed package would know."""
    return {"key": "from an entry point"}


def test_nothing() -> None:
    """Without options there are none."""
    assert resolve(None) == {}


def test_mapping_is_copied() -> None:
    """A mapping is taken as it is, and stays the caller's."""
    options = {"key": "k", "client_kwargs": {"region_name": "r"}}
    found = resolve(options)
    assert found == options
    assert found is not options


def test_function() -> None:
    """A function is called anew each time."""
    calls: list[int] = []

    def options() -> dict[str, Any]:
        calls.append(1)
        return {"token": len(calls)}

    assert [resolve(options), resolve(options)] == [{"token": 1}, {"token": 2}]


def test_key_in_the_configuration() -> None:
    """A string is a key of the Dask configuration."""
    with dask.config.set({"dasklake.creds.training": {"anon": True}}):
        assert resolve("training") == {"anon": True}


def test_key_of_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A string that the configuration does not know is an entry point."""
    point = metadata.EntryPoint("vault", f"{__name__}:from_entry_point", ENTRY_POINTS)
    monkeypatch.setattr(
        metadata.EntryPoint, "load", lambda self: from_entry_point if self == point else None
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    assert resolve("vault") == {"key": "from an entry point"}


def test_unknown_key() -> None:
    """A key that nobody knows is a refusal that says where to put it."""
    with pytest.raises(PermissionDeniedError, match=r"dasklake\.creds\.nobody"):
        resolve("nobody")


def test_failing_function_keeps_its_secret() -> None:
    """An error inside the function is told by its type alone."""

    def options() -> dict[str, Any]:
        raise KeyError("hunter2")

    with pytest.raises(PermissionDeniedError, match="KeyError") as caught:
        resolve(options)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("options", [42, lambda: "text", ["key"]])
def test_no_mapping(options: Any) -> None:
    """Anything that is no mapping in the end is refused, without its content."""
    with pytest.raises(InvalidInputError, match="must be a mapping"):
        resolve(options)


def test_names_of_aws() -> None:
    """AWS's names become those of s3fs; all else stays."""
    options = {
        "aws_access_key_id": "id",
        "aws_secret_access_key": "word",
        "aws_session_token": "session",
        "aws_region": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:1",
        "client_kwargs": {"verify": False},
    }
    assert resolve(options) == {
        "key": "id",
        "secret": "word",
        "token": "session",
        "endpoint_url": "http://127.0.0.1:1",
        "client_kwargs": {"region_name": "eu-west-1", "verify": False},
    }
    assert resolve({"aws_profile": "research"}) == {"profile": "research"}
    with pytest.raises(InvalidInputError, match="two values for .key."):
        resolve({"aws_access_key_id": "a", "key": "b"})


def test_the_key_of_the_environment() -> None:
    """The key ENV means what the storage's own library finds, unless somebody says otherwise."""
    assert resolve("ENV") == {}
    with dask.config.set({"dasklake.creds.ENV": {"anon": True}}):
        assert resolve("ENV") == {"anon": True}


class Vault:
    """A provider whose credentials are others each time, and are good for so many seconds."""

    def __init__(self) -> None:
        self.asked = 0
        self.seconds = 3600.0

    def __call__(self) -> dict[str, Any]:
        """Give out credentials."""
        self.asked += 1
        return {"token": self.asked, "expiration": time.time() + self.seconds}


@pytest.fixture
def vault() -> Iterator[Vault]:
    """Let a vault be asked for the key "vault"."""
    found = Vault()
    with dask.config.set({"dasklake.creds.vault": found}):
        populate("vault", None)
        yield found
        populate("vault", None)


def test_lookups_are_kept_until_shortly_before_they_expire(vault: Vault) -> None:
    """Within their time the same credentials are used; then they are looked up again."""
    first = current("vault")
    assert first.until == pytest.approx(time.time() + 3540, abs=5)
    assert current("vault") is first
    vault.seconds = -1.0
    populate("vault", None)
    gone = current("vault")
    assert not gone.fresh
    assert current("vault").options != gone.options
    assert vault.asked == 3


def test_refused_credentials_are_looked_up_once_more(vault: Vault) -> None:
    """Others than those that were refused are returned where there are any, else None."""
    refused = current("vault")
    found = replaced("vault", refused)
    assert found is not None
    assert found.options != refused.options
    # Somebody else has renewed them by now: nobody is asked.
    assert replaced("vault", refused) is found
    assert vault.asked == 2
    with dask.config.set({"dasklake.creds.same": {"anon": True}}):
        assert replaced("same", current("same")) is None
    assert replaced({"anon": True}, current({"anon": True})) is None


@pytest.mark.parametrize(
    "end", ["2100-01-01T00:00:00Z", datetime(2100, 1, 1, tzinfo=UTC), 4102444800, "2100-01-01"]
)
def test_times_of_expiration(end: Any) -> None:
    """An expiration is text, a datetime or a number; it is no option of the storage."""
    found = current(lambda: {"anon": True, "expiration": end})
    assert found.options == {"anon": True}
    assert found.until == pytest.approx(4102444800 - 60)


@pytest.mark.parametrize("end", ["tomorrow", [1], True])
def test_no_times_of_expiration(end: Any) -> None:
    """What is no time is refused, without repeating it."""
    with pytest.raises(InvalidInputError, match="must have a valid expiration") as raised:
        resolve({"expiration": end})
    assert "tomorrow" not in str(raised.value)


def test_credentials_do_not_show_their_values() -> None:
    """The repr of what was looked up has names of options only."""
    assert "hunter2" not in repr(current({"secret": "hunter2"}))
