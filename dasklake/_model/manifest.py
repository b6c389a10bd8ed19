"""Columnar chunk references of one version, in row order."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Manifest:
    """The chunks of a version: one array for each field, one element for each chunk.

    Sorted by (run order, partition, chunk), which is the order of the input.

    Attributes
    ----------
    home : tuple of str
        ``<branch>/<run>`` prefixes; ``run`` indexes into it.
    run, order, partition, epoch, attempt, chunk, rows, size, head, crc : numpy.ndarray
        One number for each chunk; an attempt's name is its number in 16 hexadecimal digits.
    statistics : pyarrow.LargeStringArray or None
        JSON of the statistics of each chunk, or null. None if they were not loaded: they are larger
        than everything else.
    parts : pyarrow.ListArray or None
        Of chunks that a compaction joined: order, partition and rows of each piece of consecutive rows
        that one partition wrote. Null for other chunks; None if all are null.
    """

    home: tuple[str, ...]
    run: npt.NDArray[np.int32]
    order: npt.NDArray[np.int64]
    partition: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int32]
    attempt: npt.NDArray[np.uint64]
    chunk: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    head: npt.NDArray[np.int64]
    crc: npt.NDArray[np.uint32]
    statistics: pa.LargeStringArray | None = None
    parts: pa.ListArray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Size of the arrays, in bytes, without the statistics."""
        arrays = (getattr(self, field.name) for field in fields(self)[1:-2])
        return sum(array.nbytes for array in arrays)
