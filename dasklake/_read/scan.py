"""Find the samples that match a filter, chunk by chunk."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.corruption import warn_once
from dasklake._read.filter_values import read_filter_columns
from dasklake._read.filters import Condition
from dasklake._read.in_threads import map_in_threads
from dasklake._read.origin import Origin
from dasklake._read.plan import ChunkLocation
from dasklake._read.reader import Reader
from dasklake._read.rows import Rows, as_rows
from dasklake.exceptions import CorruptionError, InvalidInputError

__all__ = ["matching_rows", "rows_that_match"]


def rows_that_match(reader: Reader, condition: Condition, rows: Rows) -> Rows:
    """Return the numbers of those of some samples that match a filter, in their order.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    condition : Condition
        The filter.
    rows : range or numpy.ndarray
        Numbers of the samples.
    """
    if not len(rows) or not reader.origin.length(condition.tensors):
        return range(0)
    numbers = np.asarray(rows, np.int64)
    chunks = np.unique(reader.plan.locate_all(numbers)[0])
    chunks = chunks[reader.chunks_to_read(condition)[chunks]]
    locations = [reader.plan.location(chunk) for chunk in chunks.tolist()]
    match = np.zeros(reader.origin.samples, bool)
    read = partial(matching_rows, reader.origin, condition)
    for location, offsets in zip(locations, map_in_threads(read, locations), strict=True):
        match[location.first + offsets] = True
    return as_rows(numbers[match[numbers]])


def matching_rows(
    origin: Origin, condition: Condition, location: ChunkLocation
) -> npt.NDArray[np.int64]:
    """Return the offsets of the rows of a chunk that match a filter.

    With ``on_corrupt="skip"``, no row of a damaged chunk matches.
    """
    try:
        columns = read_filter_columns(origin, location, condition.columns)
    except CorruptionError as error:
        if origin.on_corrupt == "raise":
            raise
        warn_once(origin.store.url, location, error)
        return np.zeros(0, np.int64)
    try:
        return condition.matches(columns, location.rows)
    except pa.ArrowException as error:
        samples = f"{location.first} to {location.first + location.rows - 1}"
        raise InvalidInputError(
            f"The filter {condition} cannot be computed for samples {samples}: {error}. Change it."
        ) from error
