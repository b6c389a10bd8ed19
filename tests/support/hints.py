"""Proposals in messages of the package, and tests that follow them.

A proposal is code in a message: an argument (``mode=``) or a call (``.astype(``). A test that follows
proposals has the decorator :func:`follows` with their text. The decorator checks that the messages
which the test has provoked contain that text; ``tests/unit/test_hints.py`` checks that each proposal of
the package has such a test.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import pytest

from dasklake.exceptions import LakeError

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dasklake"

_Parameters = ParamSpec("_Parameters")

#: An argument or a call in a text.
_CODE = re.compile(r"(?<![\w.])(?:[\w.]*\w\(|\.\w+\(|\w+=(?![=]))")

_messages: list[str] = []


class Proposal(NamedTuple):
    """Code in a message.

    Attributes
    ----------
    path : str
        Path of the module in the package.
    line : int
        Line of the message.
    text : str
        A constant part of the message.
    code : str
        The proposal.
    start, stop : int
        Position of the proposal in the text.
    """

    path: str
    line: int
    text: str
    code: str
    start: int
    stop: int


def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the message of the error or the warning of a call, which a test then follows."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call(*args, **kwargs)
        except LakeError as error:
            message = str(error)
        else:
            assert caught, "the call was not refused"
            message = "\n".join(str(warning.message) for warning in caught)
    _messages.append(message)
    return message


def follows(
    *proposals: str,
) -> Callable[[Callable[_Parameters, None]], Callable[_Parameters, None]]:
    """Decorate a test that provokes messages with :func:`refused` and follows their proposals.

    Parameters
    ----------
    *proposals : str
        Text of the messages that contains the proposals, without values.
    """

    def decorate(test: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
        @functools.wraps(test)
        def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> None:
            _messages.clear()
            test(*args, **kwargs)
            for proposal in proposals:
                assert any(proposal in message for message in _messages), (proposal, _messages)

        return call

    return decorate


def proposals() -> Iterator[Proposal]:
    """Yield the proposals in the texts of the package that are neither docstrings nor patterns."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        ignored = _ignored(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            if id(node) in ignored or " " not in node.value.strip():
                continue
            for match in _CODE.finditer(node.value):
                name = path.relative_to(PACKAGE).as_posix()
                yield Proposal(name, node.lineno, node.value, match[0], *match.span())


def _ignored(tree: ast.AST) -> set[int]:
    """Return the texts that no message has: docstrings, keys, patterns, reprs and log lines."""
    ignored = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr):
                ignored.add(id(first.value))
            if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "describe"):
                ignored |= {id(part) for part in ast.walk(node)}
        elif isinstance(node, ast.Subscript):
            ignored |= {id(part) for part in ast.walk(node.slice)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
            ("re.", "_LOGGER.", "log")
        ):
            ignored |= {id(part) for part in ast.walk(node)}
    return ignored


def followed_texts() -> dict[str, str]:
    """Return the texts of all decorators, with the files of their tests."""
    texts = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if "import" not in source or "follows" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("follows", "Case"):
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        texts[argument.value] = str(path.relative_to(ROOT))
    return texts


@pytest.fixture(autouse=True)
def _forget_messages() -> None:
    _messages.clear()
