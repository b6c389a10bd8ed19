"""A damaged chunk: an error, or a warning, and its rows are left out."""

from __future__ import annotations

import threading
import warnings
from typing import Literal

from dasklake._read.plan import ChunkLocation
from dasklake.exceptions import CorruptionError, CorruptionWarning, InvalidInputError

__all__ = ["OnCorrupt", "parse_on_corrupt", "warn_once"]

OnCorrupt = Literal["raise", "skip"]

#: Chunks whose damage this process has told of; forgotten together where there are very many.
_MOST_TOLD = 100_000
_told: set[tuple[str, str]] = set()
_lock = threading.Lock()


def parse_on_corrupt(value: object) -> OnCorrupt:
    """Check what was asked for.

    Raises
    ------
    InvalidInputError
        It is neither ``"raise"`` nor ``"skip"``.
    """
    if value == "raise":
        return "raise"
    if value == "skip":
        return "skip"
    raise InvalidInputError(f'on_corrupt is "raise" or "skip", not {value!r}.')


def warn_once(url: str, location: ChunkLocation, error: CorruptionError) -> None:
    """Warn of a damaged chunk, once in each process, with its name and its rows.

    Parameters
    ----------
    url : str
        The lake.
    location : ChunkLocation
        The chunk.
    error : CorruptionError
        What is wrong with it.
    """
    with _lock:
        if (url, location.key) in _told:
            return
        if len(_told) >= _MOST_TOLD:
            _told.clear()
        _told.add((url, location.key))
    warnings.warn(
        f"Samples {location.first} to {location.first + location.rows - 1} of {url} are left out: chunk "
        f"{location.key} is damaged. {error}",
        CorruptionWarning,
        stacklevel=3,
    )
