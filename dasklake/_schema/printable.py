"""Texts of users' values and errors for messages, whatever those values do when printed."""

from __future__ import annotations

import traceback


def printable(text: str) -> str:
    r"""Return a text that UTF-8 can encode, with lone surrogates as backslash escapes.

    Examples
    --------
    >>> printable("caf\udce9.txt")
    'caf\\udce9.txt'
    """
    # Unbound, because subclasses of str may override the method.
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")


def safe_repr(value: object) -> str:
    """Return the printable repr of a value, or the name of its type if ``repr`` raises.

    Examples
    --------
    >>> class Detached:
    ...     def __repr__(self):
    ...         raise RuntimeError("no session")
    >>> safe_repr(Detached()), safe_repr([1])
    ('<Detached whose repr() raised RuntimeError>', '[1]')
    """
    try:
        return printable(repr(value))
    except Exception as error:  # noqa: BLE001 # the class is the user's
        return _unprintable(value, "repr", error)


def safe_str(value: object) -> str:
    """Return the printable text of a value, or the name of its type if ``str`` raises."""
    try:
        return printable(str(value))
    except Exception as error:  # noqa: BLE001 # the class is the user's
        return _unprintable(value, "str", error)


def _unprintable(value: object, function: str, error: BaseException) -> str:
    kind, raised = type(value).__qualname__, type(error).__qualname__
    return printable(f"<{kind} whose {function}() raised {raised}>")


def error_text(error: BaseException) -> str:
    """Return the printable traceback of an error, of its causes and contexts."""
    try:
        return printable("".join(traceback.format_exception(error)))
    except Exception:  # noqa: BLE001 # errors of users may refuse to be formatted
        frames = "".join(traceback.format_tb(error.__traceback__))
        return printable(f"{frames}{type(error).__qualname__}: {safe_str(error)}")


def shorten_middle(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters, without its middle if it is longer."""
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
