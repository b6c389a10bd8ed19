"""Refuse scripts that worker processes would run again.

A worker process that is spawned imports the script of the process that started it. Without
``if __name__ == "__main__":`` the script would begin again in each worker, and empty the lake that
the job is writing.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path
from types import FrameType

from dasklake.exceptions import InvalidInputError

_REMEDY = (
    'Put the code of the script under `if __name__ == "__main__":`. Each worker process imports the '
    "script, and would run the code again."
)


def raise_if_importing_main() -> None:
    """Raise an error if this process is a worker that starts, and imports the user's script.

    Raises
    ------
    InvalidInputError
        The script has no main guard.
    """
    # Set by multiprocessing while a new process prepares itself; its own check uses it too.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InvalidInputError(
            f"A worker process must not write a lake while it starts. {_REMEDY}"
        )


def raise_if_unguarded() -> None:
    """Raise an error if workers started now would run the user's script again.

    Raises
    ------
    InvalidInputError
        The calling code is at the top level of the script, outside of a main guard.
    """
    frame = _frame_of_script()
    if frame is not None and not _has_guard(Path(frame.f_code.co_filename), frame.f_lineno):
        raise InvalidInputError(f"Line {frame.f_lineno} of the script starts workers. {_REMEDY}")


def _frame_of_script() -> FrameType | None:
    """Return the frame of the script that called, or None if workers import no script."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if not hasattr(main, "__file__") or (spec is not None and spec.name.endswith("__main__")):
        return None  # a notebook, an interpreter, or a package that was run with -m
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 # the documented way to a caller
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame
        frame = frame.f_back
    return None


def _has_guard(path: Path, line: int) -> bool:
    """Return whether a line is in or after a test of ``__name__``."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True  # cannot be known
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line
        and any(
            isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
        )
        for node in ast.walk(tree)
    )
