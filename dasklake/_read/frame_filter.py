"""Filters of the frames of a lake: those that were given, and those that follow from ``frame[mask]``."""

# Dask's expressions have no types.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dasklake._dask import EQ, GE, GT, LE, LT, NE, And, Or, Projection
from dasklake._read.filters import Condition, parse_filters
from dasklake._read.frame_index import stored_index
from dasklake._read.origin import Origin
from dasklake._read.partition import empty_frame, read_frame
from dasklake._read.plan import ChunkLocation
from dasklake._read.row_groups import near_parts
from dasklake._read.scan import matching_rows
from dasklake._schema.arrow_layout import storage_of
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import LakeError

__all__ = ["condition_of", "read_matching", "read_selected_rows"]

_OPERATORS = {EQ: "==", NE: "!=", LT: "<", LE: "<=", GT: ">", GE: ">="}

#: Most alternatives of a filter that is passed down.
_MAX_ALTERNATIVES = 16

_Terms = list[list[tuple[str, str, Any]]]


def condition_of(predicate: Any, reads: Callable[[Any], bool], schema: Schema) -> Condition | None:
    """Return a filter that is true of all rows for which a mask is true, or None.

    Parameters
    ----------
    predicate : Expr
        The mask.
    reads : callable
        Returns whether an expression is the read of the rows that are filtered.
    schema : Schema
        The tensors.
    """
    terms = _terms(predicate, reads, schema)
    if terms is None or len(terms) > _MAX_ALTERNATIVES:
        return None
    try:
        return parse_filters(terms[0] if len(terms) == 1 else terms, schema)
    except LakeError:
        return None  # pandas decides what such a comparison means


def _terms(predicate: Any, reads: Callable[[Any], bool], schema: Schema) -> _Terms | None:
    if isinstance(predicate, And | Or):
        one, other = (_terms(side, reads, schema) for side in (predicate.left, predicate.right))
        if one is None or other is None:
            return None  # it may be a result of all rows, such as their mean
        both = isinstance(predicate, And)
        return [a + b for a in one for b in other] if both else one + other
    operator = _OPERATORS.get(type(predicate))
    if operator is None or not isinstance(predicate.left, Projection):
        return None
    name, value = predicate.left.operand("columns"), predicate.right
    if not reads(predicate.left.frame) or not isinstance(name, str) or name not in schema:
        return None
    return [[(name, operator, value)]] if _is_exact(schema[name], operator, value) else None


def _is_exact(spec: TensorSpec, operator: str, value: Any) -> bool:
    """Return whether pandas compares values of a tensor as a filter does."""
    if spec.shape != () or spec.sequence or spec.linked:
        return False
    if spec.class_names is not None:
        return operator in ("==", "!=") and isinstance(value, str)
    dtype = spec.numpy_dtype
    if dtype is None:
        return str(storage_of(spec).type) in ("string", "large_string") and isinstance(value, str)
    if isinstance(value, bool | np.bool_):
        return dtype.kind == "b"
    kinds: Mapping[str, Any] = {
        "i": int | np.integer,
        "u": int | np.integer,
        # Others are compared after rounding the value.
        "f": int | float | np.float64 if dtype == np.float64 else (),
        "M": dt.datetime | np.datetime64,
    }
    return isinstance(value, kinds.get(dtype.kind, ()))


def read_matching(
    locations: Sequence[ChunkLocation],
    origin: Origin,
    condition: Condition,
    selected: npt.NDArray[np.int64] | None,
    columns: Sequence[str],
    index: Sequence[str],
    stored: Sequence[str],
) -> pd.DataFrame:
    """Return the rows of a partition that match a filter, in order.

    The columns of the filter are read first, then only the rows that match.

    Parameters
    ----------
    locations : sequence of ChunkLocation
        Parts of chunks.
    origin : Origin
        The version.
    condition : Condition
        The filter.
    selected : numpy.ndarray or None
        Numbers of the samples to read, in order; None for all of the locations.
    columns, index : sequence of str
        Tensors of the columns and of the index.
    stored : sequence of str
        As for :func:`read_frame`.
    """
    parts = list(_matching_parts(locations, origin, condition))
    numbers = [number for _, matching in parts for number in matching]
    if not numbers:
        return empty_frame(origin.frame_schema, columns, index, stored)
    rows = np.concatenate(numbers)
    if selected is not None:
        rows = selected[np.isin(selected, rows)]
    close = [part for location, _ in parts for part in location]
    return read_selected_rows(close, origin, rows, columns, index, stored)


def _matching_parts(
    locations: Sequence[ChunkLocation], origin: Origin, condition: Condition
) -> Iterator[tuple[list[ChunkLocation], list[npt.NDArray[np.int64]]]]:
    """Yield the parts of chunks that hold matching rows, and the numbers of these rows."""
    for _, group in groupby(locations, key=attrgetter("key")):
        parts = list(group)
        whole = parts[0]._replace(begin=0, end=-1)
        offsets = matching_rows(origin, condition, whole)
        inside = np.zeros(len(offsets), bool)
        for part in parts:
            inside |= (offsets >= part.begin) & (offsets < part.stop)
        chosen = offsets[inside]
        if len(chosen):
            yield list(near_parts(whole, chosen)), [whole.first + chosen]


def read_selected_rows(
    locations: Sequence[ChunkLocation],
    origin: Origin,
    rows: npt.NDArray[np.int64],
    columns: Sequence[str],
    index: Sequence[str],
    stored: Sequence[str],
) -> pd.DataFrame:
    """Return some samples of some parts of chunks as a frame, in their order."""
    names = list(dict.fromkeys((*columns, *index)))
    frame = read_frame(locations, origin=origin, columns=names, stored=stored)
    if not len(frame):
        return empty_frame(origin.frame_schema, columns, index, stored)
    # Samples of chunks that were skipped are left out.
    positions = frame.index.get_indexer(pd.Index(rows))
    frame = frame.iloc[positions[positions >= 0]]
    labels = stored_index(frame, origin.frame_schema, index)
    shown = frame[list(columns)]
    return shown if labels is None else shown.set_axis(labels, axis=0)
