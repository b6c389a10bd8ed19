"""``to_lake``: any Dask collection becomes a lake, committed while it is written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

import dask.threaded
from dask.base import get_scheduler

from dasklake._format import layout
from dasklake._format.documents import schema_digest
from dasklake._model.commit import RunState
from dasklake._model.schema import Schema, TensorSpec
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore, absolute_url
from dasklake._write.arguments import parse_every, parse_max_failures, parse_size
from dasklake._write.bar import make_bar
from dasklake._write.checkpoint import Every, MaxFailures
from dasklake._write.chunks import Place
from dasklake._write.coordinator import Assignment, Status, commit_adopted
from dasklake._write.graph import Delivery, WriteGraph, check_arguments, write_graph
from dasklake._write.lazy import LazyWrite, lazy_write
from dasklake._write.local import local_deliver, run_locally
from dasklake._write.partition import Job
from dasklake._write.source import Source, source_of
from dasklake._write.start import MODES, Request, Start, check_plan, start_run
from dasklake.cluster import (
    asynchronous_client,
    client_of,
    find_on_scheduler,
    follow_on_scheduler,
    inside_task,
    on_own_client,
    open_on_scheduler,
    run_on_client,
    run_on_scheduler,
)
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError, LakeExistsError, NestedRunError, SchemaError
from dasklake.plugin import TaskDeliver

__all__ = ["WriteOptions", "WriteReport", "to_lake"]

#: A schema, or what makes one: tensor names with specs, htypes or the parameters of specs.
SchemaLike = Schema | Mapping[str, TensorSpec | str | Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The rarer choices of :func:`to_lake`.

    Parameters
    ----------
    scheduler : str or callable, optional
        A Dask scheduler to use instead of the current one, as in ``compute(scheduler=...)``.
    retries : int, default 3
        How often Dask tries a task again that the storage or a worker failed.
    chunk_size : str or int, default "64 MiB"
        Bytes after which a chunk is full.
    single_writer : bool, default False
        Make the lake on a storage that cannot create exclusively; you promise that no two
        writers ever commit at the same time.
    """

    scheduler: Any = None
    retries: int = 3
    chunk_size: str | int = "64 MiB"
    single_writer: bool = False


_DEFAULTS = WriteOptions()


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What a write has done.

    Attributes
    ----------
    run : str
        The run.
    version : int
        The version that holds all of it.
    samples, failures : int
        Samples written and samples skipped since the run began.
    partitions : int
        Partitions of the run.
    commits : int
        Data commits made by this call.
    bytes : int
        Length of the run's chunks.
    seconds : float
        Duration of this call.
    """

    run: str
    version: int
    samples: int
    failures: int
    partitions: int
    commits: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Write:
    """A call of ``to_lake``, checked."""

    source: Source
    schema: Schema
    store: ObjectStore
    mode: str
    run: str | None
    input_id: str | None
    every: Every
    skip: bool
    max_failures: MaxFailures
    transform: Callable[..., Any] | None
    kwargs: Mapping[str, Any]
    message: str | None
    coordinator: str
    progress: bool | Literal["auto"]
    chunk_size: int
    options: WriteOptions
    began: float = field(default_factory=time.monotonic)


def to_lake(  # noqa: PLR0913 # the words of the job; the rare ones are in WriteOptions
    collection: Any,
    url: str | os.PathLike[str],
    *,
    schema: SchemaLike | None = None,
    transform: Callable[..., Any] | None = None,
    transform_kwargs: Mapping[str, Any] | None = None,
    checkpoint_every: int | str | timedelta | None = "5min",
    mode: Literal["create", "append", "overwrite", "resume"] = "create",
    run: str | None = None,
    input_id: str | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_failures: float | None = 0.01,
    message: str | None = None,
    storage_options: StorageOptions = None,
    coordinator: Literal["auto", "scheduler", "client"] = "auto",
    compute: bool = True,
    progress: bool | Literal["auto"] = "auto",
    options: WriteOptions = _DEFAULTS,
) -> Any:
    """Write a Dask collection as a lake, with commits while it is written.

    Parameters
    ----------
    collection : dask Bag, DataFrame, Array, or mapping of str to aligned Arrays
        The input. A bag's items are samples (mappings of tensor names to values), or whatever
        ``transform`` takes; an array's first axis is samples.
    url : str or path
        Root of the lake, as fsspec reads it.
    schema : Schema or mapping, optional
        The tensors. Left out, the schema of the lake, or what the collection's metadata say.
    transform : callable, optional
        ``transform(item, **transform_kwargs)`` makes a sample of an item, inside the write task.
        Only its failures can be skipped sample by sample.
    transform_kwargs : mapping, optional
        Further arguments; they travel once to each worker. Delayed values are computed once.
    checkpoint_every : int, str, timedelta or None, default "5min"
        Commit after so many completed input samples (int), or so much time. None commits once,
        at the end.
    mode : {"create", "append", "overwrite", "resume"}, default "create"
        ``create`` refuses an existing lake; ``append`` adds a run; ``overwrite`` replaces what the
        lake holds at its first checkpoint; ``resume`` makes the lake, continues the unfinished
        run of that name, and does nothing where it is finished.
    run : str, optional
        Name of the run, needed where a lake has several.
    input_id : str, optional
        Name of the input, compared by a resume; left out, a digest of the items or sources.
    on_error : {"raise", "skip"}, default "raise"
        What to do when a sample fails in the user's code or does not fit the schema.
    max_failures : int or float, default 0.01
        Give up when more samples failed: a count, or a share of the input that is judged after
        the first 1,000 samples. None for no limit.
    message : str, optional
        First line of the commit messages.
    storage_options : mapping, callable or str, optional
        For fsspec; a callable or the name of a credentials key is resolved in each process.
    coordinator : {"auto", "scheduler", "client"}, default "auto"
        Who commits on a cluster. ``"client"`` is for schedulers without this package or without
        write access to the storage; the client then has to live until the end. ``"auto"`` is the
        scheduler, or the client with a warning.
    compute : bool, default True
        False returns a Delayed that writes everything with one commit at the end.
    progress : bool or "auto", default "auto"
        Whether to show a bar; ``"auto"`` shows one in terminals and notebooks.
    options : WriteOptions, optional
        The rarer choices.

    Returns
    -------
    WriteReport
        What was written; an awaitable of it on an asynchronous client; a Delayed of it with
        ``compute=False``.

    Raises
    ------
    SchemaError
        The schema is wrong, does not fit the lake, or cannot be inferred.
    LakeExistsError, PlanMismatchError, RunActiveError
        The mode does not fit what is there.
    TransformError
        A sample failed; everything that was complete is committed.
    TooManyFailuresError
        More samples failed than ``max_failures`` allows.
    StoreError
        The storage failed.

    Examples
    --------
    >>> import dask.bag as db, dasklake, tempfile
    >>> bag = db.from_sequence([{"x": 1.0}, {"x": 2.0}], npartitions=2)
    >>> schema = {"x": dasklake.TensorSpec(dtype="float64", shape=())}
    >>> url = tempfile.mkdtemp() + "/lake"
    >>> report = dasklake.to_lake(bag, url, schema=schema)
    >>> report.samples, report.partitions
    (2, 2)
    """
    if inside_task():
        raise NestedRunError(
            "to_lake() was called inside a Dask task. Call it on the client, with the collection."
        )
    _check_types(run, transform, transform_kwargs, options)
    _check_choice("mode", mode, MODES)
    _check_choice("on_error", on_error, ("raise", "skip"))
    _check_choice("coordinator", coordinator, ("auto", "scheduler", "client"))
    store = ObjectStore(absolute_url(url), storage_options, single_writer=options.single_writer)
    chunk_size = parse_size(options.chunk_size)
    wanted = schema if schema is None or isinstance(schema, Schema) else Schema(schema)
    source = source_of(collection, wanted)
    final = wanted or _schema(store, mode, run, source.schema)
    if final is None:
        raise SchemaError(
            "A bag's metadata do not say what its samples hold. Give a schema, such as "
            "schema={'image': dasklake.TensorSpec('image', compression='jpeg'), "
            "'label': dasklake.TensorSpec('class_label', class_names=[...])}."
        )
    write = _Write(
        source=source,
        schema=final,
        store=store,
        mode=mode,
        run=run,
        input_id=input_id,
        every=parse_every(checkpoint_every),
        skip=on_error == "skip",
        max_failures=parse_max_failures(max_failures),
        transform=transform,
        kwargs=dict(transform_kwargs or {}),
        message=message,
        coordinator=coordinator,
        progress=progress,
        chunk_size=chunk_size,
        options=options,
    )
    check_arguments(write.kwargs)
    if not compute:
        return lazy_write(_lazy(write), _report)
    client = asynchronous_client(options.scheduler)
    if client is not None:
        return on_own_client(client, lambda own: _run(write, own.get, own))
    get = _get_of(options.scheduler, collection)
    return _run(write, get, client_of(get))


def _get_of(scheduler: Any, collection: Any) -> Callable[..., Any] | None:
    """Return the function by which Dask would compute a collection."""
    collections = list(collection.values()) if isinstance(collection, Mapping) else [collection]
    try:
        found: Callable[..., Any] | None = get_scheduler(
            scheduler=scheduler, collections=collections
        )
    except (ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"Dask does not know the scheduler {scheduler!r}: {error}. Give 'threads', "
            "'processes', 'sync' or a Client, or leave it out."
        ) from error
    return found


def _check_types(run: Any, transform: Any, kwargs: Any, options: Any) -> None:
    if run is not None and not isinstance(run, str):
        raise InvalidInputError(f"run={run!r} is no name. Give a string.")
    if not isinstance(options, WriteOptions):
        raise InvalidInputError(f"options={options!r} are none. Give dasklake.WriteOptions(...).")
    if transform is not None and not callable(transform):
        raise InvalidInputError(f"transform={transform!r} cannot be called. Give a function.")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and transform is not None):
        raise InvalidInputError(
            "transform_kwargs are the further arguments of transform: give a function as "
            "transform, and a mapping of names to values."
        )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInputError(f"{name}={value!r} is none of {', '.join(map(repr, choices))}.")


def _schema(
    store: ObjectStore, mode: str, run: str | None, inferred: Schema | None
) -> Schema | None:
    """Return the schema of the lake that is written on, else what the collection's metadata say."""
    head = Log(store).head() if mode in ("append", "resume") else None
    if head is None:
        return inferred
    states = [s for name, s in head.runs.items() if run in (None, name) and not s.finished]
    planned = {state.plan.schema for state in states}
    if mode == "resume" and inferred is not None and schema_digest(inferred) in planned:
        # The run overwrites, and its schema is not the lake's yet.
        return inferred
    return head.schema


def _request(write: _Write) -> Request:
    source = write.source
    return Request(
        mode=write.mode,
        run=write.run,
        schema=write.schema,
        partitions=len(source.parts),
        inputs=source.inputs,
        input_id=write.input_id or source.input_id,
    )


def _job(write: _Write, place: Place, entry: tuple[int, str], retries: int | None = None) -> Job:
    return Job(
        place=place,
        entry=entry,
        schema=write.schema,
        kind=write.source.kind,
        names=write.source.names,
        transform=write.transform,
        skip=write.skip,
        chunk_size=write.chunk_size,
        retries=retries,
    )


def _lazy(write: _Write) -> LazyWrite:
    request = _request(write)
    head = Log(write.store).head()
    if write.mode != "resume":
        if head is not None and write.run in head.runs:
            raise LakeExistsError(
                f"The lake has a run {write.run!r} already. Give the new run another name, or "
                "continue it with mode='resume'."
            )
        # Named now: computed twice, the Delayed is the same run.
        request = replace(request, run=write.run or f"run-{layout.new_id()[:8]}")
    job = _job(write, Place(write.store, "", "", 0), (0, ""))
    return LazyWrite(write.source, request, job, write.kwargs, write.message, write.max_failures)


def _run(write: _Write, get: Callable[..., Any] | None, client: Any) -> WriteReport:
    log = Log(write.store)
    request = _request(write)
    if client is not None and write.mode == "resume":
        attached = _attach(write, log, request, client)
        if attached is not None:
            return attached
    start = start_run(log, request)
    if not start.missing and not start.adopted:
        seconds = time.monotonic() - write.began
        return _report(start.run, start.entry.version, start.state, seconds)
    place = Place(write.store, layout.home_of(log.branch, start.run), start.run, start.state.epoch)
    name = f"to_lake-{start.run}-{start.state.epoch}-{layout.new_id()[:8]}"
    assignment = _assignment(write, start, log)
    if not start.missing:
        return _report_status(write, start.run, commit_adopted(assignment))
    options = write.options
    on_scheduler = client is not None and write.coordinator != "client"
    get = get or dask.threaded.get
    local = local_deliver(get) if client is None else None

    def graph() -> WriteGraph:
        # Local schedulers do not try again; and only they are in the coordinator's process.
        retries = options.retries if client is None else None
        deliver = TaskDeliver() if on_scheduler else local
        job = _job(write, place, (start.entry.version, start.entry.id), retries)
        delivery = Delivery(name, deliver, local=client is None)
        return write_graph(write.source, job, write.kwargs, start.missing, delivery)

    tasks = graph()
    if on_scheduler:
        required = write.coordinator == "scheduler"
        on_scheduler = open_on_scheduler(client, assignment, name, required=required)
        tasks = tasks if on_scheduler else graph()
    retries = options.retries
    with make_bar(write.progress, start.run) as watch:
        if client is None:
            status = run_locally(get, assignment, tasks, deliver=local, watch=watch)
        elif on_scheduler:
            status = run_on_scheduler(
                client, assignment, tasks, name=name, retries=retries, watch=watch
            )
        else:
            status = run_on_client(client, assignment, tasks, retries=retries, watch=watch)
    return _report_status(write, start.run, status)


def _attach(write: _Write, log: Log, request: Request, client: Any) -> WriteReport | None:
    """Wait for the run where this very cluster is writing it, perhaps for a client that died."""
    found = find_on_scheduler(client, write.store.url, write.run)
    if found is None:
        return None
    name, run = found
    check_plan(run, log.require_head().runs[run].plan, request)
    with make_bar(write.progress, run) as watch:
        status = follow_on_scheduler(client, run, name, watch=watch)
    return _report_status(write, run, status)


def _report_status(write: _Write, run: str, status: Status) -> WriteReport:
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
        seconds=time.monotonic() - write.began,
    )


def _assignment(write: _Write, start: Start, log: Log) -> Assignment:
    return Assignment(
        store=write.store,
        branch=log.branch,
        run=start.run,
        epoch=start.state.epoch,
        version=start.entry.version,
        schema=write.schema,
        label=start.run,
        message=write.message,
        missing=start.missing,
        adopted=start.adopted,
        every=write.every,
        skip=write.skip,
        max_failures=write.max_failures,
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
