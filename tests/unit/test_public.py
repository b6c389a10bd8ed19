"""The public names, and what is promised of each of them."""

from __future__ import annotations

import doctest
import inspect
import pickle
import pkgutil
import tomllib
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import get_type_hints

import pytest
from numpydoc.validate import validate

import dasklake
from dasklake import exceptions

#: What a public docstring has to say; numpydoc's own codes.
CHECKS = frozenset(
    {
        "GL06",  # no unknown section
        "GL07",  # sections in their order
        "GL08",  # there is a docstring
        "PR01",  # every parameter is described
        "PR02",  # nothing else is
        "PR03",  # in the order of the signature
        "PR04",  # with a type
        "PR07",  # and a description
        "RT01",  # what is returned is said
        "RT03",  # and described
        "SS01",  # there is a summary
        "SS03",  # that ends with a period
        "SS06",  # on one line
    }
)

#: Methods that other modules of the package call; one sentence is enough for them.
INNER = frozenset({"decided_by", "differences", "from_json", "to_json"})


def public() -> Iterator[str]:
    """Yield the dotted name of every public function, class and method."""
    for name in dasklake.__all__:
        value = getattr(dasklake, name)
        yield f"dasklake.{name}"
        ours = inspect.isclass(value) and [
            each for each in value.__mro__ if each.__module__.startswith("dasklake")
        ]
        for member in sorted({name for each in ours or () for name in vars(each)}):
            routine = inspect.isroutine(getattr(value, member))
            if issubclass(value, dict) and hasattr(dict, member):
                continue  # documented by Python
            if routine and not member.startswith("_") and member not in INNER:
                yield f"dasklake.{name}.{member}"


def test_names_are_sorted_and_complete() -> None:
    """The public names are one sorted list, and every one of them is there."""
    assert dasklake.__all__ == sorted(dasklake.__all__)
    assert all(hasattr(dasklake, name) for name in dasklake.__all__)


def test_nothing_else_is_public() -> None:
    """What is not on the list is a module or starts with an underscore."""
    others = {
        name
        for name, value in vars(dasklake).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    listed = {name for name in dasklake.__all__ if not inspect.ismodule(getattr(dasklake, name))}
    assert others == listed


@pytest.mark.parametrize("name", sorted(set(public())))
def test_docstrings(name: str) -> None:
    """Every public docstring describes each parameter and what comes back."""
    value = attrgetter(name.removeprefix("dasklake."))(dasklake)
    found = {code: text for code, text in validate(name)["errors"] if code in CHECKS}
    if is_dataclass(value):
        # Its fields may be told as attributes; those without a repr are not for users.
        found.pop("PR01", None)
        assert [f.name for f in fields(value) if f.repr and f.name not in str(value.__doc__)] == []
    assert found == {}


def _listed() -> dict[str, object]:
    values = {name: getattr(dasklake, name) for name in dasklake.__all__}
    return {name: value for name, value in values.items() if not inspect.ismodule(value)}


def test_public_names_show_no_private_module() -> None:
    """Public classes and functions report ``dasklake`` as their module."""
    assert {value.__module__ for value in _listed().values()} == {"dasklake"}


@pytest.mark.parametrize("name", sorted(_listed()))
def test_type_hints_of_public_names(name: str) -> None:
    """``typing.get_type_hints`` resolves the annotations of public classes and functions."""
    value = _listed()[name]
    members = [inspect.unwrap(member) for member in vars(value).values() if callable(member)]
    for item in (value, *filter(inspect.isfunction, members)):
        hints = get_type_hints(item)
        assert not any(isinstance(hint, str) for hint in hints.values())
    if is_dataclass(value):
        assert {field.name for field in fields(value)} <= get_type_hints(value).keys()


def test_public_names_can_be_pickled() -> None:
    """A public class or function is pickled by its public name, and found again."""
    for value in _listed().values():
        assert pickle.loads(pickle.dumps(value)) is value
        assert b"dasklake._" not in pickle.dumps(value)


def test_examples_of_public_names_are_run() -> None:
    """The doctest of ``dasklake`` includes the examples of all public names."""
    collected = {case.docstring for case in doctest.DocTestFinder().find(dasklake)}
    documented = {value.__doc__ for value in _listed().values() if ">>>" in str(value.__doc__)}
    assert documented
    assert documented <= collected


def test_the_version_is_that_of_the_project() -> None:
    """``dasklake.__version__`` is the version in pyproject.toml."""
    text = (Path(dasklake.__file__).parents[1] / "pyproject.toml").read_text()
    assert dasklake.__version__ == tomllib.loads(text)["project"]["version"]


def test_no_public_name_hides_a_module() -> None:
    """No module can be imported under the name of a public class or function."""
    modules = {module.name for module in pkgutil.iter_modules(dasklake.__path__)}
    assert modules.isdisjoint(_listed())


def test_every_error_is_listed() -> None:
    """Each class of the error tree is a public name of its module."""
    classes = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, exceptions.LakeError)
    }
    assert classes == set(exceptions.__all__)
