"""The result of a write."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WriteReport"]


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write has done.

    Attributes
    ----------
    run : str
        The run.
    version : int
        The version that holds all of it.
    samples, failures : int
        Samples written and samples skipped since the run began.
    partitions : int
        Partitions of the run.
    commits : int
        Data commits made by this call.
    bytes : int
        Length of the run's chunks.
    seconds : float
        Duration of this call.
    """

    run: str
    version: int
    samples: int
    failures: int
    partitions: int
    commits: int
    bytes: int
    seconds: float
