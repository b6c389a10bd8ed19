"""A slow web server for links, in its own process."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Web:
    """A running server; see :mod:`tests.support._web_server` for its pages.

    Attributes
    ----------
    url : str
        URL of the server.
    """

    url: str

    def requests(self) -> int:
        """Return the number of requests so far."""
        return self._number("requests")

    def most_at_once(self) -> int:
        """Return the most requests that waited at the same time."""
        return self._number("most")

    def _number(self, page: str) -> int:
        with urllib.request.urlopen(f"{self.url}/{page}", timeout=30) as answer:  # noqa: S310 # our own
            return int(answer.read())


@contextmanager
def web_server(delay: float) -> Iterator[Web]:
    """Run a server that delays every response by ``delay`` seconds."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support._web_server", str(delay)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Web(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.stdin.close()
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    """Run a server that responds at once."""
    with web_server(0) as server:
        yield server
