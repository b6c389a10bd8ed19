"""Receipts of write tasks, small enough for scheduler messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dasklake._model.stored_types import Count


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """A reference to a chunk.

    Attributes
    ----------
    chunk : int
        Number of the chunk within its partition.
    rows : int
        Number of samples.
    size : int
        Length of the object, in bytes.
    head : int
        Length of its head, in bytes.
    crc : int
        crc32c of its head.
    statistics : str or None
        JSON of the statistics of its values.
    """

    chunk: Count
    rows: Count
    size: Count
    head: Count
    crc: Count
    statistics: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed sample or partition, with the reason.

    Attributes
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    position : int or None
        Position of the input sample in the partition, or None if the whole partition failed.
    index : int or None
        Position of the input sample in the whole input, if known.
    item : str or None
        The input item, shortened.
    tensor : str or None
        The tensor whose value was not valid.
    exception : str
        Qualified name of the exception's type.
    message : str
        Its message, shortened.
    traceback : str
        Its traceback, shortened.
    value : str or None
        The input item as JSON, if it is small and JSON restores it exactly.
    """

    run: str
    partition: Count
    position: Count | None
    index: Count | None
    item: str | None
    tensor: str | None
    exception: str
    message: str
    traceback: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of one attempt to write a partition.

    Attributes
    ----------
    run : str
        The run.
    epoch : int
        The epoch the attempt belongs to.
    partition : int
        Number of the partition.
    attempt : str
        Random name of the attempt.
    chunks : tuple of ChunkRef
        All chunks of the partition, in order.
    inputs : int
        Input samples that were read, failed ones included.
    failures : tuple of Failure
        The failed samples, if there are few.
    failures_key : str or None
        Object that holds the failures, if there are many.
    failed : int
        Number of failed samples.
    names : mapping of str to tuple of str
        By tensor, discovered class names in the order of their first samples.
    """

    run: str
    epoch: int
    partition: int
    attempt: str
    chunks: tuple[ChunkRef, ...]
    inputs: int
    failures: tuple[Failure, ...] = ()
    failures_key: str | None = None
    failed: int = 0
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Return the number of samples written."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def size(self) -> int:
        """Return the size of all chunks, in bytes."""
        return sum(chunk.size for chunk in self.chunks)
