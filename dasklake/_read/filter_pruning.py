"""Find the chunks that a filter must read, from their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._read.filter_columns import arrow_type
from dasklake._read.filters import Condition, Term
from dasklake._read.pruning import Condition as Bound
from dasklake._read.pruning import chunks_that_may_match
from dasklake._read.statistics import VersionStatistics
from dasklake._schema.measurable import has_objects
from dasklake._schema.same_length import count_axis
from dasklake._schema.schema import TensorSpec

__all__ = ["chunks_to_read"]

#: Most alternatives of a filter that are compared with statistics.
_MAX_ALTERNATIVES = 256


def chunks_to_read(statistics: VersionStatistics, condition: Condition) -> npt.NDArray[np.bool_]:
    """Return a mask of the chunks of a version that may have samples that match a filter."""
    every: npt.NDArray[np.bool_] = np.asarray(statistics.rows) > 0
    if condition.terms is None:
        return every & _of_classes(statistics, condition)
    schema = statistics.schema
    alternatives = [bounds for terms in condition.terms for bounds in _bounds(terms, schema)]
    if len(alternatives) > _MAX_ALTERNATIVES:
        return every
    return chunks_that_may_match(statistics, alternatives)


def _bounds(terms: tuple[Term, ...], schema: Mapping[str, TensorSpec]) -> Iterator[list[Bound]]:
    """Yield the alternatives of a conjunction, without the terms that have no statistics."""
    options = [option for term in terms if (option := _of_term(term, schema[term.column.tensor]))]
    yield from map(list, product(*options))


def _of_term(term: Term, spec: TensorSpec) -> list[Bound]:
    """Return the alternatives of a term; none if statistics do not decide."""
    tensor, part = term.column.tensor, term.column.part
    if part == "characters":
        return []
    if part == "contains":
        item = term.column.item
        return [Bound(tensor, "==", item)] if isinstance(item, int) else []
    where = _compared_part(term.column.axis, spec) if part == "axis" else "value"
    if term.op == "is":
        return [Bound(tensor, "is null"), Bound(tensor, "is nan")] if part != "axis" else []
    if term.op == "is not":
        return [Bound(tensor, "is valid")]
    value = term.value.to_pylist() if isinstance(term.value, pa.Array) else term.value.as_py()
    return [Bound(tensor, term.op, value, where)]


def _compared_part(axis: int, spec: TensorSpec) -> str | int:
    """Return the statistic of an axis: statistics have the axis of objects as their number."""
    objects = count_axis(spec)
    if objects is None:
        return axis
    rank = None if spec.sequence or spec.shape is None else len(spec.shape)
    same = axis == objects if rank is None else axis % rank == objects % rank
    return "objects" if same and has_objects(spec) else axis


def _of_classes(
    statistics: VersionStatistics, condition: Condition
) -> npt.NDArray[np.bool_] | np.bool_:
    """Return the chunks of which a class matches an expression of one tensor of labels.

    What is true of a class is computed once for all chunks.
    """
    columns = list(condition.columns.items())
    if len(columns) != 1 or columns[0][1].part not in ("index", "name"):
        return np.True_
    name, column = columns[0]
    spec = statistics.schema[column.tensor]
    names = spec.class_names or ()
    kind = arrow_type(column, spec)
    classes = pa.array([*(names if column.part == "name" else range(len(names))), None], kind)
    matching = set(condition.matches({name: classes}, len(classes)).tolist())
    mask = np.ones(len(statistics), bool)
    for chunk in range(len(statistics)):
        entry = statistics.of(chunk, [column.tensor]).get(column.tensor)
        if entry is not None and entry.classes is not None:
            present = {*entry.classes, *((len(names),) if entry.nulls else ())}
            mask[chunk] = not present.isdisjoint(matching)
    return mask
