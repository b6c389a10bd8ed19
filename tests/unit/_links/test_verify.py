"""Looking at links: what is asked again, what is renewed, and what an error says."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import dask
import fsspec
import pytest
from PIL import Image

from dasklake import creds
from dasklake._links import verify
from dasklake._links.targets import Begin
from dasklake._links.verify import Findings, VerifyOptions, fetch, verify_link
from dasklake._storage.retry import RetryPolicy
from dasklake.exceptions import LinkError, PermissionDeniedError, StoreError


def png() -> bytes:
    """Make a small picture."""
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "png")
    return sink.getvalue()


class Wobbly:
    """A target that answers with one error after the other, then with a picture."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.options: list[dict[str, Any]] = []
        self.asked = 0

    def __call__(self, _: str, options: dict[str, Any], **_more: object) -> Wobbly:
        """Stand for the choice of a target."""
        self.options.append(options)
        return self

    async def first(self, count: int) -> Begin:
        """Answer."""
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return Begin(png()[:count], len(png()), "v1")

    async def last(self, count: int, _: int) -> bytes:
        """Answer."""
        return png()[-count:]

    async def whole(self) -> bytes:
        """Answer."""
        return png()


@pytest.fixture
def wobbly(monkeypatch: pytest.MonkeyPatch) -> Wobbly:
    """Put a wobbly target in place of all others; pauses take no time."""
    found = Wobbly()
    monkeypatch.setattr(verify, "target_of", found)
    monkeypatch.setattr(verify, "_RETRIES", RetryPolicy(0.3, first=0.01, longest=0.02))
    return found


@pytest.fixture
def memory() -> Iterator[Any]:
    """Give a folder in memory."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/links", recursive=True)


URL = "https://host/a.png?size=1"
FOUND = Findings(len(png()), "v1", "png", (2, 3, 3))


def test_a_storage_that_fails_is_asked_again(wobbly: Wobbly) -> None:
    """Lost connections, time-outs and a busy storage are tried again."""
    wobbly.errors = [ConnectionResetError(), TimeoutError(), OSError(16, "SlowDown")]
    assert verify_link(URL, None, VerifyOptions()).result() == FOUND
    assert wobbly.asked == 4


def test_a_storage_that_goes_on_failing_is_given_up(wobbly: Wobbly) -> None:
    """After some tries the error says that the storage is at fault, not the sample."""
    wobbly.errors = [ConnectionResetError("by peer") for _ in range(100)]
    with pytest.raises(StoreError, match=r"could not be read for 0 seconds.*by peer"):
        verify_link(URL, None, VerifyOptions()).result()
    assert wobbly.asked > 2


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no"), socket.gaierror(socket.EAI_NONAME, "no such host")],
    ids=["no such file", "no such host"],
)
def test_what_is_dead_is_not_asked_again(wobbly: Wobbly, error: Exception) -> None:
    """A target or a host that is not there is an error of the sample, at once."""
    wobbly.errors = [error]
    with pytest.raises(LinkError, match=r"https://host/a\.png is dead"):
        verify_link(URL, None, VerifyOptions()).result()
    assert wobbly.asked == 1


def test_refused_credentials_are_renewed_once(wobbly: Wobbly) -> None:
    """With other credentials the target is asked once more, whatever they are next time."""
    numbers = iter(range(100))
    with dask.config.set({"dasklake.creds.vault": lambda: {"token": f"hunter{next(numbers)}"}}):
        creds.populate("vault", None)
        wobbly.errors = [PermissionError("hunter0 expired")]
        assert verify_link(URL, "vault", VerifyOptions()).result() == FOUND
        assert [each["token"] for each in wobbly.options] == ["hunter0", "hunter1"]
        wobbly.errors = [PermissionError("hunter1 expired"), PermissionError("hunter2 as well")]
        with pytest.raises(PermissionDeniedError, match="under the key 'vault'") as raised:
            verify_link(URL, "vault", VerifyOptions()).result()
        creds.populate("vault", None)
    assert "hunter" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_refusal_without_a_key_asks_for_one(wobbly: Wobbly) -> None:
    """Where a link has no credentials of its own, the error says how to name some."""
    wobbly.errors = [PermissionError("no")]
    with pytest.raises(PermissionDeniedError, match="creds_key="):
        verify_link(URL, None, VerifyOptions()).result()


def test_unknown_keys_are_refused_before_anything_is_asked(wobbly: Wobbly) -> None:
    """A key without values is an error of the caller, at once."""
    with pytest.raises(PermissionDeniedError, match="nobody"):
        verify_link(URL, "nobody", VerifyOptions())
    assert wobbly.asked == 0


def test_file_systems_without_coroutines(memory: Any) -> None:
    """Targets in memory are read in threads: first and last bytes, or all."""
    memory.pipe("/links/a.png", png())
    memory.pipe("/links/empty.png", b"")
    found = verify_link("memory://links/a.png", None, VerifyOptions()).result()
    assert (found.size, found.format, found.shape) == (len(png()), "png", (2, 3, 3))
    assert verify_link("memory://links/a.png", None, VerifyOptions(decode=True)).result() == found
    assert (
        verify_link("memory://links/a.png", None, VerifyOptions(is_image=False)).result().shape
        is None
    )
    assert fetch("memory://links/a.png", None).result() == png()
    with pytest.raises(LinkError, match="is empty"):
        verify_link("memory://links/empty.png", None, VerifyOptions()).result()
    for url in ("memory://links", "memory://links/none.png"):
        with pytest.raises(LinkError, match="is dead"):
            verify_link(url, None, VerifyOptions()).result()
