"""Decide what an error of a storage library says about a link.

An error of a web host that has no credentials key concerns the sample: the list of links is wrong, or
the host is. An error of a storage concerns all samples, unless it says that this target is missing.
"""

from __future__ import annotations

import email.utils
import errno
import socket
import ssl
import time
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from dasklake._storage.errors import causes_of, is_dead, kind_of, status_of
from dasklake._storage.urls import LOCAL, is_chained
from dasklake.exceptions import ObjectNotFoundError, PermissionDeniedError

Kind = Literal["dead", "denied", "unavailable", "storage"]

#: Protocols of storages. Their failures, other than missing objects, concern all samples.
_STORAGES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "azure", "adl", "oci", "oss", "tos"}
_STORAGES |= {
    "hdfs",
    "webhdfs",
    "memory",
    "smb",
    "sftp",
    "ssh",
    "dbfs",
    "lakefs",
    "r2",
    "b2",
    "obs",
}

#: Statuses after which the same request may succeed; all of 500 and above except these.
_BUSY = {408, 409, 423, 425, 429}
_FINAL = {501, 505, 506, 508, 510, 511}

#: Errors of this machine: they concern all samples.
_OF_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}

#: Errors about the name or kind of a local file.
_OF_NAME = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV}
_OF_NAME |= {errno.EILSEQ, errno.EOVERFLOW, errno.EOPNOTSUPP}

#: Connections that ended early; such an error is retried once.
_BROKEN = {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ENOTCONN, errno.ESHUTDOWN}
_BROKEN_TYPES = {"ServerDisconnectedError", "ClientPayloadError", "IncompleteRead"}
_BROKEN_TYPES |= {"RemoteDisconnected", "ProtocolError", "ChunkedEncodingError"}

#: Error codes of S3 that concern one object.
_OF_OBJECT = {"KeyTooLongError", "KeyTooLong", "InvalidObjectState", "InvalidBucketName"}
_OF_OBJECT |= {"InvalidURI", "XMinioInvalidObjectName", "MethodNotAllowed", "NoSuchVersion"}


class Access(NamedTuple):
    """Way to a target.

    Attributes
    ----------
    web : bool
        Whether it is on a public web host: neither on a storage, nor read with a credentials key.
    local : bool
        Whether it is a local file.
    host : str or None
        Name and port of the web host.
    protocol : str
        Protocol of the storage or host.
    """

    web: bool
    local: bool
    host: str | None
    protocol: str


class Fault(NamedTuple):
    """Meaning of an error.

    Attributes
    ----------
    kind : str
        ``"dead"``: the link is wrong; ``"denied"``: access is denied; ``"unavailable"``: a web
        host is busy or does not answer; ``"storage"``: a storage failed, which concerns all samples.
    retries : int or None
        Most retries; None for the default.
    pause : float
        Seconds that the host asks to wait.
    timeout : bool
        Whether the host did not answer in time.
    """

    kind: Kind
    retries: int | None = None
    pause: float = 0.0
    timeout: bool = False


def access_of(url: str, *, keyed: bool) -> Access:
    """Return the way to the target of a link."""
    last = url.rpartition("::")[2] if is_chained(url) else url
    protocol, separator, _ = last.partition("://")
    protocol = protocol.lower()
    local = not separator or protocol in LOCAL
    web = not keyed and not local and protocol not in _STORAGES
    host = None
    if web:
        with suppress(ValueError):
            host = f"{protocol}://{urlsplit(last).netloc.rpartition('@')[2].lower()}"
    return Access(web, local, host, protocol)


def fault_of(error: Exception, access: Access, *, keyed: bool) -> Fault:
    """Return the meaning of an error."""
    causes = list(causes_of(error))
    numbers = {getattr(cause, "errno", None) for cause in causes}
    if not _OF_MACHINE.isdisjoint(numbers):
        return Fault("storage")
    if access.web:
        return _fault_of_web(error, causes)
    if is_dead(error) or any(_code(cause) in _OF_OBJECT for cause in causes):
        return Fault("dead", 0)
    # An invalid host or port, and redirects that do not end, concern one link with any key.
    url_fails = isinstance(error, ValueError) or type(error).__name__ == "TooManyRedirects"
    if access.protocol in ("http", "https") and url_fails and not isinstance(error, OSError):
        return Fault("dead", 0)
    denied = kind_of(error) is PermissionDeniedError
    if access.local:
        if denied:
            return Fault("denied", 0)
        if not _OF_NAME.isdisjoint(numbers):
            return Fault("dead", 0)
    if denied:
        return Fault("denied")
    # Values in the URL, not an exchange with the storage: an invalid name, a bad host.
    wrong = isinstance(
        error, ValueError | TypeError | LookupError | AttributeError | AssertionError
    )
    named = isinstance(error, UnicodeError) or (wrong and not keyed)
    return Fault("dead", 0) if named and not isinstance(error, OSError) else Fault("storage")


def _fault_of_web(error: Exception, causes: list[BaseException]) -> Fault:
    statuses = [status for status in map(status_of, causes) if status is not None]
    if any(status in _BUSY or (status >= 500 and status not in _FINAL) for status in statuses):
        return Fault("unavailable", pause=max(map(_retry_after, causes)))
    kind = kind_of(error)
    if kind is PermissionDeniedError:
        return Fault("denied", 0)
    if statuses or kind is ObjectNotFoundError:
        return Fault("dead", 0)
    for cause in causes:
        inner = getattr(cause, "os_error", None) or cause  # aiohttp keeps the error here
        if isinstance(inner, TimeoutError):
            return Fault("unavailable", timeout=True)
        if isinstance(inner, ssl.SSLError | ssl.CertificateError):
            return Fault("dead", 0)
        if isinstance(inner, socket.gaierror):
            again = inner.errno == socket.EAI_AGAIN
            return Fault("unavailable", 1, timeout=True) if again else Fault("dead", 0)
    return _fault_of_connection(causes)


def _fault_of_connection(causes: list[BaseException]) -> Fault:
    numbers = {getattr(cause, "errno", None) for cause in causes}
    if {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EAGAIN} & numbers:
        return Fault("unavailable", 1)
    types = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
    if _BROKEN & numbers or _BROKEN_TYPES & types:
        return Fault("dead", 1)
    return Fault("dead", 0)


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _retry_after(error: BaseException) -> float:
    """Return the seconds of a ``Retry-After`` header, or 0."""
    headers: Any = getattr(error, "headers", None)
    text = headers.get("Retry-After") if hasattr(headers, "get") else None
    if not isinstance(text, str):
        return 0.0
    with suppress(ValueError, OverflowError):
        return max(float(text), 0.0) if text.strip().isdecimal() else _until(text)
    return 0.0


def _until(text: str) -> float:
    date = email.utils.parsedate_to_datetime(text)
    return max(date.timestamp() - time.time(), 0.0)
