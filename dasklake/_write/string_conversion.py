"""Columns that Dask has turned into strings without a word, although they held something else.

What may be damaged is followed from the sources of a frame through its expression, by name where
the operation is known to keep or to change names in a plain way. After any other operation each
column of strings may be made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import pandas as pd

from dasklake._schema.schema import Schema
from dasklake.exceptions import InvalidInputError

__all__ = ["raise_if_converted"]

#: Name under which a damaged index that has no name is known.
_INDEX = "the index"

#: Operations whose result has some of the rows, columns and names of their first operand.
_KEEP = {
    "BlockwiseHead",
    "BlockwiseTail",
    "ClearDivisions",
    "Drop",
    "DropnaFrame",
    "DropnaSeries",
    "Filter",
    "Head",
    "Partitions",
    "Projection",
    "Repartition",
    "RepartitionToFewer",
    "RepartitionToMore",
    "Sample",
    "SetDivisions",
    "Tail",
}

#: How a repr begins, which no plain text does that people keep in a column.
_LIKE_REPR = ("[", "(", "{", "<", "array(")


def raise_if_converted(frame: Any, schema: Schema | None) -> None:
    """Refuse a frame whose columns of arrays have become strings.

    Parameters
    ----------
    frame : dask DataFrame
        The input.
    schema : Schema or None
        What the user wants written; a column declared as text is meant to be strings.

    Raises
    ------
    InvalidInputError
        The values of a column that would be written are lost, or may be.
    """
    damaged = _damaged(frame.expr)
    if frame._meta.index.name is None:  # noqa: SLF001 # Dask's documented meta
        damaged.discard(_INDEX)  # it is not written
    meant = {
        n for n, spec in (schema or {}).items() if spec.numpy_dtype is None and not spec.linked
    }
    found = sorted({str(name) for name in damaged} - meant)
    if found:
        raise InvalidInputError(
            f"Dask has turned the object columns {', '.join(map(repr, found))} into strings, so "
            "their values are lost, or may be. Build the frame under "
            "dask.config.set({'dataframe.convert-string': False}), or declare them as text in "
            "the schema if strings are meant."
        )


def _damaged(expr: Any) -> set[Any]:
    """Return the names of what may be damaged in the result of an expression."""
    known: dict[str, set[Any]] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        waiting = [each for each in node.dependencies() if each._name not in known]  # noqa: SLF001 # as Dask tells expressions apart
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if node._name not in known:  # noqa: SLF001 # the same
            known[node._name] = _after(node, known)  # noqa: SLF001 # the same
    return known[expr._name]  # noqa: SLF001 # the same


def _after(node: Any, known: Mapping[str, set[Any]]) -> set[Any]:
    kind = type(node).__name__
    needs = [known[each._name] for each in node.dependencies()]  # noqa: SLF001 # as above
    if kind in ("FromPandas", "FromPandasDivisions"):
        return _of_pandas(node) if node.pyarrow_strings_enabled else set()
    if kind == "FromGraph":
        return _of_graph(node)
    if kind == "ArrowStringConversion":
        return needs[0] | _objects(node.frame._meta)  # noqa: SLF001 # Dask's documented meta
    if not any(needs):
        return set()
    first = known[node.frame._name] if "frame" in node._parameters else set()  # noqa: SLF001 # as above
    text = _texts(node._meta)  # noqa: SLF001 # Dask's documented meta
    if kind in _KEEP:
        return first & text
    if kind == "RenameFrame" and isinstance(node.operand("columns"), Mapping):
        names = node.operand("columns")
        return {names.get(name, name) for name in first} & text
    if kind == "Assign":
        pairs = zip(node.operands[1::2], node.operands[2::2], strict=True)
        for name, value in pairs:
            bad = known.get(getattr(value, "_name", None) or "")
            first = first | {name} if bad else first - {name}
        return first & text
    return text


def _columns(meta: Any) -> list[tuple[Any, Any]]:
    """Return names and columns of a frame or a series, and of its index."""
    if isinstance(meta, pd.Index):
        return [(meta.name, meta)]
    if not isinstance(meta, pd.DataFrame | pd.Series):
        return []
    index = [(_INDEX if meta.index.name is None else meta.index.name, meta.index)]
    if isinstance(meta, pd.Series):
        return [*index, (meta.name, meta)]
    return [*index, *((name, meta.iloc[:, i]) for i, name in enumerate(meta.columns))]


def _objects(meta: Any) -> set[Any]:
    return {name for name, column in _columns(meta) if column.dtype == np.dtype(object)}


def _texts(meta: Any) -> set[Any]:
    """Return the names of columns that may hold what is left of a damaged one."""
    kinds = (pd.StringDtype, pd.CategoricalDtype, pd.ArrowDtype)
    return {
        name
        for name, column in _columns(meta)
        if isinstance(column.dtype, kinds) or column.dtype == np.dtype(object)
    }


def _of_pandas(node: Any) -> set[Any]:
    """Return the object columns of a pandas frame that hold other things than strings."""
    frame = node.operand("frame")._data  # noqa: SLF001 # the frame as the user gave it
    chosen = node.operand("columns")
    wanted = None if chosen is None else set(chosen if isinstance(chosen, list) else [chosen])
    return {
        name
        for name, column in _columns(frame)
        if column.dtype == np.dtype(object)
        and (wanted is None or name in wanted or column is frame.index)
        and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty")
    }


def _of_graph(node: Any) -> set[Any]:
    """Return the strings of a persisted frame that look as if they had been something else."""
    if dask.config.get("dataframe.convert-string", default=None) is False:
        return set()
    meta = node._meta  # noqa: SLF001 # Dask's documented meta
    names = {
        name
        for name, column in _columns(meta)
        if isinstance(column.dtype, pd.StringDtype) and column.dtype.na_value is pd.NA
    }
    parts = [getattr(each, "value", each) for each in dict(node.operand("layer")).values()]
    if not all(isinstance(part, pd.DataFrame | pd.Series | pd.Index) for part in parts):
        return names  # on a cluster: nobody can look
    return {
        name
        for part in parts
        for name, column in _columns(part)
        if name in names and any(str(v).startswith(_LIKE_REPR) for v in column.dropna())
    }
