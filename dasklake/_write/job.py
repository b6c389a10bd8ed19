"""The parameters and the outcome of a write task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from dasklake._links.limits import LinkLimits
from dasklake._model.commit import Commit
from dasklake._model.receipt import Failure, Receipt
from dasklake._schema.schema import Schema
from dasklake._write.chunk_writer import RunLocation
from dasklake.exceptions import InvalidInputError


@dataclass(frozen=True, slots=True)
class Job:
    """The common parameters of an epoch's write tasks; one node of the graph.

    Attributes
    ----------
    location : RunLocation
        Destination of the chunks.
    entry : tuple of (int, str)
        Version and id of the commit that began the epoch, which every worker has to see.
    schema : Schema
        Schema of the samples.
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    names : tuple of str
        Names of the columns or arrays.
    index : tuple of str
        For each level of the index of a frame, its tensor, or an empty name.
    lake_columns : frozenset of str
        Columns of a frame that come from a lake, in the types of pandas.
    transform : callable or None
        Called with each item, and returns a sample; or with a block of rows, and returns columns.
    kwargs : mapping
        Further arguments of the transform.
    batched : bool
        Whether the transform is called with blocks of rows.
    batch_size : int or None
        Number of rows of a block; None to adapt it to their size.
    skip : bool
        Whether failing samples are skipped.
    chunk_size : int
        Size at which a chunk is full, in bytes.
    only : frozenset of int or None
        The partitions to write, if the graph has more.
    retries : int or None
        Number of times an attempt is repeated here after a failure of the storage or the machine;
        None if Dask repeats it.
    strict : bool
        Whether the constraints of htypes are checked.
    links : LinkLimits
        Limits for reading the targets of links.
    """

    location: RunLocation
    entry: tuple[int, str]
    schema: Schema
    kind: str
    names: tuple[str, ...] = ()
    index: tuple[str, ...] = ()
    lake_columns: frozenset[str] = frozenset()
    transform: Callable[..., Any] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    batched: bool = False
    batch_size: int | None = None
    skip: bool = False
    chunk_size: int = 64 << 20
    only: frozenset[int] | None = None
    retries: int | None = None
    strict: bool = True
    links: LinkLimits = field(default_factory=LinkLimits)

    def at(self, location: RunLocation, entry: Commit) -> Job:
        """Return the job of the epoch that a commit began."""
        return replace(self, location=location, entry=(entry.version, entry.id))


class Deliver(Protocol):
    """Sends outcomes to the coordinator, if the results of tasks do not reach it."""

    def __call__(self, outcome: Outcome) -> object:
        """Send an outcome."""

    def stopped(self) -> bool:
        """Return whether the run has ended or the task was cancelled."""


class Outcome(NamedTuple):
    """Outcome of a write task: a receipt, or the failure and the error that end the run."""

    receipt: Receipt | None
    failure: Failure | None = None
    error: BaseException | None = None
    interrupt: bool = False


def bind(job: Job, plain: Mapping[str, Any], computed: Mapping[str, Any]) -> Job:
    """Return the job with the arguments of its transform, both plain and computed by tasks."""
    return replace(job, kwargs={**plain, **computed})


@dataclass(frozen=True, slots=True)
class PartMaker:
    """Computes the partition of one collection inside the write task.

    Attributes
    ----------
    key : object
        Key of the partition in its graph.
    task : callable or None
        The tasks that only this partition needs, fused; called with the results of shared tasks.
        None if the partition itself is such a result.
    """

    key: Any
    task: Any

    @property
    def needs(self) -> Iterable[Any]:
        """Keys of the results that the partition is computed from."""
        return (self.key,) if self.task is None else self.task.dependencies

    def __call__(self, values: Mapping[Any, Any]) -> Any:
        """Return the partition.

        Raises
        ------
        InvalidInputError
            Another task gets the same iterator, and may have consumed it.
        """
        if self.task is not None:
            return self.task(values)
        value = values[self.key]
        if isinstance(value, Iterator):
            raise InvalidInputError(
                "A function of the bag returned an iterator, which other collections of the same "
                "computation may consume. Return a list, or write with compute=True."
            )
        return value
