"""``to_lake``: write any Dask collection as a lake, with commits while the write runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack, overload

import dask.multiprocessing
from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.multiprocessing import get_context

from dasklake._api.configuration import (
    AUTO,
    checkpoint_interval_of,
    chunk_size_of,
    open_store,
    retries_of,
)
from dasklake._api.known_collection import known_collection
from dasklake._api.other_words import explained
from dasklake._api.write_schema import SchemaLike, resolve_schema
from dasklake._main_guard import raise_if_unguarded
from dasklake._run.clients import (
    asynchronous_client,
    client_of,
    inside_task,
    on_own_client,
)
from dasklake._run.execute import Call, lazy_call, preview_call, run_call
from dasklake._run.options import (
    LinkPolicy,
    WriteOptions,
    check_batches,
    parse_items,
    parse_links,
    parse_max_failures,
    parse_timeout,
)
from dasklake._run.preview import Preview
from dasklake._run.report import WriteReport
from dasklake._run.run_spec import RunSpec
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import RunLocation
from dasklake._write.futures import check_transform
from dasklake._write.graph import check_arguments
from dasklake._write.job import Job
from dasklake.creds import StorageOptions
from dasklake.exceptions import InvalidInputError, NestedRunError

__all__ = ["LinkPolicy", "WriteArguments", "WriteOptions", "WriteReport", "to_lake"]

#: A schema, or a mapping of tensor names to specs, htypes or parameters of specs.


_DEFAULTS = WriteOptions()


class WriteArguments(TypedDict, total=False):
    """The keyword arguments of ``to_lake`` that do not change the type of its result."""

    schema: SchemaLike | None
    transform: Callable[..., Any] | None
    transform_kwargs: Mapping[str, Any] | None
    batched: bool
    batch_size: int | None
    checkpoint_every: int | str | timedelta | None
    mode: Literal["create", "append", "overwrite", "resume"]
    run: str | None
    input_id: str | None
    on_error: Literal["raise", "skip"]
    max_failures: float | None
    message: str | None
    storage_options: StorageOptions
    coordinator: Literal["auto", "scheduler", "client"]
    progress: bool | Literal["auto"]
    on_checkpoint: Callable[[int], object] | None
    links: LinkPolicy | None
    dim: str | None
    options: WriteOptions


@overload
def to_lake(
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
    *,
    compute: Literal[True] = True,
    preview: None = None,
    **arguments: Unpack[WriteArguments],
) -> WriteReport: ...
@overload
def to_lake(
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
    *,
    compute: Literal[False],
    preview: None = None,
    **arguments: Unpack[WriteArguments],
) -> Delayed: ...
@overload
def to_lake(
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
    *,
    compute: bool = True,
    preview: int,
    **arguments: Unpack[WriteArguments],
) -> Preview: ...
@overload
def to_lake(
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
    *,
    compute: bool = True,
    preview: int | None = None,
    **arguments: Unpack[WriteArguments],
) -> WriteReport | Delayed | Preview: ...
@explained
def to_lake(  # noqa: PLR0913 # the main function of the package; WriteOptions has the rest
    collection: Any,
    url: str | os.PathLike[str] | ObjectStore,
    *,
    schema: SchemaLike | None = None,
    transform: Callable[..., Any] | None = None,
    transform_kwargs: Mapping[str, Any] | None = None,
    batched: bool = False,
    batch_size: int | None = None,
    checkpoint_every: int | str | timedelta | None = AUTO,
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
    links: LinkPolicy | None = None,
    dim: str | None = None,
    options: WriteOptions = _DEFAULTS,
) -> WriteReport | Delayed | Preview:
    """Write a Dask collection as a lake.

    Partitions are written in parallel. Completed partitions are committed at regular intervals
    (checkpoints), so a run that is interrupted loses at most the work since its last checkpoint.
    Call it again with ``mode="resume"`` to continue.

    Parameters
    ----------
    collection : dask Bag, DataFrame, Series, Array, mapping of str to aligned Arrays, or Dataset
        The input. The items of a bag are samples (mappings of tensor names to values), or the
        items that ``transform`` takes. A Series is a frame of one column, and must have a name.
        Samples lie along the first axis of an array. A Dataset of xarray is a mapping of arrays.
        Geometries of a GeoDataFrame are written as WKB.
    url : str or path
        Root of the lake: a path, or any URL that fsspec supports.
    schema : Schema, mapping or pyarrow.Schema, optional
        The tensors to write, as in :class:`Schema`. By default, the schema of the existing lake, the
        schema of the lake that the collection was read and selected from, or the schema inferred
        from the collection's metadata. Other bags have no such metadata.
    transform : callable, optional
        Function that makes a sample of an item: ``transform(item, **transform_kwargs)``. It runs
        inside the write task. With ``on_error="skip"`` its failures are skipped sample by sample;
        failures of earlier tasks cost the whole partition.
    transform_kwargs : mapping, optional
        Further arguments of ``transform``. They are sent to each worker once. Delayed values and
        futures among them are computed once, also inside lists and dicts of at most 1,000 items.
    batched : bool, default False
        Whether ``transform`` takes a block of rows at once. From a frame it gets a DataFrame whose
        rows are numbered from 0, from an array an array, and from several arrays a dict of arrays.
        From a bag of mappings it gets a dict of arrays with one axis, from a bag of other items one
        such array. It returns a DataFrame, or a mapping of tensor names to columns of one length.
        Its result for a row must not depend on the other rows: if a block fails, smaller blocks
        find the rows that fail alone.
    batch_size : int, optional
        Number of rows of a block. By default, the first block of a partition has 10 rows, and
        blocks grow up to 10,000 rows or about 16 MiB.
    checkpoint_every : int, str, timedelta or None, default "auto"
        Interval between checkpoints: a number of completed input samples, or a duration. None
        commits once, at the end. ``"auto"`` is ``dasklake.checkpoint-every`` of Dask's
        configuration, which is five minutes.
    mode : {"create", "append", "overwrite", "resume"}, default "create"
        How to treat an existing lake:

        - ``"create"``: raise an error if the lake has data or an unfinished run.
        - ``"append"``: add the samples as a new run.
        - ``"overwrite"``: replace the content of the lake at the first checkpoint.
        - ``"resume"``: continue the unfinished run, or create the lake if it does not exist. If
          the run is finished, do nothing.
    run : str, optional
        Name of the run. Required to resume a lake that has several runs. A new run gets a random
        name by default. If ``mode="overwrite"`` is repeated with one name, names get a number, such
        as ``"nightly-2"``; an interrupted overwrite of the same input is continued.
    input_id : str, optional
        Identifier of the input, which a resumed run must match. By default, a digest of the items
        or their sources.
    on_error : {"raise", "skip"}, default "raise"
        Whether to raise or skip a sample that fails in the user's code or does not fit the schema.
        Skipped failures are listed by ``lake.failures()``. Errors of the machine and the storage
        are never skipped.
    max_failures : int or float, default 0.01
        Maximum number of skipped samples (int), or maximum fraction of the input (float), before
        the run fails. A fraction is first checked after 1,000 samples. None means no limit.
    message : str, optional
        First line of the commit messages.
    storage_options : mapping, callable or str, optional
        Options for fsspec. A callable, or the name of a credentials key, is resolved in each
        process.
    coordinator : {"auto", "scheduler", "client"}, default "auto"
        Process that commits when the write runs on a cluster. The scheduler needs dasklake and
        write access to the storage, and then finishes the run even if the client dies.
        ``"client"`` has no such requirement, but the client must stay alive until the end.
        ``"auto"`` uses the scheduler, or the client with a warning.
    compute : bool, default True
        Whether to write now. False returns a Delayed that writes everything with one commit at
        the end. Several lazy writes and other collections of one ``dask.compute()`` share the
        tasks of their inputs, so that each is computed once. With ``on_error="skip"`` a write has
        tasks of its own.
    progress : bool or "auto", default "auto"
        Whether to show a progress bar. ``"auto"`` shows one in terminals and notebooks.
    preview : int, optional
        Number of items to try. They are processed and encoded in memory, and an estimate for the
        whole input is printed. Nothing is written, and no lake is created.
    on_checkpoint : callable, optional
        Function called in this process as ``on_checkpoint(version)`` soon after a commit. After
        several commits in quick succession it is called once, with the newest version. If it
        raises, a warning is issued and the run continues.
    links : LinkPolicy, optional
        Limits for reading the targets of links and the files of :func:`read`.
    dim : str, optional
        The dimension of an xarray Dataset along which the samples lie. By default, the first one of
        the first data variable.
    options : WriteOptions, optional
        Less common options.

    Returns
    -------
    WriteReport
        Counts of the finished run. With ``compute=False``, a Delayed of the report; for a frame,
        a scalar of ``dask.dataframe``, which is computed in the same way. With ``preview``, a
        :class:`Preview` instead. With an asynchronous client, an awaitable of the report or
        preview, which type checkers cannot know.

    Raises
    ------
    SchemaError
        ``schema`` is invalid, differs from the lake's schema, or is missing and cannot be
        inferred.
    LakeExistsError, PlanMismatchError, RunActiveError
        ``mode`` does not fit the state of the lake, the input differs from the run's input, or
        another process is writing the run.
    TransformError
        A sample failed with ``on_error="raise"``. Completed partitions are committed.
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
    check_options(options)
    _check_kwargs(transform, transform_kwargs)
    check_batches(batch_size, transform, batched=batched)
    collection = known_collection(collection, dim)
    store = _open_store(url, storage_options, options)
    chunk_size = chunk_size_of(options.chunk_size)
    source, resolved = resolve_schema(
        collection, schema, store, mode, run, transformed=transform is not None
    )
    spec = RunSpec(
        mode=mode,
        run=run,
        schema=resolved.with_settled_names,
        partitions=len(source.parts),
        inputs=source.inputs,
        input_id=input_id or source.input_id,
        message=message,
        interval=checkpoint_interval_of(checkpoint_every),
        skip=on_error == "skip",
        max_failures=parse_max_failures(max_failures),
        retries=retries_of(options.retries),
        partition_timeout=parse_timeout(options.partition_timeout),
        ordered=options.commit_order == "input",
    )
    job = Job(
        location=RunLocation(store, "", "", 0),
        entry=(0, ""),
        schema=spec.schema,
        kind=source.kind,
        names=source.names,
        index=source.index,
        lake_columns=source.lake_columns,
        transform=transform,
        batched=batched,
        batch_size=batch_size,
        skip=spec.skip,
        chunk_size=chunk_size,
        strict=options.validate == "strict",
        links=parse_links(links),
    )
    call = Call(
        source=source,
        spec=spec,
        job=job,
        kwargs=dict(transform_kwargs or {}),
        coordinator=coordinator,
        progress=progress,
        on_checkpoint=on_checkpoint,
    )
    check_arguments(call.kwargs)
    check_transform(transform)
    if preview is None and not compute:
        _check_timeout(call, cluster=False)
        return lazy_call(call)
    items = None if preview is None else parse_items(preview)
    result: WriteReport | Preview = _execute(call, options.scheduler, collection, items)
    return result


def _execute(call: Call, scheduler: Any, collection: Any, items: int | None) -> Any:
    """Run or preview a call on the chosen scheduler; awaitable if the client is asynchronous."""

    def execute(get: Callable[..., Any] | None, client: Any) -> WriteReport | Preview:
        if items is not None:
            return preview_call(call, get, client, items)
        _check_timeout(call, cluster=client is not None)
        return run_call(call, get, client)

    client = asynchronous_client(scheduler)
    if client is not None:
        return on_own_client(client, lambda own: execute(own.get, own))
    get = _get_of(scheduler, collection)
    return execute(get, client_of(get))


def _open_store(url: Any, storage_options: StorageOptions, options: WriteOptions) -> ObjectStore:
    """Return the lake's store; the methods of ``Lake`` pass their own store as ``url``."""
    if isinstance(url, ObjectStore):
        return url
    return open_store(url, storage_options, single_writer=options.single_writer)


def _get_of(scheduler: Any, collection: Any) -> Callable[..., Any] | None:
    """Return the scheduler function that Dask would use for a collection."""
    collections = list(collection.values()) if isinstance(collection, Mapping) else [collection]
    try:
        get: Callable[..., Any] | None = get_scheduler(scheduler=scheduler, collections=collections)
    except (ValueError, RuntimeError) as error:
        raise InvalidInputError(
            f"scheduler must be 'threads', 'processes', 'sync' or a Client, got {scheduler!r}: "
            f"{error}. Omit it to use Dask's current scheduler."
        ) from error
    # Dask's processes are spawned by default, also for bags without a scheduler.
    if get is dask.multiprocessing.get and get_context().get_start_method() != "fork":
        raise_if_unguarded()
    return get


def check_options(options: object) -> None:
    """Check that ``options`` are WriteOptions.

    Raises
    ------
    InvalidInputError
        ``options`` are something else.
    """
    if not isinstance(options, WriteOptions):
        raise InvalidInputError(
            f"options must be a dasklake.WriteOptions, got {type(options).__name__}. Use "
            "options=dasklake.WriteOptions(...)."
        )


def _check_kwargs(transform: Any, kwargs: Any) -> None:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise InvalidInputError(
            f"transform_kwargs must be a mapping of names to values, got {type(kwargs).__name__}."
        )
    if kwargs is not None and transform is None:
        raise InvalidInputError("transform_kwargs needs a transform. Give a function, or omit it.")


def _check_timeout(call: Call, *, cluster: bool) -> None:
    """Raise if ``partition_timeout`` is given and cannot be enforced."""
    if call.spec.partition_timeout is not None and not (cluster and call.coordinator != "client"):
        raise InvalidInputError(
            "partition_timeout needs a cluster whose scheduler commits, because it restarts a worker "
            "that hangs; a local scheduler cannot stop a single thread or process. Omit it, or use "
            "a distributed Client whose workers have nannies."
        )
