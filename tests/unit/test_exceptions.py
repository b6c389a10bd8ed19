"""The error tree: hierarchy, codes, and pickling with all attributes."""

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
    """Return the parent of each error in the tree of the module's docstring."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│ ├└─]*)(\w+Error)\b", line)
        if match:
            depth = len(match.group(1)) // 4
            path = [*path[:depth], match.group(2)]
            parents[match.group(2)] = path[depth - 1] if depth else None
    return parents


def test_documented_tree_matches_the_classes() -> None:
    """The tree in the module's docstring matches the classes."""
    real = {
        cls.__name__: None if cls is LakeError else cls.__bases__[0].__name__ for cls in CLASSES
    }
    assert drawn() == real


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_categories_are_builtins_too(name: str, builtin: type[Exception]) -> None:
    """A category is a subclass of the corresponding builtin error."""
    assert issubclass(getattr(exceptions, name), builtin)


def test_codes_are_stable() -> None:
    """A code is derived from the class name, and is unique."""
    for cls in CLASSES:
        code = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__.removesuffix("Error")).lower()
        assert cls.code == {"lake": "lake-error"}.get(code, code)
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors_cross_processes(cls: type[LakeError]) -> None:
    """An error keeps its type, text and attributes between a worker and the client."""
    error = cls("reading", "s3") if cls is MissingExtraError else cls("What happened. Do this.")
    error.add_note("seen on a worker")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_sample_error_names_tensor_and_sample() -> None:
    """The text of a sample error names tensor and sample, if given."""
    assert str(SampleError("too long")) == "too long"
    error = SampleError("too long", tensor="boxes", sample="7 of partition 3")
    assert str(error) == "tensor 'boxes', sample 7 of partition 3: too long"
    assert (error.message, error.tensor, error.sample) == ("too long", "boxes", "7 of partition 3")


def test_transform_error_has_the_position() -> None:
    """A transform error has the position of the item and the number of committed samples."""
    error = TransformError(
        "It failed.", index=45, item="'x'", partition=4, position=5, samples_processed=40
    )
    assert pickle.loads(pickle.dumps(error)).samples_processed == 40
    assert (error.index, error.item, error.partition, error.position) == (45, "'x'", 4, 5)


def test_missing_extra_names_the_command() -> None:
    """A missing optional library is an error with the command that installs it."""
    error = MissingExtraError("Reading s3:// URLs", "s3")
    assert str(error).endswith('pip install "dasklake[s3]".')
    assert error.extra == "s3"
