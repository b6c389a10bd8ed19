"""Issue warnings at the line of the user's code that called the package."""

from __future__ import annotations

import inspect
import warnings


def warn_caller(message: str) -> None:
    """Issue a UserWarning at the nearest calling line outside of the package."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").startswith("dasklake."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
