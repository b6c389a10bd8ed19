"""The oldest supported versions: stated once for users, and installed for the tests."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"([a-z0-9-]+)(?:\[[a-z,]+\])?>=([0-9.]+)")
PIN = re.compile(r"([a-z0-9-]+)==([0-9.]+)")

#: Extras whose libraries only developers install.
TOOLS = {"all", "check", "demo", "docs", "test"}


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, without zeros at the end."""
    numbers = [int(number) for number in version.split(".")]
    while numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def test_lower_bounds_are_the_versions_that_are_tested() -> None:
    """Each library of the package and of its extras is pinned to its lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(each for extra in extras.keys() - TOOLS for each in extras[extra]),
    ]
    matches = [REQUIREMENT.fullmatch(requirement) for requirement in requirements]
    bounds = {match[1]: match[2] for match in matches if match}
    assert len(bounds) == len(requirements), "every requirement has a lower bound and nothing else"
    pins = dict(PIN.findall((ROOT / ".ci/lowest.txt").read_text()))
    # Older releases of PyTorch bring gigabytes of CUDA, see docs/explanation/versions.md.
    assert release(pins.pop("torch")) >= release(bounds.pop("torch"))
    assert {name: release(version) for name, version in bounds.items()} == {
        name: release(version) for name, version in pins.items()
    }
