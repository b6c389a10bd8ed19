"""Test that wrong arguments of public functions and methods end in errors of the project."""

from __future__ import annotations

import datetime as dt
import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pandas as pd
import pytest

import dasklake
from dasklake.exceptions import LakeError

SYNC = dasklake.WriteOptions(scheduler="sync")

#: Values that most arguments must not have.
WRONG: dict[str, Any] = {
    "none": None,
    "integer": 7,
    "negative": -1,
    "huge": 10**30,
    "float": 1.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "text": "nope",
    "empty text": "",
    "surrogate": "\ud800",
    "zero byte": "a\0b",
    "bytes": b"x",
    "empty list": [],
    "list": ["nope"],
    "list of a huge number": [10**30],
    "dict": {"nope": 1},
    "dict of numbers": {1: 2},
    "object": object(),
    "set": {1},
    "true": True,
    "function": len,
    "array": np.array([1.5, 2]),
    "series": pd.Series([1, 2]),
    "not a time": pd.NaT,
    "class": int,
    "duration": dt.timedelta(-1),
    "complex": 1j,
}

#: Wrong values that are tried for each parameter.
_TRIED = 4

NUMBERS = count()

#: Arguments without a default.
GOOD: dict[str, Any] = {
    "batch_size": 2,
    "batches": 1,
    "expression": [("x", ">", 1)],
    "fn": dict,
    "fractions": {"a": 0.5, "b": 0.5},
    "new": "y",
    "new_name": "key-2",
    "rows": [0],
    "sample": {"x": 1, "t": "a"},
    "samples": {"x": [1], "t": ["a"]},
    "worker": 0,
    "workers": 1,
    "epoch": 0,
    "start": 0,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relative paths, which some arguments are, be below a temporary folder."""
    monkeypatch.chdir(tmp_path)


@dasklake.compute
def numbers(item: Any, sample_out: Any) -> None:
    """Write a number."""
    sample_out.append({"x": item, "t": "a"})


def new_url() -> str:
    """Return a URL that no lake has."""
    return f"memory://wrong-arguments-{next(NUMBERS)}"


def make_lake() -> dasklake.Lake:
    """Return a new lake of three samples."""
    url = new_url()
    samples = [{"x": i, "t": f"t{i}"} for i in range(3)]
    bag = db.from_sequence(samples, npartitions=2)
    dasklake.to_lake(bag, url, schema={"x": "int64", "t": "text"}, progress=False, options=SYNC)
    return dasklake.open(url)


def write(options: dasklake.WriteOptions) -> None:
    """Write with options."""
    bag = db.from_sequence([1], npartitions=1)
    dasklake.to_lake(bag, new_url(), schema={"x": "int64"}, progress=False, options=options)


def method_of(make: Callable[[], Any], name: str) -> Any:
    """Return a method of a new object."""
    return getattr(make(), name)


def functions() -> Iterator[tuple[str, Callable[[], Any], dict[str, Any]]]:
    """Yield the name of each function, a maker of it, and its correct arguments."""
    bag = db.from_sequence([1], npartitions=1)
    known = {
        "to_lake": {"collection": bag, "url": new_url, "schema": {"x": "int64"}, "options": SYNC},
        "open": {"url": lambda: make_lake().url},
        "load": {"url": lambda: make_lake().url},
        "read_lake": {"url": lambda: make_lake().url},
        "empty": {"url": new_url},
        "read": {"path": "/file"},
        "link": {"url": "/file"},
        "compose": {"pipelines": [numbers()]},
        "TensorSpec": {"dtype": "int64"},
        "Schema": {"tensors": {"x": "int64"}},
        "LinkPolicy": {},
    }
    for name, given in known.items():
        yield name, partial(getattr, dasklake, name), given
    options = {"scheduler": "sync"}
    make: Callable[..., None] = lambda **values: write(dasklake.WriteOptions(**values))  # noqa: E731 # it gets a signature
    make.__signature__ = inspect.signature(dasklake.WriteOptions)  # type: ignore[attr-defined] # read by inspect
    yield "WriteOptions", lambda: make, options
    data = {"data_in": [1, 2], "lake": make_lake, "scheduler": "sync", "progressbar": False}
    yield "Pipeline.eval", lambda: numbers().eval, data
    makers: dict[type, Callable[[], Any]] = {
        dasklake.Lake: make_lake,
        dasklake.View: lambda: make_lake().select([0, 2]),
        dasklake.Tensor: lambda: make_lake()["x"],
        dasklake.Batches: lambda: make_lake().batches(2),
    }
    for cls, maker in makers.items():
        for name in dir(cls):
            static = inspect.getattr_static(cls, name)
            if name.startswith("_") or not inspect.isfunction(static):
                continue
            yield f"{cls.__name__}.{name}", partial(method_of, maker, name), {}


CASES = {name: (make, given) for name, make, given in functions()}

#: Arguments of these parameters have a form that only the caller knows, or are lists of rows whose
#: numbers are out of range as those of a list are.
_INDEXES = {"rows"}


def correct_arguments(parameters: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return correct arguments for all parameters without a default."""
    values = dict(given)
    for name, parameter in parameters.items():
        if name in values or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.default is parameter.empty:
            values[name] = new_url() if name == "url" else GOOD.get(name, "x")
        elif name == "progress":
            values[name] = False
    return {
        name: value() if value in (new_url, make_lake) or inspect.isfunction(value) else value
        for name, value in values.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_wrong_arguments_end_in_errors_of_the_project(name: str) -> None:
    """No exception of Python or of a library escapes, whatever the value of an argument is."""
    make, given = CASES[name]
    call = make()
    parameters = inspect.signature(call).parameters
    chosen = random.Random(name)  # noqa: S311 # the same values in each run
    for parameter, description in parameters.items():
        if description.kind in (description.VAR_KEYWORD, description.VAR_POSITIONAL):
            continue
        for wrong in chosen.sample(sorted(WRONG), _TRIED):
            arguments = correct_arguments(parameters, given) | {parameter: WRONG[wrong]}
            try:
                with warnings.catch_warnings(action="ignore"):
                    call(**arguments)
            except LakeError:
                pass
            except IndexError:
                assert parameter in _INDEXES
            except Exception as error:
                error.add_note(f"{name}({parameter}={WRONG[wrong]!r})")
                raise


def flags() -> Iterator[Any]:
    """Yield the arguments that must be True or False, with their functions."""
    for name, (make, _) in CASES.items():
        for parameter in inspect.signature(make()).parameters.values():
            if parameter.annotation == "bool":
                yield name, parameter.name


@pytest.mark.parametrize(("name", "flag"), list(flags()))
def test_texts_are_not_taken_for_flags(name: str, flag: str) -> None:
    """``overwrite="no"`` is an error, and does not empty a lake."""
    make, given = CASES[name]
    call = make()
    arguments = correct_arguments(inspect.signature(call).parameters, given) | {flag: "no"}
    with pytest.raises(LakeError, match=f"{flag} must be True"):
        call(**arguments)


def test_options_are_validated_when_they_are_made() -> None:
    """A wrong value of an option is an error of the option, not of the write."""
    wrong: dict[str, list[Any]] = {
        "retries": [-1, 1.5, True],
        "single_writer": ["no"],
        "chunk_size": [True, ""],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(LakeError, match=f"{name} must be"):
                write(dasklake.WriteOptions(**{"scheduler": "sync", name: value}))
    with pytest.raises(TypeError, match="nope"):
        dasklake.WriteOptions(nope=1)  # type: ignore[call-arg] # the error of Python names it


@pytest.mark.parametrize("call", ["eval", "write", "retry_failures"])
def test_unknown_options_name_the_nearest_one(call: str, tmp_path: Path) -> None:
    """An argument that is passed on to ``to_lake`` is checked, also if there is nothing to write."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    bag = db.from_sequence([{"x": 1}], npartitions=1)
    calls: dict[str, Callable[..., Any]] = {
        "eval": partial(numbers().eval, [], lake),
        "write": partial(lake.write, bag),
        "retry_failures": partial(lake.retry_failures, dict),
    }
    with pytest.raises(
        LakeError, match=r"no argument 'max_failure'. Did you mean 'max_failures'\?"
    ):
        calls[call](max_failure=1)
