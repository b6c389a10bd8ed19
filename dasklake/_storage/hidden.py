"""Remove secrets from texts, and from errors with their causes, contexts and notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

from dasklake import creds
from dasklake._storage.urls import safe_url

_SECRET = re.compile(
    r"key|secret|token|pass|pw|sas|cred|connection|sign|auth|cookie", re.IGNORECASE
)

#: Parameters that grant access, also in a request without its host, and headers that do.
_PARAMETER = re.compile(
    r"""((?:[?&;]|\b)(?:sig|signature|token|access_token|auth_token|api_?key|password|secret
    |accountkey|sharedaccesssignature|x-(?:amz|goog)-(?:signature|security-token|credential))=)
    [^&;\s'")>]+""",
    re.IGNORECASE | re.VERBOSE,
)
_HEADER = re.compile(
    r"(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic)\s+)?)[^\s'\",]+", re.IGNORECASE
)

#: Shortest secret of this process that is removed from texts about anything else. Shorter ones are
#: often plain words, such as the keys of test servers.
_LEAST = 8


def safe_text(text: str, options: Mapping[str, Any] | None = None) -> str:
    """Return a text without secrets.

    Parameters
    ----------
    text : str
        Any text.
    options : mapping, optional
        Storage options, whose secrets are removed.

    Returns
    -------
    str
        The text without them, without the secrets of the credentials keys that this process has
        resolved, and without those of its URLs and headers.
    """
    text = _HEADER.sub(r"\1***", _PARAMETER.sub(r"\1***", safe_url(text)))
    in_use = {secret for secret in _secrets(creds.in_use()) if len(secret) >= _LEAST}
    for secret in sorted({*_secrets(options or {}), *in_use}, key=len, reverse=True):
        for form in {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}:
            text = text.replace(form, "***")
    return text


def with_url_secrets(options: Mapping[str, Any] | None, url: str) -> dict[str, Any]:
    """Add the query and the password of a URL to options: a host may repeat them in its answer."""
    queries = [part.partition("?")[2] for part in url.split("::")]
    values = [query.partition("=")[2] for text in queries for query in text.split("&")]
    passwords = [part.rpartition(":")[2] for part in re.findall(r"(?<=://)[^/\s]*(?=@)", url)]
    tokens = [value for value in values if len(value) >= _LEAST]
    return {**(options or {}), "secrets of the URL": [*queries, *tokens, *passwords]}


def _secrets(options: object, *, named: bool = False) -> Iterator[str]:
    if isinstance(options, Mapping):
        for name, value in options.items():
            yield from _secrets(value, named=named or bool(_SECRET.search(str(name))))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _secrets(value, named=named)
    elif named and isinstance(options, str) and len(options) > 3:
        yield options
        # A header has a scheme before its token.
        scheme, _, token = options.partition(" ")
        if scheme.lower() in ("bearer", "basic") and len(token) > 3:
            yield token


def shows_secret(error: BaseException, options: Mapping[str, Any] | None = None) -> bool:
    """Return whether an error, or one of its causes and contexts, shows a secret."""
    return any(_shows(part, options) for part in _chain(error))


def without_secrets(
    error: BaseException, options: Mapping[str, Any] | None = None
) -> BaseException | None:
    """Remove secrets from an error, and from its causes and contexts, in place.

    Parameters
    ----------
    error : BaseException
        Any error, also of a user's class.
    options : mapping, optional
        Storage options, whose secrets are removed.

    Returns
    -------
    BaseException or None
        ``error``, or None if its class shows a secret that cannot be removed. Causes and contexts
        of such classes are detached.
    """
    parts = list(_chain(error))
    unsafe = {id(part) for part in parts if _shows(part, options) and not _clean(part, options)}
    for part in parts:
        if part.__cause__ is not None and id(part.__cause__) in unsafe:
            suppressed = part.__suppress_context__
            part.__cause__ = None
            part.__suppress_context__ = suppressed
        if part.__context__ is not None and id(part.__context__) in unsafe:
            part.__context__ = None
    return None if id(error) in unsafe else error


def raise_without_context(error: BaseException, cause: BaseException | None) -> NoReturn:
    """Raise an error whose context is its cause, not the error that an enclosing handler handles.

    ``raise ... from None`` hides the context in a traceback, but the error keeps it. The context is
    the cause, as of other errors: Python finds circles of errors by their contexts only.
    """
    try:
        raise error from cause  # noqa: TRY301 # caught to be changed while it is raised
    except BaseException:
        error.__context__ = cause
        raise  # this does not set the context again


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, also suppressed ones, and members of groups."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            linked = (part.__cause__, part.__context__, *getattr(part, "exceptions", ()))
            pending += [one for one in linked if isinstance(one, BaseException)]


def _shows(error: BaseException, options: Mapping[str, Any] | None) -> bool:
    """Return whether one error shows a secret, or refuses to show what it has."""
    try:
        text = f"{error!r} {error} {error.args!r} {error.__dict__!r}"
    except Exception:  # noqa: BLE001 # the class is the user's
        return False  # it cannot be printed, so nothing of it is
    return safe_text(text, options) != text


def _clean(error: BaseException, options: Mapping[str, Any] | None) -> bool:
    """Remove the secrets of one error, and return whether none is left."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, str):
            return safe_text(value, options)
        if isinstance(value, bytes):
            return safe_text(value.decode("latin-1"), options).encode("latin-1", "replace")
        if type(value) in (list, tuple):
            return type(value)(map(cleaned, value))
        if type(value) is dict:
            return {cleaned(key): cleaned(entry) for key, entry in value.items()}
        text = repr(value)
        return value if safe_text(text, options) == text else safe_text(text, options)

    with suppress(Exception):  # the class is the user's
        error.args = cleaned(error.args)
        for name, value in list(error.__dict__.items()):
            error.__dict__[name] = cleaned(value)
        for name in ("filename", "filename2", "strerror"):  # of an OSError
            if isinstance(getattr(error, name, None), str):
                setattr(error, name, cleaned(getattr(error, name)))
        f"{error!r}{error}".encode()  # its class may need what was replaced
        return not _shows(error, options)
    return False
