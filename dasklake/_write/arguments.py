"""The words of ``to_lake`` as values, and what is wrong with those that are none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from dask.utils import parse_bytes

from dasklake._write.checkpoint import Every, MaxFailures
from dasklake.exceptions import InvalidInputError

__all__ = ["parse_every", "parse_max_failures", "parse_size"]


def parse_every(every: Any) -> Every:
    """Return when a checkpoint is due.

    Raises
    ------
    InvalidInputError
        It is neither a number of samples nor a time, or not more than nothing.
    """
    if every is None:
        return Every()
    if _is_whole(every):
        return Every(inputs=int(_positive(int(every))))
    if isinstance(every, str) and not every.strip().isdigit():
        try:
            every = pd.Timedelta(every)
        except ValueError:
            every = None
    if isinstance(every, timedelta) and every is not pd.NaT:
        return Every(seconds=_positive(every.total_seconds()))
    raise InvalidInputError(
        f"checkpoint_every={every!r} is no time and no whole number of samples. Write '5min', a "
        "timedelta, or a number such as 25_000."
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _positive(value: float) -> float:
    if value <= 0:
        raise InvalidInputError(
            f"checkpoint_every must be more than nothing, not {value}. Leave it out, or give None "
            "for one commit at the end."
        )
    return value


def parse_max_failures(most: Any) -> MaxFailures:
    """Return how many samples may fail.

    Raises
    ------
    InvalidInputError
        It is neither a count nor a share.
    """
    if most is None:
        return MaxFailures(share=None)
    if _is_whole(most) and int(most) >= 0:
        return MaxFailures(count=int(most))
    if isinstance(most, float | np.floating) and 0 <= most <= 1:
        return MaxFailures(share=float(most))
    raise InvalidInputError(
        f"max_failures={most!r} is no count and no share. Give a whole number, a share between 0.0 "
        "and 1.0, or None for no limit."
    )


def parse_size(size: Any) -> int:
    """Return a number of bytes.

    Raises
    ------
    InvalidInputError
        It is none, or not more than nothing.
    """
    try:
        found = parse_bytes(size)
    except (ValueError, TypeError, AttributeError):
        found = 0
    if found <= 0:
        raise InvalidInputError(f"chunk_size={size!r} is no size. Write '64 MiB', or bytes.")
    return int(found)
