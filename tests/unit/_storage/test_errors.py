"""Translation of errors of storage libraries, without secrets."""

from __future__ import annotations

import inspect
import string
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from unittest.mock import MagicMock

import aiohttp
import aiohttp.http_exceptions
import botocore.exceptions
import fsspec.exceptions
import pytest
from s3fs.errors import ERROR_CODE_TO_EXCEPTION, translate_boto_error

from dasklake._storage.errors import MAPPED_TYPES, is_transient, translate_errors
from dasklake._storage.hidden import safe_text
from dasklake._storage.urls import safe_url
from dasklake.exceptions import (
    CorruptionError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsupportedStoreError,
)

SECRET = "hunter2-and-more"  # noqa: S105 # not a real one

#: Errors for codes of S3; every other code is a plain StoreError.
CODES = {
    "AccessDenied": PermissionDeniedError,
    "AccountProblem": PermissionDeniedError,
    "InvalidAccessKeyId": PermissionDeniedError,
    "InvalidObjectState": PermissionDeniedError,
    "InvalidPayer": PermissionDeniedError,
    "InvalidSecurity": PermissionDeniedError,
    "NotSignedUp": PermissionDeniedError,
    "RequestTimeTooSkewed": PermissionDeniedError,
    "SignatureDoesNotMatch": PermissionDeniedError,
    "AllAccessDisabled": PermissionDeniedError,
    "CrossLocationLoggingProhibited": PermissionDeniedError,
    "ExpiredToken": PermissionDeniedError,
    "IllegalLocationConstraintException": PermissionDeniedError,
    "InvalidBucketState": PermissionDeniedError,
    "InvalidToken": PermissionDeniedError,
    "MethodNotAllowed": PermissionDeniedError,
    "RequestTorrentOfBucketError": PermissionDeniedError,
    "TokenRefreshRequired": PermissionDeniedError,
    "405": PermissionDeniedError,
    "403": PermissionDeniedError,
    "404": ObjectNotFoundError,
    "NoSuchBucket": ObjectNotFoundError,
    "NoSuchBucketPolicy": ObjectNotFoundError,
    "NoSuchKey": ObjectNotFoundError,
    "NoSuchLifecycleConfiguration": ObjectNotFoundError,
    "NoSuchUpload": ObjectNotFoundError,
    "NoSuchVersion": ObjectNotFoundError,
    "BucketAlreadyExists": ObjectExistsError,
    "BucketAlreadyOwnedByYou": ObjectExistsError,
}


def raised(error: BaseException, options: dict[str, Any] | None = None) -> StoreError:
    """Return the translation of an error."""
    with (
        pytest.raises(StoreError) as caught,
        translate_errors("read", "the/key", "s3://bucket/x", options),
    ):
        raise error
    return caught.value


def make_error(cls: type[Exception]) -> Exception:
    """Make an error with a value for each required argument."""
    if hasattr(cls, "fmt"):
        fields = [f for _, f, _, _ in string.Formatter().parse(cls.fmt) if f]
        waiter = "Waiter" in cls.__name__
        extra: dict[str, Any] = {"last_response": {}} if waiter else {}
        return cls(**extra, **dict.fromkeys(fields, SECRET))
    arguments = [
        MagicMock()
        for name, p in inspect.signature(cls.__init__).parameters.items()
        if name != "self" and p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
    ]
    return cls(*arguments)


def library_errors() -> Iterator[Exception]:
    """Yield one of each error that fsspec and the libraries of S3 can raise."""
    modules = (
        botocore.exceptions,
        aiohttp.client_exceptions,
        aiohttp.http_exceptions,
        fsspec.exceptions,
        import_module("aiobotocore.httpsession"),
    )
    values = (value for module in modules for value in vars(module).values())
    for cls in sorted(set(filter(inspect.isclass, values)), key=str):
        if issubclass(cls, Exception) and cls is not botocore.exceptions.ClientError:
            yield make_error(cls)


@pytest.mark.parametrize("error", list(library_errors()), ids=lambda error: type(error).__name__)
def test_every_library_error_is_translated(error: BaseException) -> None:
    """Every error of a library becomes a StoreError that names the object and the operation."""
    translated = raised(error)
    assert "Cannot read s3://bucket/x/the/key" in str(translated)
    expected = MAPPED_TYPES.get(type(error).__name__)
    assert expected is None or type(translated) is expected


@pytest.mark.parametrize("code", sorted(ERROR_CODE_TO_EXCEPTION))
def test_every_code_of_s3(code: str) -> None:
    """Every error code that s3fs translates becomes the expected error."""
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {}}
    error = translate_boto_error(botocore.exceptions.ClientError(answer, "GetObject"))
    assert type(raised(error)) is CODES.get(code, StoreError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, PermissionDeniedError),
        (403, PermissionDeniedError),
        (404, ObjectNotFoundError),
        (412, ObjectExistsError),
        (409, StoreError),
        (500, StoreError),
        (503, StoreError),
    ],
)
@pytest.mark.parametrize("where", ["response", "status", "status_code", "code", "cause"])
def test_status(status: int, kind: type[StoreError], where: str) -> None:
    """An HTTP status determines the error, in every attribute that libraries use."""
    error = RuntimeError("no")
    if where == "response":
        error.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined] # as botocore
    elif where == "cause":
        error.__cause__ = RuntimeError("inner")
        error.__cause__.status = status  # type: ignore[attr-defined] # as aiohttp
    else:
        setattr(error, where, status)
    assert type(raised(error)) is kind
    assert is_transient(error) == (status in (409, 500, 503))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("x"), ObjectNotFoundError),
        (NotADirectoryError("x"), ObjectNotFoundError),
        (FileExistsError("x"), ObjectExistsError),
        (PermissionError("x"), PermissionDeniedError),
        (OSError(30, "Read-only file system"), PermissionDeniedError),
        (NotImplementedError(), UnsupportedStoreError),
        (TimeoutError(), StoreError),
        (ConnectionResetError(), StoreError),
        (ValueError("x"), StoreError),
    ],
)
def test_builtin_errors(error: Exception, kind: type[StoreError]) -> None:
    """Builtin errors become the matching StoreError, which keeps the cause."""
    translated = raised(error)
    assert type(translated) is kind
    assert translated.__cause__ is error


@pytest.mark.parametrize("error", [MemoryError(), CorruptionError("x"), KeyboardInterrupt()])
def test_other_errors_are_not_translated(error: BaseException) -> None:
    """Errors of this library, MemoryError and interrupts are not translated."""
    with pytest.raises(type(error)) as caught, translate_errors("read", "k", "s3://b"):
        raise error
    assert caught.value is error


def test_secrets_are_removed() -> None:
    """Neither the message nor the cause contains secrets of the options."""
    options = {"secret": SECRET, "client_kwargs": {"headers": [{"Authorization": SECRET}]}}
    inner = OSError(f"signed with {SECRET}")
    error = ValueError("outer")
    error.__cause__ = inner
    translated = raised(error, options)
    assert SECRET not in str(translated)
    assert translated.__cause__ is None
    assert translated.__suppress_context__
    assert safe_text(f"a {SECRET} b", options) == "a *** b"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pw@host/x", "https://host/x"),
        ("https://me:p@w@host/x", "https://host/x"),
        ("https://token@host/x", "https://host/x"),
        ("sftp://me:pw@host/x", "sftp://host/x"),
        ("abfs://container@account.host/x", "abfs://container@account.host/x"),
        ("https://host/x?sig=pw", "https://host/x"),
        ("simplecache::https://me:pw@host/x?sig=pw", "simplecache::https://host/x"),
        ("file:///home/me@work/x", "file:///home/me@work/x"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_safe_url(url: str, expected: str) -> None:
    """User, password and query are removed from a URL; the rest is unchanged."""
    assert safe_url(url) == expected


def test_an_operation_inside_a_handler_has_its_own_error() -> None:
    """The translated error of an earlier operation says nothing about a later one."""
    refused = RuntimeError("refused")
    refused.status = 412  # type: ignore[attr-defined] # as aiohttp
    for foreign, kind in ((FileNotFoundError("gone"), ObjectNotFoundError), (busy(), StoreError)):
        try:
            with translate_errors("create", "k", "s3://b"):
                raise refused
        except ObjectExistsError:
            with pytest.raises(StoreError) as caught, translate_errors("read", "k", "s3://b"):
                raise foreign  # noqa: B904 # the context is the point
        assert type(caught.value) is kind
        assert caught.value.transient == (kind is StoreError)


def busy() -> RuntimeError:
    """Return the error of a busy storage, as its library raises it."""
    error = RuntimeError("busy")
    error.status = 503  # type: ignore[attr-defined] # as aiohttp
    return error
