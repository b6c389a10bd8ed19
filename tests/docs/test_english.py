"""Plain English in messages, docstrings, comments and pages; names that say what they hold."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "dasklake").rglob("*.py"))
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts
)

#: A phrase that readers outside the project stumble over, and the standard one.
PHRASES = {
    r"mend(s|ed|ing)?": "fix, repair",
    r"ask(s|ed|ing)? again": "retry",
    r"patien(ce|t)": "retry time, timeout",
    r"whoever|nobody|somebody": "the process: writer, reader, caller, scheduler, worker",
    r"(goes|go|went|going) on": "continue",
    r"(gives|give|gave|given|giving) up": "expire, abort, stop",
    r"(is|are) told|tells?": "report, notify, return whether",
    r"(is|are) none": "must be X, got Y",
    r"(is|are) no (name|size|time|place|index|chunk|list|function|number|mapping|file|mask)": (
        "is not a valid X"
    ),
    r"None where": "None if",
    r"adopt(s|ed|ing|able)?": "recover",
    r"(nullable|its) kin": "name the thing",
    r"look(s|ed)? (at|whether)": "check, inspect",
    r"in vain": "without effect",
    r"is said to": "say who says it",
}
BANNED = {
    # "is None" is Python, "is none" is not English.
    re.compile(rf"\b(?:{phrase})\b", 0 if "none" in phrase else re.IGNORECASE): cure
    for phrase, cure in PHRASES.items()
}

#: A summary says what a function does, or what a class or module is.
RIDDLE = re.compile(r"(What|How|Whether|Where|Which|Who|Why|That)\b")

#: Names that say nothing of their content.
EMPTY = frozenset(
    {
        *("found", "each", "place", "known", "made", "wanted", "left", "mine", "others"),
        *("there", "what", "who", "sure", "news", "here", "kept", "words", "told", "heard"),
    }
)

#: (file, text): the reason why it stands there all the same.
EXEMPT: dict[tuple[str, str], str] = {}


class Finding(NamedTuple):
    """Where something stands, and what it is."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.text!r}"

    @property
    def exempt(self) -> bool:
        """Whether a reason is on the list."""
        return (str(self.path.relative_to(ROOT)), self.text) in EXEMPT


def phrases(path: Path, line: int, text: str) -> Iterator[Finding]:
    """Yield the banned phrases of a text."""
    for pattern in BANNED:
        for match in pattern.finditer(" ".join(text.split())):
            yield Finding(path, line, match[0])


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings, docstrings and comments of a module."""
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def summaries(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the first lines of a module's docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            yield getattr(node, "lineno", 1), summary


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the names that a module assigns, and those of parameters."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def report(findings: list[Finding]) -> str:
    """Return the findings without a reason, one a line."""
    return "\n".join(str(each) for each in findings if not each.exempt)


def test_messages_docstrings_and_comments_use_standard_words() -> None:
    """No string or comment of the package has a phrase of the list."""
    findings = [
        f for path in MODULES for line, text in texts(path) for f in phrases(path, line, text)
    ]
    assert report(findings) == ""


def test_summaries_begin_with_a_verb_or_a_noun() -> None:
    """No summary is an indirect question."""
    findings = [
        Finding(path, line, summary)
        for path in MODULES
        for line, summary in summaries(path)
        if RIDDLE.match(summary)
    ]
    assert report(findings) == ""


def test_names_say_what_they_hold() -> None:
    """No variable or parameter of the package has a name of the list."""
    findings = [
        Finding(path, line, name) for path in MODULES for line, name in names(path) if name in EMPTY
    ]
    assert report(findings) == ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_standard_words(page: Path) -> None:
    """No page has a phrase of the list outside of its blocks of code."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", " ", page.read_text(), flags=re.DOTALL)
    findings = [f for text in prose.split("\n\n") for f in phrases(page, 0, text)]
    assert report(findings) == ""


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    """Each kind of text is searched, and each kind of name."""
    module = tmp_path / "module.py"
    module.write_text(
        '"""Whether it works."""\n'
        "def f(known):\n"
        "    found = known  # nobody knows\n"
        '    raise ValueError(f"{found} is none")\n'
    )
    assert [f.text for line, text in texts(module) for f in phrases(module, line, text)] == [
        "is none",
        "nobody",
    ]
    assert [bool(RIDDLE.match(text)) for _, text in summaries(module)] == [True, False]
    assert {name for _, name in names(module)} & EMPTY == {"known", "found"}


def test_every_exemption_is_used() -> None:
    """A reason whose text is gone goes too."""
    for path, text in EXEMPT:
        assert text in (ROOT / path).read_text(), (path, text)
