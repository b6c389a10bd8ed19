"""Storage options: mappings, functions and credentials keys."""

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
    """Return the credentials of an installed package."""
    return {"key": "from an entry point"}


def test_nothing() -> None:
    """None resolves to no options."""
    assert resolve(None) == {}


def test_mapping_is_copied() -> None:
    """A mapping is copied, not changed."""
    options = {"key": "k", "client_kwargs": {"region_name": "r"}}
    resolved = resolve(options)
    assert resolved == options
    assert resolved is not options


def test_function() -> None:
    """A function is called each time."""
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
    """A string that is not in the configuration is an entry point."""
    point = metadata.EntryPoint("vault", f"{__name__}:from_entry_point", ENTRY_POINTS)
    monkeypatch.setattr(
        metadata.EntryPoint, "load", lambda self: from_entry_point if self == point else None
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    assert resolve("vault") == {"key": "from an entry point"}


def test_unknown_key() -> None:
    """An unknown key is refused, and the error names the configuration to set."""
    with pytest.raises(PermissionDeniedError, match=r"dasklake\.creds\.unknown"):
        resolve("unknown")


def test_errors_of_functions_do_not_show_secrets() -> None:
    """The message has only the type of an error that the function raises."""

    def options() -> dict[str, Any]:
        raise KeyError("hunter2")

    with pytest.raises(PermissionDeniedError, match="KeyError") as caught:
        resolve(options)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("options", [42, lambda: "text", ["key"]])
def test_options_must_be_a_mapping(options: Any) -> None:
    """Options that do not resolve to a mapping are refused without showing them."""
    with pytest.raises(InvalidInputError, match="must be a mapping"):
        resolve(options)


def test_names_of_aws() -> None:
    """AWS names become those of s3fs; other names are unchanged."""
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
    with pytest.raises(InvalidInputError, match="two values for 'key'"):
        resolve({"aws_access_key_id": "a", "key": "b"})


def test_the_key_of_the_environment() -> None:
    """The key ENV stands for the environment, unless the configuration contains it."""
    assert resolve("ENV") == {}
    with dask.config.set({"dasklake.creds.ENV": {"anon": True}}):
        assert resolve("ENV") == {"anon": True}


class Vault:
    """A provider that returns new credentials each time, valid for some seconds."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 3600.0

    def __call__(self) -> dict[str, Any]:
        """Return new credentials."""
        self.calls += 1
        return {"token": self.calls, "expiration": time.time() + self.seconds}


@pytest.fixture
def vault() -> Iterator[Vault]:
    """Configure a vault under the key "vault"."""
    resolved = Vault()
    with dask.config.set({"dasklake.creds.vault": resolved}):
        populate("vault", None)
        yield resolved
        populate("vault", None)


def test_credentials_are_cached_until_shortly_before_they_expire(vault: Vault) -> None:
    """Valid credentials are used again; expired ones are looked up."""
    first = current("vault")
    assert first.until == pytest.approx(time.time() + 3540, abs=5)
    assert current("vault") is first
    vault.seconds = -1.0
    populate("vault", None)
    expired = current("vault")
    assert not expired.fresh
    assert current("vault").options != expired.options
    assert vault.calls == 3


def test_refused_credentials_are_looked_up_again(vault: Vault) -> None:
    """New credentials replace refused ones; None if they have not changed."""
    refused = current("vault")
    resolved = replaced("vault", refused)
    assert resolved is not None
    assert resolved.options != refused.options
    # They have been renewed since then: no lookup.
    assert replaced("vault", refused) is resolved
    assert vault.calls == 2
    with dask.config.set({"dasklake.creds.same": {"anon": True}}):
        assert replaced("same", current("same")) is None
    assert replaced({"anon": True}, current({"anon": True})) is None


@pytest.mark.parametrize(
    "end", ["2100-01-01T00:00:00Z", datetime(2100, 1, 1, tzinfo=UTC), 4102444800, "2100-01-01"]
)
def test_times_of_expiration(end: Any) -> None:
    """An expiration is text, a datetime or a number, and not an option of the storage."""
    resolved = current(lambda: {"anon": True, "expiration": end})
    assert resolved.options == {"anon": True}
    assert resolved.until == pytest.approx(4102444800 - 60)


@pytest.mark.parametrize("end", ["tomorrow", [1], True])
def test_invalid_times_of_expiration(end: Any) -> None:
    """An invalid expiration is refused without showing it."""
    with pytest.raises(InvalidInputError, match="must have a valid expiration") as raised:
        resolve({"expiration": end})
    assert "tomorrow" not in str(raised.value)


def test_credentials_do_not_show_their_values() -> None:
    """The repr of credentials has only the names of the options."""
    assert "hunter2" not in repr(current({"secret": "hunter2"}))
