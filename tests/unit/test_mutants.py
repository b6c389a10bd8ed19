"""The table of rules to take out of the code keeps up with the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_up_to_date(mutant: Mutant) -> None:
    """Each text of the table occurs once in its module, and what is left without it is Python."""
    text = (ROOT / "dasklake" / mutant.file).read_text()
    for old, new in mutant.changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    ast.parse(text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_names_a_test(mutant: Mutant) -> None:
    """The test that has to fail is there."""
    path, _, names = mutant.test.partition("::")
    body = ast.parse((ROOT / path).read_text()).body
    for name in names.partition("[")[0].split("::"):
        found = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name
        ]
        assert len(found) == 1
        body = found[0].body


def test_names_are_unique() -> None:
    """Each rule has a name of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
