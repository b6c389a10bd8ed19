"""A commit, and what it says of the runs and segments it builds on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from dasklake._model.creds_key import CredsKey
from dasklake._model.stored_types import Count, NonNegative, ObjectId
from dasklake._model.tensor_history import TensorHistory
from dasklake._model.versions import Versions
from dasklake._schema.schema import Schema

__all__ = ["Commit", "Kind", "Plan", "Progress", "RunState", "SegmentRef", "Totals"]


class Kind(StrEnum):
    """What a commit does. Only the data kinds change which samples a version holds."""

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
        """Whether ``log()`` shows it without being asked."""
        return self in (Kind.INIT, Kind.SCHEMA, Kind.DATA, Kind.OVERWRITE, Kind.RESTORE)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run set out to write.

    Attributes
    ----------
    partitions : int
        Number of partitions.
    inputs : int or None
        Number of input samples, where it is known beforehand.
    schema : str
        Digest of the schema.
    input_id : str or None
        Digest of the input; None where only counts can be compared.
    overwrite : bool
        Whether the run's first data commit replaces what the lake held.
    compaction : bool
        Whether the run writes nothing new: it joins chunks of others.
    """

    partitions: Count
    inputs: Count | None
    schema: str
    input_id: str | None
    overwrite: bool = False
    compaction: bool = False


@dataclass(frozen=True, slots=True)
class RunState:
    """What the log knows of one run; every field only ever moves forwards.

    Attributes
    ----------
    plan : Plan
        What it set out to write.
    order : int
        Place of its rows among those of other runs.
    epoch : int
        Its newest epoch.
    closed : int
        Epochs up to this one were closed by a reset.
    finished : bool
        Whether every partition is committed.
    replaced : bool
        Whether it cannot go on: another writer's overwrite or restore removed its rows, or the
        schema was changed after it was closed.
    overwrote : bool
        Whether its own overwrite is done.
    partitions, inputs, samples, failures, size : int
        What is committed of it; ``size`` in bytes.
    names : mapping of str to mapping, optional
        While it is unfinished: by tensor, the class names that it discovered, and of each the
        partition and the place among the names there.
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
    """One immutable Arrow table that a commit names.

    Attributes
    ----------
    name : str
        Id of the commit that wrote it first.
    rows : int
        Its rows: chunk references, or failures.
    samples : int
        Samples that its chunks hold; 0 for failures.
    size : int
        Length of the object, in bytes.
    crc : int
        crc32c of the object.
    level : int
        How often it was merged.
    """

    name: ObjectId
    rows: Count
    samples: Count
    size: Count
    crc: Count
    level: Count = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """What a version holds: samples, chunks, failures, and the bytes of its chunks."""

    samples: Count = 0
    chunks: Count = 0
    failures: Count = 0
    size: Count = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run of a data commit has come, absolute across resumes.

    Attributes
    ----------
    run : str
        The run.
    partitions : int
        Partitions committed, of ``of``.
    of : int
        Partitions planned.
    inputs : int
        Input samples processed, failed ones included.
    percent : float
        Of the input samples where their number is known, else of the partitions.
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
        Random name; objects that it was the first to name carry it.
    parent : str or None
        Id of the commit it was built on.
    branch : str
        The branch.
    kind : Kind
        What it does.
    time : datetime.datetime
        When it was built, in UTC; informative only.
    author : str
        Who built it.
    message : str
        For people.
    schema : Schema
        The tensors of the version.
    entry : mapping
        What the kind needs, such as ``{"run": …, "epoch": …}``.
    runs : mapping of str to RunState
        Every run of the branch.
    segments, failures : tuple of SegmentRef
        Tables of chunk references, and of failures.
    totals : Totals
        What the version holds.
    progress : Progress or None
        Of the run, for its data commits.
    tags : mapping of str to list
        Branch and version that each tag stands for; kept on ``main``.
    branches : mapping of str to mapping
        Where each branch but ``main`` comes from; kept on ``main``.
    expired : mapping of str to Versions
        Versions given up, by branch; kept on ``main``.
    first_order : int
        Smaller order numbers are those of rows that the branch began with.
    past : mapping of str to TensorHistory
        Of tensors that were added or renamed when the version held samples already.
    creds : mapping of str to CredsKey
        The credentials keys that links may name.
    single_writer : bool
        Whether the lake was made on a storage without exclusive create.
    unknown : tuple of str
        What a writer has to understand and this release does not: it may only be read.
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
