# ruff: noqa: T201 - a script
"""Remove rules from the code and check that a test fails: ``python -m tests.mutants [name …]``."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]

#: Seconds after which a running test counts as stuck.
_TIMEOUT = 200

#: The tests of the table need no conftest, which takes long to import.
_OPTIONS = ("-x", "-q", "--noconftest", "-p", "no:cacheprovider")

#: Libraries that take long to import.
_SLOW = ("dask.array", "dask.bag", "dask.dataframe", "distributed", "pyarrow", "s3fs")


def apply(mutant: Mutant, root: Path) -> None:
    """Remove a rule from a copy of the package.

    Raises
    ------
    ValueError
        A text of the table does not occur exactly once.
    """
    path = root / "dasklake" / mutant.file
    text = path.read_text()
    for old, new in mutant.changes:
        if text.count(old) != 1:
            raise ValueError(
                f"{mutant.file} must contain {old!r} once, got {text.count(old)} times"
            )
        text = text.replace(old, new)
    path.write_text(text)


def run(tests: Sequence[str], root: Path) -> tuple[int | None, str]:
    """Run tests in a copy; return the exit code of pytest, None if it was stuck, and its output.

    The tests run in a fork of this process, which has imported the slow libraries, but nothing of
    the package.
    """
    output = root / "output.txt"
    child = os.fork()
    if not child:
        code = 2
        try:
            with output.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = _child(tests, root)
        finally:
            os._exit(code)  # skip the parent's cleanup
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), output.read_text()
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, output.read_text()


def _child(tests: Sequence[str], root: Path) -> int:
    os.chdir(root)
    os.environ["COLUMNS"] = "200"  # so that the failure line is not cut
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path[:] = [str(root), *(each for each in sys.path if each not in ("", str(ROOT)))]
    try:
        return int(pytest.main([*_OPTIONS, *tests]))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def copy(root: Path) -> Path:
    """Copy the package, its tests, and the examples that the tests use."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("dasklake", "examples", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def judge(mutant: Mutant) -> tuple[bool, str]:
    """Test one mutant; return whether its test failed, and a description."""
    with tempfile.TemporaryDirectory() as folder:
        root = copy(Path(folder))
        try:
            apply(mutant, root)
        except ValueError as error:
            return False, f"OUT OF DATE: {error}"
        code, output = run([mutant.test], root)
    if code == 1:
        reasons = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return True, f"found: {reasons[0].partition(' - ')[2]}"
    return (
        False,
        "STUCK" if code is None else f"NOT FOUND (pytest returned {code})\n{output[-2000:]}",
    )


def main(names: Sequence[str]) -> int:
    """Test the named mutants, or all; return the number that no test found."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if not chosen:
        raise SystemExit(
            f"No mutant has such a name. Existing names: {sorted(m.name for m in MUTANTS)}"
        )
    for name in _SLOW:
        importlib.import_module(name)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(sorted({mutant.test for mutant in chosen}), copy(Path(folder)))
    if code != 0:
        raise SystemExit(f"The tests fail without any mutant:\n{output[-4000:]}")
    missed = 0
    for mutant in chosen:
        detected, description = judge(mutant)
        missed += not detected
        print(f"{mutant.name:32} {mutant.test.rpartition('::')[2]:34} {description}", flush=True)
    took = time.monotonic() - begin
    print(f"{len(chosen) - missed} of {len(chosen)} found, in {took:.0f} s")
    return missed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
