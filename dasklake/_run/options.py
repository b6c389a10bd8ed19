"""Parse and validate the arguments of ``to_lake``."""

from __future__ import annotations

import contextlib
import math
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from dask.utils import parse_bytes, parse_timedelta

from dasklake._links.limits import PER_HOST, LinkLimits
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake._schema.argument_types import check_fields
from dasklake.exceptions import InvalidInputError


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Less common options of :func:`to_lake`.

    Parameters
    ----------
    scheduler : str or callable, optional
        The Dask scheduler to use instead of the current one, as in ``compute(scheduler=...)``.
    retries : int, optional
        Number of times Dask retries a task that failed because of the storage or a worker. By
        default ``dasklake.retries`` of Dask's configuration, which is 3.
    chunk_size : str or int, optional
        Target size of a chunk in bytes; a chunk that reaches it is written. By default
        ``dasklake.chunk-size`` of Dask's configuration, which is 64 MiB.
    single_writer : bool, default False
        Allow a new lake on storage that does not support exclusive creation. You must then
        ensure that two writers never commit at the same time.
    partition_timeout : float, str or timedelta, optional
        Maximum duration of one attempt at a partition, in seconds or as a string such as
        ``"10min"``. A worker that exceeds it is restarted together with all its tasks, and the
        partition is retried. After ``retries`` retries the partition fails. Requires a cluster
        whose workers have nannies and whose scheduler commits.
    validate : {"strict", "basic"}, default "strict"
        Level of validation. Both levels check dtype, shape, class names and ``same_length``.
        ``"strict"`` also checks the constraints of each htype, such as finite numbers,
        non-negative sizes and fractions of at most 1.
    commit_order : {"completion", "input"}, optional
        Partitions that a checkpoint commits. ``"completion"``, the default of :func:`to_lake`,
        commits every complete partition. ``"input"``, the default of ``eval``, commits only the
        complete partitions before the first incomplete one, so that every version is a prefix of
        the input and its rows keep their numbers. Partitions behind a slow one wait for it; they
        are stored, and a resume does not compute them again.

    Raises
    ------
    InvalidInputError
        A value is not valid.
    """

    scheduler: Any = None
    retries: int | None = None
    chunk_size: str | int | None = None
    single_writer: bool = False
    partition_timeout: float | str | timedelta | None = None
    validate: Literal["strict", "basic"] = "strict"
    commit_order: Literal["completion", "input"] | None = None

    def __post_init__(self) -> None:
        """Validate the values that need no parsing."""
        if self.retries is not None:
            parse_retries(self.retries)
        check_fields(self)


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """Limits for reading the targets of links.

    ``retries``, ``timeout`` and ``per_host`` concern web hosts, which are read without a credentials
    key. If such a host is busy, denies access or does not answer, the failure concerns the sample.
    A storage such as S3, and whatever is read with a credentials key, is retried for half a minute.
    If it stays down, the run ends.

    Parameters
    ----------
    retries : int, default 3
        Number of retries if a web host is busy (HTTP 429 or 5xx) or a connection fails. Pauses
        double from half a second, or are as long as the host demands. A refused connection, a
        missing file and other permanent failures are not retried.
    timeout : float, str or timedelta, default 30.0
        Maximum time to verify one link, in seconds or as a string such as ``"10s"``, with all its
        retries. For reading a target completely, the maximum time without a byte. A host whose
        links exceed it several times in a row gets a tenth of it until it answers.
    max_bytes : int or str, default "64 MiB"
        Maximum number of bytes to read from one target for its verification, if its ends are not
        conclusive. Also the maximum length of a target on the web whose server does not announce its
        length, whenever it is read.
    per_host : int, default 32
        Maximum number of concurrent reads of one process from one web host.

    Raises
    ------
    InvalidInputError
        A value is not valid.

    Examples
    --------
    >>> import dasklake
    >>> policy = dasklake.LinkPolicy(retries=1, timeout="5s", max_bytes="8 MiB")
    >>> lake = dasklake.empty("memory://policy")
    >>> lake.create_tensor("image", htype="link[image]", sample_compression="jpeg")
    >>> dasklake.open("memory://policy", links=policy).check_links().empty
    True
    """

    retries: int = 3
    timeout: float | str | timedelta = 30.0
    max_bytes: int | str = "64 MiB"
    per_host: int = PER_HOST

    def __post_init__(self) -> None:
        """Validate the values."""
        parse_links(self)


def parse_links(links: Any, default: LinkPolicy | None = None) -> LinkLimits:
    """Parse ``links``; None means ``default``, or the default policy.

    Raises
    ------
    InvalidInputError
        ``links`` is not a LinkPolicy, or one of its values is not valid.
    """
    if links is None:
        links = default or LinkPolicy()
    if not isinstance(links, LinkPolicy):
        raise InvalidInputError(
            f"links must be a dasklake.LinkPolicy, got {type(links).__name__}. Use "
            "links=dasklake.LinkPolicy(...)."
        )
    for name, least in (("retries", 0), ("per_host", 1)):
        value = getattr(links, name)
        if not _is_whole(value) or value < least:
            raise InvalidInputError(
                f"{name} must be a whole number of at least {least}, got {value!r}. Use "
                f"LinkPolicy({name}={getattr(LinkLimits(), name)})."
            )
    return LinkLimits(
        int(links.retries),
        parse_seconds(links.timeout, "timeout", "10s"),
        parse_size(links.max_bytes, "max_bytes"),
        int(links.per_host),
    )


def parse_checkpoint_interval(every: Any, name: str = "checkpoint_every") -> CheckpointInterval:
    """Parse the argument ``name``; None commits once, at the end.

    Raises
    ------
    InvalidInputError
        ``every`` is not a positive number of samples or a positive duration.
    """
    if every is None:
        return CheckpointInterval()
    if _is_whole(every):
        return CheckpointInterval(inputs=int(_positive(int(every), name)))
    duration = _time(every) if isinstance(every, str) else every
    if isinstance(duration, timedelta) and duration is not pd.NaT:
        return CheckpointInterval(seconds=_positive(duration.total_seconds(), name))
    raise InvalidInputError(
        f"{name} must be a duration or a whole number of samples, got {every!r}. Use '5min', a "
        "timedelta, or a number such as 25_000."
    )


def _time(text: str) -> timedelta | None:
    """Parse a duration in Dask's notation ("1d") or pandas' ("1h 30min"); None if it is invalid.

    A number without a unit is ambiguous and therefore invalid.
    """
    if text.strip().isdigit():
        return None
    with contextlib.suppress(ValueError, KeyError, IndexError, OverflowError):
        return timedelta(seconds=parse_timedelta(text, default=False))
    with contextlib.suppress(ValueError):
        # Dask's "d" is pandas' "D".
        duration: timedelta = pd.Timedelta(re.sub(r"(?<=[\d\s])d\b", "D", text))
        return duration
    return None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _positive(value: float, name: str) -> float:
    if value <= 0:
        raise InvalidInputError(
            f"{name} must be positive, got {value}. Omit it, or use None to commit once at the end."
        )
    return value


def parse_max_failures(most: Any) -> MaxFailures:
    """Parse ``max_failures``.

    Raises
    ------
    InvalidInputError
        ``most`` is neither a count nor a fraction.
    """
    if most is None:
        return MaxFailures(share=None)
    if _is_whole(most) and int(most) >= 0:
        return MaxFailures(count=int(most))
    if isinstance(most, float | np.floating) and 0 <= most <= 1:
        return MaxFailures(share=float(most))
    raise InvalidInputError(
        "max_failures must be a whole number, a fraction from 0.0 to 1.0, or None, got "
        f"{most!r}. None means no limit."
    )


def parse_timeout(timeout: Any) -> float | None:
    """Parse ``partition_timeout`` into seconds; None means no limit.

    Raises
    ------
    InvalidInputError
        ``timeout`` is not a positive duration.
    """
    return None if timeout is None else parse_seconds(timeout, "partition_timeout", "10min")


def parse_seconds(timeout: Any, name: str, example: str) -> float:
    """Parse the argument ``name`` into seconds.

    Raises
    ------
    InvalidInputError
        ``timeout`` is not a positive duration.
    """
    seconds = timeout
    if isinstance(seconds, str):
        seconds = float(seconds) if seconds.strip().isdigit() else _time(seconds)
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    number = isinstance(seconds, int | float | np.number) and not isinstance(seconds, bool)
    if not number or not 0 < float(seconds) < math.inf:  # false for NaN, and so for NaT
        raise InvalidInputError(
            f"{name} must be a positive duration, got {timeout!r}. Use {example!r}, a "
            "timedelta, or a number of seconds."
        )
    return float(seconds)


def parse_items(most: Any) -> int:
    """Validate ``preview``, the number of items to try.

    Raises
    ------
    InvalidInputError
        ``most`` is not a positive whole number.
    """
    if not _is_whole(most) or most < 1:
        raise InvalidInputError(
            f"preview must be a positive number of items, got {most!r}. Use 20, or omit it."
        )
    return min(int(most), sys.maxsize)


def check_batches(batch_size: int | None, transform: Any, *, batched: bool) -> None:
    """Validate ``batched`` and ``batch_size``.

    Raises
    ------
    InvalidInputError
        ``batch_size`` is not positive, or one of them is given without what it needs.
    """
    if batch_size is not None and batch_size < 1:
        raise InvalidInputError(
            f"batch_size must be at least 1, got {batch_size}. Use batch_size=1000, or omit it."
        )
    if batched and transform is None:
        raise InvalidInputError(
            "batched=True needs a transform. Give a function of a block of rows, or omit it."
        )
    if batch_size is not None and not batched:
        raise InvalidInputError(
            f"batch_size={batch_size} needs batched=True. Give both, or omit it."
        )


def parse_size(size: Any, name: str = "chunk_size") -> int:
    """Parse the argument ``name`` into bytes.

    Raises
    ------
    InvalidInputError
        ``size`` is not a positive number of bytes.
    """
    # True would be one byte, and so would be an empty text.
    unclear = isinstance(size, bool) or (isinstance(size, str) and not size.strip())
    try:
        count = 0 if unclear else int(parse_bytes(size))
    except (ValueError, TypeError, AttributeError, OverflowError):
        count = 0
    if count <= 0:
        raise InvalidInputError(
            f"{name} must be a positive number of bytes, got {size!r}. Use '64 MiB', or an integer."
        )
    return count


def parse_retries(retries: Any, name: str = "retries") -> int:
    """Parse the argument ``name`` into a number of retries.

    Raises
    ------
    InvalidInputError
        ``retries`` is not a whole number of at least 0.
    """
    if not _is_whole(retries) or retries < 0:
        raise InvalidInputError(
            f"{name} must be a whole number of at least 0, got {retries!r}. Use 3."
        )
    return int(retries)


def parse_age(age: Any) -> timedelta | None:
    """Parse ``older_than``; None means any age.

    Raises
    ------
    InvalidInputError
        ``age`` is not a duration, or is negative.
    """
    if age is None:
        return None
    duration = _time(age) if isinstance(age, str) else age
    if isinstance(duration, timedelta) and duration is not pd.NaT and duration >= timedelta(0):
        return duration
    raise InvalidInputError(
        f"older_than must be a non-negative duration, got {age!r}. Use '30d', '12h', or a "
        "timedelta."
    )
