"""Carry the outcome of a write task from a worker to the scheduler plugin, inside Dask's messages."""

from __future__ import annotations

from typing import Any

from distributed import get_worker

from dasklake._dask import Serialize, Worker, deserialize, dumps, loads
from dasklake._write.job import Outcome
from dasklake.exceptions import RunFailedError

#: Name of the entry in a task's metadata.
METADATA = "dasklake"


class TaskDeliver:
    """Attach an outcome to the running task, so that it arrives with the task's completion.

    One message carries both, so a completion without a receipt cannot happen.
    """

    def __call__(self, outcome: Outcome) -> None:
        """Attach an outcome."""
        worker: Worker = get_worker()
        task = worker.state.tasks[worker.get_current_task()]
        task.metadata[METADATA] = _pack_outcome(outcome)

    def stopped(self) -> bool:
        """Return whether the scheduler has cancelled the running task."""
        worker: Worker = get_worker()
        task = worker.state.tasks.get(worker.get_current_task())
        return task is None or task.state == "cancelled"


def _pack_outcome(outcome: Outcome) -> tuple[bytes, bytes]:
    """Pickle an outcome, and separately its error, whose class the scheduler may not have."""
    try:
        error = dumps(outcome.error)
        loads(error)
    except Exception:  # noqa: BLE001 # any error of any user's exception class
        error = b""
    return dumps(outcome._replace(error=None)), error


def unpack_outcome(packed: tuple[bytes, bytes]) -> Outcome:
    """Unpickle an outcome; an error of an unknown class becomes a ``RunFailedError``."""
    outcome: Outcome = loads(packed[0])
    try:
        error = loads(packed[1])
    except Exception:  # noqa: BLE001 # the class is unknown here; the failure has its text
        failure = outcome.failure
        error = RunFailedError(f"{failure.exception}: {failure.message}" if failure else "")
    return outcome._replace(error=error)


def exception_of(serialized: Any) -> BaseException | None:
    """Return the exception of a task that erred, or None if it cannot be loaded here."""
    try:
        value = serialized
        if isinstance(value, Serialize):  # from a worker in the scheduler's process
            value = value.data
        elif not isinstance(value, bytes):  # the scheduler's own errors, such as KilledWorker, are
            value = deserialize(value.header, value.frames)
        # A worker sends what it has pickled itself.
        value = loads(value) if isinstance(value, bytes) else value
    except Exception:  # noqa: BLE001 # the class may not exist on the scheduler
        return None
    return value if isinstance(value, BaseException) else None
