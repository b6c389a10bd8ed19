"""The examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dasklake

MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(dasklake.__path__, "dasklake.")
    if info.name != "dasklake.__main__"
)


@pytest.mark.parametrize("name", ["dasklake", *MODULES])
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example of a module's docstrings prints what stands under it."""
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS, verbose=False
    )
    assert found.failed == 0
