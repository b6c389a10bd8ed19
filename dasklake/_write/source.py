"""A collection as the input of a write."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import pandas as pd

from dasklake._dask import GraphNode
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._write.column_specs import check_names, check_orders, column_spec
from dasklake._write.frame_index import Level, place_levels
from dasklake._write.input_id import digest
from dasklake.exceptions import SchemaError

Key = Any


@dataclass(frozen=True)
class Source:
    """The input of a write.

    Attributes
    ----------
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    graph : dict
        The optimised graph.
    parts : list of tuple of key
        For each partition, its key in each collection.
    names : tuple of str
        Names of the columns or arrays.
    lengths : tuple of int or None
        Number of input samples in each partition, if known in advance.
    schema : Schema or None
        Schema inferred from the metadata of the collection.
    roots : callable
        Returns the sources of the input, from which its id is computed.
    futures : dict of key to Future
        The futures that the collection holds. The graph refers to their keys without a task, and
        the cluster keeps their results while they are referenced here.
    levels : tuple of Level
        The levels of the index of a frame.
    index : tuple of str
        For each level, the tensor that it is written to, or an empty name.
    categories : mapping of str to pandas.CategoricalDtype
        The ordered categories of a frame's columns.
    collections : tuple
        The collections of the partitions as Dask knows them, before they are optimised. Other
        collections of a lazy write's computation share their tasks. Empty if they cannot.
    """

    kind: str
    graph: dict[Key, GraphNode]
    parts: list[tuple[Key, ...]]
    names: tuple[str, ...]
    lengths: tuple[int, ...] | None
    schema: Schema | None
    roots: Callable[[], Sequence[Any]]
    futures: Mapping[Key, Any] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()
    index: tuple[str, ...] = ()
    lake_columns: frozenset[str] = frozenset()
    categories: Mapping[str, pd.CategoricalDtype] = field(default_factory=dict)
    collections: tuple[Any, ...] = ()

    def with_schema(self, schema: Schema, *, transformed: bool) -> Source:
        """Return the source with the tensors of its index, if it is a frame.

        Parameters
        ----------
        schema : Schema
            The tensors to write.
        transformed : bool
            Whether a function makes the samples from the rows.

        Raises
        ------
        SchemaError
            Values of the index, or the order of categories, would be lost; or the columns are not
            the tensors.
        """
        if self.kind != "dataframe":
            return self
        if not transformed:
            check_orders(self.categories, schema)
        specs = {level.tensor: spec_or_none(level.column) for level in self.levels}
        index = place_levels(self.levels, self.names, schema, specs, transformed=transformed)
        if not transformed:
            check_names([*self.names, *filter(None, index)], schema)
        return replace(self, index=index)

    @property
    def external_keys(self) -> set[Key]:
        """Keys that the graph needs and does not compute: results of futures on a cluster."""
        needs = {key for part in self.parts for key in part}
        needs.update(*(node.dependencies for node in self.graph.values()))
        return needs - self.graph.keys()

    @property
    def inputs(self) -> int | None:
        """Number of input samples, if known."""
        return None if self.lengths is None else sum(self.lengths)

    @property
    def starts(self) -> list[int] | None:
        """Index of each partition's first sample, if known."""
        return None if self.lengths is None else list(accumulate((0, *self.lengths[:-1])))

    @cached_property
    def input_id(self) -> str | None:
        """Digest of the sources of the input; None if it is not deterministic."""
        try:
            return digest(self.roots())
        except Exception:  # noqa: BLE001 # pickling hooks of any class may run
            warnings.warn(
                "The input has no deterministic identity, so a resume can only compare the number "
                "of partitions. Pass input_id=... to identify the input.",
                stacklevel=2,
            )
            return None


def spec_or_none(column: Any) -> TensorSpec | None:
    try:
        return column_spec(column)
    except SchemaError:
        return None
