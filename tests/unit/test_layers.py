"""The layer contracts find what they are there for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a copy of the package."""
    arguments = [sys.executable, "-c", RUN, "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy what the contracts are about."""
    shutil.copytree(ROOT / "dasklake", tmp_path / "dasklake")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(root: Path, module: str, line: str) -> None:
    """Add an import at the end of a module."""
    path = root / "dasklake" / module
    path.write_text(f"{path.read_text()}\n\n{line}\n")


LAYERS = "layers: imports go downwards only"


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("_schema/values.py", "from dasklake._api import write", LAYERS),
        ("_log/log.py", "def hidden() -> None:\n    import dasklake._api.lake", LAYERS),
        ("_codecs/registry.py", "import dasklake.creds", LAYERS),
        ("_read/plan.py", "import dasklake._write.partition", LAYERS),
        ("_format/object_keys.py", "import dask", "no Dask at or below the maintenance layer"),
        ("_read/plan.py", "import fsspec", "one door to fsspec: _storage.fsspec_backend"),
        (
            "_api/lake.py",
            "import distributed",
            "only _run knows distributed",
        ),
        ("_write/partition.py", "import tqdm", "one owner for each optional library"),
    ],
    ids=["upwards", "hidden", "peer", "sideways", "dask", "fsspec", "distributed", "optional"],
)
def test_planted_imports_are_found(copy: Path, module: str, line: str, contract: str) -> None:
    """An import that breaks a contract fails the check, which names the contract."""
    plant(copy, module, line)
    found = lint(copy)
    assert found.returncode == 1, found.stdout + found.stderr
    broken = [text for text in found.stdout.splitlines() if " BROKEN" in text]
    assert any(text.startswith(contract) for text in broken), found.stdout


def test_a_module_without_a_layer_is_found(copy: Path) -> None:
    """A module that no contract knows fails the check."""
    (copy / "dasklake" / "helpers.py").write_text("")
    found = lint(copy)
    assert found.returncode == 1
    assert "dasklake.helpers" in found.stdout


def test_private_modules_of_dask_have_one_door() -> None:
    """Only ``_dask`` imports modules of Dask that are private or change between releases."""
    private = re.compile(r"(?:dask\._?task_spec|distributed\.(?:protocol|scheduler|worker)\b)")
    users = {
        path.name
        for path in (ROOT / "dasklake").rglob("*.py")
        if any(
            private.search(line)
            for line in path.read_text().splitlines()
            if line.startswith(("from ", "import "))
        )
    }
    assert users == {"_dask.py"}
