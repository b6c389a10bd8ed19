"""The exceptions by which runs end, each with the committed progress and the way to resume."""

from __future__ import annotations

from typing import NoReturn

from dasklake._model.commit import RunState
from dasklake._model.receipt import Failure
from dasklake._run.progress import RunProgress, Stop
from dasklake._schema.printable import safe_str
from dasklake._storage.hidden import raise_without_context, without_secrets
from dasklake._write.failures import never_skipped
from dasklake.exceptions import (
    LakeError,
    PartitionTimeoutError,
    RunFailedError,
    RunLostError,
    SampleError,
    StoreError,
    TooManyFailuresError,
    TransformError,
)

#: The exception to raise and its cause; None and None for success.
OutcomeError = tuple[BaseException | None, BaseException | None]

#: The way to continue when there is nothing to resume.
_START_OVER = (
    "No samples were committed. Fix the cause and call again. If you give run=, give another name, "
    "or mode='resume' if schema and input are the same."
)
_REWRITTEN = "Partitions with uncommitted failures are then written again."
_FINISHED = "The run is finished nevertheless: lake.failures() lists the failures."


def explain(run: str, progress: RunProgress, state: RunState) -> OutcomeError:
    """Return the exception that ends an epoch, and its cause.

    Parameters
    ----------
    run : str
        The run.
    progress : RunProgress
        The progress of the epoch.
    state : RunState
        The run's state in the newest commit, which alone decides whether the run is finished.
    """
    stop = progress.stop
    hint = resume_hint(run, state.inputs)
    if state.finished and (stop is None or stop.kind != "too-many"):
        return None, None
    if stop is None:
        text = f"Run {run!r} ended before all its partitions were committed. {hint}"
        return RunFailedError(text), None
    if stop.kind == "too-many":
        text = _FINISHED if state.finished else f"{hint} {_REWRITTEN}"
        if not state.finished and not state.inputs:
            text = _START_OVER
        return _too_many(progress, stop, text), None
    if stop.kind == "cancelled":
        return RunFailedError(f"Run {run!r} was cancelled. {hint}"), None
    if stop.kind == "lost":
        text = f"The cluster was restarted or closed during run {run!r}. {hint}"
        return RunLostError(text), stop.error
    if stop.kind == "interrupted" and stop.error is not None:
        # A bare Ctrl-C has no text; an exception raised with a text keeps it.
        bare = isinstance(stop.error, KeyboardInterrupt) and not stop.error.args
        return (KeyboardInterrupt(hint), stop.error) if bare else (stop.error, None)
    return _failed(run, stop, state.inputs)


def raise_problem(problem: BaseException, cause: BaseException | None) -> NoReturn:
    """Raise the exception of :func:`explain` from its cause, without secrets.

    The cause may come from any task of the input.
    """
    hidden = None if cause is None else without_secrets(cause)
    unnamed = RunFailedError(
        f"The run ended with a {type(problem).__qualname__}, whose text shows a secret and is left "
        "out. lake.failures() has the failures that were committed."
    )
    raise_without_context(without_secrets(problem) or unnamed, hidden)


def _failed(run: str, stop: Stop, inputs: int) -> OutcomeError:
    """Return the exception for a partition that failed."""
    error, hint = stop.error, resume_hint(run, inputs)
    if isinstance(error, PartitionTimeoutError):
        details = {"partition": error.partition, "samples_processed": inputs}
        text = f"{error} {hint}"
        return PartitionTimeoutError(text, seconds=error.seconds, **details), error
    if isinstance(error, StoreError):
        return storage_error(error, run, inputs), error
    if stop.failure is not None and not is_lake_error(error):
        hint = hint if inputs else _START_OVER
        return transform_error(stop.failure, error, inputs, hint), error
    return error or RunFailedError(f"Run {run!r} ended early. {hint}"), None


def is_lake_error(error: BaseException | None) -> bool:
    """Return whether an error is about the lake or its storage, and needs no further context."""
    return isinstance(error, LakeError) and not isinstance(error, SampleError | RunFailedError)


def storage_error(error: StoreError, run: str, inputs: int) -> StoreError:
    """Return a copy of a storage error whose message adds the progress and the way to resume."""
    extended = type(error)(f"{safe_str(error)} {resume_hint(run, inputs)}")
    extended.__dict__.update(error.__dict__)
    return extended


def interrupt_error(run: str, problem: BaseException | None) -> KeyboardInterrupt:
    """Return the exception for Ctrl-C, with a message that says how to resume."""
    return KeyboardInterrupt(str(problem or f"Run {run!r} is finished."))


def second_interrupt_error(run: str, *, on_cluster: bool) -> KeyboardInterrupt:
    """Return the exception for a second Ctrl-C, after which the outcome is unknown.

    Parameters
    ----------
    run : str
        The run.
    on_cluster : bool
        Whether a cluster still commits complete partitions.
    """
    rest = "The cluster still commits complete partitions. " if on_cluster else ""
    return KeyboardInterrupt(
        f"Run {run!r} was interrupted again before its outcome was known. {rest}Committed data is "
        f"kept. Run again with mode='resume', run={run!r} to continue."
    )


def resume_hint(run: str, inputs: int) -> str:
    """Return a text with a run's committed progress and the way to resume it."""
    order = f" (not necessarily the first {inputs})" if inputs else ""
    return (
        f"Last checkpoint: {inputs} samples committed{order}. "
        f"Run again with mode='resume', run={run!r} to continue."
    )


def transform_error(
    failure: Failure, error: BaseException | None, inputs: int, hint: str
) -> TransformError:
    """Return the exception for a failure that ends a run."""
    if failure.position is None:
        position = f"in partition {failure.partition} of the input data"
    elif failure.index is None:
        position = f"at position {failure.position} of partition {failure.partition}"
    else:
        position = f"at index {failure.index} of the input data"
    item = f" on the item: {failure.item}" if failure.item is not None else ""
    tensor = f" (tensor {failure.tensor!r})" if failure.tensor is not None else ""
    if never_skipped(error):
        skip = "Machine and storage errors are never skipped."
        if failure.exception == "KilledWorker":
            skip += (
                " When several workers die at the same partition, they have most often run out of "
                "memory. Give them more memory, or reduce chunk_size and the size of partitions."
            )
    elif failure.position is not None:
        skip = "To skip the samples that cause errors, use on_error='skip'."
    else:
        skip = "on_error='skip' would skip the whole partition."
    return TransformError(
        f"Transform failed {position}{item}{tensor}: {failure.exception}: {failure.message}\n"
        f"{hint} {skip}",
        index=failure.index,
        item=failure.item,
        partition=failure.partition,
        position=failure.position,
        samples_processed=inputs,
    )


def _too_many(progress: RunProgress, stop: Stop, hint: str) -> TooManyFailuresError:
    tally, failure = progress.tally(), stop.failure
    last = f" The last failure: {failure.exception}: {failure.message}" if failure else ""
    return TooManyFailuresError(
        f"{tally.lost_inputs} of {tally.inputs} samples failed, more than "
        f"max_failures={progress.max_failures.value} allows. Fix the input or the function, or pass "
        f"a higher max_failures=; None means no limit.{last}\n{hint}"
    )
