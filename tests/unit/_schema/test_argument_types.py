"""Test the check of arguments against their annotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest

from dasklake._schema.argument_types import check_arguments, with_checked_arguments
from dasklake.exceptions import InvalidInputError

Color = Literal["red", "green"] | None


@with_checked_arguments
def call(
    flag: bool = False,  # noqa: FBT001, FBT002 # positional arguments are checked as well
    *,
    number: int | None = None,
    text: str = "",
    mode: Literal["a", "b"] = "a",
    color: Color = None,
    progress: bool | Literal["auto"] = "auto",
    function: Callable[..., Any] | None = None,
    other: list[int] | str | None = None,
) -> tuple[Any, ...]:
    """Return the arguments."""
    return flag, number, text, mode, color, progress, function, other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flag": "no"}, "flag must be True or False, got 'no'."),
        ({"flag": 1}, "flag must be True or False, got 1."),
        ({"number": 1.0}, "number must be an integer or None, got 1.0."),
        ({"number": True}, "number must be an integer or None, got True."),
        ({"text": None}, "text must be a string, got None."),
        ({"mode": "c"}, "mode must be one of 'a', 'b', got 'c'."),
        ({"mode": ["a"]}, "mode must be one of 'a', 'b', got ['a']."),
        ({"color": 1}, "color must be one of 'red', 'green' or None, got 1."),
        ({"progress": None}, "progress must be True or False or 'auto', got None."),
        ({"function": 3}, "function must be a function or None, got 3."),
    ],
)
def test_wrong_values_are_named(arguments: dict[str, Any], message: str) -> None:
    """The message has the argument, its valid values and the value."""
    with pytest.raises(InvalidInputError) as raised:
        call(**arguments)
    assert str(raised.value) == message


def test_positional_arguments_are_checked() -> None:
    """An argument is the same whether it is given by position or by name."""
    with pytest.raises(InvalidInputError, match="flag must be"):
        call("no")  # type: ignore[arg-type] # the error is the point


def test_valid_values_reach_the_function() -> None:
    """Values of numpy are as good as those of Python, and other annotations are not checked."""
    result = call(np.True_, number=np.int64(3), color="red", progress=True, function=len, other={})  # type: ignore[arg-type] # not checked
    assert result == (True, 3, "", "a", "red", True, len, {})


def test_values_with_an_odd_comparison_are_refused() -> None:
    """An array is compared with no choice, because its comparison is another array."""
    with pytest.raises(InvalidInputError, match="mode must be one of"):
        call(mode=np.array(["a", "b"]))  # type: ignore[arg-type] # the error is the point


def test_methods_of_a_class_are_checked() -> None:
    """Public methods are checked; private ones trust their callers."""

    @check_arguments
    class Example:
        def public(self, count: int) -> int:
            return count

        def _private(self, count: int) -> int:
            return count

    with pytest.raises(InvalidInputError, match="count must be an integer"):
        Example().public("1")  # type: ignore[arg-type] # the error is the point
    assert Example()._private("1") == "1"  # type: ignore[arg-type, comparison-overlap] # not checked
    assert Example().public.__name__ == "public"
