"""The gate runs every test of the project."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_test_file_lies_outside_the_tested_folder() -> None:
    """Each `test_*.py` is under a folder of `testpaths`."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = [ROOT / folder for folder in options["testpaths"]]
    hidden = {".git", ".venv", ".venv-lowest"}
    files = [
        path for path in ROOT.rglob("test_*.py") if not hidden & set(path.relative_to(ROOT).parts)
    ]
    outside = [path for path in files if not any(path.is_relative_to(f) for f in folders)]
    assert files
    assert outside == []


def test_the_gate_runs_each_check() -> None:
    """`.ci/run` calls checks, documentation and tests, and `make check` each of its tools."""
    script = (ROOT / ".ci/run").read_text()
    assert all(f"make {target}" in script for target in ("check", "docs", "test", "test-lowest"))
    rules = (ROOT / "Makefile").read_text()
    assert all(tool in rules for tool in ("ruff", "mypy", "lint-imports", "vulture"))
