"""Progress bars for long operations in terminals and notebooks."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from dasklake._run.coordinator import Status
from dasklake.exceptions import MissingExtraError

try:  # the extra `progress`
    from tqdm.auto import tqdm
except ImportError:
    tqdm = None

#: Seconds before a bar is shown.
_DELAY = 1.0


@contextlib.contextmanager
def make_bar(progress: bool | Literal["auto"], run: str) -> Iterator[Callable[[Status], None]]:  # noqa: FBT001 # the option's own type
    """Start a bar and yield a function that shows a status; it does nothing without a bar.

    Raises
    ------
    MissingExtraError
        ``progress`` is True and tqdm is not installed.
    """
    with _bar(progress, f"to_lake {run}", " samples") as bar:
        yield lambda status: None if bar is None else _show(bar, status)


@contextlib.contextmanager
def make_count_bar(
    progress: bool | Literal["auto"],  # noqa: FBT001 # the option's own type
    title: str,
    unit: str,
) -> Iterator[Callable[[int, int], None]]:
    """Start a bar and yield a function that shows the number done and the total.

    Raises
    ------
    MissingExtraError
        ``progress`` is True and tqdm is not installed.
    """
    with _bar(progress, title, f" {unit}") as bar:

        def show(done: int, total: int) -> None:
            if bar is not None:
                bar.total, bar.n = total, done
                bar.refresh()

        yield show


def _bar(progress: bool | Literal["auto"], title: str, unit: str) -> Any:  # noqa: FBT001 # as above
    """Return a bar, or a null context if it is disabled or the output is not interactive."""
    if progress is True and tqdm is None:
        raise MissingExtraError("A progress bar", "progress")
    if not progress or tqdm is None or (progress == "auto" and not _interactive()):
        return contextlib.nullcontext()
    return tqdm(desc=title, unit=unit, delay=_DELAY)


def _show(bar: Any, status: Status) -> None:
    bar.total = status.total
    bar.n = status.written
    late = {} if status.delayed is None else {"commits": "late, the storage fails"}
    bar.set_postfix(committed=status.committed, failures=status.failures, **late, refresh=False)
    bar.refresh()


def _interactive() -> bool:
    return sys.stderr.isatty() or "ipykernel" in sys.modules
