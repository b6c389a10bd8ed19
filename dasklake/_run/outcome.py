"""How a run that ended is told: the exception for each reason, and what to do next."""

from __future__ import annotations

from dasklake._model.commit import RunState
from dasklake._model.receipt import Failure
from dasklake._run.progress import RunProgress, Stop
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

__all__ = [
    "explain",
    "interrupt_error",
    "is_lake_error",
    "kept",
    "refused",
    "second_interrupt_error",
    "transform_error",
]

#: What to raise, and from what; nothing for success.
Ending = tuple[BaseException | None, BaseException | None]

_AGAIN = "Partitions with failures that were not committed yet are then written again."
_FINISHED = "The run is finished all the same: lake.failures() lists what failed."


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
    if state.finished and (stop is None or stop.kind != "too-many"):
        return None, None
    if stop is None:
        return RunFailedError(f"Run {run!r} ended before all of it was committed. {rest}"), None
    if stop.kind == "too-many":
        return _too_many(progress, stop, _FINISHED if state.finished else f"{rest} {_AGAIN}"), None
    if stop.kind == "cancelled":
        return RunFailedError(f"Run {run!r} was cancelled. {rest}"), None
    if stop.kind == "lost":
        lost = f"The cluster was restarted or closed during run {run!r}. {rest}"
        return RunLostError(lost), stop.error
    if stop.kind == "interrupted" and stop.error is not None:
        # A bare Ctrl-C says nothing; what somebody raised with a text is theirs.
        bare = isinstance(stop.error, KeyboardInterrupt) and not stop.error.args
        return (KeyboardInterrupt(rest), stop.error) if bare else (stop.error, None)
    return _failed(run, stop, state.inputs)


def _failed(run: str, stop: Stop, inputs: int) -> Ending:
    """Tell of a partition that failed."""
    error, rest = stop.error, kept(run, inputs)
    if isinstance(error, PartitionTimeoutError):
        place = {"partition": error.partition, "samples_processed": inputs}
        return PartitionTimeoutError(f"{error} {rest}", seconds=error.seconds, **place), error
    if isinstance(error, StoreError):
        return refused(error, run, inputs), error
    if stop.failure is not None and not is_lake_error(error):
        return transform_error(stop.failure, error, inputs, rest), error
    return error or RunFailedError(f"Run {run!r} ended early. {rest}"), None


def is_lake_error(error: BaseException | None) -> bool:
    """Whether an error is about the lake or its storage, and speaks for itself."""
    return isinstance(error, LakeError) and not isinstance(error, SampleError | RunFailedError)


def refused(error: StoreError, run: str, inputs: int) -> StoreError:
    """Return an error of the storage with what it leaves, and how to go on."""
    told = type(error)(f"{error} {kept(run, inputs)}")
    told.__dict__.update(error.__dict__)
    return told


def interrupt_error(run: str, problem: BaseException | None) -> KeyboardInterrupt:
    """Return what Ctrl-C is told as: with the sentence that says how to go on."""
    return KeyboardInterrupt(str(problem or f"Run {run!r} is finished."))


def second_interrupt_error(run: str, *, on_cluster: bool) -> KeyboardInterrupt:
    """Return what a second Ctrl-C is told as: nobody has seen how the run ended.

    Parameters
    ----------
    run : str
        The run.
    on_cluster : bool
        Whether a cluster commits what is complete all the same.
    """
    rest = "The cluster goes on to commit what is complete. " if on_cluster else ""
    return KeyboardInterrupt(
        f"Run {run!r} was left before its end was known. {rest}What is committed is kept: run "
        f"again with mode='resume', run={run!r} to continue."
    )


def kept(run: str, inputs: int) -> str:
    """Say what a run that ends early leaves, and how to go on."""
    return (
        f"Last checkpoint: {inputs} samples committed (not necessarily the first {inputs}). "
        f"Run again with mode='resume', run={run!r} to continue."
    )


def transform_error(
    failure: Failure, error: BaseException | None, inputs: int, kept: str
) -> TransformError:
    """Return the exception by which a failure ends a run."""
    if failure.position is None:
        where = f"in partition {failure.partition} of the input data"
    elif failure.index is None:
        where = f"at position {failure.position} of partition {failure.partition}"
    else:
        where = f"at index {failure.index} of the input data"
    item = f" on the item: {failure.item}" if failure.item is not None else ""
    tensor = f" (tensor {failure.tensor!r})" if failure.tensor is not None else ""
    if never_skipped(error):
        skip = "Errors of the machine and the storage are never skipped."
        if failure.exception == "KilledWorker":
            skip += (
                " Workers that die at one partition, one after the other, have most often run out "
                "of memory: give them more, or make chunk_size and the partitions smaller."
            )
    elif failure.position is not None:
        skip = "If you wish to skip the samples that cause errors, please specify on_error='skip'."
    else:
        skip = "on_error='skip' would leave out the whole partition."
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
    tally = progress.tally()
    last = (
        f" The last one: {stop.failure.exception}: {stop.failure.message}" if stop.failure else ""
    )
    return TooManyFailuresError(
        f"{tally.lost_inputs} of {tally.inputs} samples failed, more than max_failures allows."
        f"{last}\n{kept}"
    )
