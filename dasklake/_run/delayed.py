"""``compute=False``: the whole write as one Delayed, with one commit at its end and no checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dask._task_spec import List, Task, TaskRef
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._log.run_writer import RunWriter
from dasklake._model.commit import RunState
from dasklake._run.coordinator import load_failures
from dasklake._run.outcome import explain
from dasklake._run.progress import CheckpointInterval, MaxFailures, RunProgress, Stop
from dasklake._run.start import Request, start_run
from dasklake._write.graph import Delivery, write_graph
from dasklake._write.input import Source
from dasklake._write.partition import Job, Outcome

__all__ = ["LazyWrite", "lazy_write"]

#: Outcomes that one task of the tree puts together.
_FAN_IN = 64


@dataclass(frozen=True, slots=True)
class LazyWrite:
    """A write that has not begun.

    Attributes
    ----------
    source : Source
        The input.
    request : Request
        Which run; it has a name.
    job : Job
        What the write tasks share, but for the epoch.
    kwargs : mapping
        Further arguments of the transform.
    message : str or None
        First line of the commit message.
    max_failures : MaxFailures
        How many samples may fail.
    """

    source: Source
    request: Request
    job: Job
    kwargs: Mapping[str, Any]
    message: str | None
    max_failures: MaxFailures


class _Ending(NamedTuple):
    """What the last task needs besides the outcomes."""

    message: str | None
    max_failures: MaxFailures
    report: Callable[[str, int, RunState, float], Any]


def lazy_write(write: LazyWrite, report: Callable[[str, int, RunState, float], Any]) -> Delayed:
    """Return a Delayed that begins the run, writes everything and commits once.

    Computed again, it finds the run finished and writes nothing.

    Parameters
    ----------
    write : LazyWrite
        What to write.
    report : callable
        Makes the result of the run's name, the version, its state and the seconds it took.
    """
    name = f"to_lake-{write.request.run or 'run'}-{object_keys.new_id()[:8]}"
    begun = f"{name}-begin"
    graph = write_graph(
        write.source,
        write.job,
        write.kwargs,
        range(len(write.source.parts)),
        Delivery(name, begun=begun),
    )
    tasks = {**graph.tasks, begun: Task(begun, _begin, write.job, write.request)}
    level, keys = 0, list(graph.keys)
    while len(keys) > _FAN_IN:
        groups = [keys[i : i + _FAN_IN] for i in range(0, len(keys), _FAN_IN)]
        level += 1
        keys = [(f"{name}-gather-{level}", i) for i in range(len(groups))]
        for key, group in zip(keys, groups, strict=True):
            tasks[key] = Task(key, _gather, List(*map(TaskRef, group)))
    last = f"{name}-commit"
    ending = _Ending(write.message, write.max_failures, report)
    tasks[last] = Task(last, _commit, TaskRef(begun), List(*map(TaskRef, keys)), ending)
    return Delayed(last, HighLevelGraph.from_collections(last, tasks))


def _begin(job: Job, request: Request) -> Job:
    """Begin the run, or its next epoch; what is committed already is not written again."""
    log = Log(job.place.store)
    head = log.head()
    if head is not None and request.run in head.runs:
        request = replace(request, mode="resume")
    start = start_run(log, request)
    home = object_keys.home_of(log.branch, start.run)
    place = replace(job.place, home=home, run=start.run, epoch=start.state.epoch)
    entry = (start.entry.version, start.entry.id)
    return replace(
        job, place=place, entry=entry, only=frozenset(start.missing), recovered=start.recovered
    )


def _gather(outcomes: Sequence[Any]) -> list[Outcome]:
    found: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, list):
            found += outcome
        elif outcome is not None:
            found.append(outcome)
    return found


def _commit(job: Job, outcomes: Sequence[Any], ending: _Ending) -> Any:
    """Judge what the tasks handed back as a coordinator does, and commit it."""
    began = time.monotonic()
    place = job.place
    log = Log(place.store, place.home.partition("/")[0])
    entry = log.read(job.entry[0])
    writer = RunWriter(log, place.run, place.epoch, entry, job.schema, place.run, ending.message)
    found = _gather(outcomes)
    partitions = {*(job.only or ()), *(receipt.partition for receipt in job.recovered)}
    progress = RunProgress(
        partitions, CheckpointInterval(), ending.max_failures, writer.state, began
    )
    for receipt in job.recovered:
        progress.received(receipt)
    for outcome in found:
        if outcome.receipt is not None:
            progress.received(outcome.receipt)
        else:
            kind = "interrupted" if outcome.interrupt else "failed"
            progress.end(Stop(kind, outcome.failure, outcome.error))
    receipts = progress.take().receipts
    if receipts:
        writer.commit(receipts, lambda: load_failures(place.store, receipts))
    problem, cause = explain(place.run, progress, writer.state)
    if problem is not None:
        raise problem from cause
    return ending.report(place.run, writer.known.version, writer.state, time.monotonic() - began)
