"""One call of ``to_lake``, checked: it begins the run, has it written, and reports how it went."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dask.local
import dask.threaded
from dask.system import CPU_COUNT

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._model.commit import RunState
from dasklake._run.client_front import (
    find_on_scheduler,
    follow_on_scheduler,
    open_on_scheduler,
    run_on_client,
    run_on_scheduler,
)
from dasklake._run.coordinator import Assignment, Status, commit_recovered
from dasklake._run.delayed import LazyWrite, lazy_write
from dasklake._run.local_front import local_deliver, run_locally
from dasklake._run.options import WriteOptions
from dasklake._run.preview import Preview, preview_write
from dasklake._run.progress import CheckpointInterval, MaxFailures
from dasklake._run.progress_bar import make_bar
from dasklake._run.report import WriteReport
from dasklake._run.scheduler_plugin import TaskDeliver
from dasklake._run.start import Request, Start, check_plan, check_schema, start_run
from dasklake._schema.schema import Schema
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import Place
from dasklake._write.graph import Delivery, WriteGraph, write_graph
from dasklake._write.input import Source
from dasklake._write.partition import Job
from dasklake.exceptions import LakeExistsError

__all__ = ["Call", "lazy_call", "preview_call", "run_call"]


@dataclass(frozen=True, slots=True)
class Call:
    """A call of ``to_lake``, checked."""

    source: Source
    schema: Schema
    store: ObjectStore
    mode: str
    run: str | None
    input_id: str | None
    interval: CheckpointInterval
    skip: bool
    max_failures: MaxFailures
    transform: Callable[..., Any] | None
    kwargs: Mapping[str, Any]
    message: str | None
    coordinator: str
    progress: bool | Literal["auto"]
    chunk_size: int
    partition_timeout: float | None
    options: WriteOptions
    on_checkpoint: Callable[[int], object] | None = None
    began: float = field(default_factory=time.monotonic)


def _request(call: Call) -> Request:
    source = call.source
    return Request(
        mode=call.mode,
        run=call.run,
        schema=call.schema,
        partitions=len(source.parts),
        inputs=source.inputs,
        input_id=call.input_id or source.input_id,
    )


def _job(call: Call, place: Place, entry: tuple[int, str], retries: int | None = None) -> Job:
    return Job(
        place=place,
        entry=entry,
        schema=call.schema,
        kind=call.source.kind,
        names=call.source.names,
        transform=call.transform,
        skip=call.skip,
        chunk_size=call.chunk_size,
        retries=retries,
        strict=call.options.validate == "strict",
    )


def lazy_call(call: Call) -> Any:
    """Return a Delayed that writes everything with one commit at the end."""
    request = _request(call)
    head = Log(call.store).head()
    if call.mode != "resume":
        if head is not None and call.run in head.runs:
            raise LakeExistsError(
                f"The lake has a run {call.run!r} already. Give the new run another name, or "
                "continue it with mode='resume'."
            )
        # Named now: computed twice, the Delayed is the same run.
        request = replace(request, run=call.run or f"run-{object_keys.new_id()[:8]}")
    job = _job(call, Place(call.store, "", "", 0), (0, ""))
    lazy = LazyWrite(call.source, request, job, call.kwargs, call.message, call.max_failures)
    return lazy_write(lazy, _report)


def preview_call(call: Call, get: Callable[..., Any] | None, client: Any, items: int) -> Preview:
    """Try some items without writing anything; print and return what that tells of the whole."""
    log = Log(call.store)
    head = log.head()
    if head is not None and call.mode != "overwrite":
        check_schema(head.schema, call.schema)
    get = get or dask.threaded.get
    job = _job(call, Place(call.store, "", "", 0), (0, ""))
    with warnings.catch_warnings():
        # As for the write itself: the arguments are meant to travel with the graph.
        warnings.filterwarnings("ignore", message="Sending large graph")
        trials = preview_write(call.source, job, call.kwargs, items, get)
    sizes: Counter[str] = Counter()
    for trial in trials:
        sizes.update(trial.sizes)
    preview = Preview(
        schema=call.schema,
        inputs=sum(trial.inputs for trial in trials),
        samples=sum(trial.samples for trial in trials),
        sizes=dict(sizes),
        overhead=max((trial.overhead for trial in trials), default=0),
        seconds=sum(trial.seconds for trial in trials),
        failures=tuple(failure for trial in trials for failure in trial.failures),
        total=call.source.inputs,
        partitions=len(call.source.parts),
        workers=_places(get, client),
        chunk_size=call.chunk_size,
        interval=call.interval,
    )
    print(preview)  # noqa: T201 # what it is called for
    return preview


def _places(get: Callable[..., Any], client: Any) -> int:
    """Return how many tasks run at the same time."""
    if client is not None:
        return int(sum(client.nthreads().values())) or 1
    return 1 if get is dask.local.get_sync else int(CPU_COUNT)


def _noting(call: Call, on_status: Callable[[Status], None]) -> Callable[[Status], None]:
    """Return what is told the status: the bar, and whoever wants to know of each commit."""
    if call.on_checkpoint is None:
        return on_status
    on_checkpoint, seen = call.on_checkpoint, 0

    def note(status: Status) -> None:
        nonlocal seen
        on_status(status)
        if status.commits > seen:
            seen = status.commits
            try:
                on_checkpoint(status.version)
            except Exception as error:  # noqa: BLE001 # the user's, and no reason to end the run
                warnings.warn(f"on_checkpoint failed: {error!r}. The run goes on.", stacklevel=2)

    return note


def run_call(call: Call, get: Callable[..., Any] | None, client: Any) -> WriteReport:
    """Write what was asked for and wait for the end.

    Parameters
    ----------
    call : Call
        What was asked for.
    get : callable or None
        Dask's scheduler function; None for its default.
    client : distributed.Client or None
        The cluster that ``get`` computes on.
    """
    log = Log(call.store)
    request = _request(call)
    if client is not None and call.mode == "resume":
        attached = _attach(call, log, request, client)
        if attached is not None:
            return attached
    start = start_run(log, request)
    if not start.missing and not start.recovered:
        seconds = time.monotonic() - call.began
        return _report(start.run, start.entry.version, start.state, seconds)
    place = Place(
        call.store, object_keys.home_of(log.branch, start.run), start.run, start.state.epoch
    )
    name = f"to_lake-{start.run}-{start.state.epoch}-{object_keys.new_id()[:8]}"
    assignment = _assignment(call, start, log)
    if not start.missing:
        return _report_status(call, start.run, commit_recovered(assignment))
    options = call.options
    on_scheduler = client is not None and call.coordinator != "client"
    get = get or dask.threaded.get
    local = local_deliver(get) if client is None else None

    def graph() -> WriteGraph:
        # Local schedulers do not try again; and only they are in the coordinator's process.
        retries = options.retries if client is None else None
        deliver = TaskDeliver() if on_scheduler else local
        job = _job(call, place, (start.entry.version, start.entry.id), retries)
        delivery = Delivery(name, deliver, local=client is None)
        return write_graph(call.source, job, call.kwargs, start.missing, delivery)

    tasks = graph()
    if on_scheduler:
        required = call.coordinator == "scheduler" or call.partition_timeout is not None
        on_scheduler = open_on_scheduler(client, assignment, name, required=required)
        tasks = tasks if on_scheduler else graph()
    retries = options.retries
    with make_bar(call.progress, start.run) as bar:
        on_status = _noting(call, bar)
        if client is None:
            status = run_locally(get, assignment, tasks, deliver=local, on_status=on_status)
        elif on_scheduler:
            status = run_on_scheduler(
                client, assignment, tasks, name=name, retries=retries, on_status=on_status
            )
        else:
            status = run_on_client(client, assignment, tasks, retries=retries, on_status=on_status)
    return _report_status(call, start.run, status)


def _attach(call: Call, log: Log, request: Request, client: Any) -> WriteReport | None:
    """Wait for the run where this very cluster is writing it, perhaps for a client that died."""
    found = find_on_scheduler(client, call.store.url, call.run)
    if found is None:
        return None
    name, run = found
    check_plan(run, log.require_head().runs[run].plan, request)
    with make_bar(call.progress, run) as bar:
        status = follow_on_scheduler(client, run, name, on_status=_noting(call, bar))
    return _report_status(call, run, status)


def _report_status(call: Call, run: str, status: Status) -> WriteReport:
    """Report how a run that was coordinated has ended, or raise what ended it."""
    if status.problem is not None:
        raise status.problem from status.cause
    return WriteReport(
        run=run,
        version=status.version,
        samples=status.samples,
        failures=status.failures,
        partitions=status.partitions,
        commits=status.commits,
        bytes=status.size,
        seconds=time.monotonic() - call.began,
    )


def _assignment(call: Call, start: Start, log: Log) -> Assignment:
    return Assignment(
        store=call.store,
        branch=log.branch,
        run=start.run,
        epoch=start.state.epoch,
        version=start.entry.version,
        schema=call.schema,
        label=start.run,
        message=call.message,
        missing=start.missing,
        recovered=start.recovered,
        interval=call.interval,
        skip=call.skip,
        max_failures=call.max_failures,
        partition_timeout=call.partition_timeout,
        retries=call.options.retries,
    )


def _report(run: str, version: int, state: RunState, seconds: float) -> WriteReport:
    """Report a run that needed no commit of ours but one at most."""
    return WriteReport(
        run=run,
        version=version,
        samples=state.samples,
        failures=state.failures,
        partitions=state.partitions,
        commits=0,
        bytes=state.size,
        seconds=seconds,
    )
