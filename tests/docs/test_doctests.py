"""Test that the examples in docstrings print the shown output."""

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
    """Each example of a module's docstrings prints the shown output."""
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS, verbose=False
    )
    assert results.failed == 0
