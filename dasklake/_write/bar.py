"""A bar for long writes, where somebody is looking."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from dasklake._write.coordinator import Status
from dasklake.exceptions import MissingExtraError

try:  # an optional door: the extra `progress`
    from tqdm.auto import tqdm
except ImportError:
    tqdm = None

__all__ = ["make_bar"]

#: Seconds that a write may last before the bar shows.
_DELAY = 1.0


@contextlib.contextmanager
def make_bar(progress: bool | Literal["auto"], run: str) -> Iterator[Callable[[Status], None]]:  # noqa: FBT001 # the option's own type
    """Yield a function that shows a status; it does nothing where nobody is looking.

    Raises
    ------
    MissingExtraError
        A bar was asked for and tqdm is not installed.
    """
    if progress is True and tqdm is None:
        raise MissingExtraError("A progress bar", "progress")
    if not progress or tqdm is None or (progress == "auto" and not _interactive()):
        yield lambda _: None
        return
    bar = tqdm(desc=f"to_lake {run}", unit=" samples", delay=_DELAY)
    with bar:
        yield lambda status: _show(bar, status)


def _show(bar: Any, status: Status) -> None:
    bar.total = status.total
    bar.n = status.written
    bar.set_postfix(committed=status.committed, failures=status.failures, refresh=False)
    bar.refresh()


def _interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
