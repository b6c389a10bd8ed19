"""Meaning of errors: whose fault they are, and whether another attempt may help."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from dasklake._links.faults import Fault, access_of, fault_of

WEB = "https://host/a.jpg"
DEAD, BROKEN = Fault("dead", 0), Fault("dead", 1)


class WebError(Exception):
    """An error with a status, as HTTP libraries raise."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class ResponseError(OSError):
    """An error of the library requests, which keeps the status in the response."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.response = WebError(status)


def s3_error(code: str, status: int) -> ClientError:
    """Make an error of S3."""
    response: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), DEAD),
        (ConnectionResetError(errno.ECONNRESET, "no"), BROKEN),
        (aiohttp.ServerDisconnectedError(), BROKEN),
        (aiohttp.ClientPayloadError("short"), BROKEN),
        (OSError(errno.EHOSTUNREACH, "no"), Fault("unavailable", 1)),
        (TimeoutError(), Fault("unavailable", timeout=True)),
        (OSError(errno.ETIMEDOUT, "no"), Fault("unavailable", timeout=True)),
        (socket.gaierror(socket.EAI_AGAIN, "no"), Fault("unavailable", 1, timeout=True)),
        (socket.gaierror(socket.EAI_NONAME, "no"), DEAD),
        (ssl.SSLCertVerificationError("self-signed"), DEAD),
        (UnicodeError("idna"), DEAD),
        (ValueError("Invalid IPv6 URL"), DEAD),
        (KeyError("no such member"), DEAD),
        (WebError(404), DEAD),
        (WebError(302), DEAD),
        (WebError(501), DEAD),
        (WebError(403), Fault("denied", 0)),
        (ResponseError(403), Fault("denied", 0)),
        (ResponseError(404), DEAD),
        (ResponseError(503), Fault("unavailable")),
        (WebError(429, {"Retry-After": "7"}), Fault("unavailable", pause=7.0)),
        (WebError(503, {"Retry-After": "soon"}), Fault("unavailable")),
        (WebError(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), Fault("unavailable")),
        (OSError(errno.EMFILE, "too many open files"), Fault("storage")),
    ],
    ids=str,
)
def test_errors_of_web_hosts(error: Exception, fault: Fault) -> None:
    """Every error of a web host concerns the link, except those of this machine."""
    assert fault_of(error, access_of(WEB, keyed=False), keyed=False) == fault


@pytest.mark.parametrize(
    ("url", "error", "kind"),
    [
        ("s3://b/a.jpg", s3_error("SlowDown", 503), "storage"),
        ("s3://b/a.jpg", s3_error("AccessDenied", 403), "denied"),
        ("s3://b/a.jpg", s3_error("NoSuchKey", 404), "dead"),
        ("s3://b/a.jpg", s3_error("KeyTooLongError", 400), "dead"),
        ("s3://b/a.jpg", s3_error("InvalidObjectState", 403), "dead"),
        ("s3://b/a.jpg", ConnectionRefusedError(errno.ECONNREFUSED, "no"), "storage"),
        ("s3://b/a.jpg", TimeoutError(), "storage"),
        ("s3://b/a.jpg", ValueError("Invalid endpoint"), "storage"),
        (WEB, ConnectionRefusedError(errno.ECONNREFUSED, "no"), "storage"),
        (WEB, WebError(503), "storage"),
        (WEB, WebError(403), "denied"),
        (WEB, ValueError("Invalid IPv6 URL"), "dead"),
        (WEB, UnicodeError("idna"), "dead"),
    ],
    ids=str,
)
def test_errors_of_storages_with_a_key(url: str, error: Exception, kind: str) -> None:
    """With a key, an error concerns all links, unless it says that this one is wrong."""
    assert fault_of(error, access_of(url, keyed=True), keyed=True).kind == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), "dead"),
        (IsADirectoryError(errno.EISDIR, "no"), "dead"),
        (OSError(errno.ENAMETOOLONG, "no"), "dead"),
        (OSError(errno.ELOOP, "no"), "dead"),
        (ValueError("embedded null byte"), "dead"),
        (PermissionError(errno.EACCES, "no"), "denied"),
        (OSError(errno.EIO, "no"), "storage"),
        (OSError(errno.ESTALE, "no"), "storage"),
        (OSError(errno.EMFILE, "no"), "storage"),
    ],
    ids=str,
)
def test_errors_of_local_files(error: Exception, kind: str) -> None:
    """A name or a kind of file concerns the link, a failing disk all links."""
    assert fault_of(error, access_of("/data/a.jpg", keyed=False), keyed=False).kind == kind


@pytest.mark.parametrize(
    ("url", "web", "host"),
    [
        ("https://Host:8/a", True, "https://host:8"),
        ("https://me@host/a", True, "https://host"),
        ("ftp://host/a", True, "ftp://host"),
        ("https://[::1/a", True, None),
        ("zip://a::https://host/b.zip", True, "https://host"),
        ("s3://bucket/a", False, None),
        ("s3://bucket/x::y", False, None),
        ("/data/a::b", False, None),
        ("file:///a", False, None),
    ],
)
def test_ways_to_targets(url: str, host: str | None, *, web: bool) -> None:
    """Web hosts are those that are neither storages nor local, without a key."""
    access = access_of(url, keyed=False)
    assert (access.web, access.host) == (web, host)
    assert not access_of(url, keyed=True).web
