"""The exceptions by which runs end."""

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
FAILURE = Failure("run", 3, 7, 307, "'item'", "boxes", "ValueError", "bad value", "trace")


def ended(*stops: Stop) -> RunProgress:
    """Return the progress of a run that was stopped."""
    progress = RunProgress(range(4), CheckpointInterval(), MaxFailures(), STATE, 0.0)
    for stop in stops:
        progress.end(stop)
    return progress


def test_success() -> None:
    """A run is a success exactly when the log says that it is finished."""
    finished = replace(STATE, finished=True)
    for stop in (Stop("cancelled"), Stop("lost"), Stop("failed", FAILURE, ValueError())):
        assert explain("run", ended(stop), finished) == (None, None)
    assert explain("run", ended(), finished) == (None, None)
    problem, _ = explain("run", ended(), STATE)
    assert isinstance(problem, RunFailedError)


@pytest.mark.parametrize(
    ("stop", "kind", "said"),
    [
        (Stop("cancelled"), RunFailedError, "was cancelled"),
        (Stop("lost"), RunLostError, "restarted"),
        (Stop("too-many", FAILURE), TooManyFailuresError, "ValueError: bad value"),
        (Stop("failed", FAILURE, ValueError()), TransformError, "at index 307"),
        (Stop("failed", FAILURE, None), TransformError, "at index 307"),
        (Stop("failed", FAILURE, SampleError("no")), TransformError, "at index 307"),
        (Stop("failed"), RunFailedError, "ended early"),
    ],
)
def test_way_to_resume(stop: Stop, kind: type[Exception], said: str) -> None:
    """Each outcome except success reports the reason, the committed progress and the way to resume."""
    problem, cause = explain("run", ended(stop), STATE)
    assert type(problem) is kind
    assert said in str(problem)
    assert "50 samples committed (not necessarily the first 50)" in str(problem)
    assert "mode='resume', run='run'" in str(problem)
    assert cause in (stop.error, None)


@pytest.mark.parametrize(
    "stop",
    [
        Stop("interrupted", FAILURE, SystemExit(3)),
        Stop("failed", FAILURE, SchemaError("no. Look.")),
        Stop("conflict", None, RunAbortedError("no. Look.")),
    ],
)
def test_errors_that_speak_for_themselves(stop: Stop) -> None:
    """Exceptions that end the process, and errors of the lake, are raised unchanged."""
    assert explain("run", ended(stop), STATE) == (stop.error, None)


@pytest.mark.parametrize("kind", [StoreError, PermissionDeniedError, StorageFullError])
def test_errors_of_the_storage(kind: type[StoreError]) -> None:
    """A storage error keeps its type, and adds the committed progress and the way to resume."""
    error = kind("no. Look.")
    error.add_note("seen on a worker")
    problem, cause = explain("run", ended(Stop("failed", FAILURE, error)), STATE)
    assert type(problem) is kind
    assert str(problem).startswith("no. Look. Last checkpoint: 50 samples committed")
    assert str(problem).endswith("mode='resume', run='run' to continue.")
    assert vars(problem) == vars(error)
    assert cause is error


def test_partition_that_took_too_long() -> None:
    """A timed-out partition is reported with its number and the limit."""
    error = PartitionTimeoutError("Too long.", seconds=7.5, partition=3)
    failure = replace(FAILURE, position=None, index=None)
    problem, cause = explain("run", ended(Stop("failed", failure, error)), STATE)
    assert isinstance(problem, PartitionTimeoutError)
    assert (problem.partition, problem.seconds, problem.samples_processed) == (3, 7.5, 50)
    assert "Too long. Last checkpoint: 50 samples" in str(problem)
    assert cause is error


def test_workers_that_died() -> None:
    """The error for a partition at which workers died names the usual reason."""
    killed = replace(FAILURE, position=None, index=None, item=None, exception="KilledWorker")
    kind = type("KilledWorker", (Exception,), {})
    raised = transform_error(killed, kind(), 50, resume_hint("run", 50))
    assert "never skipped" in str(raised)
    assert "out of memory" in str(raised)


def test_too_many_of_a_finished_run() -> None:
    """Too many failures are reported even if nothing is left to resume."""
    problem, _ = explain("run", ended(Stop("too-many")), replace(STATE, finished=True))
    assert isinstance(problem, TooManyFailuresError)
    assert "finished" in str(problem)
    assert "resume" not in str(problem)


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        (
            FAILURE,
            ValueError(),
            ["at index 307 of the input", "'item'", "'boxes'", "on_error='skip'"],
        ),
        (replace(FAILURE, index=None), ValueError(), ["at position 7 of partition 3"]),
        (
            replace(FAILURE, index=None, position=None, item=None, tensor=None),
            ValueError(),
            ["in partition 3 of the input", "skip the whole partition"],
        ),
        (FAILURE, MemoryError(), ["never skipped"]),
    ],
)
def test_position_of_a_failure(failure: Failure, error: Exception, said: list[str]) -> None:
    """A failure is reported with the most exact known position."""
    raised = transform_error(failure, error, 50, resume_hint("run", 50))
    assert all(text in str(raised) for text in said)
    assert (raised.index, raised.item, raised.partition) == (
        failure.index,
        failure.item,
        3,
    )
    assert (raised.position, raised.samples_processed) == (failure.position, 50)


def test_interruption() -> None:
    """Ctrl-C is raised with a text that says how to resume, if there is anything to resume."""
    for failure in (FAILURE, None):
        raised, _ = explain("run", ended(Stop("interrupted", failure, KeyboardInterrupt())), STATE)
        assert isinstance(raised, KeyboardInterrupt)
        assert "mode='resume', run='run'" in str(raised)
    problem, _ = explain("run", ended(Stop("cancelled")), STATE)
    assert "mode='resume'" in str(interrupt_error("run", problem))
    assert "finished" in str(interrupt_error("run", None))


@pytest.mark.parametrize("on_cluster", [True, False])
def test_second_interruption(*, on_cluster: bool) -> None:
    """A second Ctrl-C, which does not wait for the end, also says how to resume."""
    text = str(second_interrupt_error("run", on_cluster=on_cluster))
    assert "mode='resume', run='run'" in text
    assert ("cluster still commits" in text) == on_cluster


def test_last_failure_may_be_unknown() -> None:
    """The message is complete without the last failure too."""
    problem, _ = explain("run", ended(Stop("too-many")), STATE)
    assert "The last failure" not in str(problem)
    assert "resume" in str(problem)
