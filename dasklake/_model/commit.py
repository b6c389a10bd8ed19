"""Commits, and the states of runs and references to segments that they contain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NoReturn

from dasklake._model.creds_key import CredsKey
from dasklake._model.stored_types import Count, NonNegative, ObjectId
from dasklake._model.tensor_history import TensorHistory
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema
from dasklake.exceptions import InvalidInputError


class Kind(StrEnum):
    """The kind of a commit. Only the data kinds change the samples of a version."""

    INIT = "init"
    SCHEMA = "schema"
    BEGIN = "begin"
    EPOCH = "epoch"
    DATA = "data"
    OVERWRITE = "overwrite"
    ABORT = "abort"
    EXPIRE = "expire"
    FENCE = "fence"
    COMPACT = "compact"
    RESTORE = "restore"
    TAG = "tag"
    BRANCH = "branch"
    UNBRANCH = "unbranch"
    CLOSED = "closed"
    CREDS = "creds"

    @property
    def is_data(self) -> bool:
        """Return whether ``log()`` shows it by default."""
        return self in (Kind.INIT, Kind.SCHEMA, Kind.DATA, Kind.OVERWRITE, Kind.RESTORE)


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run.

    Attributes
    ----------
    partitions : int
        Number of partitions.
    inputs : int or None
        Number of input samples, if it is known in advance.
    schema : str
        Digest of the schema.
    input_id : str or None
        Digest of the input, or None if only counts can be compared.
    overwrite : bool
        Whether the run's first data commit replaces the content of the lake.
    compaction : bool
        Whether the run only joins chunks of other runs.
    """

    partitions: Count
    inputs: Count | None
    schema: str
    input_id: str | None
    overwrite: bool = False
    compaction: bool = False


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of one run in the log. Every field only moves forwards.

    Attributes
    ----------
    plan : Plan
        Its plan.
    order : int
        Position of its rows among those of other runs.
    epoch : int
        Its newest epoch.
    closed : int
        A reset closed the epochs up to this one.
    finished : bool
        Whether every partition is committed.
    replaced : bool
        Whether it cannot continue: another writer's overwrite or restore removed its rows, or the
        schema was changed after it was closed.
    overwrote : bool
        Whether it has committed its own overwrite.
    partitions, inputs, samples, failures, size : int
        Totals of its committed partitions; ``size`` in bytes.
    names : mapping of str to mapping, optional
        While it is unfinished: by tensor, the class names that it discovered, each with its
        partition and its position among the names there.
    """

    plan: Plan
    order: Count
    epoch: Count = 1
    closed: Count = 0
    finished: bool = False
    replaced: bool = False
    overwrote: bool = False
    partitions: Count = 0
    inputs: Count = 0
    samples: Count = 0
    failures: Count = 0
    size: Count = 0
    names: Mapping[str, Mapping[str, tuple[Count, Count]]] | None = None


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """A reference to an immutable Arrow table.

    Attributes
    ----------
    name : str
        Id of the commit that first named it.
    rows : int
        Number of its rows: chunk references, or failures.
    samples : int
        Samples in its chunks; 0 for failures.
    size : int
        Length of the object, in bytes.
    crc : int
        crc32c of the object.
    level : int
        Number of merges that led to it.
    """

    name: ObjectId
    rows: Count
    samples: Count
    size: Count
    crc: Count
    level: Count = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of a version: samples, chunks, failures, and the bytes of its chunks."""

    samples: Count = 0
    chunks: Count = 0
    failures: Count = 0
    size: Count = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of the run of a data commit, counted across resumes.

    Attributes
    ----------
    run : str
        The run.
    partitions : int
        Partitions committed.
    of : int
        Partitions planned.
    inputs : int
        Input samples processed, failed ones included.
    percent : float
        Of the input samples if their number is known, else of the partitions.
    """

    run: str
    partitions: Count
    of: Count
    inputs: Count
    percent: NonNegative


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a branch.

    Attributes
    ----------
    version : int
        Its number on the branch.
    id : str
        Random name, also of the objects that it is the first to name.
    parent : str or None
        Id of the previous commit.
    branch : str
        The branch.
    kind : Kind
        Its kind.
    time : datetime.datetime
        Time when it was built, in UTC; informative only.
    author : str
        Its author.
    message : str
        Description for people.
    schema : Schema
        The tensors of the version.
    entry : mapping
        Fields of its kind, such as ``{"run": …, "epoch": …}``.
    runs : mapping of str to RunState
        All runs of the branch.
    segments, failures : tuple of SegmentRef
        Tables of chunk references, and of failures.
    totals : Totals
        Totals of the version.
    progress : Progress or None
        Progress of its run, for data commits.
    tags : mapping of str to list
        Branch and version of each tag; kept on ``main``.
    branches : mapping of str to mapping
        Origin of each branch but ``main``; kept on ``main``.
    expired : mapping of str to Versions
        Expired versions, by branch; kept on ``main``.
    first_order : int
        Rows that the branch began with have smaller order numbers.
    past : mapping of str to TensorHistory
        Histories of tensors that were added or renamed when the version already had samples.
    creds : mapping of str to CredsKey
        The credentials keys that links may name.
    single_writer : bool
        Whether the lake was created on a storage without exclusive create.
    unknown : tuple of str
        Features for writers that this release does not know: the version is read-only.
    """

    version: int
    id: str
    parent: str | None
    branch: str
    kind: Kind
    time: datetime
    author: str
    message: str
    schema: Schema
    entry: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, RunState] = field(default_factory=dict)
    segments: tuple[SegmentRef, ...] = ()
    failures: tuple[SegmentRef, ...] = ()
    totals: Totals = field(default_factory=Totals)
    progress: Progress | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    branches: Mapping[str, Any] = field(default_factory=dict)
    expired: Mapping[str, Versions] = field(default_factory=dict)
    first_order: int = 0
    histories: Mapping[str, TensorHistory] = field(default_factory=dict)
    creds: Mapping[str, CredsKey] = field(default_factory=dict)
    single_writer: bool = False
    unknown: tuple[str, ...] = ()

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Raise an error that explains ``lake.commit``, a method in other libraries.

        Raises
        ------
        InvalidInputError
            Always.
        """
        raise InvalidInputError(
            "lake.commit is the commit of the version, not a method: append(), write() and eval() commit "
            "their samples. Delete the call; inside a with block, use lake.flush(). For a text in the "
            "log, pass message= to lake.write() or eval()."
        )
