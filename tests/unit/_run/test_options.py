"""Parsing and validation of the arguments of ``to_lake``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dasklake._run.options import (
    parse_age,
    parse_checkpoint_interval,
    parse_max_failures,
    parse_size,
    parse_timeout,
)
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake.exceptions import InvalidInputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5min", 300), ("1d", 86400), ("2h", 7200), ("1h 30min", 5400), ("1d 2h", 93600)],
)
def test_times_as_dask_and_pandas_write_them(text: str, seconds: int) -> None:
    """A duration means the same in every parameter."""
    assert parse_checkpoint_interval(text) == CheckpointInterval(seconds=seconds)
    assert parse_timeout(text) == seconds
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("every", "parsed"),
    [
        (None, CheckpointInterval()),
        (25_000, CheckpointInterval(inputs=25_000)),
        (np.int64(3), CheckpointInterval(inputs=3)),
        (timedelta(minutes=1), CheckpointInterval(seconds=60)),
    ],
)
def test_checkpoints(every: Any, parsed: CheckpointInterval) -> None:
    """A checkpoint is due after samples, after a time, or only at the end."""
    assert parse_checkpoint_interval(every) == parsed


@pytest.mark.parametrize("every", [0, -1, True, 1.5, "5", "soon", "NaT", pd.NaT, timedelta(0)])
def test_invalid_checkpoint_interval(every: Any) -> None:
    """Values that are neither a number of samples nor a duration are errors."""
    with pytest.raises(InvalidInputError, match="checkpoint_every"):
        parse_checkpoint_interval(every)


@pytest.mark.parametrize(("timeout", "seconds"), [(None, None), (3, 3), ("45", 45), (0.5, 0.5)])
def test_timeouts(timeout: Any, seconds: float | None) -> None:
    """A timeout without a unit is in seconds."""
    assert parse_timeout(timeout) == seconds


@pytest.mark.parametrize("timeout", [0, -1, True, "soon", np.nan, np.inf, pd.NaT, [1]])
def test_invalid_timeout(timeout: Any) -> None:
    """Values that are not positive durations are errors."""
    with pytest.raises(InvalidInputError, match="partition_timeout"):
        parse_timeout(timeout)


@pytest.mark.parametrize("age", ["7", "-1d", "old", 7, pd.NaT, timedelta(-1)])
def test_invalid_age(age: Any) -> None:
    """An age has a unit."""
    with pytest.raises(InvalidInputError, match="older_than"):
        parse_age(age)


@pytest.mark.parametrize(
    ("most", "parsed"),
    [(None, MaxFailures(share=None)), (3, MaxFailures(count=3)), (0.5, MaxFailures(share=0.5))],
)
def test_failures(most: Any, parsed: MaxFailures) -> None:
    """Failures are limited by a count, by a fraction, or not at all."""
    assert parse_max_failures(most) == parsed


@pytest.mark.parametrize("most", [-1, 1.5, True, "few"])
def test_invalid_max_failures(most: Any) -> None:
    """Values that are neither a count nor a fraction are errors."""
    with pytest.raises(InvalidInputError, match="max_failures"):
        parse_max_failures(most)


@pytest.mark.parametrize("size", ["64 MiB", 64 << 20])
def test_sizes(size: Any) -> None:
    """A size is a number of bytes, or a text with a unit."""
    assert parse_size(size) == 64 << 20
