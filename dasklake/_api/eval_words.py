"""Reword errors of ``to_lake`` for callers of ``eval``, who give ``run=`` and ``ignore_errors=``."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import cast

from dasklake._api.write import check_options
from dasklake._run.options import WriteOptions
from dasklake.exceptions import InvalidInputError

#: Patterns of ``mode``, and their equivalents in ``eval``; the most specific ones are first.
_MODES = (
    (re.compile(r" If the lake has no samples yet, mode='create'[^.]* starts over\."), ""),
    (re.compile(r"mode='resume', run=('[^']*')(?: \(in eval\(\): run='[^']*'\))?"), r"run=\1"),
    (re.compile(r" If you give run=, give another name, or mode='resume'[^.]*\."), ""),
    (re.compile(r"write the new input as another run with mode='append'"), "give another run="),
    (re.compile(r"mode='append'"), "another run="),
    (re.compile(r"mode='overwrite'"), "dasklake.empty(url, overwrite=True)"),
)


def check_eval_arguments(num_workers: int, options: object) -> WriteOptions:
    """Validate the arguments that only ``eval`` has; return the options.

    Raises
    ------
    InvalidInputError
        ``num_workers`` is negative, or ``options`` are not WriteOptions.
    """
    if num_workers < 0:
        raise InvalidInputError(
            f"num_workers must be a number of processes, got {num_workers}. Use num_workers=0 for this "
            "process, or num_workers=2."
        )
    check_options(options)
    return cast("WriteOptions", options)


def in_words_of_eval(text: str, run: str, given: Collection[str]) -> str:
    """Return the text of an error with the arguments of ``eval``.

    Parameters
    ----------
    text : str
        Text of an error of ``to_lake``.
    run : str
        Name of the run.
    given : collection of str
        Arguments of ``to_lake`` that the caller has used; their names stay.
    """
    if "mode" not in given:
        for pattern, replacement in _MODES:
            text = pattern.sub(replacement, text)
        text = text.replace("mode='resume'", f"run={run!r}")
    if "on_error" not in given:
        text = text.replace("on_error='skip'", "ignore_errors=True")
    if "checkpoint_every" not in given:
        text = text.replace("checkpoint_every", "checkpoint_interval")
    if "progress" not in given:
        text = re.sub(r"^progress must", "progressbar must", text)
    return text
