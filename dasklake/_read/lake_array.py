"""Dask Arrays of a tensor, of which only the rows that are used are read."""

# Dask has no types.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.array.core import getter
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from dasklake._dask import DataNode, Task
from dasklake._read.array_block import ArrayBlock
from dasklake._read.origin import Origin
from dasklake._read.partition import array_shape
from dasklake._read.row_groups import RowGroup

__all__ = ["Array", "lake_array"]


class Array(da.Array):
    """An array whose rows are samples; a selection of rows reads only them.

    Dask itself narrows the read of a slice, but not of lists, negative steps or slices of slices.
    """

    source: tuple[Origin, str, tuple[RowGroup, ...]] | None = None

    def __getitem__(self, index: Any) -> Any:
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) and index else (index, ())
        if self.source is None or not _is_selection(first) or not all(map(_is_plain, rest)):
            return super().__getitem__(index)
        origin, name, groups = self.source
        if not _is_ordered(groups):
            return super().__getitem__(index)
        count = self.shape[0]
        if isinstance(first, slice):
            positions = np.arange(*first.indices(count))
        else:
            positions = np.arange(count)[_as_array(first)]
        token = tokenize(self.name, positions)
        selected = lake_array(origin, _narrowed(groups, positions), name, token)
        return selected[(slice(None), *rest)] if rest else selected


def _is_selection(index: Any) -> bool:
    """Return whether an index selects some rows, as a slice, a list or an array."""
    if isinstance(index, slice):
        return index != slice(None)
    if not isinstance(index, list | np.ndarray):
        return False
    array = _as_array(index)
    return array.ndim == 1 and array.dtype.kind in "biu"


def _as_array(index: Any) -> npt.NDArray[Any]:
    return np.asarray(index) if len(index) else np.zeros(0, np.int64)


def _is_plain(index: Any) -> bool:
    return isinstance(index, int | np.integer | slice)


def _is_ordered(groups: Sequence[RowGroup]) -> bool:
    """Return whether no part of a chunk is in two groups, and all are in order."""
    spans = [location.span for group in groups for location in group.locations]
    return all(a.stop <= b.start for a, b in pairwise(spans))


def _narrowed(groups: Sequence[RowGroup], positions: npt.NDArray[np.int64]) -> tuple[RowGroup, ...]:
    """Return the blocks of some rows of an array: those of its own if the rows are in order."""
    stops = np.cumsum([len(group) for group in groups])
    blocks = np.searchsorted(stops, positions, side="right")
    numbers = np.zeros(len(positions), np.int64)
    for block in np.unique(blocks).tolist():
        inside = blocks == block
        first = int(stops[block]) - len(groups[block])
        own = groups[block].numbers
        offsets = positions[inside] - first
        numbers[inside] = (
            own.start + offsets if isinstance(own, range) else np.asarray(own)[offsets]
        )
    if (np.diff(positions) > 0).all():
        edges = np.flatnonzero(np.diff(blocks, prepend=-1, append=-1)).tolist()
    else:
        count = max(1, math.ceil(int(stops[-1]) / len(groups)))
        edges = [*range(0, len(positions), count), len(positions)]
    every = RowGroup(tuple(chain.from_iterable(group.locations for group in groups)))
    parts = (numbers[start:stop] for start, stop in pairwise(edges))
    return tuple(every.narrowed(part) for part in parts if len(part))


def lake_array(origin: Origin, groups: Sequence[RowGroup], name: str, token: str) -> Array:
    """Return a tensor of fixed shape as an array, one block per group.

    Parameters
    ----------
    origin : Origin
        The version.
    groups : sequence of RowGroup
        The samples of each block.
    name : str
        The tensor.
    token : str
        Identifies the samples.
    """
    spec = origin.spec_of(name)
    shape = array_shape(name, spec)
    dtype = np.dtype(str(spec.dtype))
    groups = groups or [RowGroup()]
    key = f"read-lake-{name}-{token}"
    rest = (0,) * len(shape)
    graph: dict[Any, Any] = {}
    for i, group in enumerate(groups):
        # Dask joins the index of a getter with later ones, so that only their rows are read.
        block = DataNode(None, ArrayBlock(group, origin, name, shape, dtype))
        everything = tuple(slice(0, length) for length in (len(group), *shape))
        graph[key, i, *rest] = Task((key, i, *rest), getter, block, everything)
    chunks = (tuple(len(group) for group in groups), *((axis,) for axis in shape))
    meta = np.empty((0,) * (1 + len(shape)), dtype)
    layers = HighLevelGraph.from_collections(key, graph)
    array = Array(layers, key, chunks, meta=meta)
    array.source = origin, name, tuple(groups)
    return array
