"""Build Dask collections of a version on the client, without reading samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import dask.array as da
import dask.bag as db
import dask.dataframe as dd
from dask.base import tokenize
from dask.delayed import Delayed, delayed
from dask.highlevelgraph import HighLevelGraph

from dasklake._codecs.sample import Sample
from dasklake._dask import new_collection
from dasklake._links.limits import LinkLimits
from dasklake._read.dask_hooks import register_types
from dasklake._read.filters import Condition
from dasklake._read.frame_expr import read_lake_expr
from dasklake._read.frame_plan import FramePlan
from dasklake._read.lake_array import lake_array
from dasklake._read.linked_values import Problem, check_rows
from dasklake._read.origin import Origin
from dasklake._read.partition import (
    read_rows,
)
from dasklake._read.plan import ChunkLocation
from dasklake._read.row_groups import RowGroup
from dasklake._read.rows import Rows, pack_rows
from dasklake._read.selection import Selected, read_selected
from dasklake._read.tensor_columns import names_of_stored
from dasklake._schema.lake_tensors import LakeTensors, schema_of_some
from dasklake._schema.schema import Schema

register_types()

_Groups = Sequence[tuple[ChunkLocation, ...]]


class _Locations:
    """The chunks of one partition, as one value that Dask does not traverse."""

    def __init__(self, locations: tuple[ChunkLocation, ...]) -> None:
        self.locations = locations

    def __dask_tokenize__(self) -> Any:
        return ("dasklake-locations", [tuple(location) for location in self.locations])


class _Names:
    """Names of tensors, as one value: a plain string could be the key of a task."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)


class _Tensors(_Names, LakeTensors):
    """Tensors whose samples a task returns."""

    def __init__(self, names: Sequence[str], origin: Origin) -> None:
        super().__init__(names)
        self._origin = origin

    @property
    def schema(self) -> Schema:
        """Return the description of the tensors, which tasks do not carry."""
        return schema_of_some({name: self._origin.schema[name] for name in self.names})


class _Samples(Sequence[Sample]):
    """The samples of a partition, decoded one at a time while they are iterated.

    A list would hold every decoded sample at once, and an iterator would have no length and could
    be consumed only once.
    """

    def __init__(self, part: _Locations, origin: Origin, names: _Names) -> None:
        self._locations = part.locations
        self._origin = origin
        self._names = names.names

    def __len__(self) -> int:
        if self._origin.on_corrupt == "skip":
            return sum(1 for _ in self)
        return sum(len(location.span) for location in self._locations)

    def __iter__(self) -> Iterator[Sample]:
        return read_rows(self._origin, self._locations, self._names)

    def __getitem__(self, item: Any) -> Any:
        rows = range(len(self))[item]
        if isinstance(rows, range):
            return [self[row] for row in rows]
        return next(islice(self, rows, None))


def to_bag(origin: Origin, groups: _Groups, names: Sequence[str]) -> db.Bag:
    """Return a bag of samples, one partition per group."""
    parts = [_Locations(group) for group in groups or [()]]
    name = f"read-lake-{_token(origin, groups, names)}"
    graph: dict[Any, Any] = {
        # Dask omits the call of list if another task of the same chain consumes the samples.
        (name, i): (list, (_Samples, part, origin, _Tensors(names, origin)))
        for i, part in enumerate(parts)
    }
    return db.Bag(HighLevelGraph.from_collections(name, graph), name, len(parts))


class _Selection:
    """The samples of one partition, as one value that Dask does not traverse."""

    def __init__(self, parts: tuple[Selected, ...]) -> None:
        self.parts = parts


def to_bag_of_selected(
    origin: Origin, groups: Sequence[tuple[Selected, ...]], names: Sequence[str], token: str
) -> db.Bag:
    """Return a bag of selected samples, one partition per group. ``token`` identifies them."""
    parts = [_Selection(group) for group in groups or [()]]
    name = f"select-lake-{token}"
    graph: dict[Any, Any] = {
        (name, i): (_selected, part, origin, _Tensors(names, origin))
        for i, part in enumerate(parts)
    }
    return db.Bag(HighLevelGraph.from_collections(name, graph), name, len(parts))


def to_bag_of_rows(
    origin: Origin, groups: Sequence[tuple[Selected, ...]], names: Sequence[str], rows: Rows
) -> db.Bag:
    """Return a bag of the samples of a view, one partition per group."""
    parts = [_Selection(group) for group in groups or [()]]
    name = f"read-lake-{tokenize(origin, len(parts), list(names), tuple(pack_rows(rows)))}"
    graph: dict[Any, Any] = {
        # Dask omits the call of list if another task of the same chain consumes the samples.
        (name, i): (list, (_selected, part, origin, _Tensors(names, origin)))
        for i, part in enumerate(parts)
    }
    return db.Bag(HighLevelGraph.from_collections(name, graph), name, len(parts))


def _selected(part: _Selection, origin: Origin, tensors: _Tensors) -> Iterator[Sample]:
    return read_selected(origin, part.parts, tensors.names)


def to_dataframe(
    plan: FramePlan,
    columns: Sequence[str],
    index: tuple[str, ...] = (),
    filters: Condition | None = None,
    *,
    arrow: bool = False,
) -> dd.DataFrame:
    """Return a frame of some tensors, indexed by other ones or by the row number.

    With ``arrow``, all columns have types of pandas and Arrow.
    """
    names = list(dict.fromkeys(columns))
    stored = () if arrow else names_of_stored(plan.origin.schema, names)
    frame: dd.DataFrame = new_collection(read_lake_expr(plan, names, index, stored, filters))
    return frame if len(names) == len(columns) else frame[list(columns)]


def to_array(origin: Origin, groups: Sequence[RowGroup], name: str, rows: Rows) -> da.Array:
    """Return a tensor of fixed shape as an array, one block per group."""
    lengths = tuple(len(group) for group in groups)
    return lake_array(origin, groups, name, tokenize(origin, lengths, tuple(pack_rows(rows))))


def _token(origin: Origin, groups: _Groups, *more: Any) -> str:
    return str(tokenize(origin, [_shape(group) for group in groups], *more))


def _shape(group: tuple[ChunkLocation, ...]) -> tuple[int, int, int]:
    """Return what distinguishes a group from others of the same version."""
    return (len(group), group[0].span[0], group[-1].span[-1]) if group else (0, 0, 0)


def to_link_problems(
    origin: Origin,
    groups: _Groups,
    names: Sequence[str],
    *,
    decode: bool,
    limits: LinkLimits | None = None,
) -> Delayed:
    """Return the problems of the links of some tensors, a list per partition."""

    def check(locations: _Locations) -> list[Problem]:
        specs = {name: origin.schema[name] for name in names}
        first = locations.locations[0].span[0]
        samples = read_rows(origin, locations.locations, names)
        return check_rows(samples, first, specs, decode=decode, limits=limits)

    # Many small results are returned as one value.
    tasks = [delayed(check, pure=False)(_Locations(group)) for group in groups]
    together: Delayed = delayed(list, pure=False)(tasks)
    return together
