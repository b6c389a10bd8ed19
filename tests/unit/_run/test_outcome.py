"""How the end of a run is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dasklake._model.commit import Plan, RunState
from dasklake._model.receipt import Failure
from dasklake._run.outcome import (
    explain,
    interrupt_error,
    resume_hint,
    second_interrupt_error,
    transform_error,
)
from dasklake._run.progress import CheckpointInterval, MaxFailures, RunProgress, Stop
from dasklake.exceptions import (
    PartitionTimeoutError,
    PermissionDeniedError,
    RunAbortedError,
    RunFailedError,
    RunLostError,
    SampleError,
    SchemaError,
    StorageFullError,
    StoreError,
    TooManyFailuresError,
    TransformError,
)

STATE = RunState(Plan(4, None, "0" * 32, None), 0, partitions=2, inputs=50)
PLACE = Failure("run", 3, 7, 307, "'item'", "boxes", "ValueError", "bad value", "trace")


def ended(*stops: Stop) -> RunProgress:
    """Return the progress of a run that was stopped."""
    progress = RunProgress(range(4), CheckpointInterval(), MaxFailures(), STATE, 0.0)
    for stop in stops:
        progress.end(stop)
    return progress


def test_success_is_what_the_log_says() -> None:
    """A run is a success exactly when the log says that it is finished."""
    finished = replace(STATE, finished=True)
    for stop in (Stop("cancelled"), Stop("lost"), Stop("failed", PLACE, ValueError())):
        assert explain("run", ended(stop), finished) == (None, None)
    assert explain("run", ended(), finished) == (None, None)
    problem, _ = explain("run", ended(), STATE)
    assert isinstance(problem, RunFailedError)


@pytest.mark.parametrize(
    ("stop", "kind", "said"),
    [
        (Stop("cancelled"), RunFailedError, "was cancelled"),
        (Stop("lost"), RunLostError, "restarted"),
        (Stop("too-many", PLACE), TooManyFailuresError, "ValueError: bad value"),
        (Stop("failed", PLACE, ValueError()), TransformError, "at index 307"),
        (Stop("failed", PLACE, None), TransformError, "at index 307"),
        (Stop("failed", PLACE, SampleError("no")), TransformError, "at index 307"),
        (Stop("failed"), RunFailedError, "ended early"),
    ],
)
def test_failures_say_how_to_go_on(stop: Stop, kind: type[Exception], said: str) -> None:
    """Each end but success says what happened, what is kept, and how to resume."""
    problem, cause = explain("run", ended(stop), STATE)
    assert type(problem) is kind
    assert said in str(problem)
    assert "50 samples committed (not necessarily the first 50)" in str(problem)
    assert "mode='resume', run='run'" in str(problem)
    assert cause in (stop.error, None)


@pytest.mark.parametrize(
    "stop",
    [
        Stop("interrupted", PLACE, SystemExit(3)),
        Stop("failed", PLACE, SchemaError("no. Look.")),
        Stop("conflict", None, RunAbortedError("no. Look.")),
    ],
)
def test_errors_that_speak_for_themselves(stop: Stop) -> None:
    """What ends the process, and errors of the lake, come out as they are."""
    assert explain("run", ended(stop), STATE) == (stop.error, None)


@pytest.mark.parametrize("kind", [StoreError, PermissionDeniedError, StorageFullError])
def test_errors_of_the_storage(kind: type[StoreError]) -> None:
    """An error of the storage keeps its type and says what is kept and how to go on."""
    error = kind("no. Look.")
    error.add_note("seen on a worker")
    problem, cause = explain("run", ended(Stop("failed", PLACE, error)), STATE)
    assert type(problem) is kind
    assert str(problem).startswith("no. Look. Last checkpoint: 50 samples committed")
    assert str(problem).endswith("mode='resume', run='run' to continue.")
    assert vars(problem) == vars(error)
    assert cause is error


def test_partition_that_took_too_long() -> None:
    """A partition that timed out is told as such, with the partition and the limit."""
    error = PartitionTimeoutError("Too long.", seconds=7.5, partition=3)
    place = replace(PLACE, position=None, index=None)
    problem, cause = explain("run", ended(Stop("failed", place, error)), STATE)
    assert isinstance(problem, PartitionTimeoutError)
    assert (problem.partition, problem.seconds, problem.samples_processed) == (3, 7.5, 50)
    assert "Too long. Last checkpoint: 50 samples" in str(problem)
    assert cause is error


def test_workers_that_died() -> None:
    """A partition at which workers died says what that mostly is."""
    killed = replace(PLACE, position=None, index=None, item=None, exception="KilledWorker")
    kind = type("KilledWorker", (Exception,), {})
    found = transform_error(killed, kind(), 50, resume_hint("run", 50))
    assert "never skipped" in str(found)
    assert "out of memory" in str(found)


def test_too_many_of_a_finished_run() -> None:
    """Too many failures are told though nothing is left to resume."""
    problem, _ = explain("run", ended(Stop("too-many")), replace(STATE, finished=True))
    assert isinstance(problem, TooManyFailuresError)
    assert "finished" in str(problem)
    assert "resume" not in str(problem)


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        (
            PLACE,
            ValueError(),
            ["at index 307 of the input", "'item'", "'boxes'", "on_error='skip'"],
        ),
        (replace(PLACE, index=None), ValueError(), ["at position 7 of partition 3"]),
        (
            replace(PLACE, index=None, position=None, item=None, tensor=None),
            ValueError(),
            ["in partition 3 of the input", "skip the whole partition"],
        ),
        (PLACE, MemoryError(), ["never skipped"]),
    ],
)
def test_place_of_a_failure(place: Failure, error: Exception, said: list[str]) -> None:
    """A failure is told by the most exact place that is known."""
    found = transform_error(place, error, 50, resume_hint("run", 50))
    assert all(words in str(found) for words in said)
    assert (found.index, found.item, found.partition) == (place.index, place.item, 3)
    assert (found.position, found.samples_processed) == (place.position, 50)


def test_interruption() -> None:
    """Ctrl-C surfaces with the sentence that says how to go on, if there is any need."""
    for place in (PLACE, None):
        found, _ = explain("run", ended(Stop("interrupted", place, KeyboardInterrupt())), STATE)
        assert isinstance(found, KeyboardInterrupt)
        assert "mode='resume', run='run'" in str(found)
    problem, _ = explain("run", ended(Stop("cancelled")), STATE)
    assert "mode='resume'" in str(interrupt_error("run", problem))
    assert "finished" in str(interrupt_error("run", None))


@pytest.mark.parametrize("goes_on", [True, False])
def test_second_interruption(*, goes_on: bool) -> None:
    """A second Ctrl-C, which does not wait for the end, says how to go on all the same."""
    told = str(second_interrupt_error("run", on_cluster=goes_on))
    assert "mode='resume', run='run'" in told
    assert ("cluster still commits" in told) == goes_on


def test_last_failure_may_be_unknown() -> None:
    """Without the last failure at hand the rest is told all the same."""
    problem, _ = explain("run", ended(Stop("too-many")), STATE)
    assert "The last failure" not in str(problem)
    assert "resume" in str(problem)
