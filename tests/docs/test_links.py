"""Test the links and the completeness of the documentation pages."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import dasklake
from dasklake._api.cli import cli
from dasklake._schema.htypes import HTYPES
from dasklake.exceptions import LakeError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_targets_exist(page: Path) -> None:
    """Each relative link and picture of a page exists in the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert (page.parent / path).exists(), target


def test_every_page_is_in_a_table_of_contents() -> None:
    """A page that exists can be reached from the front page."""
    listed = {
        (index.parent / f"{entry}.md").resolve()
        for index in DOCS.rglob("index.md")
        for toc in re.findall(r"```\{toctree\}\n(.*?)```", index.read_text(), re.DOTALL)
        for entry in toc.split()
        if not entry.startswith(":")
    }
    pages = {page.resolve() for page in PAGES[1:]} - {(DOCS / "index.md").resolve()}
    assert pages - listed == set()


def test_every_error_has_its_line() -> None:
    """The page of errors has a row for each code."""
    text = (DOCS / "reference" / "errors.md").read_text()
    todo = [LakeError]
    for cls in todo:
        todo += cls.__subclasses__()
        if cls.__module__ == "dasklake.exceptions":
            assert f"| `{cls.__name__}` | `{cls.code}` |" in text


def test_every_htype_is_described() -> None:
    """The page of htypes lists the default dtype and the compressions of each htype."""
    text = (DOCS / "reference" / "htypes.md").read_text()
    for htype in HTYPES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{htype.name}` |"))
        assert htype.summary.rstrip(".") in row
        assert all(
            f"`{compression}`" in row
            for compression in htype.compressions
            if compression is not None
        )


def test_every_command_is_described() -> None:
    """The page of the command line has each command, and each of its options."""
    text = (DOCS / "reference" / "cli.md").read_text()
    for name, command in cli.commands.items():
        _, _, rest = text.partition(f"## `{name}`")
        assert rest, name
        section = rest.partition("\n## ")[0] + text.partition("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(f"`{option}" in section for option in parameter.opts), parameter.name


def test_every_public_name_is_in_the_reference() -> None:
    """The page of functions and classes has each public name."""
    text = (DOCS / "reference" / "api.md").read_text()
    for name in dasklake.__all__:
        assert f":: dasklake.{name}\n" in text, name
