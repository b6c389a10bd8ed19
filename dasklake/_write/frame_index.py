"""The index and the column names of a frame as tensors, or an error with the cure.

The index of a frame is stored unless it only numbers the rows:

==============  ===========================================  =========================================
index           examples                                     stored
==============  ===========================================  =========================================
``SAMPLES``     numbers of the samples of a lake             no, unless the lake has its tensor
``DEFAULT``     ``from_pandas`` of a frame without an index  no, unless the lake has its tensor
``POSITIONAL``  rows of such a frame after a selection       if the schema is inferred, or has its
                                                             tensor
``DATA``        names, or other values                       always; otherwise the write is refused
==============  ===========================================  =========================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._schema.schema import Schema, TensorSpec, describe
from dasklake._write.futures import is_future
from dasklake._write.geometry_columns import to_wkb
from dasklake.exceptions import SchemaError


class Certainty(IntEnum):
    """Degrees to which an index is data."""

    SAMPLES = 0
    DEFAULT = 1
    POSITIONAL = 2
    DATA = 3


class Level(NamedTuple):
    """One level of the index of a frame.

    Attributes
    ----------
    name : str or None
        Its name.
    tensor : str
        Name of its tensor in an inferred schema, as ``reset_index`` of pandas names its column.
    column : pandas.Series
        Its dtype, without values.
    certainty : Certainty
        Whether it is data.
    """

    name: str | None
    tensor: str
    column: pd.Series
    certainty: Certainty

    def stored(self, least: Certainty) -> bool:
        """Return whether an inferred schema has its tensor."""
        return self.name is not None or self.certainty >= least

    @property
    def role(self) -> bool | str:
        """Value of ``TensorSpec.index``."""
        return "unnamed" if self.name is None else True


#: Dask's name of an index without a name in Parquet.
_NULL = "__null_dask_index__"

#: Operations that keep some rows of their inputs, with the index of each row.
_SELECTIONS = frozenset(
    {
        "BlockwiseHead",
        "BlockwiseTail",
        "Concat",
        "DropDuplicates",
        "DropnaFrame",
        "DropnaSeries",
        "Filter",
        "Head",
        "Loc",
        "LocElement",
        "LocList",
        "LocSlice",
        "LocUnknown",
        "Partitions",
        "Query",
        "RearrangeByColumn",
        "Sample",
        "Shuffle",
        "SortValues",
        "StackPartition",
        "Tail",
    }
)

#: Operations that keep all rows.
_SAME_ROWS = frozenset(
    {
        "ClearDivisions",
        "Drop",
        "Projection",
        "Repartition",
        "RepartitionDivisions",
        "RepartitionFreq",
        "RepartitionSize",
        "RepartitionToFewer",
        "RepartitionToMore",
        "SetDivisions",
        "ToFrame",
    }
)


def check_column_names(frame: Any) -> None:
    """Raise an error if the names of columns and of the index are not different strings.

    Raises
    ------
    SchemaError
        A name of ``frame`` is not a string or occurs twice, or its columns have several levels or
        a name.
    """
    columns = frame._meta.columns  # noqa: SLF001 # Dask's documented meta
    if isinstance(columns, pd.MultiIndex):
        raise SchemaError(
            f"Names of columns must have one level, got {columns.nlevels}. Join them, such as with "
            "frame.columns = ['/'.join(map(str, name)) for name in frame.columns]."
        )
    other = [name for name in columns if not isinstance(name, str)]
    if other:
        raise SchemaError(
            f"Names of columns must be strings, got {', '.join(map(repr, other[:4]))}. Use "
            "frame.columns = [str(name) for name in frame.columns]."
        )
    if columns.name is not None:
        raise SchemaError(
            f"The columns have the name {columns.name!r}, which a lake does not store. Remove it with "
            "frame.rename_axis(columns=None)."
        )
    for name in frame._meta.index.names:  # noqa: SLF001 # as above
        if name is not None and not isinstance(name, str):
            raise SchemaError(
                f"The name of the index must be a string, got {name!r}. Use "
                f"frame.rename_axis(index={str(name)!r})."
            )
    names = [*columns, *(n for n in frame._meta.index.names if n is not None)]  # noqa: SLF001 # as above
    same = sorted({name for name in names if names.count(name) > 1})
    if same:
        raise SchemaError(
            f"Names of columns and of the index must differ, got {', '.join(map(repr, same))} twice. "
            "Rename or drop one of them."
        )


def levels_of(frame: Any) -> tuple[Level, ...]:
    """Return the levels of the index of a frame, whose column names are checked."""
    index = frame._meta.index  # noqa: SLF001 # Dask's documented meta
    taken = {*frame.columns, *(name for name in index.names if name is not None)}
    levels = []
    for number, label in enumerate(index.names):
        name = None if label == _NULL else label
        certainty = Certainty.DATA
        if index.nlevels == 1 and name is None and index.dtype == np.int64:
            certainty = _certainty(frame.expr)
        single = index.nlevels == 1
        tensor = _free_name(number, taken, single=single) if name is None else name
        taken.add(tensor)
        column = pd.Series(index.get_level_values(number))
        levels.append(Level(name, tensor, column, certainty))
    return tuple(levels)


def _free_name(number: int, taken: Collection[str], *, single: bool) -> str:
    """Return the name that ``reset_index`` gives the column of a level without a name."""
    if single and "index" not in taken:
        return "index"
    while f"level_{number}" in taken:
        number += 1
    return f"level_{number}"


def place_levels(
    levels: Iterable[Level],
    columns: Collection[str],
    schema: Schema,
    specs: Mapping[str, TensorSpec | None],
    *,
    transformed: bool,
) -> tuple[str, ...]:
    """Return the tensor of each level; an empty name for a level that is not written.

    Parameters
    ----------
    levels : iterable of Level
        The levels of the index.
    columns : collection of str
        Names of the columns.
    schema : Schema
        The tensors to write.
    specs : mapping of str to (TensorSpec or None)
        For the tensor of each level, the spec of its values; None if the metadata do not
        determine it.
    transformed : bool
        Whether a function makes the samples from the rows.

    Raises
    ------
    SchemaError
        ``schema`` does not have the tensor of a level that is data, or the frame does not have an
        index of ``schema``.
    """
    roles = [name for name, spec in schema.items() if spec.index]
    unnamed = [name for name in roles if schema[name].index == "unnamed"]
    placed = []
    for level in levels:
        tensor = unnamed.pop(0) if level.name is None and unnamed else level.tensor
        own = specs[level.tensor]
        if tensor in schema and (transformed or _fits(own, schema[tensor])):
            placed.append("" if tensor in columns else tensor)
            continue
        if transformed:
            placed.append(level.name or "")
            continue
        if level.certainty is Certainty.DATA:
            raise SchemaError(_missing_tensor(level, tensor, own, schema))
        placed.append("")
    missing = [n for n in roles if not ({n} & {*placed, *columns} or schema[n].optional)]
    if missing and not transformed:
        raise SchemaError(
            f"The lake has the index {missing[0]!r} ({describe(schema[missing[0]])}), which the frame "
            f"does not have. Set the index with frame.set_index(...), or add a column {missing[0]!r}."
        )
    return () if transformed and not any(placed) else tuple(placed)


def _missing_tensor(level: Level, tensor: str, own: TensorSpec | None, schema: Schema) -> str:
    """Return the message for a level whose values would be lost."""
    name = "an index" if level.name is None else f"the index {level.name!r}"
    if tensor in schema:
        problem = f"which does not fit the tensor {tensor!r} ({describe(schema[tensor])})"
        cure = ""
    else:
        problem = "which is not in the schema"
        role = f"index={level.role!r}"
        # Most indexes of objects hold strings.
        code = f"{describe(own or TensorSpec('text'))[:-1]}, {role})"
        cure = f" To keep it, add {level.tensor!r}: dasklake.{code} to the schema."
    return (
        f"The frame has {name} of dtype {level.column.dtype}, {problem}.{cure} To drop it, write "
        "frame.reset_index(drop=True)."
    )


def _fits(own: TensorSpec | None, spec: TensorSpec) -> bool:
    """Return whether a tensor may hold the values of a level."""
    return own is None or _family(own) == _family(spec)


def _family(spec: TensorSpec) -> str:
    arrow = spec.arrow_type
    if spec.kind.name in ("class_label", "text"):
        return "text"
    if arrow is None:
        kind = "" if spec.numpy_dtype is None else spec.numpy_dtype.kind
        return "number" if kind in "iuf" else kind
    if pa.types.is_integer(arrow) or pa.types.is_floating(arrow):
        return "number"
    if pa.types.is_timestamp(arrow):
        return "M" if arrow.tz is None else "zoned"
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "text"
    return str(arrow)


def _certainty(expr: Any) -> Certainty:
    """Return whether an index of integers without a name is data."""
    results: dict[str, Certainty] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        sources = [source for source in node.dependencies() if _index_of(source) is not None]
        pending = [source for source in sources if source._name not in results]  # noqa: SLF001 # Dask's identity of expressions
        if pending:
            stack += pending
            continue
        stack.pop()
        before = [results[source._name] for source in sources]  # noqa: SLF001 # the same
        results[node._name] = _after(node, max(before, default=None))  # noqa: SLF001 # the same
    return results[expr._name]  # noqa: SLF001 # the same


def _index_of(node: Any) -> pd.Index | None:
    """Return the index of the result of an operation, without values; None if it is not a frame."""
    try:
        meta = node._meta  # noqa: SLF001 # Dask's documented meta
    except Exception:  # noqa: BLE001 # operations on other collections do not have any
        return None
    return meta if isinstance(meta, pd.Index) else getattr(meta, "index", None)


def _after(node: Any, before: Certainty | None) -> Certainty:
    """Return the certainty after one operation on frames."""
    kind = type(node).__name__
    numbered = isinstance(_index_of(node), pd.RangeIndex)
    if before is None:
        return _of_source(node, kind, numbered=numbered)
    if kind == "ResetIndex" or (kind == "Merge" and not _joins_index(node)):
        return Certainty.DEFAULT
    has_same_rows = kind in _SAME_ROWS or (kind == "MapPartitions" and node.func is to_wkb)
    if has_same_rows or (numbered and (_is_elementwise(node) or not before)):
        return before
    if kind in _SELECTIONS:
        return max(before, Certainty.POSITIONAL) if before else before
    return max(before, Certainty.POSITIONAL if numbered else Certainty.DATA)


def _joins_index(node: Any) -> bool:
    return bool(node.operand("left_index") or node.operand("right_index"))


def _is_elementwise(node: Any) -> bool:
    return any(base.__name__ == "Elemwise" for base in type(node).__mro__)


def _of_source(node: Any, kind: str, *, numbered: bool) -> Certainty:
    """Return the certainty of the index of a frame that is read or given."""
    if kind in ("FromPandas", "FromPandasDivisions"):
        frame: Any = node.operand("frame")
        return _of_indexes([frame._data.index], Certainty.DATA)  # noqa: SLF001 # the frame as the user gave it
    if kind == "FromGraph":
        parts = [getattr(task, "value", task) for task in dict(node.operand("layer")).values()]
        indexes = [part.index for part in parts if isinstance(part, pd.DataFrame | pd.Series)]
        if indexes or any(map(is_future, parts)):
            other = Certainty.POSITIONAL if numbered else Certainty.DATA
            return _of_indexes(indexes, other) if len(indexes) == len(parts) else other
    if kind.startswith("ReadParquet") and _has_dask_index(node):
        return Certainty.POSITIONAL
    if kind == "ReadLake" and numbered:
        return Certainty.SAMPLES
    return Certainty.DEFAULT if numbered else Certainty.DATA


def _has_dask_index(node: Any) -> bool:
    """Return whether Dask wrote the index of files of Parquet, which it always does."""
    stored = getattr(node, "_dataset_info", None)
    names = stored.get("index") if isinstance(stored, Mapping) else None
    return _NULL in (names or ()) or _NULL in frozenset(getattr(_index_of(node), "names", ()))


def _of_indexes(indexes: list[pd.Index], other: Certainty) -> Certainty:
    """Return DEFAULT if the indexes only number the rows, together or each of them."""
    if all(isinstance(i, pd.RangeIndex) and (i.start, i.step) == (0, 1) for i in indexes):
        return Certainty.DEFAULT
    if not all(isinstance(index, pd.Index) and index.dtype == np.int64 for index in indexes):
        return other
    if all((index == np.arange(len(index))).all() for index in indexes):
        return Certainty.DEFAULT
    joined = np.concatenate([index.to_numpy() for index in indexes])
    return Certainty.DEFAULT if (joined == np.arange(len(joined))).all() else other
