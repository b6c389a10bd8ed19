"""What a finished write task hands back, small enough to ride on a scheduler message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dasklake._model.stored_types import Count

__all__ = ["ChunkRef", "Failure", "Receipt"]


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """One chunk as a segment names it.

    Attributes
    ----------
    chunk : int
        Number of the chunk within its partition.
    rows : int
        Samples in it.
    size : int
        Length of the object, in bytes.
    head : int
        Length of its head, in bytes.
    crc : int
        crc32c of its head.
    """

    chunk: Count
    rows: Count
    size: Count
    head: Count
    crc: Count


@dataclass(frozen=True, slots=True)
class Failure:
    """One sample, or one partition, that did not get into the lake, and why.

    Attributes
    ----------
    run : str
        The run.
    partition : int
        Number of the partition.
    position : int or None
        Place of the input sample in the partition; None where the whole partition failed.
    index : int or None
        Place of the input sample in the whole input, where it is known.
    item : str or None
        The input item, shortened.
    tensor : str or None
        The tensor whose value did not fit.
    exception : str
        Qualified name of the exception's type.
    message : str
        Its message, shortened.
    traceback : str
        Its traceback, shortened.
    value : str or None
        The input item as JSON, where it is small and comes back from that exactly.
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
    """What one attempt at a partition has written.

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
        The failed samples, where they are few.
    failures_key : str or None
        Object that holds the failures, where they are many.
    failed : int
        How many samples failed.
    names : mapping of str to tuple of str
        By tensor, class names that were discovered, in the order of their first samples.
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
        """Samples that were written."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def size(self) -> int:
        """Length of all chunks, in bytes."""
        return sum(chunk.size for chunk in self.chunks)
