"""Progress bars: when they are shown, and their content."""

from __future__ import annotations

import io
import sys
import types
from dataclasses import replace
from typing import Literal

import pytest

from dasklake._run import progress_bar
from dasklake._run.coordinator import Status
from dasklake._run.progress_bar import make_bar, make_count_bar
from dasklake.exceptions import MissingExtraError

STATUS = Status(
    running=True,
    version=3,
    partitions=1,
    of=4,
    written=75,
    committed=50,
    total=200,
    samples=50,
    failures=2,
    size=1000,
    commits=1,
)


class Terminal(io.StringIO):
    """A stream that may be a terminal."""

    def __init__(self, *, looking: bool) -> None:
        super().__init__()
        self.looking = looking

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self.looking


def shown(
    monkeypatch: pytest.MonkeyPatch,
    progress: bool | Literal["auto"],  # noqa: FBT001 # the option's own type
    *,
    looking: bool,
) -> str:
    """Return the output of a write's bar."""
    terminal = Terminal(looking=looking)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_bar, "_DELAY", 0)
    # tqdm cuts a bar at the width of the terminal, and the rate is a number of any length.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")
    with make_bar(progress, "coco") as show:
        show(STATUS)
    return terminal.getvalue()


def test_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar shows the run, written and total samples, committed samples and failures."""
    output = shown(monkeypatch, progress=True, looking=False)
    for text in ("to_lake coco", "75/200", "committed=50", "failures=2", "samples"):
        assert text in output


def test_late_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the storage fails, a bar reports that commits are late."""
    monkeypatch.setattr(sys.modules[__name__], "STATUS", replace(STATUS, delayed="no answer"))
    assert "late, the storage fails" in shown(monkeypatch, progress=True, looking=True)


@pytest.mark.parametrize(
    ("progress", "looking", "shows"),
    [("auto", True, True), ("auto", False, False), (False, True, False), (True, False, True)],
)
def test_terminals(
    monkeypatch: pytest.MonkeyPatch,
    progress: bool | Literal["auto"],  # noqa: FBT001 # the option's own type
    *,
    looking: bool,
    shows: bool,
) -> None:
    """By default a bar is shown on terminals only; True and False are obeyed."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert bool(shown(monkeypatch, progress, looking=looking)) is shows


def test_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar is shown in notebooks."""
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    assert "coco" in shown(monkeypatch, "auto", looking=False)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tqdm no bar is shown; progress=True names the extra to install."""
    monkeypatch.setattr(progress_bar, "tqdm", None)
    assert shown(monkeypatch, "auto", looking=True) == ""
    with pytest.raises(MissingExtraError, match=r"dasklake\[progress\]"):
        shown(monkeypatch, progress=True, looking=True)


def test_unknown_total(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the length of the input is unknown, only the written samples are shown."""
    terminal = Terminal(looking=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_bar, "_DELAY", 0)
    values = {name: getattr(STATUS, name) for name in Status.__slots__} | {"total": None}
    with make_bar(True, "coco") as show:  # noqa: FBT003 # the option's own type
        show(Status(**values))
    assert "75 samples" in terminal.getvalue()


def test_a_bar_of_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletes and joins show the number done and the total on terminals."""
    outputs = []
    for looking in (True, False):
        terminal = Terminal(looking=looking)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(progress_bar, "_DELAY", 0)
        with make_count_bar("auto", "vacuum", "objects") as show:
            show(3, 12)
        outputs.append(terminal.getvalue())
    assert "vacuum" in outputs[0]
    assert "3/12" in outputs[0]
    assert outputs[1] == ""
