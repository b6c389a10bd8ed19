"""The layer contracts find what they are there for."""

from __future__ import annotations

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


FLOORS = "floors: imports go downwards only"


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("_model/values.py", "from dasklake import write", FLOORS),
        ("_store/log.py", "def hidden() -> None:\n    import dasklake.lake", FLOORS),
        ("codecs/base.py", "import dasklake.creds", FLOORS),
        ("_read/plan.py", "import dasklake._write.partition", FLOORS),
        ("_format/layout.py", "import dask", "no Dask at or below the maintenance floor"),
        ("_read/plan.py", "import fsspec", "one door to fsspec"),
        (
            "lake.py",
            "import distributed",
            "only the plugin and the client's end of it know distributed",
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
    broken = [text for text in found.stdout.splitlines() if text.endswith("BROKEN")]
    assert any(text.startswith(contract) for text in broken), found.stdout


def test_a_room_without_a_floor_is_found(copy: Path) -> None:
    """A module that no contract knows fails the check."""
    (copy / "dasklake" / "helpers.py").write_text("")
    found = lint(copy)
    assert found.returncode == 1
    assert "dasklake.helpers" in found.stdout
