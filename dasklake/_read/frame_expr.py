"""The expression of a frame of a lake, from which Dask knows what it need not read.

Lengths and the index are in the manifest. Selections of columns and rows are passed down, so that
only their bytes are fetched.
"""

# Dask's expressions have no types.
# ruff: noqa: SLF001 # they are extended by methods with an underscore
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd
from dask.dataframe import methods

from dasklake._dask import (
    BlockwiseIO,
    Filter,
    Head,
    Index,
    Len,
    Lengths,
    Literal,
    LocElement,
    LocList,
    LocSlice,
    PartitionsFiltered,
    Projection,
    Sample,
    Tail,
    Task,
)
from dasklake._read.filters import Condition
from dasklake._read.frame_filter import condition_of, read_matching, read_selected_rows
from dasklake._read.frame_plan import FramePlan, RowRanges, ranges_of
from dasklake._read.origin import Origin
from dasklake._read.partition import empty_frame, read_frame
from dasklake._read.plan import ChunkLocation
from dasklake._schema.lake_tensors import LAKE_COLUMNS, columns_text
from dasklake._schema.schema import Schema

#: Most labels in a list for which single rows are read.
_MAX_LABELS = 4096

#: Selections by label, and all selections of rows.
_LABELS = (LocSlice, LocList, LocElement)
_SELECTIONS = (Head, Tail, *_LABELS)


class ReadLake(PartitionsFiltered, BlockwiseIO):
    """Read the tensors of a version as a frame.

    Parameters
    ----------
    plan : FramePlan
        The partitions.
    columns : list of str
        The tensors.
    rows : RowRanges, optional
        Samples to read. By default, all. Their consumer selects among the samples that are read,
        so the divisions stay those of all samples.
    _partitions : list of int, optional
        The selected partitions.
    index : tuple of str, optional
        The tensors of the index. By default, the index is the number of the sample.
    stored : tuple of str, optional
        Tensors whose columns hold stored values if pandas cannot hold them exactly.
    filters : Condition, optional
        A filter of the samples. By default, all are read.
    """

    _parameters = ["plan", "columns", "rows", "_partitions", "index", "stored", "filters"]  # noqa: RUF012 # as Dask has it
    _defaults = {"rows": None, "_partitions": None, "index": (), "stored": (), "filters": None}  # noqa: RUF012 # as Dask has it
    _absorb_projections = True
    _filter_passthrough = True

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.operand("columns"))

    @cached_property
    def _meta(self) -> pd.DataFrame:
        schema = self.lake_schema
        frame_schema = self._plan.origin.frame_schema
        frame = empty_frame(frame_schema, self.columns, self._levels, self.operand("stored"))
        # Persisted frames keep their metadata alone.
        frame.attrs[LAKE_COLUMNS] = columns_text({n: schema[n] for n in self.columns}, frame.dtypes)
        return frame

    @property
    def lake_schema(self) -> Schema:
        """Tensors of the version, by which a writer recognizes the columns."""
        return self._plan.origin.schema

    def with_stored(self, tensors: Collection[str]) -> ReadLake:
        """Return the read of a frame in which more columns hold stored values, for a writer."""
        names = tuple(sorted({*self.operand("stored"), *tensors}))
        return cast("ReadLake", self.substitute_parameters({"stored": names}))

    @property
    def _levels(self) -> tuple[str, ...]:
        levels: tuple[str, ...] = self.operand("index")
        return levels

    @property
    def _plan(self) -> FramePlan:
        plan: FramePlan = self.operand("plan")
        return plan

    def _divisions(self) -> tuple[int | None, ...]:
        divisions = self._plan.divisions
        return (None,) * len(divisions) if self._levels else divisions

    @property
    def _lengths(self) -> tuple[int, ...]:
        groups = self._plan.groups
        return tuple(len(groups[i]) for i in self._partitions)

    def _filtered_task(self, name: Any, index: int) -> Task:
        plan, ranges = self._plan, self.operand("rows")
        locations, selected = plan.locations(index, ranges), plan.selected(index, ranges)
        names, stored = (self.columns, self._levels), self.operand("stored")
        condition = self.operand("filters")
        read: Any
        arguments: tuple[Any, ...]
        if condition is not None:
            locations = plan.matching(locations, condition)
            read, arguments = read_matching, (plan.origin, condition, selected, *names, stored)
        elif selected is not None:
            read, arguments = read_selected_rows, (plan.origin, selected, *names, stored)
        else:
            read, arguments = _read, (plan.origin, *names, stored)
        return Task(name, read, locations, *arguments, _data_producer=True)

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        simplified = self._without_values(parent)
        if simplified is None and isinstance(parent, _SELECTIONS):
            simplified = self._with_selection(parent, dependents)
        if simplified is None and isinstance(parent, Sample):
            simplified = self._sampled(parent)
        if simplified is None and isinstance(parent, Filter):
            simplified = self._filtered_read(parent, dependents)
        if simplified is None and isinstance(parent, Projection):
            simplified = self._for_only_consumer(parent, dependents)
        if simplified is not None:
            return simplified
        return super()._simplify_up(parent, dependents)

    def _without_values(self, parent: Any) -> Any:
        """Return an expression of the manifest's numbers instead of a parent, if there is one."""
        if not self._is_exact:
            return None
        if isinstance(parent, Len):
            return Literal(sum(self._lengths) if self._filtered else self._plan.rows)
        if isinstance(parent, Lengths):
            return Literal(self._lengths)
        if isinstance(parent, Index) and self.columns:
            return Index(self.substitute_parameters({"columns": []}))
        return None

    @property
    def _is_exact(self) -> bool:
        """Return whether the manifest alone shows which rows are read."""
        everything = self.operand("rows") is None and self.operand("filters") is None
        return everything and self._plan.origin.on_corrupt != "skip"

    def _sampled(self, parent: Any) -> Any:
        """Return the read of a random sample of rows, or None."""
        if not self._is_exact:
            return None
        states = dict(zip(self._partitions, parent.operand("state_data"), strict=True))
        arguments = (states, parent.operand("frac"), parent.operand("replace"))
        return SampleLake(*self.operands, *arguments)

    def _filtered_read(self, parent: Any, dependents: Any) -> Any:
        """Return a filter of a read that skips rows for which the mask is not true, or None.

        The mask stays, because only pandas decides which rows it selects.
        """
        if parent.frame._name != self._name:
            return None
        condition = self._condition_of(parent, dependents)
        if condition is None:
            return None
        for read in parent.find_operations(ReadLake):
            filtered = read.substitute_parameters({"filters": condition})
            parent = parent.substitute(read, filtered)
        return parent

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        """Return whether Dask must not pass projections down below a filter yet."""
        return self._condition_of(parent, dependents) is not None

    def _condition_of(self, parent: Any, dependents: Any) -> Condition | None:
        """Return the condition of a filter that is the only consumer of this read."""
        if self.operand("filters") is not None:
            return None
        if not super()._filter_passthrough_available(parent, dependents):
            return None
        return condition_of(parent.predicate, self._is_same_read, self.lake_schema)

    def _is_same_read(self, other: Any) -> bool:
        """Return whether an expression reads the same rows, maybe of other tensors."""
        if type(other) is not type(self):
            return False
        reads = (read.substitute_parameters({"columns": []}) for read in (self, other))
        return len({read._name for read in reads}) == 1

    def _for_only_consumer(self, parent: Any, dependents: Any) -> Any:
        """Return what the only consumer of a projection needs of it, or None."""
        consumers = self._consumers(parent, dependents)
        if len(consumers) != 1:
            return None
        if isinstance(consumers[0], _SELECTIONS):
            # Dask passes some projections down below the selection of rows.
            return self._with_rows(parent, self._selected(consumers[0]))
        if isinstance(consumers[0], Index) and self._is_exact:
            # The index of some columns is that of none.
            return self.substitute_parameters({"columns": []})
        return None

    def _with_selection(self, parent: Any, dependents: Any) -> Any:
        """Return a selection of rows that reads only them and the columns that are used, or None."""
        rows = self.operand("rows")
        if rows is None:
            rows = self._selected(parent)
        columns: Any = None
        if isinstance(parent, _LABELS):
            columns = parent.operand("cindexer")
        consumers = self._consumers(parent, dependents)
        if columns is None and consumers and all(isinstance(c, Projection) for c in consumers):
            columns = [name for consumer in consumers for name in consumer.columns]
        return self._with_rows(parent, rows, [columns] if isinstance(columns, str) else columns)

    def _with_rows(self, parent: Any, rows: RowRanges | None, columns: Any = None) -> Any:
        """Return a parent of fewer rows and columns, or None if it would be the same."""
        names = self.columns
        if isinstance(columns, list) and all(isinstance(name, str) for name in columns):
            names = [name for name in names if name in columns]
        if (rows, names) == (self.operand("rows"), self.columns):
            return None
        frame = self.substitute_parameters({"rows": rows, "columns": names})
        return parent.substitute_parameters({"frame": frame})

    def _consumers(self, parent: Any, dependents: Any) -> list[Any]:
        """Return the expressions that use a parent; none if they are not all known yet.

        Dask collects dependents before it simplifies. Those of a new expression are incomplete.
        """
        parents = [ref() for ref in dependents[self._name]]
        if parent._name not in {p._name for p in parents if p is not None}:
            return []
        consumers = [ref() for ref in dependents[parent._name]]
        return list({c._name: c for c in consumers if c is not None}.values())

    def _selected(self, parent: Any) -> RowRanges | None:
        """Return the rows that a parent selects, or None if they are not known."""
        if isinstance(parent, Head | Tail):
            count = parent.operand("n")
            if count < 0 or not self._plan.rows or not self._is_exact:
                return None
            if isinstance(parent, Tail):
                return self._plan.last(self._partitions, count)
            return self._plan.first(self._partitions, count)
        if self._levels:
            return None  # labels are not numbers of samples
        labels = parent.operand("iindexer")
        if isinstance(parent, LocSlice):
            return _rows_of_slice(labels, self._plan.origin.samples)
        labels = labels if isinstance(parent, LocList) else [labels]
        if len(labels) > _MAX_LABELS:
            return None
        try:
            return ranges_of([operator.index(label) for label in labels])
        except TypeError:
            return None


class SampleLake(ReadLake):
    """Read a random sample of the rows of each partition.

    Parameters
    ----------
    plan, columns, rows, _partitions, index : object
        As for :class:`ReadLake`.
    states : dict
        The state of the random generator of each partition.
    frac : float
        Share of the rows.
    replace : bool
        Whether a row may be drawn several times.
    """

    _parameters = [*ReadLake._parameters, "states", "frac", "replace"]  # noqa: RUF012 # the same

    def _filtered_task(self, name: Any, index: int) -> Task:
        plan = self._plan
        numbers = pd.Series(np.asarray(plan.numbers(index), np.int64))
        drawn = methods.sample(numbers, self.states[index], self.frac, self.operand("replace"))
        rows = drawn.to_numpy()
        locations = plan.locations(index, ranges_of(rows))
        names = (rows, self.columns, self._levels, self.operand("stored"))
        return Task(name, read_selected_rows, locations, plan.origin, *names, _data_producer=True)

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        return BlockwiseIO._simplify_up(self, parent, dependents)


def read_lake_expr(
    plan: FramePlan,
    columns: list[str],
    index: tuple[str, ...],
    stored: tuple[str, ...],
    filters: Condition | None = None,
) -> ReadLake:
    """Return the expression of a frame of some tensors, and of those of its index."""
    return ReadLake(plan, columns, index=index, stored=stored, filters=filters)


def _rows_of_slice(labels: slice, rows: int) -> RowRanges | None:
    """Return the rows of a slice of labels, whose stop is included."""
    try:
        start = 0 if labels.start is None else operator.index(labels.start)
        stop = rows if labels.stop is None else operator.index(labels.stop) + 1
    except TypeError:
        return None
    return ((start, stop),)


def _read(
    locations: tuple[ChunkLocation, ...],
    origin: Origin,
    columns: Sequence[str],
    index: Sequence[str],
    stored: Sequence[str],
) -> pd.DataFrame:
    return read_frame(locations, origin=origin, columns=columns, index=index, stored=stored)
