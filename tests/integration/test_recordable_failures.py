"""Test that every failure is recorded, whatever the user's errors and items do when printed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag as db
import pytest
from dask.delayed import delayed
from distributed import Client

import dasklake
from dasklake import TensorSpec
from dasklake.exceptions import SampleError, StoreError, TransformError

SCHEMA = {"x": TensorSpec(dtype="int64", shape=())}
LATIN = os.fsdecode(b"stra\xdfe.png")


class Detached:
    """An item that cannot be printed or pickled."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        """Refuse to be printed."""
        raise LookupError("no session")

    def __reduce__(self) -> Any:
        """Refuse to be pickled."""
        raise TypeError("no pickle")

    @property
    def dtype(self) -> str:
        """Refuse to be read."""
        raise RuntimeError("no header")


class NotText:
    """An item whose repr is not UTF-8."""

    def __repr__(self) -> str:
        """Return half of a surrogate pair."""
        return "<row \ud800>"


class SilentError(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        """Refuse to be printed."""
        raise ZeroDivisionError

    __repr__ = __str__


class OddTextError(Exception):
    """An error whose text is not a string."""

    def __str__(self) -> str:
        """Return an integer."""
        return self.args[0]  # type: ignore[no-any-return] # not a string


class UnpicklableError(Exception):
    """An error that cannot be rebuilt from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def nested(levels: int) -> BaseException:
    """Return an error with many causes."""
    error = ValueError("innermost")
    for level in range(levels):
        cause, error = error, ValueError(f"level {level}")
        error.__cause__ = cause
    return error


def recursive(n: int) -> int:
    """Recurse for ever."""
    return recursive(n + 1)


def raising(make: Callable[..., BaseException], *args: Any) -> Callable[[], None]:
    """Return a function that makes an error and raises it."""

    def function() -> None:
        raise make(*args)

    return function


ERRORS: dict[str, Callable[[], Any]] = {
    "surrogate": raising(ValueError, f"{LATIN} is not a picture"),
    "high-surrogate": raising(KeyError, "\ud83d"),
    "silent": raising(SilentError),
    "odd-text": raising(OddTextError, 7),
    "unpicklable": raising(UnpicklableError, "a", "b"),
    "long": raising(ValueError, "wide " * 4_000_000),
    "nested": raising(nested, 300),
    "recursive": lambda: recursive(0),
    "group": raising(ExceptionGroup, "several \udcff", [SilentError(), ValueError(LATIN)]),
    "foreign-tensor": raising(lambda: SampleError("bad", tensor=NotText())),  # type: ignore[arg-type] # the error under test
    "path": lambda: Path(f"/missing/{LATIN}").read_bytes(),
}


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("name", ERRORS)
def test_any_error_is_recorded(tmp_path: Path, name: str, *, skip: bool) -> None:
    """A skipping run finishes with a readable failure; another raises an error with the index."""
    raise_it = ERRORS[name]

    def transform(x: int) -> dict[str, int]:
        if x == 3:
            raise_it()
        return {"x": x}

    url, bag = str(tmp_path / "lake"), db.from_sequence(range(8), npartitions=2)
    options: dict[str, Any] = {"schema": SCHEMA, "transform": transform, "progress": False}
    options["options"] = dasklake.WriteOptions(scheduler="sync")
    if not skip:
        with pytest.raises((TransformError, SampleError), match="index 3") as raised:
            dasklake.to_lake(bag, url, **options)
        str(raised.value).encode()
        return
    report = dasklake.to_lake(bag, url, on_error="skip", max_failures=None, **options)
    lake = dasklake.open(url)
    assert (report.samples, len(lake)) == (7, 7)
    (failure,) = lake.failures().itertuples()
    assert (failure.index, failure.item, failure.value) == (3, "3", "3")
    assert len(failure.message) <= 500
    assert len(failure.traceback) <= 4000
    f"{failure}".encode()


@pytest.mark.parametrize(
    "item",
    [
        Detached(3),
        NotText(),
        {"name": LATIN, "row": Detached(3)},
        {Detached(3): "key"},
        {str(n): n for n in range(50_000)},
        [Detached(3)],
        LATIN,
        "\ud83d" * 10_000,
    ],
    ids=["detached", "surrogate", "mapping", "key", "wide", "list", "latin", "long"],
)
def test_any_item_is_described(tmp_path: Path, item: Any) -> None:
    """The failure of an item that cannot be printed or pickled has its position and a text."""

    def transform(value: Any) -> dict[str, int]:
        if not isinstance(value, int):
            raise ValueError("no number")  # noqa: TRY004 # any error
        return {"x": value}

    bag = db.from_delayed([dask_list([0, item, 2])])
    report = dasklake.to_lake(
        bag,
        str(tmp_path / "lake"),
        schema=SCHEMA,
        transform=transform,
        on_error="skip",
        max_failures=None,
        progress=False,
        input_id="items",
        options=dasklake.WriteOptions(scheduler="sync"),
    )
    (failure,) = dasklake.open(str(tmp_path / "lake")).failures().itertuples()
    assert report.samples == 2
    assert (failure.position, failure.message) == (1, "no number")
    assert 0 < len(failure.item) <= 120
    failure.item.encode()


def dask_list(items: list[Any]) -> Any:
    """Return a delayed list that is made in its task."""
    return delayed(lambda: items, pure=False, traverse=False)()


def test_passwords_stay_hidden_in_long_messages(tmp_path: Path) -> None:
    """A text that is shortened before its URLs are searched still shows no password."""
    url = "https://me:pw-secret@host/file"

    def transform(x: int) -> dict[str, int]:
        raise ValueError(f"{url} {'a' * 4990}{url}{'b' * 4980} {url}")

    dasklake.to_lake(
        db.from_sequence(range(2), npartitions=1),
        str(tmp_path / "lake"),
        schema=SCHEMA,
        transform=transform,
        on_error="skip",
        max_failures=None,
        progress=False,
        options=dasklake.WriteOptions(scheduler="sync"),
    )
    assert "secret" not in dasklake.open(str(tmp_path / "lake")).failures().to_json()


@pytest.mark.parametrize("name", ["surrogate", "high-surrogate", "silent", "unpicklable", "long"])
def test_errors_of_tasks_on_a_cluster(tmp_path: Path, name: str) -> None:
    """On a cluster, a skipping run finishes, also if the error ends a whole partition."""
    raise_it = ERRORS[name]

    def broken(x: int) -> int:
        if x == 3:
            raise_it()
        return x

    bag = db.from_sequence(range(8), npartitions=2).map(broken).map(lambda x: {"x": x})
    with Client(n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False):
        report = dasklake.to_lake(
            bag, str(tmp_path / "lake"), schema=SCHEMA, on_error="skip", max_failures=None,
            progress=False,
        )  # fmt: skip
    assert report.samples == 4
    (failure,) = dasklake.open(str(tmp_path / "lake")).failures().itertuples()
    str(failure).encode()


class SilentConnectionError(ConnectionError):
    """A storage error that cannot be printed."""

    def __str__(self) -> str:
        """Refuse to be printed."""
        raise ZeroDivisionError

    __repr__ = __str__


def test_storage_errors_that_cannot_be_printed_end_a_run(tmp_path: Path) -> None:
    """Dask reports an error by its repr; the run ends with an error that names the class."""

    def broken(x: int) -> dict[str, int]:
        if x == 3:
            raise SilentConnectionError
        return {"x": x}

    bag = db.from_sequence(range(8), npartitions=2)
    with (
        Client(n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False),
        pytest.raises(StoreError, match=r"SilentConnectionError[^~]*mode='resume'"),
    ):
        dasklake.to_lake(
            bag, str(tmp_path / "lake"), schema=SCHEMA, on_error="skip", max_failures=None,
            progress=False, transform=broken,
        )  # fmt: skip
