"""Report damaged chunks as errors, or skip them with a warning."""

from __future__ import annotations

import warnings
from typing import Literal

from dasklake._fork import RenewedLock
from dasklake._read.plan import ChunkLocation
from dasklake.exceptions import CorruptionError, CorruptionWarning, InvalidInputError

__all__ = ["OnCorrupt", "parse_on_corrupt", "warn_once"]

OnCorrupt = Literal["raise", "skip"]

#: Damaged chunks, or parts of them, that this process has reported; cleared if there are very many.
_MAX_REPORTED = 100_000
_reported: set[tuple[str, str, int]] = set()
_guard = RenewedLock()


def parse_on_corrupt(value: object) -> OnCorrupt:
    """Validate ``on_corrupt``.

    Raises
    ------
    InvalidInputError
        The value is neither ``"raise"`` nor ``"skip"``.
    """
    if value == "raise":
        return "raise"
    if value == "skip":
        return "skip"
    raise InvalidInputError(f'on_corrupt must be "raise" or "skip", got {value!r}.')


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
    with _guard.lock:
        if (url, location.key, location.begin) in _reported:
            return
        if len(_reported) >= _MAX_REPORTED:
            _reported.clear()
        _reported.add((url, location.key, location.begin))
    warnings.warn(
        f"Samples {location.span[0]} to {location.span[-1]} of {url} are left out: chunk "
        f"{location.key} is damaged. {error}",
        CorruptionWarning,
        stacklevel=3,
    )
