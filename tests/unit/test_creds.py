"""Storage options: mappings, functions and credential keys, resolved in each process."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import dask
import pytest

from dasklake.creds import ENTRY_POINTS, resolve
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
