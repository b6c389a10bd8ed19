"""Writes with ``compute=False``: the whole write as one lazy object, with a single commit at its end.

Other collections of the same computation share the tasks of its input. Therefore it is optimised
with them: as an expression for a frame, and by the optimisation of their kind for a bag or arrays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dask.core import flatten
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from dasklake._dask import Expr, List, Task, TaskRef, new_collection
from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._run.coordinator import load_failures, record_outcome
from dasklake._run.outcome import explain, raise_problem
from dasklake._run.report import WriteReport, report_write
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._run.start import start_run
from dasklake._storage.store import ObjectStore
from dasklake._write.graph import Delivery, argument_futures, is_plain, write_graph
from dasklake._write.input import is_without_iterators
from dasklake._write.job import Job, Outcome
from dasklake._write.source import Key, Source

_LOGGER = logging.getLogger(__name__)

#: Outcomes that one task of the tree gathers.
_FAN_IN = 64


class _LazyWrite(Delayed):
    """A lazy write of a bag or of arrays.

    It is optimised together with other collections of its kind, so that they share their tasks.
    """

    __slots__ = ("_optimize",)

    def __init__(self, key: str, graph: HighLevelGraph, optimize: Callable[..., Any]) -> None:
        super().__init__(key, graph)  # type: ignore[no-untyped-call] # Dask has no types
        self._optimize = optimize

    @property
    def __dask_optimize__(self) -> Callable[..., Any]:
        return self._optimize


class ToLake(Expr):
    """A lazy write of a frame, which is optimised together with other frames."""

    _parameters = ["frame", "plan"]  # noqa: RUF012 # as in Dask

    @property
    def _meta(self) -> None:
        return None

    @property
    def _projection_columns(self) -> list[Any]:
        """The columns that no other frame may remove from a shared source: all."""
        return list(self.frame.columns)

    def _divisions(self) -> tuple[None, None]:
        return (None, None)

    def _layer(self) -> dict[Key, Any]:
        plan: LazyPlan = self.operand("plan")  # type: ignore[no-untyped-call] # Dask has no types
        parts = [(key,) for key in flatten(self.frame.__dask_keys__())]
        return plan.tasks(replace(plan.source, parts=parts), (self._name, 0), fused=False)


@dataclass(frozen=True, slots=True)
class LazyPlan:
    """A lazy write.

    Attributes
    ----------
    name : str
        Prefix of the keys of its tasks.
    source : Source
        The input.
    spec : RunSpec
        What is written; its run has a name.
    job : Job
        What the write tasks share, except for the epoch.
    kwargs : mapping
        Further arguments of the transform.
    """

    name: str
    source: Source
    spec: RunSpec
    job: Job
    kwargs: Mapping[str, Any]

    def __dask_tokenize__(self) -> str:
        """Return the name, which is unique."""
        return self.name

    def tasks(self, source: Source, commit: Key, *, fused: bool) -> dict[Key, Any]:
        """Return the tasks that begin, write, and commit."""
        begin, locate = f"{self.name}-begin", f"{self.name}-locate"
        partitions = range(len(source.parts))
        delivery = Delivery(self.name, begun=locate, fused=fused)
        graph = write_graph(source, self.job, self.kwargs, partitions, delivery)
        tasks = {
            **graph.tasks,
            begin: Task(begin, _begin, self.job.location.store, self.spec),
            locate: Task(locate, _locate, self.job, TaskRef(begin)),
        }
        level, keys = 0, list(graph.keys)
        while len(keys) > _FAN_IN:
            groups = [keys[i : i + _FAN_IN] for i in range(0, len(keys), _FAN_IN)]
            level += 1
            keys = [(f"{self.name}-gather-{level}", i) for i in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                tasks[key] = Task(key, _gather, List(*map(TaskRef, group)))
        tasks[commit] = Task(commit, _commit, TaskRef(begin), List(*map(TaskRef, keys)))
        return tasks


def lazy_write(source: Source, spec: RunSpec, job: Job, kwargs: Mapping[str, Any]) -> Any:
    """Return a lazy object that begins the run, writes everything and commits once.

    If it is computed again, it finds the run finished and writes nothing. Other collections of the
    same computation share the tasks of the input, unless failures are skipped: a task that fails
    outside of the write tasks would end the run.

    The parameters are the attributes of :class:`LazyPlan`.

    Returns
    -------
    Delayed, or Scalar of dask.dataframe
        The scalar if other frames share the tasks of a frame.
    """
    name = f"to_lake-{spec.run or 'run'}-{object_keys.new_id()[:8]}"
    plan = LazyPlan(name, source, spec, job, kwargs)
    commit, collections = f"{name}-commit", source.collections
    if spec.skip or (source.kind == "bag" and not is_without_iterators(source)):
        collections = ()
    if collections and source.kind == "dataframe":
        if is_plain(kwargs):
            outline = replace(source, graph={}, parts=[], futures={}, roots=list, collections=())
            write = ToLake(collections[0].expr, replace(plan, source=outline))  # type: ignore[no-untyped-call] # as above
            return new_collection(write)
        collections = ()
    # Dask drops futures from the graph when it is computed; until then they keep the results.
    futures = argument_futures(kwargs)
    if not collections:
        futures = {**source.futures, **futures}
    tasks = {**futures, **plan.tasks(source, commit, fused=not collections)}
    graph = HighLevelGraph.from_collections(commit, tasks, dependencies=collections)
    if not collections:
        return Delayed(commit, graph)
    return _LazyWrite(commit, graph, collections[0].__dask_optimize__)


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
        raise_problem(problem, cause)
    report = report_write(run, writer.head.version, writer.state, began)
    _LOGGER.info(
        "Run %r ended: finished, version %d, %d samples, %d failures",
        run,
        report.version,
        report.samples,
        report.failures,
    )
    return report
