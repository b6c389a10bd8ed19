"""Foreign errors of storages, mapped to this library's own, without secrets in their texts."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dasklake._storage.urls import safe_url
from dasklake.exceptions import (
    LakeError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StorageFullError,
    StoreError,
    UnsupportedStoreError,
)

__all__ = [
    "MAPPED_TYPES",
    "is_beyond",
    "is_conflict",
    "is_dead",
    "is_precondition",
    "is_transient",
    "kind_of",
    "safe_text",
    "translate_errors",
]

_SECRET = re.compile(
    r"key|secret|token|pass|pw|sas|cred|connection|sign|auth|cookie", re.IGNORECASE
)

#: Errors that are known by the name of their type alone: their libraries are optional.
MAPPED_TYPES: Mapping[str, type[StoreError]] = {
    "NoCredentialsError": PermissionDeniedError,
    "PartialCredentialsError": PermissionDeniedError,
    "CredentialRetrievalError": PermissionDeniedError,
    "TokenRetrievalError": PermissionDeniedError,
    "UnauthorizedSSOTokenError": PermissionDeniedError,
    "SSOTokenLoadError": PermissionDeniedError,
    "ProfileNotFound": PermissionDeniedError,
    "LoginTokenLoadError": PermissionDeniedError,
    "NoAuthTokenError": PermissionDeniedError,
    "DefaultCredentialsError": PermissionDeniedError,
    "RefreshError": PermissionDeniedError,
    "ClientAuthenticationError": PermissionDeniedError,
    "ResourceExistsError": ObjectExistsError,
    "ResourceNotFoundError": ObjectNotFoundError,
}

_STATUS: Mapping[int, type[StoreError]] = {
    401: PermissionDeniedError,
    403: PermissionDeniedError,
    404: ObjectNotFoundError,
    412: ObjectExistsError,
}

#: Errors of libraries that cannot make anything of an address.
_NO_ADDRESS = {"InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError"}
_NO_ADDRESS |= {"NonHttpUrlRedirectClientError", "ParamValidationError"}

#: Of the statuses that blame the client, those that say nothing of the object.
_ASK_AGAIN = {401, 403, 407, 408, 409, 423, 425, 429}

#: Statuses below 500 after which the same request may succeed.
_RETRIED = {408, 409, 423, 425, 429}

#: Codes of S3 that come with a status that does not say so.
_CODES = {"InvalidToken", "TokenRefreshRequired", "ExpiredToken", "InvalidAccessKeyId"}

#: Errors of the operating system that mean that the storage is full.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: Errors of the operating system that another attempt may not meet; None is that of a library.
_TRANSIENT = {
    None,
    *(errno.EAGAIN, errno.EINTR, errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EREMOTEIO),
}

#: Base classes of errors of connections, by name: their libraries are optional.
_CONNECTION = {
    *("HTTPClientError", "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError"),
    *("ResponseStreamingError", "IncompleteReadError", "ConnectionClosedError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "TransportError"),
    *("ServiceRequestError", "ServiceResponseError"),
}

_NEXT: Mapping[type[StoreError], str] = {
    ObjectExistsError: "another writer made it first: read it, then decide.",
    ObjectNotFoundError: "it is not there. Look whether the URL is right and the bucket exists.",
    PermissionDeniedError: "the storage refused access. Look at the credentials in "
    "storage_options, or in the environment of this process.",
    StorageFullError: "the storage is full, or sets a limit. Make room, then go on.",
    UnsupportedStoreError: "this kind of storage cannot do that. Use another storage.",
    StoreError: "the storage failed. Try again; if it goes on, look at the cause.",
}


@contextmanager
def translate_errors(
    operation: str, key: str, url: str, options: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Turn every foreign error of the block into a :class:`StoreError` that says where it was.

    Parameters
    ----------
    operation : str
        What was done, as a verb: ``"read"``.
    key : str
        The object.
    url : str
        The root.
    options : mapping, optional
        Resolved storage options; their secrets are taken out of the messages.

    Raises
    ------
    StoreError
        Or one of its kinds.
    """
    try:
        yield
    except (LakeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 # the reason follows
        # The one door to other people's storage libraries. Their errors have no common base:
        # botocore, aiohttp and the cloud libraries raise types of their own, also bare
        # ValueError and RuntimeError, and none of them may come out of the public interface.
        kind = kind_of(error)
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        text = safe_text(cause, options)
        where = safe_url(f"{url}/{key}" if key else url)
        message = f"Cannot {operation} {where} ({text[:500]}): {_NEXT[kind]}"
        hidden = _told(error) != safe_text(_told(error), options)
        translated = kind(message)
        translated.transient = is_transient(error)
        raise translated from (None if hidden else error)


def kind_of(error: BaseException) -> type[StoreError]:
    """Decide what a foreign error means, by type, then by what it carries."""
    if isinstance(error, FileExistsError) or is_precondition(error):
        return ObjectExistsError
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectNotFoundError
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return PermissionDeniedError
    if getattr(error, "errno", None) in _FULL:
        return StorageFullError
    if isinstance(error, NotImplementedError):
        return UnsupportedStoreError
    for each in _chain(error):
        for cls in type(each).__mro__:
            if cls.__name__ in MAPPED_TYPES:
                return MAPPED_TYPES[cls.__name__]
        status = 403 if _code(each) in _CODES else _status(each)
        if status is not None and status in _STATUS:
            return _STATUS[status]
    return StoreError


def is_precondition(error: BaseException) -> bool:
    """Tell whether a conditional write was refused, however its library says so."""
    return any(_status(each) == 412 for each in _chain(error))


def is_conflict(error: BaseException) -> bool:
    """Tell whether the storage asks to try a conditional write again (HTTP 409)."""
    return any(_status(each) == 409 for each in _chain(error))


def is_beyond(error: BaseException) -> bool:
    """Tell whether the storage refused a range because the object has fewer bytes (HTTP 416)."""
    return any(_status(each) == 416 for each in _chain(error))


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt at an operation may succeed."""
    causes = list(_chain(error))
    statuses = [status for status in map(_status, causes) if status is not None and status >= 400]
    if statuses:
        return any(status in _RETRIED or status >= 500 for status in statuses)
    if is_dead(error) or kind_of(error) is not StoreError:
        return False
    return any(
        (isinstance(cause, OSError | TimeoutError) and cause.errno in _TRANSIENT)
        or not _CONNECTION.isdisjoint(cls.__name__ for cls in type(cause).__mro__)
        for cause in causes
    )


def is_dead(error: BaseException) -> bool:
    """Tell whether it is useless to ask for an object again: it is not there, nor its host."""
    kind = kind_of(error)
    if kind in (ObjectNotFoundError, PermissionDeniedError):
        return kind is ObjectNotFoundError
    for each in _chain(error):
        if type(each).__name__ in _NO_ADDRESS:
            return True
        status = _status(each)
        # Web servers blame the URL with many numbers; storages blame much else with the same.
        web = hasattr(each, "request_info") and status not in _ASK_AGAIN
        if status == 410 or (web and status is not None and 400 <= status < 500):
            return True
        cause = getattr(each, "os_error", each)  # aiohttp keeps what its resolver raised here
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error carries, wherever its library puts it."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for name in ("status", "status_code", "code"):
        found = getattr(error, name, None)
        if isinstance(found, int):
            return found
    return None


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None


def _told(error: BaseException) -> str:
    """Return what a traceback of the error would print."""
    return " ".join(f"{each!r} {each}" for each in _chain(error))


def safe_text(text: str, options: Mapping[str, Any] | None = None) -> str:
    """Return a text without the secrets of the options, and with safe URLs in it."""
    found = safe_url(text)
    for secret in sorted(_secrets(options or {}), key=len, reverse=True):
        found = found.replace(secret, "***")
    return found


def _secrets(options: object, *, named: bool = False) -> Iterator[str]:
    if isinstance(options, Mapping):
        for name, value in options.items():
            yield from _secrets(value, named=named or bool(_SECRET.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _secrets(value, named=named)
    elif named and isinstance(options, str) and len(options) > 3:
        yield options
