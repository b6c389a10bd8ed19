"""Execute one validated call of ``to_lake``: begin the run, write it, and report the result."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dask.local
import dask.threaded
from dask.delayed import Delayed
from dask.system import CPU_COUNT

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._run.client_front import run_on_client
from dasklake._run.coordinator import Status, commit_recovered
from dasklake._run.delayed import lazy_write
from dasklake._run.held_results import hold_results
from dasklake._run.local_front import local_deliver, run_locally
from dasklake._run.outcome import raise_problem
from dasklake._run.preview import Preview, preview_write
from dasklake._run.progress_bar import make_bar
from dasklake._run.report import WriteReport, report_write
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._run.scheduler_client import (
    find_on_scheduler,
    follow_on_scheduler,
    open_on_scheduler,
    run_on_scheduler,
)
from dasklake._run.start import check_plan, check_schema, start_run
from dasklake._run.task_outcome import TaskDeliver
from dasklake._schema.printable import safe_repr
from dasklake._storage.store import ObjectStore
from dasklake._write.futures import refuse_local
from dasklake._write.graph import Delivery, WriteGraph, argument_futures, write_graph
from dasklake._write.job import Job
from dasklake._write.source import Source
from dasklake.exceptions import LakeExistsError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A validated call of ``to_lake``.

    Attributes
    ----------
    source : Source
        The input.
    spec : RunSpec
        What is written, and the rules.
    job : Job
        What all write tasks share, without an epoch.
    kwargs : mapping
        Further arguments of the transform.
    coordinator : str
        Which process commits: ``"auto"``, ``"scheduler"`` or ``"client"``.
    progress : bool or "auto"
        Whether to show a progress bar.
    on_checkpoint : callable or None
        Called with the version after a commit.
    began : float
        When the call began, on the monotonic clock.
    """

    source: Source
    spec: RunSpec
    job: Job
    kwargs: Mapping[str, Any]
    coordinator: str
    progress: bool | Literal["auto"]
    on_checkpoint: Callable[[int], object] | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def store(self) -> ObjectStore:
        """The lake's objects."""
        return self.job.location.store


def run_call(call: Call, get: Callable[..., Any] | None, client: Any) -> WriteReport:
    """Write the input and wait until the run has ended.

    Parameters
    ----------
    call : Call
        The call.
    get : callable or None
        Dask's scheduler function; None for its default.
    client : distributed.Client or None
        The cluster that ``get`` computes on.
    """
    log = Log(call.store)
    if client is not None and call.spec.mode == "resume":
        report = _attach(call, log, client)
        if report is not None:
            return report
    held = _hold_futures(call, client)
    assignment = start_run(log, call.spec)
    if not assignment.partitions:
        state, version = assignment.state, assignment.entry.version
        _LOGGER.info("Run %r is already finished, version %d", assignment.run, version)
        return report_write(assignment.run, version, state, call.began)
    if not assignment.missing:
        return _report(call, assignment.run, commit_recovered(assignment))
    with make_bar(call.progress, assignment.run) as bar:
        on_status = _notify_checkpoints(call, bar)
        if client is None:
            status = _write_locally(call, assignment, get or dask.threaded.get, on_status)
        else:
            status = _write_on_cluster(call, assignment, client, on_status)
    del held
    return _report(call, assignment.run, status)


def _hold_futures(call: Call, client: Any) -> list[Any]:
    """Return futures that keep the results on a cluster that the write needs; raise if it cannot."""
    arguments = argument_futures(call.kwargs)
    keys = call.source.external_keys | arguments.keys()
    if client is not None:
        return hold_results(client, keys, {**call.source.futures, **arguments})
    refuse_local(keys)
    return []


def _attach(call: Call, log: Log, client: Any) -> WriteReport | None:
    """Wait for the run if this cluster is writing it already, perhaps for a client that died."""
    active = find_on_scheduler(client, call.store.url, call.spec.run)
    if active is None:
        return None
    name, run = active
    check_plan(run, log.require_head().runs[run].plan, call.spec)
    _LOGGER.info("Run %r: following the coordinator on the scheduler", run)
    with make_bar(call.progress, run) as bar:
        on_status = _notify_checkpoints(call, bar)
        status = follow_on_scheduler(client, run, name, on_status=on_status)
    return _report(call, run, status)


def _write_locally(
    call: Call,
    assignment: Assignment,
    get: Callable[..., Any],
    on_status: Callable[[Status], None],
) -> Status:
    deliver = local_deliver(get)
    # Local schedulers do not retry: the tasks do it themselves.
    job = replace(call.job, retries=call.spec.retries)
    tasks = _tasks(call, job, assignment, Delivery(_name(assignment), deliver, local=True))
    return run_locally(get, assignment, tasks, deliver=deliver, on_status=on_status)


def _write_on_cluster(
    call: Call, assignment: Assignment, client: Any, on_status: Callable[[Status], None]
) -> Status:
    """Write on a cluster; the client commits if it has to, or if the scheduler cannot."""
    name, retries = _name(assignment), call.spec.retries
    if call.coordinator != "client":
        tasks = _tasks(call, call.job, assignment, Delivery(name, TaskDeliver()))
        required = call.coordinator == "scheduler" or call.spec.partition_timeout is not None
        if open_on_scheduler(client, assignment, name, required=required):
            return run_on_scheduler(
                client, assignment, tasks, name=name, retries=retries, on_status=on_status
            )
    tasks = _tasks(call, call.job, assignment, Delivery(name))
    return run_on_client(client, assignment, tasks, retries=retries, on_status=on_status)


def _name(assignment: Assignment) -> str:
    """Return a prefix for the write tasks' keys."""
    epoch, unique = assignment.location.epoch, object_keys.new_id()[:8]
    return f"to_lake-{assignment.run}-{epoch}-{unique}"


def _tasks(call: Call, job: Job, assignment: Assignment, delivery: Delivery) -> WriteGraph:
    job = job.at(assignment.location, assignment.entry)
    return write_graph(call.source, job, call.kwargs, assignment.missing, delivery)


def _notify_checkpoints(
    call: Call, on_status: Callable[[Status], None]
) -> Callable[[Status], None]:
    """Return a callback that passes the status on, and calls ``on_checkpoint`` after commits."""
    if call.on_checkpoint is None:
        return on_status
    on_checkpoint, commits = call.on_checkpoint, 0

    def notify(status: Status) -> None:
        nonlocal commits
        on_status(status)
        if status.commits > commits:
            commits = status.commits
            try:
                on_checkpoint(status.version)
            except Exception as error:  # noqa: BLE001 # the user's code must not end the run
                text = f"on_checkpoint failed: {safe_repr(error)}. The run continues."
                warnings.warn(text, stacklevel=2)

    return notify


def _report(call: Call, run: str, status: Status) -> WriteReport:
    """Return the report of a run that has ended, or raise the error that ended it."""
    if status.problem is not None:
        raise_problem(status.problem, status.cause)
    if status.failures:
        _LOGGER.warning(
            "Run %r: skipped %d failures, wrote %d samples. lake.failures() lists the skipped ones.",
            run,
            status.failures,
            status.samples,
        )
    return report_write(run, status.version, status, call.began, status.commits)


def lazy_call(call: Call) -> Delayed:
    """Return a Delayed that writes everything with one commit at the end."""
    spec = call.spec
    head = Log(call.store).head()
    if spec.mode != "resume":
        if head is not None and spec.run in head.runs:
            raise LakeExistsError(
                f"The lake has a run {spec.run!r} already. Give the new run another name, or "
                "continue it with mode='resume'."
            )
        # Named now: if the Delayed is computed twice, it is the same run.
        spec = replace(spec, run=spec.run or f"run-{object_keys.new_id()[:8]}")
    lazy: Delayed = lazy_write(call.source, spec, call.job, call.kwargs)
    return lazy


def preview_call(call: Call, get: Callable[..., Any] | None, client: Any, items: int) -> Preview:
    """Try some items without writing anything; print and return the estimate for the whole."""
    head = Log(call.store).head()
    if head is not None and call.spec.mode != "overwrite":
        check_schema(head.schema, call.spec.schema)
    get = get or dask.threaded.get
    held = _hold_futures(call, client)
    with warnings.catch_warnings():
        # As for the write itself: the arguments are meant to travel with the graph.
        warnings.filterwarnings("ignore", message="Sending large graph")
        trial = preview_write(call.source, call.job, call.kwargs, items, get)
    del held
    preview = Preview(
        schema=call.spec.schema,
        **trial._asdict(),
        total=call.source.inputs,
        partitions=len(call.source.parts),
        workers=_parallel_tasks(get, client),
        chunk_size=call.job.chunk_size,
        interval=call.spec.interval,
    )
    print(preview)  # noqa: T201 # the purpose of a preview
    return preview


def _parallel_tasks(get: Callable[..., Any], client: Any) -> int:
    """Return the number of tasks that run at the same time."""
    if client is not None:
        return int(sum(client.nthreads().values())) or 1
    return 1 if get is dask.local.get_sync else int(CPU_COUNT)
