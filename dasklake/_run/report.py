"""The result of a write."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dasklake._model.commit import RunState
from dasklake._run.coordinator import Status


@dataclass(frozen=True, slots=True)
class WriteReport:
    """The result of a write.

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
        Total size of the run's chunks.
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


def report_write(
    run: str, version: int, counts: RunState | Status, began: float, commits: int = 0
) -> WriteReport:
    """Return the report of a run.

    Parameters
    ----------
    run : str
        The run.
    version : int
        The version that holds all of it.
    counts : RunState or Status
        The committed partitions, samples, failures and bytes.
    began : float
        When the call began, on the monotonic clock.
    commits : int, default 0
        Data commits made by the call.
    """
    return WriteReport(
        run=run,
        version=version,
        samples=counts.samples,
        failures=counts.failures,
        partitions=counts.partitions,
        commits=commits,
        bytes=counts.size,
        seconds=time.monotonic() - began,
    )
