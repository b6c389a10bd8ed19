"""``@dasklake.compute``: functions that fill a lake, called once for each input item.

The stages of a pipeline become one ``transform``, their arguments its ``transform_kwargs``, and
``eval`` calls :func:`dasklake.to_lake`::

    @compute                      one Task for each partition
    def f(sample_in, sample_out)  ┌───────────────────────────────┐
    @compute                      │ item ─▶ f ─▶ samples ─▶ g ─▶  │ ─▶ Samples ─▶ chunks
    def g(sample_in, sample_out)  └───────────────────────────────┘
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import dask
import dask.bag as db
import pandas as pd
from dask.base import get_scheduler, is_dask_collection

from dasklake._api.configuration import AUTO
from dasklake._api.eval_words import check_eval_arguments, in_words_of_eval
from dasklake._api.lake import Lake
from dasklake._api.other_words import unknown_argument
from dasklake._api.sample_in_out import SampleIn, SampleOut
from dasklake._api.write import WriteOptions, WriteReport, to_lake
from dasklake._codecs.sample import Sample
from dasklake._format import object_keys
from dasklake._run.clients import client_of, local_client
from dasklake._schema.argument_types import check_arguments
from dasklake._schema.printable import safe_repr
from dasklake._schema.values import Samples
from dasklake.exceptions import InvalidInputError, LakeError

#: Least number of partitions, most items of a partition, and most partitions.
_MIN_PARTITIONS, _ITEMS, _MAX_PARTITIONS = 64, 250, 20_000

#: Names of schedulers in other libraries.
_SCHEDULERS = {"threaded": "threads", "processed": "processes", "serial": "sync"}

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class ComputeFunction:
    """A decorated function; call it with its further arguments to get a :class:`Pipeline`.

    Parameters
    ----------
    function : callable
        ``function(sample_in, sample_out, *args, **kwargs)``.
    name : str
        Name of the function in the log and in progress messages.
    """

    def __init__(self, function: Callable[..., object], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Pipeline:
        """Return a pipeline that calls the function with these arguments."""
        return Pipeline([(self, args, kwargs)])

    def __repr__(self) -> str:
        return f"<compute {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # By its name a worker imports this object, as the decorator replaced the function.
        name = getattr(self.function, "__qualname__", "")
        module = getattr(self.function, "__module__", None)
        if module != "__main__" and getattr(sys.modules.get(module or ""), name, None) is self:
            return name
        return ComputeFunction, (self.function, self.name)


@check_arguments
class Pipeline:
    """A sequence of functions with their arguments, applied to each item of an input.

    Create a pipeline by calling a function decorated with :func:`compute`, or with :func:`compose`.
    Each function is called with each sample of the previous one, and the samples of the last one are
    written. A function that adds nothing to ``sample_out`` drops the sample.

    Parameters
    ----------
    stages : sequence of (ComputeFunction, tuple, dict)
        The functions, each with its further positional and keyword arguments.
    """

    def __init__(self, stages: Sequence[tuple[ComputeFunction, tuple[Any, ...], Any]]) -> None:
        self.stages = tuple(stages)

    @property
    def name(self) -> str:
        """The names of the functions, joined by hyphens."""
        return "-".join(function.name for function, _, _ in self.stages)

    def __repr__(self) -> str:
        return f"<pipeline {' | '.join(function.name for function, _, _ in self.stages)}>"

    def eval(
        self,
        data_in: Any,
        lake: Lake | None = None,
        *,
        num_workers: int = 0,
        scheduler: Any = None,
        checkpoint_interval: Any = None,
        ignore_errors: bool = False,
        skip_ok: bool = False,
        progressbar: bool | Literal["auto"] = "auto",
        run: str | None = None,
        **write: Any,
    ) -> WriteReport:
        """Apply the functions to each item of an input, and append the samples to a lake.

        The samples are in the order of the input. Afterwards ``lake`` is at the new version.

        Parameters
        ----------
        data_in : sequence, array, DataFrame, Lake or Dask collection
            The items. The rows of a DataFrame are passed as dicts of values. The samples of a lake
            or of a slice of a lake are dicts that have the tensors as attributes too
            (:class:`SampleIn`).
        lake : Lake
            The lake to append to. It must already have the tensors that the functions write.
        num_workers : int, default 0
            Number of processes to start on this machine for the call, if no Dask client is active.
            With 0, all items are processed one by one in this process. An active client is used
            unchanged.
        scheduler : str or distributed.Client, optional
            ``"serial"``, ``"threaded"``, ``"processed"``, the name of a Dask scheduler, or a client.
            By default ``num_workers`` decides.
        checkpoint_interval : int, str or timedelta, optional
            Number of items or time between commits. None and 0 mean ``dasklake.checkpoint-every`` of
            Dask's configuration, which is five minutes. Everything is committed at the end in any
            case.
        ignore_errors : bool, default False
            Whether to skip items that fail. ``lake.failures()`` lists them.
        skip_ok : bool, default False
            Whether functions may omit tensors. The omitted tensors have no value in the sample.
        progressbar : bool or "auto", default "auto"
            Same as ``progress`` of :func:`dasklake.to_lake`.
        run : str, optional
            Name of the run. If you call ``eval`` again with the same name and input, an interrupted
            run continues, and a finished run does nothing. By default each call is a new run that
            appends.
        **write
            Further arguments of :func:`dasklake.to_lake`, such as ``message`` or
            ``max_failures``. The default of ``max_failures`` is 1.0 here: the run fails only if all
            items fail. ``ds_out`` is Deep Lake's name of ``lake``.

        Returns
        -------
        WriteReport
            Summary of the run: its version, numbers of samples and failures, and duration.

        Raises
        ------
        InvalidInputError
            ``data_in`` is not a sequence, ``lake`` is not a Lake, or an argument is unknown.
        TransformError
            A function failed and ``ignore_errors`` is False. Complete partitions are committed.
        LakeError
            An error of :func:`dasklake.to_lake`.

        Examples
        --------
        >>> import dasklake
        >>> @dasklake.compute
        ... def squares(sample_in, sample_out, power):
        ...     sample_out.append({"x": sample_in**power})
        >>> lake = dasklake.empty("memory://squares")
        >>> lake.create_tensor("x", dtype="int64", shape=())
        >>> squares(power=2).eval([1, 2, 3], lake).samples
        3
        >>> lake["x"].numpy()
        array([1, 4, 9])
        """
        began = time.monotonic()
        lake = _check(write.pop("ds_out", lake), write)
        write_options = check_eval_arguments(num_workers, write.pop("options", WriteOptions()))
        lake.flush()
        mode = "append" if run is None else "resume"
        run = run if run is not None else f"{_run_name(self.name)}-{object_keys.new_id()[:8]}"
        bag = _bag_of(data_in)
        if bag is None:
            return WriteReport(run, lake.version, 0, 0, 0, 0, 0, time.monotonic() - began)
        transform = _Transform([function for function, _, _ in self.stages], lake, skip_ok=skip_ok)
        arguments: dict[str, Any] = {}
        for number, (_, args, kwargs) in enumerate(self.stages):
            arguments |= {f"args_{number}": list(args), f"kwargs_{number}": dict(kwargs)}
        options: dict[str, Any] = {
            "transform": transform,
            "transform_kwargs": arguments,
            "checkpoint_every": AUTO if _is_default(checkpoint_interval) else checkpoint_interval,
            "on_error": "skip" if ignore_errors else "raise",
            "max_failures": 1.0,
            "progress": progressbar,
            "mode": mode,
            "run": run,
        } | write
        if write_options.commit_order is None:
            # After a crash, the number of rows is then the number of complete items.
            write_options = replace(write_options, commit_order="input")
        with _workers(scheduler, num_workers) as selected:
            if selected is not None:
                write_options = replace(write_options, scheduler=selected)
            try:
                report: WriteReport = lake.write(bag, options=write_options, **options)
            except (LakeError, KeyboardInterrupt) as error:
                if len(error.args) == 1:
                    error.args = (in_words_of_eval(str(error.args[0]), run, write),)
                raise
        return report


@overload
def compute(function: Callable[..., object], *, name: str | None = None) -> ComputeFunction: ...


@overload
def compute(
    function: None = None, *, name: str | None = None
) -> Callable[[Callable[..., object]], ComputeFunction]: ...


def compute(function: Any = None, *, name: str | None = None) -> Any:
    """Decorate a function that makes samples, so that it can fill a lake.

    Parameters
    ----------
    function : callable
        ``function(sample_in, sample_out, *args, **kwargs)``. It is called with each item of the
        input, and adds samples to the :class:`SampleOut`. Its return value is ignored.
    name : str, optional
        Name of the function in the log and in progress messages. The default is its own name.

    Returns
    -------
    ComputeFunction
        Call it with the further arguments to get a :class:`Pipeline`, then call
        :meth:`Pipeline.eval`. The arguments are sent to each worker once. If ``function`` is
        omitted, a decorator is returned.

    Raises
    ------
    InvalidInputError
        ``function`` is not callable.

    Examples
    --------
    >>> import dasklake
    >>> @dasklake.compute
    ... def halves(sample_in, sample_out):
    ...     if sample_in % 2 == 0:
    ...         sample_out.x.append(sample_in // 2)
    >>> halves()
    <pipeline halves>
    """
    if function is None:
        return functools.partial(compute, name=name)
    if not callable(function):
        raise InvalidInputError(
            f"function must be callable, got {safe_repr(function)}. Decorate a function."
        )
    return ComputeFunction(function, name or str(getattr(function, "__name__", "compute")))


def compose(pipelines: Sequence[Pipeline]) -> Pipeline:
    """Compose functions into one pipeline.

    Parameters
    ----------
    pipelines : sequence of Pipeline
        Functions decorated with :func:`compute` and called with their arguments.

    Returns
    -------
    Pipeline
        A pipeline in which the samples of each function are the input of the next one.

    Raises
    ------
    InvalidInputError
        ``pipelines`` is empty, or an element is not a pipeline.

    Examples
    --------
    >>> import dasklake
    >>> @dasklake.compute
    ... def twice(sample_in, sample_out):
    ...     sample_out.extend({"x": [sample_in, sample_in]})
    >>> @dasklake.compute
    ... def negated(sample_in, sample_out):
    ...     sample_out.x.append(-sample_in["x"])
    >>> dasklake.compose([twice(), negated()])
    <pipeline twice | negated>
    """
    if isinstance(pipelines, Pipeline) or not isinstance(pipelines, Sequence):
        raise InvalidInputError(
            f"compose() takes a list of pipelines, got {safe_repr(pipelines)}. Give [f(), g()]."
        )
    if not pipelines:
        raise InvalidInputError("compose() needs at least one pipeline, got none. Give [f(), g()].")
    for number, pipeline in enumerate(pipelines):
        if not isinstance(pipeline, Pipeline):
            raise InvalidInputError(
                f"Element {number} of compose() must be a pipeline, got {safe_repr(pipeline)}. "
                "Decorate the function with "
                "@dasklake.compute, and call it with its arguments: compose([f(), g()])."
            )
    return Pipeline([stage for pipeline in pipelines for stage in pipeline.stages])


class _Transform:
    """The functions of a pipeline as one transform."""

    def __init__(self, functions: Sequence[ComputeFunction], lake: Lake, *, skip_ok: bool) -> None:
        self.functions = tuple(functions)
        self.blank = Sample(dict.fromkeys(lake.schema if skip_ok else ()))

    def __call__(self, item: Any, **arguments: Any) -> Samples:
        """Return the samples made from an item."""
        samples = [item]
        for number, function in enumerate(self.functions):
            args, kwargs = arguments[f"args_{number}"], arguments[f"kwargs_{number}"]
            results: list[Any] = []
            for sample in samples:
                out = SampleOut()
                sample_in = SampleIn(sample) if type(sample) in (dict, Sample) else sample
                function.function(sample_in, out, *args, **kwargs)
                results += out.samples()
            samples = results
        return Samples(self.blank | sample for sample in samples)


def _check(lake: Any, write: Mapping[str, Any]) -> Lake:
    if not isinstance(lake, Lake):
        raise InvalidInputError(
            f"lake must be a dasklake.Lake, got {type(lake).__name__}. Open one with "
            "dasklake.open(url), or create one with dasklake.empty(url)."
        )
    own = ("collection", "url", "transform", "schema", "batched", "batch_size")
    allowed = [name for name in inspect.signature(to_lake).parameters if name not in own]
    for name in write:
        if name not in allowed:
            arguments = [*inspect.signature(Pipeline.eval).parameters][3:-1]
            raise unknown_argument("eval", name, [*arguments, *allowed])
    return lake


def _is_default(interval: Any) -> bool:
    """Return whether ``checkpoint_interval`` is None, or Deep Lake's 0."""
    return interval is None or (isinstance(interval, int) and interval == 0)


def _run_name(name: str) -> str:
    """Return a valid name of a run for the name of a function."""
    return _NOT_IN_NAMES.sub("", name).lstrip("._-")[:64] or "compute"


def _bag_of(data: Any) -> Any:
    """Return an input as a bag, or None if it is empty."""
    if is_dask_collection(data):
        return data
    if isinstance(data, Lake):
        return data.to_dask_bag() if len(data) else None
    items = _items(data)
    if not items:
        return None
    # Depends only on the number of items, so that a resume with other workers has the same partitions.
    size = max(
        min(_ITEMS, math.ceil(len(items) / _MIN_PARTITIONS)),
        math.ceil(len(items) / _MAX_PARTITIONS),
    )
    return db.from_sequence(items, partition_size=size)


def _items(data: Any) -> list[Any]:
    if isinstance(data, pd.DataFrame):
        names = [str(name) for name in data.columns]
        return [dict(zip(names, row, strict=True)) for row in data.itertuples(index=False)]
    sequence = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if not sequence or isinstance(data, Mapping | str | bytes):
        raise InvalidInputError(
            f"data_in must be a sequence of items, got {type(data).__name__}. Convert it to a list."
        )
    return [data[i] for i in range(len(data))]


@contextlib.contextmanager
def _workers(scheduler: Any, count: int) -> Iterator[Any]:
    """Yield the scheduler to use; a cluster that was started for the block ends with it."""
    if isinstance(scheduler, str):
        scheduler = _SCHEDULERS.get(scheduler, scheduler)
    if scheduler is None and client_of(get_scheduler()) is None:
        scheduler = "processes" if count else dask.config.get("scheduler", None) or "sync"
    if isinstance(scheduler, str) and scheduler == "processes":
        with local_client(max(1, count)) as client:
            yield client
    elif isinstance(scheduler, str) and scheduler == "threads" and count:
        with dask.config.set(num_workers=count):
            yield scheduler
    else:
        yield scheduler
