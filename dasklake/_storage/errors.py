"""Translate errors of storage libraries into StoreError, without secrets in their messages."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dasklake._storage.hidden import (
    raise_without_context,
    safe_text,
    shows_secret,
    with_url_secrets,
)
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

#: Errors that are recognized by the name of their type: their libraries are optional.
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

#: Errors for an invalid address.
_INVALID_ADDRESS = {"InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError"}
_INVALID_ADDRESS |= {"NonHttpUrlRedirectClientError", "ParamValidationError"}

#: Client error statuses that do not mean that the object is missing.
_NOT_ABOUT_OBJECT = {401, 403, 407, 408, 409, 423, 425, 429}

#: Statuses below 500 after which the same request may succeed.
_RETRIED = {408, 409, 423, 425, 429}

#: S3 error codes for denied access whose status is not 403.
_DENIED_CODES = {"InvalidToken", "TokenRefreshRequired", "ExpiredToken", "InvalidAccessKeyId"}

#: Operating system errors for full storage.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

#: Operating system errors that another attempt may avoid; None is the errno of a library's error.
_TRANSIENT = {
    None,
    *(errno.EAGAIN, errno.EINTR, errno.EIO, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE, errno.ENOTCONN),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EREMOTEIO),
}

#: Base classes of connection errors, by name: their libraries are optional.
_CONNECTION = {
    *("HTTPClientError", "ConnectTimeoutError", "ReadTimeoutError", "EndpointConnectionError"),
    *("ResponseStreamingError", "IncompleteReadError", "ConnectionClosedError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError", "TransportError"),
    *("ServiceRequestError", "ServiceResponseError"),
}

_NEXT: Mapping[type[StoreError], str] = {
    ObjectExistsError: "the object already exists. Read it before you retry.",
    ObjectNotFoundError: "the object does not exist. Check the URL, and that the bucket exists.",
    PermissionDeniedError: "the storage denied access. Check the credentials in "
    "storage_options, or in the environment of this process.",
    StorageFullError: "the storage is full or a quota is exceeded. Free some space, then retry.",
    UnsupportedStoreError: "this storage does not support the operation. Use another storage.",
    StoreError: "the storage failed. Retry; if the error persists, check its cause.",
}


@contextmanager
def translate_errors(
    operation: str, key: str, url: str, options: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Translate every error of a storage library in the block into a :class:`StoreError`.

    Parameters
    ----------
    operation : str
        Verb for the message, such as ``"read"``.
    key : str
        Key of the object.
    url : str
        Root URL of the store.
    options : mapping, optional
        Resolved storage options; their secrets are removed from the messages.

    Raises
    ------
    StoreError
        The block raised an error; often a subclass.
    """
    try:
        yield
    except (LakeError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 # the reason follows
        # Errors of storage libraries have no common base class: botocore, aiohttp and the cloud
        # libraries raise their own types, also bare ValueError and RuntimeError. None of them may
        # leave the public interface.
        kind = kind_of(error)
        options = with_url_secrets(options, url)
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        text = safe_text(cause, options)
        address = safe_url(f"{url}/{key}" if key else url)
        message = f"Cannot {operation} {address} ({text[:500]}): {_NEXT[kind]}"
        translated = kind(message)
        translated.transient = is_transient(error)
        raise_without_context(translated, None if shows_secret(error, options) else error)


def kind_of(error: BaseException) -> type[StoreError]:
    """Return the subclass of StoreError for an error, from its type, then from its status."""
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
    for cause in causes_of(error):
        for cls in type(cause).__mro__:
            if cls.__name__ in MAPPED_TYPES:
                return MAPPED_TYPES[cls.__name__]
        status = 403 if _code(cause) in _DENIED_CODES else status_of(cause)
        if status is not None and status in _STATUS:
            return _STATUS[status]
    return StoreError


def is_precondition(error: BaseException) -> bool:
    """Return whether a conditional write was refused (HTTP 412)."""
    return any(status_of(cause) == 412 for cause in causes_of(error))


def is_beyond(error: BaseException) -> bool:
    """Return whether a range lies beyond the end of the object (HTTP 416)."""
    return any(status_of(cause) == 416 for cause in causes_of(error))


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt at an operation may succeed."""
    causes = list(causes_of(error))
    statuses = [status for status in map(status_of, causes) if status is not None and status >= 400]
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
    """Return whether an object or its host does not exist, so that retries are useless."""
    kind = kind_of(error)
    if kind in (ObjectNotFoundError, PermissionDeniedError):
        return kind is ObjectNotFoundError
    for cause in causes_of(error):
        if type(cause).__name__ in _INVALID_ADDRESS:
            return True
        status = status_of(cause)
        # A web server means the URL by most of these statuses, an object storage does not.
        web = hasattr(cause, "request_info") and status not in _NOT_ABOUT_OBJECT
        if status == 410 or (web and status is not None and 400 <= status < 500):
            return True
        resolved = getattr(cause, "os_error", cause)  # aiohttp keeps the error of its resolver here
        if isinstance(resolved, socket.gaierror) and resolved.errno == socket.EAI_NONAME:
            return True
    return False


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    # An error that is translated already is the context of an earlier operation.
    while cause is not None and id(cause) not in seen and not isinstance(cause, LakeError):
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an error, or None if it has none."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    # The library requests keeps the status in the response only.
    for source in (error, response):
        for name in ("status", "status_code", "code"):
            status = getattr(source, name, None)
            if isinstance(status, int):
                return status
    return None


def _code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, Mapping) else None
