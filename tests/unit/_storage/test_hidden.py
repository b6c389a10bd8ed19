"""Secrets are removed from texts and from errors of any class."""

from __future__ import annotations

import pickle

import pytest

from dasklake import creds
from dasklake._storage.hidden import raise_without_context, safe_text, shows_secret, without_secrets

SECRET = "s3cr3t/+value"  # noqa: S105 # of this test only


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url: /lake?token=abc&v=1 (Caused by", "url: /lake?token=***&v=1 (Caused by"),
        ("/x?sv=1&sig=a%2Fb", "/x?sv=1&sig=***"),
        ("'X-Amz-Security-Token=abc'", "'X-Amz-Security-Token=***'"),
        ("AccountName=me;AccountKey=abc==;x", "AccountName=me;AccountKey=***;x"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("Authorization: abc", "Authorization: ***"),
        ("a design=3 and tokens=4", "a design=3 and tokens=4"),
    ],
)
def test_parameters_and_headers_are_hidden(text: str, expected: str) -> None:
    """A request without its host, a connection string and a header lose their secrets only."""
    assert safe_text(text) == expected


def test_every_form_of_an_option_is_hidden() -> None:
    """A secret is removed as it is, quoted for a URL, and without the scheme of its header."""
    options = {"secret": SECRET, "headers": {"Authorization": "Bearer abcdefgh"}}
    text = safe_text("s3cr3t/+value s3cr3t/%2Bvalue s3cr3t%2F%2Bvalue abcdefgh", options)
    assert text == "*** *** *** ***"


def test_keys_in_use_are_hidden_everywhere() -> None:
    """A secret that this process has resolved under a key is removed from all texts."""
    assert safe_text(f"got {SECRET}") == f"got {SECRET}"
    creds.populate("hidden", {"secret": SECRET, "key": "short"})
    try:
        creds.resolve("hidden")
        assert safe_text(f"got {SECRET}, short") == "got ***, short"
    finally:
        creds.populate("hidden", None)


class _AlwaysShows(Exception):  # noqa: N818 # not an error of dasklake
    def __str__(self) -> str:
        return f"/x?token={SECRET}"


def _chain() -> OSError:
    try:
        try:
            raise _AlwaysShows  # noqa: TRY301 # a chain is meant
        except _AlwaysShows:
            raise KeyError(f"/x?token={SECRET}")  # noqa: B904 # a context is meant
    except KeyError as cause:
        error = OSError(2, "missing", f"https://host/x?token={SECRET}")
        error.add_note(f"https://host/x?token={SECRET}")
        error.__cause__ = cause
        return error


def test_errors_keep_their_class_and_lose_their_secrets() -> None:
    """Arguments, notes and file names are cleaned in place; a class that shows a secret is detached."""
    error = _chain()
    assert shows_secret(error)
    assert without_secrets(error) is error
    assert not shows_secret(error)
    assert isinstance(error.__cause__, KeyError)
    assert error.__cause__.__context__ is None
    assert (error.errno, error.filename, error.__notes__) == (
        2,
        "https://host/x",
        ["https://host/x"],
    )
    assert SECRET not in repr(pickle.loads(pickle.dumps(error)))
    assert without_secrets(_AlwaysShows()) is None


def test_errors_without_secrets_stay_unchanged() -> None:
    """The arguments of other errors are the same objects."""
    value = [1, object()]
    error = ValueError(value)
    assert without_secrets(error) is error
    assert error.args[0] is value


def _raise_in_a_handler(cause: BaseException | None) -> None:
    try:
        raise KeyError(SECRET)  # noqa: TRY301 # a context is meant
    except KeyError:
        raise_without_context(ValueError("message"), cause)


def test_a_context_is_removed_while_an_error_is_raised() -> None:
    """The handlers that enclose the call are no context, and the given cause stays."""
    cause = KeyError("x")
    with pytest.raises(ValueError, match="message") as caught:
        _raise_in_a_handler(cause)
    assert caught.value.__context__ is caught.value.__cause__ is cause
    with pytest.raises(ValueError, match="message") as caught:
        _raise_in_a_handler(None)
    assert caught.value.__context__ is caught.value.__cause__ is None


def _raise_again() -> None:
    try:
        raise KeyError("first")  # noqa: TRY301 # a chain is meant
    except KeyError as first:
        try:
            try:
                raise OSError("second")  # noqa: TRY301 # a chain is meant
            except OSError as second:
                raise_without_context(ValueError("third"), second)
        except ValueError:
            raise first  # noqa: B904 # the context is meant


def test_an_error_that_is_raised_again_is_not_its_own_context() -> None:
    """The causes and contexts of an error have no circle, in which pickling would not end."""
    with pytest.raises(KeyError) as caught:
        _raise_again()
    error: BaseException | None = caught.value
    contexts: list[BaseException] = []
    while error is not None and len(contexts) < 9:
        contexts.append(error)
        assert error.__cause__ in (None, error.__context__)
        error = error.__context__
    assert [type(error) for error in contexts] == [KeyError, ValueError, OSError]
