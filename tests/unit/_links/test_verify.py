"""Verification of links: retries, renewed credentials and messages."""

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
from dasklake._links import link_target
from dasklake._links.targets import Begin
from dasklake._links.verify import Findings, VerifyOptions, fetch, verify_link
from dasklake._storage.retry import RetryPolicy
from dasklake.exceptions import LinkError, PermissionDeniedError, StoreError


def png() -> bytes:
    """Make a small image."""
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "png")
    return sink.getvalue()


class FlakyTarget:
    """A target that raises errors before it returns an image."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.options: list[dict[str, Any]] = []
        self.attempts = 0

    def __call__(self, _: str, options: dict[str, Any], **_more: object) -> FlakyTarget:
        """Replace target_of."""
        self.options.append(options)
        return self

    async def first(self, count: int) -> Begin:
        """Answer."""
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return Begin(png()[:count], len(png()), "v1")

    async def last(self, count: int, _: int) -> bytes:
        """Answer."""
        return png()[-count:]

    async def whole(self, limit: int, *, strict: bool) -> bytes:
        """Answer."""
        assert strict
        assert limit >= len(png())
        return png()


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> FlakyTarget:
    """Replace all targets by a flaky one, and shorten the pauses."""
    target = FlakyTarget()
    monkeypatch.setattr(link_target, "target_of", target)
    monkeypatch.setattr(link_target, "_RETRIES", RetryPolicy(0.3, first=0.01, longest=0.02))
    return target


@pytest.fixture
def memory() -> Iterator[Any]:
    """Return a file system in memory."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/links", recursive=True)


#: A storage: its failures are retried for longer than those of web hosts.
STORED = "s3://bucket/a.png"
URL = "https://host/a.png?size=1"
FINDINGS = Findings(len(png()), "v1", "png", (2, 3, 3))


def test_failures_of_the_storage_are_retried(flaky: FlakyTarget) -> None:
    """Lost connections, timeouts and a busy storage are retried."""
    flaky.errors = [ConnectionResetError(), TimeoutError(), OSError(16, "SlowDown")]
    assert verify_link(STORED, None, VerifyOptions()).result() == FINDINGS
    assert flaky.attempts == 4


def test_retries_are_limited(flaky: FlakyTarget) -> None:
    """After the last retry the error is a StoreError, not an error of the sample."""
    flaky.errors = [ConnectionResetError("by peer") for _ in range(100)]
    with pytest.raises(StoreError, match=r"could not be read for 0 seconds.*by peer"):
        verify_link(STORED, None, VerifyOptions()).result()
    assert flaky.attempts > 2


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("no"), socket.gaierror(socket.EAI_NONAME, "no such host")],
    ids=["no such file", "no such host"],
)
def test_dead_links_are_not_retried(flaky: FlakyTarget, error: Exception) -> None:
    """A missing target or host is an error of the sample, without retries."""
    flaky.errors = [error]
    with pytest.raises(LinkError, match=r"https://host/a\.png is dead"):
        verify_link(URL, None, VerifyOptions()).result()
    assert flaky.attempts == 1


def test_refused_credentials_are_renewed_once(flaky: FlakyTarget) -> None:
    """Credentials are renewed once, even if a second renewal would change them."""
    numbers = iter(range(100))
    with dask.config.set({"dasklake.creds.vault": lambda: {"token": f"hunter{next(numbers)}"}}):
        creds.populate("vault", None)
        flaky.errors = [PermissionError("hunter0 expired")]
        assert verify_link(URL, "vault", VerifyOptions()).result() == FINDINGS
        assert [options["token"] for options in flaky.options] == ["hunter0", "hunter1"]
        flaky.errors = [PermissionError("hunter1 expired"), PermissionError("hunter2 as well")]
        with pytest.raises(PermissionDeniedError, match="under the key 'vault'") as raised:
            verify_link(URL, "vault", VerifyOptions()).result()
        creds.populate("vault", None)
    assert "hunter" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_denied_access_without_a_key_suggests_one(flaky: FlakyTarget) -> None:
    """If a link has no credentials key, the error explains how to add one."""
    flaky.errors = [PermissionError("no")]
    with pytest.raises(PermissionDeniedError, match="creds_key="):
        verify_link(STORED, None, VerifyOptions()).result()
    flaky.errors = [PermissionError("no")]
    with pytest.raises(LinkError, match="creds_key=") as raised:
        verify_link(URL, None, VerifyOptions()).result()
    assert raised.value.reason == "denied"


def test_unknown_keys_are_refused_before_any_request(flaky: FlakyTarget) -> None:
    """An unknown credentials key is an error of the caller, without a request."""
    with pytest.raises(PermissionDeniedError, match="unknown"):
        verify_link(URL, "unknown", VerifyOptions())
    assert flaky.attempts == 0


def test_file_systems_without_coroutines(memory: Any) -> None:
    """Targets in memory are read in threads: first and last bytes, or all."""
    memory.pipe("/links/a.png", png())
    memory.pipe("/links/empty.png", b"")
    findings = verify_link("memory://links/a.png", None, VerifyOptions()).result()
    assert (findings.size, findings.format, findings.shape) == (len(png()), "png", (2, 3, 3))
    assert (
        verify_link("memory://links/a.png", None, VerifyOptions(decode=True)).result() == findings
    )
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
