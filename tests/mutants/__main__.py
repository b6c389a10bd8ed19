# ruff: noqa: T201 - a script
"""Take rules out of the code and see whether a test notices: ``python -m tests.mutants [name …]``."""

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

#: Seconds after which a test that goes on for ever counts as stuck.
_PATIENCE = 200

#: The tests of the table need no fixtures of others, which take long to import.
_OPTIONS = ("-x", "-q", "--noconftest", "-p", "no:cacheprovider")

#: Libraries that take long to import.
_SLOW = ("dask.array", "dask.bag", "dask.dataframe", "distributed", "pyarrow", "s3fs")


def apply(mutant: Mutant, root: Path) -> None:
    """Take a rule out of a copy of the package.

    Raises
    ------
    ValueError
        A text of the table does not occur exactly once.
    """
    path = root / "dasklake" / mutant.file
    text = path.read_text()
    for old, new in mutant.changes:
        if text.count(old) != 1:
            raise ValueError(f"{mutant.file} has {text.count(old)} times {old!r}")
        text = text.replace(old, new)
    path.write_text(text)


def run(tests: Sequence[str], root: Path) -> tuple[int | None, str]:
    """Run tests in a copy; return what pytest returned, None where it was stuck, and its output.

    The process is a fork of this one, which has imported all that takes long, and nothing of the
    package.
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
            os._exit(code)  # nothing of the parent's is to be cleaned up here
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), output.read_text()
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, output.read_text()


def _child(tests: Sequence[str], root: Path) -> int:
    os.chdir(root)
    os.environ["COLUMNS"] = "200"  # of the line that says why
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
    """Copy the package, its tests, and the examples that they use."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("dasklake", "examples", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def judge(mutant: Mutant) -> tuple[bool, str]:
    """Try one; return whether it was found, and how."""
    with tempfile.TemporaryDirectory() as folder:
        root = copy(Path(folder))
        try:
            apply(mutant, root)
        except ValueError as error:
            return False, f"OUT OF DATE: {error}"
        code, output = run([mutant.test], root)
    if code == 1:
        why = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return True, f"found: {why[0].partition(' - ')[2]}"
    return (
        False,
        "STUCK" if code is None else f"NOT FOUND (pytest returned {code})\n{output[-2000:]}",
    )


def main(names: Sequence[str]) -> int:
    """Try those that are named, or all; return how many were not found."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    if not chosen:
        raise SystemExit(f"no such rule; there are {sorted(m.name for m in MUTANTS)}")
    for name in _SLOW:
        importlib.import_module(name)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        code, output = run(sorted({mutant.test for mutant in chosen}), copy(Path(folder)))
    if code != 0:
        raise SystemExit(f"the tests fail as it is:\n{output[-4000:]}")
    missed = 0
    for mutant in chosen:
        found, how = judge(mutant)
        missed += not found
        print(f"{mutant.name:32} {mutant.test.rpartition('::')[2]:34} {how}", flush=True)
    took = time.monotonic() - begin
    print(f"{len(chosen) - missed} of {len(chosen)} found, in {took:.0f} s")
    return missed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
