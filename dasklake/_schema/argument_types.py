"""Check the arguments of public functions and methods against their annotations.

A wrong value is then an error that names the argument, before anything begins. Without the check,
``reset("no")`` would reset a lake, and an array would fail deep inside of the package. Only these
annotations are checked; other arguments are parsed by their functions.

=============================  ==================================
annotation                     valid
=============================  ==================================
``bool``                       True and False, also of numpy
``int``                        integers, but no bool
``str``                        strings
``Literal[...]``               one of its values
``Callable[...]``              callable objects
``... | None``                 None, too
=============================  ==================================
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from dasklake._schema.printable import safe_repr
from dasklake.exceptions import InvalidInputError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class")


class _Kind(NamedTuple):
    """Values that an argument may have.

    Attributes
    ----------
    fits : callable
        Returns whether a value is valid.
    description : str
        Text for the message.
    """

    fits: Callable[[Any], bool]
    description: str


_KINDS = {
    "bool": _Kind(lambda value: isinstance(value, bool | np.bool_), "True or False"),
    "int": _Kind(
        lambda value: isinstance(value, int | np.integer) and not isinstance(value, bool),
        "an integer",
    ),
    "str": _Kind(lambda value: isinstance(value, str), "a string"),
    "NoneType": _Kind(lambda value: value is None, "None"),
    "None": _Kind(lambda value: value is None, "None"),
}


def with_checked_arguments(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Decorate a function, so that it refuses arguments of another type than their annotations.

    Examples
    --------
    >>> @with_checked_arguments
    ... def double(number: int):
    ...     return 2 * number
    >>> double("2")
    Traceback (most recent call last):
    dasklake.exceptions.InvalidInputError: number must be an integer, got '2'.
    """
    kinds = _kinds_of(function.__annotations__, _globals(function))
    names = tuple(inspect.signature(function).parameters)

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in kinds:
                _raise_unless(name, value, kinds[name])
        return function(*args, **kwargs)

    return call if kinds else function


def check_arguments(cls: type[_Class]) -> type[_Class]:
    """Decorate a class, so that its public methods refuse arguments of a wrong type."""
    for name, method in vars(cls).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(cls, name, with_checked_arguments(method))
    return cls


def check_fields(instance: object) -> None:
    """Check the fields of a data class against their annotations.

    Raises
    ------
    InvalidInputError
        A field of ``instance`` has a value of another type.
    """
    cls: Any = type(instance)
    for name, kinds in _field_kinds(cls).items():
        _raise_unless(name, getattr(instance, name), kinds)


@functools.cache
def _field_kinds(cls: Any) -> dict[str, list[_Kind]]:
    return _kinds_of(cls.__annotations__, {})


def _raise_unless(name: str, value: object, kinds: list[_Kind]) -> None:
    if not any(kind.fits(value) for kind in kinds):
        texts = " or ".join(kind.description for kind in kinds)
        raise InvalidInputError(f"{name} must be {texts}, got {safe_repr(value)}.")


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    names: dict[str, Any] = getattr(function, "__globals__", {})
    return names


def _kinds_of(annotations: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, list[_Kind]]:
    """Return the valid kinds of the arguments whose annotations are checked."""
    kinds = {}
    for name, annotation in annotations.items():
        parts = _kinds(_text(annotation), names)
        if name != "return" and parts is not None:
            kinds[name] = parts
    return kinds


def _text(annotation: Any) -> str:
    """Return an annotation as it is written in the code, whether it was evaluated or not."""
    if isinstance(annotation, type):
        return annotation.__name__
    text = str(annotation).replace("typing.", "").replace("collections.abc.", "")
    optional = text.startswith("Optional[")
    return f"{text[len('Optional[') : -1]} | None" if optional else text


def _kinds(annotation: str, names: Mapping[str, Any]) -> list[_Kind] | None:
    """Return the valid kinds of an annotation, or None if a part of it is not checked."""
    kinds: list[_Kind] = []
    for part in _alternatives(annotation):
        if typing.get_origin(names.get(part)) in (typing.Literal, typing.Union, types.UnionType):
            alias = _kinds(_text(names[part]), {})
        else:
            kind = _kind(part)
            alias = None if kind is None else [kind]
        if alias is None:
            return None
        kinds += alias
    return kinds


def _alternatives(annotation: str) -> list[str]:
    """Return the parts of an annotation between bars that are not in brackets."""
    parts, depth = [""], 0
    for character in annotation:
        depth += (character == "[") - (character == "]")
        if character == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _kind(part: str) -> _Kind | None:
    if part in _KINDS:
        return _KINDS[part]
    if part.startswith("Callable["):
        return _Kind(callable, "a function")
    if not part.startswith("Literal["):
        return None
    choices = typing.get_args(eval(part, {"Literal": typing.Literal}))  # noqa: S307 # an annotation of this package
    text = ", ".join(map(repr, choices))
    return _Kind(
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        f"one of {text}" if len(choices) > 1 else text,
    )
