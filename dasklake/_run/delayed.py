"""Writes with ``compute=False``: the whole write as one Delayed, with a single commit at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from dasklake._dask import List, Task, TaskRef
from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._run.coordinator import load_failures, record_outcome
from dasklake._run.outcome import explain
from dasklake._run.report import WriteReport, report_write
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._run.start import start_run
from dasklake._storage.store import ObjectStore
from dasklake._write.graph import Delivery, argument_futures, write_graph
from dasklake._write.job import Job, Outcome
from dasklake._write.source import Source

_LOGGER = logging.getLogger(__name__)

#: Outcomes that one task of the tree gathers.
_FAN_IN = 64


def lazy_write(source: Source, spec: RunSpec, job: Job, kwargs: Mapping[str, Any]) -> Delayed:
    """Return a Delayed that begins the run, writes everything and commits once.

    If it is computed again, it finds the run finished and writes nothing.

    Parameters
    ----------
    source : Source
        The input.
    spec : RunSpec
        What is written; its run has a name.
    job : Job
        What the write tasks share, except for the epoch.
    kwargs : mapping
        Further arguments of the transform.
    """
    name = f"to_lake-{spec.run or 'run'}-{object_keys.new_id()[:8]}"
    begin, locate, commit = f"{name}-begin", f"{name}-locate", f"{name}-commit"
    partitions = range(len(source.parts))
    graph = write_graph(source, job, kwargs, partitions, Delivery(name, begun=locate))
    tasks = {
        # Dask drops them from the graph when it is computed; until then they keep the results.
        **source.futures,
        **argument_futures(kwargs),
        **graph.tasks,
        begin: Task(begin, _begin, job.location.store, spec),
        locate: Task(locate, _locate, job, TaskRef(begin)),
    }
    level, keys = 0, list(graph.keys)
    while len(keys) > _FAN_IN:
        groups = [keys[i : i + _FAN_IN] for i in range(0, len(keys), _FAN_IN)]
        level += 1
        keys = [(f"{name}-gather-{level}", i) for i in range(len(groups))]
        for key, group in zip(keys, groups, strict=True):
            tasks[key] = Task(key, _gather, List(*map(TaskRef, group)))
    tasks[commit] = Task(commit, _commit, TaskRef(begin), List(*map(TaskRef, keys)))
    return Delayed(commit, HighLevelGraph.from_collections(commit, tasks))


def _begin(store: ObjectStore, spec: RunSpec) -> Assignment:
    """Begin the run, or its next epoch, which does not write committed partitions again."""
    log = Log(store)
    head = log.head()
    if head is not None and spec.run in head.runs:
        spec = replace(spec, mode="resume")
    return start_run(log, spec)


def _locate(job: Job, assignment: Assignment) -> Job:
    """Return the job with the location of its epoch and the partitions to write."""
    return replace(
        job.at(assignment.location, assignment.entry), only=frozenset(assignment.missing)
    )


def _gather(outcomes: Sequence[Any]) -> list[Outcome]:
    gathered: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, list):
            gathered += outcome
        elif outcome is not None:
            gathered.append(outcome)
    return gathered


def _commit(assignment: Assignment, outcomes: Sequence[Any]) -> WriteReport:
    """Judge the tasks' outcomes as a coordinator does, and commit their receipts."""
    began = time.monotonic()
    run = assignment.run
    writer = assignment.open_writer()
    progress = assignment.track(writer.state, began)
    for receipt in assignment.recovered:
        progress.received(receipt)
    for outcome in _gather(outcomes):
        record_outcome(progress, outcome)
    receipts = progress.take().receipts
    if receipts:
        writer.commit(receipts, lambda: load_failures(assignment.location.store, receipts))
    problem, cause = explain(run, progress, writer.state)
    if problem is not None:
        raise problem from cause
    report = report_write(run, writer.head.version, writer.state, began)
    _LOGGER.info(
        "Run %r ended: finished, version %d, %d samples, %d failures",
        run,
        report.version,
        report.samples,
        report.failures,
    )
    return report
