"""Fixtures: a real S3 server, and a separate bucket for each test."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECRET = "not-so-secret-42"  # noqa: S105 # the server runs only during the tests


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes
    ----------
    port : int
        Port on loopback.
    """

    port: int

    @property
    def options(self) -> dict[str, Any]:
        """Storage options with which s3fs reaches the server."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"key": "testing", "secret": SECRET, "endpoint_url": endpoint}

    def bucket(self) -> S3Bucket:
        """Make an empty bucket."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.request("PUT", f"/{name}")
        return S3Bucket(f"s3://{name}", self.options, self)

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send a plain HTTP request, bypassing the tested code; return the response body.

        Raises
        ------
        FileNotFoundError
            The server responds with status 404.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            # moto accepts any signature, but needs one to recognize an S3 request.
            signature = "AWS4-HMAC-SHA256 Credential=testing/20200101/us-east-1/s3/aws4_request"
            connection.request(method, path, body, {"Authorization": signature})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            raise FileNotFoundError(path)
        assert answer.status < http.HTTPStatus.BAD_REQUEST, (method, path, answer.status, data)
        return data


@dataclass(frozen=True)
class S3Bucket:
    """An empty bucket.

    Attributes
    ----------
    url : str
        ``s3://<name>``.
    options : dict
        Storage options for the bucket.
    server : S3Server
        The server of the bucket.
    """

    url: str
    options: dict[str, Any] = field(repr=False)
    server: S3Server = field(repr=False)


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    """Run moto's server in its own process; conditional writes are atomic."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.support._s3_server"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield S3Server(int(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(timeout=30) == 0


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Run one server for all tests."""
    with serving() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> S3Bucket:
    """Make an empty bucket for one test."""
    return s3_server.bucket()
