"""Test that every Python block of README and documentation runs, page by page in a separate folder.

A block that cannot run is opened with a comment that gives the reason::

    <!-- not run: needs a bucket -->
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dask
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n+)?^```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One block: where it starts, its code, and why it is not run."""

    line: int
    code: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    """Read the Python blocks of a page."""
    text = page.read_text()
    return [
        Block(text.count("\n", 0, match.start("code")) + 1, match["code"], match["reason"])
        for match in BLOCK.finditer(text)
    ]


WITH_CODE = [page for page in PAGES if any(block.reason is None for block in blocks(page))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Undo what a page configures of logging."""
    loggers = [logging.getLogger(), logging.getLogger("dasklake")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("same_logging")
@pytest.mark.parametrize("page", WITH_CODE, ids=_name)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    # The scheduler chosen by a page ends with the page.
    with dask.config.set(scheduler=None):
        for block in blocks(page):
            if block.reason is None:
                # Line numbers of a traceback are those of the page.
                code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
                exec(code, namespace)  # noqa: S102 - the project's own documentation


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_are_python(page: Path) -> None:
    """A block that is not run is still valid Python, and each fence is closed."""
    assert page.read_text().count("```") % 2 == 0
    for block in blocks(page):
        compile(block.code, f"{page}:{block.line}", "exec")


def test_all_blocks_are_found() -> None:
    """The search finds every Python block."""
    for page in PAGES:
        assert len(blocks(page)) == len(
            re.findall(r"^```[ \t]*py", page.read_text(), re.MULTILINE)
        ), page
