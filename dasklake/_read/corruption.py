"""Report damaged chunks and samples as errors, or skip them with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, TypeVar

from dasklake._fork import RenewedLock
from dasklake._read.plan import ChunkLocation
from dasklake.exceptions import (
    CorruptionError,
    CorruptionWarning,
    SampleError,
)

OnCorrupt = Literal["raise", "skip"]

_T = TypeVar("_T")

#: Damaged chunks, parts of them and samples that this process has reported; cleared if there are very
#: many.
_MAX_REPORTED = 100_000
_reported: set[tuple[str, str, int]] = set()
_guard = RenewedLock()


def warn_once(url: str, location: ChunkLocation, error: CorruptionError) -> None:
    """Warn of a damaged chunk and its rows, once per process.

    Parameters
    ----------
    url : str
        URL of the lake.
    location : ChunkLocation
        The chunk.
    error : CorruptionError
        The damage.
    """
    if not _is_first(url, location.key, location.begin):
        return
    warnings.warn(
        f"Samples {location.span[0]} to {location.span[-1]} of {url} are left out: chunk "
        f"{location.key} is damaged. {error}",
        CorruptionWarning,
        stacklevel=3,
    )


def decode_or_skip(
    decode: Callable[[], _T], on_corrupt: OnCorrupt, url: str, sample: int
) -> _T | None:
    """Decode a sample, or warn and return None if it cannot be decoded and may be skipped.

    Parameters
    ----------
    decode : callable
        Decodes the sample.
    on_corrupt : "raise" or "skip"
        Whether the sample may be skipped.
    url : str
        URL of the lake.
    sample : int
        Number of the sample.
    """
    try:
        return decode()
    except (SampleError, CorruptionError) as error:
        if on_corrupt == "raise":
            raise
        if _is_first(url, "", sample):
            warnings.warn(
                f"Sample {sample} of {url} is left out: {error}", CorruptionWarning, stacklevel=3
            )
        return None


def _is_first(url: str, key: str, begin: int) -> bool:
    """Return whether damage is reported for the first time, and remember it."""
    with _guard.lock:
        if (url, key, begin) in _reported:
            return False
        if len(_reported) >= _MAX_REPORTED:
            _reported.clear()
        _reported.add((url, key, begin))
    return True
