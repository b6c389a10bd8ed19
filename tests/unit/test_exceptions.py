"""The error tree: shape, codes, and that errors cross processes whole."""

from __future__ import annotations

import pickle
import re

import pytest

from dasklake import exceptions
from dasklake.exceptions import LakeError, MissingExtraError, SampleError, TransformError

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]
BUILTINS = {
    "InvalidInputError": ValueError,
    "NotFoundError": LookupError,
    "StoreError": OSError,
    "MissingExtraError": ImportError,
}


def drawn() -> dict[str, str | None]:
    """Read the tree of the module's docstring: name to parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│ ├└─]*)(\w+Error)\b", line)
        if match:
            depth = len(match.group(1)) // 4
            path = [*path[:depth], match.group(2)]
            parents[match.group(2)] = path[depth - 1] if depth else None
    return parents


def test_tree_is_as_drawn() -> None:
    """The drawing in the module's docstring is the tree."""
    real = {
        cls.__name__: None if cls is LakeError else cls.__bases__[0].__name__ for cls in CLASSES
    }
    assert drawn() == real


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_categories_are_builtins_too(name: str, builtin: type[Exception]) -> None:
    """A category can be caught as the builtin that a caller would expect."""
    assert issubclass(getattr(exceptions, name), builtin)


def test_codes_are_stable() -> None:
    """A code follows from the name, is unique, and never changes."""
    for cls in CLASSES[:]:
        words = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()
        assert cls.code == {"lake": "lake-error"}.get(words, words)
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_cross_processes(cls: type[LakeError]) -> None:
    """An error keeps its type, text and attributes on the way from a worker to the client."""
    error = cls("reading", "s3") if cls is MissingExtraError else cls("What happened. Do this.")
    error.add_note("seen on a worker")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_sample_error_names_its_place() -> None:
    """The text of a sample error names tensor and sample, where they are known."""
    assert str(SampleError("too long")) == "too long"
    error = SampleError("too long", tensor="boxes", sample="7 of partition 3")
    assert str(error) == "tensor 'boxes', sample 7 of partition 3: too long"
    assert (error.message, error.tensor, error.sample) == ("too long", "boxes", "7 of partition 3")


def test_transform_error_tells_where() -> None:
    """A transform error carries the place of the item and what was committed."""
    error = TransformError(
        "It failed.", index=45, item="'x'", partition=4, position=5, samples_processed=40
    )
    assert pickle.loads(pickle.dumps(error)).samples_processed == 40
    assert (error.index, error.item, error.partition, error.position) == (45, "'x'", 4, 5)


def test_missing_extra_names_the_command() -> None:
    """A missing optional library is an error that holds the command to install it."""
    error = MissingExtraError("Reading s3:// URLs", "s3")
    assert str(error).endswith('pip install "dasklake[s3]".')
    assert error.extra == "s3"
