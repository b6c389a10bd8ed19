"""Parse and validate the arguments of ``to_lake``."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from dask.utils import parse_bytes, parse_timedelta

from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake.exceptions import InvalidInputError

__all__ = [
    "WriteOptions",
    "check_validate",
    "parse_age",
    "parse_checkpoint_interval",
    "parse_items",
    "parse_max_failures",
    "parse_size",
    "parse_timeout",
]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The rarer choices of :func:`to_lake`.

    Parameters
    ----------
    scheduler : str or callable, optional
        A Dask scheduler to use instead of the current one, as in ``compute(scheduler=...)``.
    retries : int, default 3
        How often Dask tries a task again that the storage or a worker failed.
    chunk_size : str or int, default "64 MiB"
        Bytes after which a chunk is full.
    single_writer : bool, default False
        Make the lake on a storage that cannot create exclusively; you promise that no two
        writers ever commit at the same time.
    partition_timeout : float, str or timedelta, optional
        Longest time that an attempt at a partition may take, such as ``"10min"`` or seconds; then
        its worker is restarted, with all that it was doing, and the partition is tried again. After
        ``retries`` further attempts it has failed. Only on a cluster whose workers have nannies
        and whose scheduler commits.
    validate : {"strict", "basic"}, default "strict"
        How closely values are looked at. Both check dtype, shape, class names and ``same_length``;
        ``"strict"`` checks the constraints of each htype as well: numbers that are not finite,
        negative sizes, fractions beyond 1, and so on.
    """

    scheduler: Any = None
    retries: int = 3
    chunk_size: str | int = "64 MiB"
    single_writer: bool = False
    partition_timeout: float | str | timedelta | None = None
    validate: Literal["strict", "basic"] = "strict"


def parse_checkpoint_interval(every: Any) -> CheckpointInterval:
    """Return when a checkpoint is due.

    Raises
    ------
    InvalidInputError
        It is neither a number of samples nor a time, or not more than nothing.
    """
    if every is None:
        return CheckpointInterval()
    if _is_whole(every):
        return CheckpointInterval(inputs=int(_positive(int(every))))
    if isinstance(every, str):
        every = _time(every)
    if isinstance(every, timedelta) and every is not pd.NaT:
        return CheckpointInterval(seconds=_positive(every.total_seconds()))
    raise InvalidInputError(
        f"checkpoint_every={every!r} is no time and no whole number of samples. Write '5min', a "
        "timedelta, or a number such as 25_000."
    )


def _time(text: str) -> timedelta | None:
    """Read a time as Dask writes it ("1d"), or as pandas does ("1h 30min"); None for no time.

    A number without a unit is none: nobody knows what it counts.
    """
    if text.strip().isdigit():
        return None
    with contextlib.suppress(ValueError, KeyError, OverflowError):
        return timedelta(seconds=parse_timedelta(text, default=False))
    with contextlib.suppress(ValueError):
        # Dask's "d" is pandas' "D".
        found: timedelta = pd.Timedelta(re.sub(r"(?<=[\d\s])d\b", "D", text))
        return found
    return None


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


def parse_timeout(timeout: Any) -> float | None:
    """Return a number of seconds; None for no limit.

    Raises
    ------
    InvalidInputError
        It is no time, or not more than nothing.
    """
    if timeout is None:
        return None
    number = isinstance(timeout, int | float | np.number) and not isinstance(timeout, bool)
    bare = isinstance(timeout, str) and timeout.strip().isdigit()
    found = _time(timeout) if isinstance(timeout, str) and not bare else timeout
    if number or bare:
        seconds = float(timeout)
    else:
        seconds = found.total_seconds() if isinstance(found, timedelta) else 0.0
    if not 0 < seconds < math.inf:  # NaT and NaN are not either
        raise InvalidInputError(
            f"partition_timeout={timeout!r} is no time. Write '10min', a timedelta, or seconds."
        )
    return float(seconds)


def parse_items(most: Any) -> int:
    """Return how many items to try.

    Raises
    ------
    InvalidInputError
        It is no number of items.
    """
    if not _is_whole(most) or most < 1:
        raise InvalidInputError(
            f"preview={most!r} is no number of items. Write 20, or leave it out."
        )
    return int(most)


def check_validate(validate: Any) -> None:
    """Refuse what is no way to validate.

    Raises
    ------
    InvalidInputError
        It is none.
    """
    if validate not in ("strict", "basic"):
        raise InvalidInputError(f"validate={validate!r} is unknown. Use 'strict' or 'basic'.")


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


def parse_age(age: Any) -> timedelta | None:
    """Return an age; None for none.

    Raises
    ------
    InvalidInputError
        It is no time, or less than nothing.
    """
    if age is None:
        return None
    found = _time(age) if isinstance(age, str) else age
    if isinstance(found, timedelta) and found is not pd.NaT and found >= timedelta(0):
        return found
    raise InvalidInputError(f"{age!r} is no age. Write '30d', '12h', or give a timedelta.")
