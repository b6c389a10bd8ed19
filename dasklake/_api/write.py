"""``to_lake``: any Dask collection becomes a lake, committed while it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal

from dask.base import get_scheduler

from dasklake._format.documents import schema_digest
from dasklake._log.log import Log
from dasklake._run.client_front import (
    asynchronous_client,
    client_of,
    inside_task,
    on_own_client,
)
from dasklake._run.execute import Call, lazy_call, preview_call, run_call
from dasklake._run.options import (
    WriteOptions,
    check_validate,
    parse_checkpoint_interval,
    parse_items,
    parse_max_failures,
    parse_size,
    parse_timeout,
)
from dasklake._run.report import WriteReport
from dasklake._run.run_spec import RunSpec
from dasklake._run.start import MODES
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._storage.store import ObjectStore, absolute_url
from dasklake._write.graph import check_arguments
from dasklake._write.input import source_of
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError, NestedRunError, SchemaError

__all__ = ["WriteOptions", "WriteReport", "to_lake"]

#: A schema, or what makes one: tensor names with specs, htypes or the parameters of specs.
SchemaLike = Schema | Mapping[str, TensorSpec | str | Mapping[str, Any]]


_DEFAULTS = WriteOptions()


def to_lake(  # noqa: PLR0913 # the words of the job; the rare ones are in WriteOptions
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
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
    preview: int | None = None,
    on_checkpoint: Callable[[int], object] | None = None,
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
    preview : int, optional
        Only try so many items: they go through everything into memory, and what the whole would
        take is printed. Nothing is written, and no lake is made.
    on_checkpoint : callable, optional
        ``on_checkpoint(version)`` is called here soon after a commit; after several in quick
        succession once, with the last of them. What it raises becomes a warning.
    options : WriteOptions, optional
        The rarer choices.

    Returns
    -------
    WriteReport
        What was written; an awaitable of it on an asynchronous client; a Delayed of it with
        ``compute=False``; a Preview with ``preview=``.

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
    store = _store(url, storage_options, options)
    chunk_size = parse_size(options.chunk_size)
    check_validate(options.validate)
    wanted = schema if schema is None or isinstance(schema, Schema) else Schema(schema)
    if wanted is not None and not wanted:
        raise SchemaError("The schema has no tensor. Name at least one and its spec.")
    source = source_of(collection, wanted)
    final = wanted or _schema(store, mode, run, source.schema)
    if final is None:
        raise SchemaError(
            "A bag's metadata do not say what its samples hold. Give a schema, such as "
            "schema={'image': dasklake.TensorSpec('image', compression='jpeg'), "
            "'label': dasklake.TensorSpec('class_label', class_names=[...])}."
        )
    if not final:
        raise SchemaError("The lake has no tensor yet. Add some with lake.create_tensor(...).")
    spec = RunSpec(
        mode=mode,
        run=run,
        schema=final.given,
        partitions=len(source.parts),
        inputs=source.inputs,
        input_id=input_id or source.input_id,
        message=message,
        interval=parse_checkpoint_interval(checkpoint_every),
        skip=on_error == "skip",
        max_failures=parse_max_failures(max_failures),
        retries=options.retries,
        partition_timeout=parse_timeout(options.partition_timeout),
    )
    call = Call(
        source=source,
        store=store,
        spec=spec,
        transform=transform,
        kwargs=dict(transform_kwargs or {}),
        coordinator=coordinator,
        progress=progress,
        chunk_size=chunk_size,
        strict=options.validate == "strict",
        on_checkpoint=on_checkpoint,
    )
    check_arguments(call.kwargs)
    if preview is not None:
        return _preview(call, options.scheduler, collection, parse_items(preview))
    if not compute:
        _check_timeout(call, cluster=False)
        return lazy_call(call)
    client = asynchronous_client(options.scheduler)
    if client is not None:
        _check_timeout(call, cluster=True)
        return on_own_client(client, lambda own: run_call(call, own.get, own))
    get = _get_of(options.scheduler, collection)
    _check_timeout(call, cluster=client_of(get) is not None)
    return run_call(call, get, client_of(get))


def _preview(call: Call, scheduler: Any, collection: Any, items: int) -> Any:
    client = asynchronous_client(scheduler)
    if client is not None:
        return on_own_client(client, lambda own: preview_call(call, own.get, own, items))
    get = _get_of(scheduler, collection)
    return preview_call(call, get, client_of(get), items)


def _store(url: Any, storage_options: StorageOptions, options: WriteOptions) -> ObjectStore:
    """Return where the lake lies; the methods of a lake's handle pass its own store as the URL."""
    if isinstance(url, ObjectStore):
        return url
    return ObjectStore(absolute_url(url), storage_options, single_writer=options.single_writer)


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


def _check_timeout(call: Call, *, cluster: bool) -> None:
    """Refuse a limit that nobody could enforce."""
    if call.spec.partition_timeout is not None and not (cluster and call.coordinator != "client"):
        raise InvalidInputError(
            "partition_timeout needs a cluster whose scheduler commits: it restarts the worker that "
            "hangs, while a thread or a process of a local scheduler cannot be ended alone. Leave "
            "it out, or write with a distributed Client whose workers have nannies."
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
    if mode == "resume" and inferred is not None and schema_digest(inferred.planned) in planned:
        # The run overwrites, and its schema is not the lake's yet.
        return inferred
    return head.schema
