"""How a run that ended is told: the exception for each reason, and what to do next."""

from __future__ import annotations

from dasklake._model.commit import RunState
from dasklake._model.receipt import Failure
from dasklake._write.checkpoint import RunProgress, Stop
from dasklake.exceptions import (
    LakeError,
    RunFailedError,
    RunLostError,
    SampleError,
    TooManyFailuresError,
    TransformError,
)

__all__ = ["explain", "kept", "transform_error"]

#: What to raise, and from what; nothing for success.
Ending = tuple[BaseException | None, BaseException | None]


def explain(run: str, progress: RunProgress, state: RunState) -> Ending:
    """Return the exception by which an epoch ends, and its cause.

    Parameters
    ----------
    run : str
        The run.
    progress : RunProgress
        What has happened in the epoch.
    state : RunState
        What the newest commit says of the run: it alone decides whether all is done.
    """
    stop = progress.stop
    rest = kept(run, state.inputs)
    if state.finished:
        if stop is None or stop.kind != "too-many":
            return None, None
        rest = f"Run {run!r} is finished: all other samples are committed."
    if stop is None:
        return RunFailedError(f"Run {run!r} ended before all of it was committed. {rest}"), None
    if stop.kind == "too-many":
        return _too_many(progress, stop, rest), None
    if stop.kind == "cancelled":
        return RunFailedError(f"Run {run!r} was cancelled. {rest}"), None
    if stop.kind == "lost":
        return RunLostError(f"The cluster was restarted during run {run!r}. {rest}"), stop.error
    interrupted = stop.kind == "interrupted" and stop.error is not None
    if not interrupted and stop.failure is not None and not _of_lake(stop.error):
        return transform_error(stop.failure, state.inputs, rest), stop.error
    return stop.error or RunFailedError(f"Run {run!r} ended early. {rest}"), None


def _of_lake(error: BaseException | None) -> bool:
    """Whether an error is about the lake or its storage, and speaks for itself."""
    return isinstance(error, LakeError) and not isinstance(error, SampleError | RunFailedError)


def kept(run: str, inputs: int) -> str:
    """Say what a run that ends early leaves, and how to go on."""
    return (
        f"Last checkpoint: {inputs} samples committed (not necessarily the first {inputs}). "
        f"Run again with mode='resume', run={run!r} to continue."
    )


def transform_error(failure: Failure, inputs: int, kept: str) -> TransformError:
    """Return the exception by which a failure ends a run."""
    if failure.position is None:
        where = f"in partition {failure.partition} of the input data"
    elif failure.index is None:
        where = f"at position {failure.position} of partition {failure.partition}"
    else:
        where = f"at index {failure.index} of the input data"
    item = f" on the item: {failure.item}" if failure.item is not None else ""
    tensor = f" (tensor {failure.tensor!r})" if failure.tensor is not None else ""
    skip = (
        "If you wish to skip the samples that cause errors, please specify on_error='skip'."
        if failure.position is not None
        else "on_error='skip' would leave out the whole partition."
    )
    return TransformError(
        f"Transform failed {where}{item}{tensor}: {failure.exception}: {failure.message}\n"
        f"{kept} {skip}",
        index=failure.index,
        item=failure.item,
        partition=failure.partition,
        position=failure.position,
        samples_processed=inputs,
    )


def _too_many(progress: RunProgress, stop: Stop, kept: str) -> TooManyFailuresError:
    failures = progress.before.failures + progress.failures
    inputs = progress.before.inputs + progress.written_inputs
    last = (
        f" The last one: {stop.failure.exception}: {stop.failure.message}" if stop.failure else ""
    )
    return TooManyFailuresError(
        f"{failures} of {inputs} samples failed, more than max_failures allows.{last}\n{kept} "
        "lake.failures() lists what failed."
    )
