"""``@dasklake.compute``: functions that fill a lake, in the style of one call for each input item.

Thin sugar: the stages of a pipeline become one ``transform``, their arguments its
``transform_kwargs``, and ``eval`` is :func:`dasklake.to_lake`::

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

from dasklake._api.lake import Lake
from dasklake._api.sample_in_out import SampleIn, SampleOut
from dasklake._api.write import WriteOptions, WriteReport, to_lake
from dasklake._format import object_keys
from dasklake._run.client_front import client_of, local_client
from dasklake._schema.values import Samples
from dasklake.exceptions import InvalidInputError

__all__ = ["ComputeFunction", "Pipeline", "SampleIn", "SampleOut", "compose", "compute"]

#: Partitions that an input is cut into at least, items of one at most, and partitions at most.
_LEAST, _ITEMS, _MOST = 64, 250, 20_000

#: Other libraries' names of schedulers.
_SCHEDULERS = {"threaded": "threads", "processed": "processes", "serial": "sync"}

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class ComputeFunction:
    """What :func:`compute` makes of a function: called with the further arguments, a pipeline.

    Parameters
    ----------
    function : callable
        ``function(sample_in, sample_out, *args, **kwargs)``.
    name : str
        What log and progress call it.
    """

    def __init__(self, function: Callable[..., object], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Pipeline:
        """Bind the further arguments."""
        return Pipeline([(self, args, kwargs)])

    def __repr__(self) -> str:
        return f"<compute {self.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        # Under its name in a module a worker finds this object, where it would look for the function.
        name = getattr(self.function, "__qualname__", "")
        module = getattr(self.function, "__module__", None)
        if module != "__main__" and getattr(sys.modules.get(module or ""), name, None) is self:
            return name
        return ComputeFunction, (self.function, self.name)


class Pipeline:
    """Functions with their arguments, one after the other; made by calling what :func:`compute` made.

    Each function is called with each sample that the one before has made; those of the last one are
    written. A function that adds nothing to ``sample_out`` leaves the sample out.

    Parameters
    ----------
    stages : sequence of (ComputeFunction, tuple, dict)
        Each function, and its further arguments.
    """

    def __init__(self, stages: Sequence[tuple[ComputeFunction, tuple[Any, ...], Any]]) -> None:
        self.stages = tuple(stages)

    @property
    def name(self) -> str:
        """The functions' names."""
        return "-".join(function.name for function, _, _ in self.stages)

    def __repr__(self) -> str:
        return f"<pipeline {' | '.join(function.name for function, _, _ in self.stages)}>"

    def eval(
        self,
        data_in: Any,
        lake: Lake,
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
        """Call the functions with each item of an input, and append what they make to a lake.

        The rows are in the order of the input. Afterwards the lake is refreshed.

        Parameters
        ----------
        data_in : sequence, array, DataFrame, Lake or Dask collection
            The items. Rows of a DataFrame are dicts of values; samples of a lake, and of a slice
            of one, are dicts with the tensors as attributes too (:class:`SampleIn`).
        lake : Lake
            What is written to. Its tensors must be there.
        num_workers : int, default 0
            Processes to start on this machine for the call, where there is no Dask client; 0 runs
            everything here, one item after the other. A client that is there is used as it is.
        scheduler : str or distributed.Client, optional
            ``"serial"``, ``"threaded"``, ``"processed"``, one of Dask's schedulers or a client;
            left out, as ``num_workers`` says.
        checkpoint_interval : int, str or timedelta, optional
            Commit whenever so many items, or so much time, have passed; left out, or 0, every
            five minutes. At the end everything is committed in any case.
        ignore_errors : bool, default False
            Leave out items that fail; ``lake.failures()`` lists them.
        skip_ok : bool, default False
            Whether functions may leave out tensors; they then have no value.
        progressbar : bool or "auto", default "auto"
            As ``progress`` of :func:`dasklake.to_lake`.
        run : str, optional
            Name of this job: evaluated again under the same name, with the same input, it goes on
            where it was ended, and does nothing when it is finished. Left out, each call appends.
        **write
            Further arguments of :func:`dasklake.to_lake`, such as ``message`` or
            ``max_failures`` (here 1.0 where left out: only if everything fails).

        Returns
        -------
        WriteReport
            What was written.

        Raises
        ------
        InvalidInputError
            The input is no sequence, or an argument is unknown.
        TransformError
            A function failed; everything that was complete is committed.
        LakeError
            As :func:`dasklake.to_lake`.

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
        _check(lake, write)
        lake.flush()
        mode = "append" if run is None else "resume"
        run = run or f"{_run_name(self.name)}-{object_keys.new_id()[:8]}"
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
            "checkpoint_every": checkpoint_interval or "5min",
            "on_error": "skip" if ignore_errors else "raise",
            "max_failures": 1.0,
            "progress": progressbar,
            "mode": mode,
            "run": run,
        } | write
        rare = options.pop("options", WriteOptions())
        with _workers(scheduler, num_workers) as chosen:
            options["options"] = _with_scheduler(rare, chosen)
            report: WriteReport = lake.write(bag, **options)
        return report


@overload
def compute(function: Callable[..., object], *, name: str | None = None) -> ComputeFunction: ...


@overload
def compute(
    function: None = None, *, name: str | None = None
) -> Callable[[Callable[..., object]], ComputeFunction]: ...


def compute(function: Any = None, *, name: str | None = None) -> Any:
    """Make a function that fills a lake; a decorator.

    Parameters
    ----------
    function : callable
        ``function(sample_in, sample_out, *args, **kwargs)``: called with each item of the input, and
        with a :class:`SampleOut` that takes the samples made of it. What it returns is ignored.
    name : str, optional
        What log and progress call it; left out, its own name.

    Returns
    -------
    ComputeFunction
        Called with the further arguments, it returns a :class:`Pipeline`, of which
        :meth:`Pipeline.eval` does the work. The arguments reach each worker once. Without
        ``function``, a decorator.

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
        raise InvalidInputError(f"{function!r} cannot be called. Decorate a function.")
    return ComputeFunction(function, name or str(getattr(function, "__name__", "compute")))


def compose(pipelines: Sequence[Pipeline]) -> Pipeline:
    """Put functions one after the other.

    Parameters
    ----------
    pipelines : sequence of Pipeline
        Functions made by :func:`compute`, called with their arguments.

    Returns
    -------
    Pipeline
        The samples of each are the input of the next one.

    Raises
    ------
    InvalidInputError
        There is none, or one of them was not called.

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
    if not pipelines:
        raise InvalidInputError("compose() got no function. Give at least one.")
    for number, each in enumerate(pipelines):
        if not isinstance(each, Pipeline):
            raise InvalidInputError(
                f"Element {number} of compose() is {each!r}. Decorate the function with "
                "@dasklake.compute, and call it with its arguments: compose([f(), g()])."
            )
    return Pipeline([stage for each in pipelines for stage in each.stages])


class _Transform:
    """The functions of a pipeline as one transform."""

    def __init__(self, functions: Sequence[ComputeFunction], lake: Lake, *, skip_ok: bool) -> None:
        self.functions = tuple(functions)
        self.blank: dict[str, Any] = dict.fromkeys(lake.schema if skip_ok else ())

    def __call__(self, item: Any, **arguments: Any) -> Samples:
        """Make samples of an item."""
        samples = [item]
        for number, function in enumerate(self.functions):
            args, kwargs = arguments[f"args_{number}"], arguments[f"kwargs_{number}"]
            made: list[Any] = []
            for each in samples:
                out = SampleOut()
                given = SampleIn(each) if type(each) is dict else each
                function.function(given, out, *args, **kwargs)
                made += out.samples()
            samples = made
        return Samples({**self.blank, **sample} for sample in samples)


def _check(lake: Any, write: Mapping[str, Any]) -> None:
    if not isinstance(lake, Lake):
        raise InvalidInputError(
            f"eval() writes to a lake, not to {type(lake).__name__}. Open one with "
            "dasklake.open(url), or make one with dasklake.empty(url)."
        )
    known = list(inspect.signature(to_lake).parameters)
    known = [name for name in known if name not in ("collection", "url", "transform", "schema")]
    for name in write:
        if name not in known:
            raise InvalidInputError(
                f"eval() has no argument {name!r}. Beside its own it takes {', '.join(known)}."
            )


def _run_name(name: str) -> str:
    """Return what a run of a function of that name may be called."""
    return _NO_NAME.sub("", name).lstrip("._-")[:64] or "compute"


def _bag_of(data: Any) -> Any:
    """Return an input as a bag; None where it is empty."""
    if is_dask_collection(data):
        return data
    if isinstance(data, Lake):
        return data.to_dask_bag() if len(data) else None
    items = _items(data)
    if not items:
        return None
    # By the number of items alone: a resume with other workers has to cut the input the same way.
    size = max(min(_ITEMS, math.ceil(len(items) / _LEAST)), math.ceil(len(items) / _MOST))
    return db.from_sequence(items, partition_size=size)


def _items(data: Any) -> list[Any]:
    if isinstance(data, pd.DataFrame):
        names = [str(name) for name in data.columns]
        return [dict(zip(names, row, strict=True)) for row in data.itertuples(index=False)]
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, Mapping):
        raise InvalidInputError(
            f"The input of eval() is a sequence of items, not {type(data).__name__}. Make a list "
            "of it."
        )
    return [data[i] for i in range(len(data))]


@contextlib.contextmanager
def _workers(scheduler: Any, count: int) -> Iterator[Any]:
    """Yield the scheduler to use, which ends with the block where it was started for it."""
    if isinstance(scheduler, str):
        scheduler = _SCHEDULERS.get(scheduler, scheduler)
    if scheduler is None and client_of(get_scheduler()) is None:
        here = dask.config.get("scheduler", None) or "sync"
        scheduler = "processes" if count else here
    if scheduler == "processes":
        with local_client(max(1, count)) as client:
            yield client
    elif scheduler == "threads" and count:
        with dask.config.set(num_workers=count):
            yield scheduler
    else:
        yield scheduler


def _with_scheduler(options: WriteOptions, scheduler: Any) -> WriteOptions:
    return options if scheduler is None else replace(options, scheduler=scheduler)
