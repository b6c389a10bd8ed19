"""Find the schema of collections that were read from a lake and not changed since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from dasklake._dask import Alias, GraphNode, Task
from dasklake._schema.lake_tensors import LAKE_COLUMNS, LakeDtype, LakeTensors, columns_of_text
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import SchemaError

__all__ = [
    "LakeColumn",
    "LakeFrame",
    "copied_columns",
    "lake_frame",
    "refuse_moved_links",
    "schema_of_bag",
]

#: Functions of a bag's tasks that select or regroup items, and do not change them.
_SELECTING = {
    *("reify", "filter", "remove", "random_sample", "list", "concat", "split", "getitem"),
    *("take", "safe_take", "_identity_cast"),
}


def schema_of_bag(graph: Mapping[Any, GraphNode], keys: Sequence[Any]) -> Schema | None:
    """Return the schema of the lake whose samples a bag holds, or None if it may hold other items.

    Parameters
    ----------
    graph : mapping
        The graph of the bag.
    keys : sequence of key
        Its partitions.
    """
    schema: Schema | None = None
    stack, visited = list(keys), set(keys)
    while stack:
        node = graph.get(stack.pop())
        tensors = None if node is None else next(_tensors(node), None)
        if tensors is not None:
            if schema is not None and schema != tensors.schema:
                return None
            schema = tensors.schema
        elif node is None or not node.dependencies or not _selects(node):
            return None
        else:
            new = [key for key in node.dependencies if key not in visited]
            visited.update(new)
            stack += new
    return schema


def _tensors(node: Any) -> Iterator[LakeTensors]:
    """Yield the tensors that a task itself reads."""
    for argument in getattr(node, "args", ()):
        if isinstance(argument, LakeTensors):
            yield argument
        elif isinstance(argument, Task):
            yield from _tensors(argument)


def _selects(node: Any) -> bool:
    """Return whether a task, with the tasks in its arguments, only selects items."""
    if isinstance(node, Alias):
        return True
    if not isinstance(node, Task) or getattr(node.func, "__name__", None) not in _SELECTING:
        return False
    return all(_selects(arg) for arg in node.args if isinstance(arg, Task))


#: Operations of frames that select rows regardless of the values of other columns than those
#: that their other operands name.
_SELECTING_ROWS = {
    *("Drop", "DropnaFrame", "Filter", "Head", "Partitions", "Projection", "ResetIndex", "Sample"),
    *("BlockwiseHead", "BlockwiseTail", "ClearDivisions", "SetDivisions", "Tail", "ToFrame"),
    *("Repartition", "RepartitionDivisions", "RepartitionToFewer", "RepartitionToMore"),
    *("Loc", "LocElement", "LocList", "LocSlice", "LocUnknown"),
}


#: Operations through which cells may be stored values.
_KEEPING_CELLS = {*_SELECTING_ROWS, "Assign", "RenameFrame"}

#: Operations that keep the cells of other columns, but depend on values or move rows.
_MOVING_ROWS = {
    *("DropDuplicates", "Fillna", "Query", "RearrangeByColumn", "SetIndex", "SetIndexBlockwise"),
    *("Shuffle", "SortValues"),
}


class LakeColumn(NamedTuple):
    """A column that comes from a lake and was not changed since.

    Attributes
    ----------
    tensor : str
        Its tensor.
    spec : TensorSpec
        Description of the tensor in the lake.
    """

    tensor: str
    spec: TensorSpec


class LakeFrame(NamedTuple):
    """A frame whose rows were selected from a lake.

    Attributes
    ----------
    columns : dict of str to LakeColumn
        Its columns that come from the lake.
    with_stored : callable
        Returns the expression of the same frame in which more columns hold stored values.
        The conditions of filters still see the values of pandas: only the read at the beginning of the
        chain of selections is replaced.
    moved : bool
        Whether an operation moved rows between partitions or depends on values, so that the cells must
        have the types of pandas.
    """

    columns: dict[str, LakeColumn]
    with_stored: Callable[[Collection[str]], Any]
    moved: bool = False


def lake_frame(expr: Any) -> LakeFrame | None:
    """Return the columns of a frame that come from a lake, or None if they are not known."""
    schema: Schema | None = getattr(expr, "lake_schema", None)
    if schema is not None:
        columns = {name: LakeColumn(name, schema[name]) for name in expr.columns}
        return LakeFrame(columns, expr.with_stored)
    kind = type(expr).__name__
    if kind in ("FromGraph", "FromDelayed"):
        return _described(expr)
    if kind in ("Concat", "Merge"):
        return _joined(expr, kind)
    if kind not in {*_KEEPING_CELLS, *_MOVING_ROWS, "AsType", "MapPartitions"}:
        return None
    source = lake_frame(expr.frame)
    if source is None:
        return None
    columns = _columns_after(expr, kind, source.columns)

    def with_stored(tensors: Collection[str]) -> Any:
        return expr.substitute_parameters({"frame": source.with_stored(tensors)})

    return LakeFrame(columns, with_stored, source.moved or kind not in _KEEPING_CELLS)


def _columns_after(expr: Any, kind: str, columns: dict[str, LakeColumn]) -> dict[str, LakeColumn]:
    """Return the columns after one operation, by their new names."""
    if kind == "Assign":
        columns = {name: c for name, c in columns.items() if name not in expr.operands[1::2]}
    elif kind == "RenameFrame":
        names = expr.operand("columns")
        if not isinstance(names, Mapping):
            return {}
        columns = {names.get(name, name): column for name, column in columns.items()}
    elif kind == "MapPartitions":
        # The values may be others, but they have the same form.
        columns = {n: c for n, c in columns.items() if _same_dtype(expr, n)}
    elif kind == "AsType":
        dtypes = expr.operand("dtypes")
        changed = dtypes if isinstance(dtypes, Mapping) else columns
        columns = {name: column for name, column in columns.items() if name not in changed}
    elif kind == "ToFrame":
        columns = dict(zip(expr.columns, columns.values(), strict=True))
    return {name: column for name, column in columns.items() if name in set(expr.columns)}


def _described(expr: Any) -> LakeFrame | None:
    """Return the columns of a frame that only its metadata describe, such as a persisted one."""
    meta = expr._meta  # noqa: SLF001 # Dask's documented meta
    text = getattr(meta, "attrs", {}).get(LAKE_COLUMNS)
    if not isinstance(text, str) or not isinstance(meta, pd.DataFrame):
        return None
    specs = columns_of_text(text, meta.dtypes)
    columns = {name: LakeColumn(name, spec) for name, spec in specs.items()}
    return LakeFrame(columns, lambda _: expr, moved=True)


def _same_dtype(expr: Any, name: str) -> bool:
    metas = [frame._meta for frame in (expr, expr.frame)]  # noqa: SLF001 # Dask's documented meta
    frames = all(isinstance(meta, pd.DataFrame) and name in meta for meta in metas)
    return frames and bool(metas[0][name].dtype == metas[1][name].dtype)


def _joined(expr: Any, kind: str) -> LakeFrame | None:
    """Return the columns of joined frames that come from lakes."""
    frames = [lake_frame(source) for source in expr.dependencies()]
    columns: dict[str, LakeColumn] = {}
    for name in expr.columns:
        sides = [frame.columns.get(name) if frame is not None else None for frame in frames]
        specs = [side.spec for side in sides if side is not None]
        same = len(specs) == len(sides) and len(set(specs)) == 1
        if same or (kind == "Merge" and len(specs) == 1 and _is_of_one(expr, name)):
            columns[name] = LakeColumn(name, specs[0])
    return LakeFrame(columns, lambda _: expr, moved=True) if columns else None


def _is_of_one(expr: Any, name: str) -> bool:
    return sum(name in source.columns for source in expr.dependencies()) == 1


def copied_columns(columns: Mapping[str, LakeColumn], schema: Schema | None) -> list[str]:
    """Return the columns whose stored values are of the kind of the schema that the user gave."""
    return [
        name
        for name, column in columns.items()
        if schema is None or (name in schema and _same_kind(column.spec, schema[name]))
    ]


def refuse_moved_links(lake: LakeFrame, dtypes: Mapping[str, Any]) -> None:
    """Raise an error if the cells of links are only their URLs.

    Parameters
    ----------
    lake : LakeFrame
        The columns that come from a lake.
    dtypes : mapping of str to dtype
        The dtypes of the frame.

    Raises
    ------
    SchemaError
        A column of ``lake`` holds links, and its rows were moved.
    """
    links = [
        name
        for name, column in lake.columns.items()
        if "link[" in column.spec.htype and not isinstance(dtypes[name], LakeDtype)
    ]
    if lake.moved and links:
        raise SchemaError(
            f"The columns {', '.join(map(repr, links))} hold links, and after this operation the frame "
            "has their URLs only, without credentials keys. Use lake.copy_to(url, rows=...) or "
            "lake.to_dask_bag(), or give a schema to write the URLs."
        )


def _same_kind(source: TensorSpec, target: TensorSpec) -> bool:
    one, other = (
        (spec.kind.codec, spec.linked, spec.sequence, spec.arrow is None, spec.encoded)
        for spec in (source, target)
    )
    return one == other
