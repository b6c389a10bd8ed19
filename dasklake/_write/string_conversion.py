"""Detect columns of other objects that Dask has silently converted to strings.

Converted columns are traced from the sources of a frame through its expression. They are traced by
name through operations that are known to keep or rename columns. After any other operation, each
column of strings may be derived from a converted one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
import numpy as np
import pandas as pd

from dasklake._schema.lake_tensors import LAKE_COLUMNS
from dasklake._schema.schema import Schema
from dasklake._write.known_values import KEEPING
from dasklake.exceptions import InvalidInputError

#: Name that stands for a converted index without a name.
_INDEX = "the index"

#: Beginnings of the repr of objects, which are unusual in text.
_LIKE_REPR = ("[", "(", "{", "<", "array(")


def raise_if_converted(frame: Any, schema: Schema | None, *, index: bool = True) -> None:
    """Raise an error if columns of a frame lost their values by conversion to strings.

    Parameters
    ----------
    frame : dask DataFrame
        The input.
    schema : Schema or None
        The schema that the user gave; strings are intended in a column that it declares as text.
    index : bool, default True
        Whether an index without a name may be written.

    Raises
    ------
    InvalidInputError
        A column of ``frame`` that would be written was converted, or may have been.
    """
    converted = _converted(frame.expr)
    text = {n for n, spec in (schema or {}).items() if spec.numpy_dtype is None and not spec.linked}
    if not index or any(schema and schema[name].index == "unnamed" for name in text):
        converted.discard(_INDEX)
    names = sorted({str(name) for name in converted} - text)
    if names:
        raise InvalidInputError(
            f"Dask converted the object columns {', '.join(map(repr, names))} to strings, so their "
            "values may be lost. Build the frame under "
            "dask.config.set({'dataframe.convert-string': False}). If strings are intended, "
            "declare the columns as text in the schema."
        )


def _converted(expr: Any) -> set[Any]:
    """Return the names of columns that may be converted in the result of an expression."""
    results: dict[str, set[Any]] = {}
    stack = [expr]
    while stack:
        node = stack[-1]
        pending = [source for source in node.dependencies() if source._name not in results]  # noqa: SLF001 # Dask's identity of expressions
        if pending:
            stack += pending
            continue
        stack.pop()
        if node._name not in results:  # noqa: SLF001 # the same
            results[node._name] = _after(node, results)  # noqa: SLF001 # the same
    return results[expr._name]  # noqa: SLF001 # the same


def _after(node: Any, results: Mapping[str, set[Any]]) -> set[Any]:
    """Return the names of converted columns after one operation."""
    kind = type(node).__name__
    sources = [results[source._name] for source in node.dependencies()]  # noqa: SLF001 # as above
    if kind in ("FromPandas", "FromPandasDivisions"):
        return _of_pandas(node) if node.pyarrow_strings_enabled else set()
    if kind == "FromGraph":
        return _of_graph(node)
    if kind == "ArrowStringConversion":
        return sources[0] | _objects(node.frame._meta)  # noqa: SLF001 # Dask's documented meta
    if not any(sources):
        return set()
    first = results[node.frame._name] if "frame" in node._parameters else set()  # noqa: SLF001 # as above
    text = _texts(node._meta)  # noqa: SLF001 # Dask's documented meta
    if kind in KEEPING:
        return first & text
    if kind == "RenameFrame" and isinstance(node.operand("columns"), Mapping):
        names = node.operand("columns")
        return {names.get(name, name) for name in first} & text
    if kind == "Assign":
        pairs = zip(node.operands[1::2], node.operands[2::2], strict=True)
        for name, value in pairs:
            lost = results.get(getattr(value, "_name", None) or "")
            first = first | {name} if lost else first - {name}
        return first & text
    return text


def _columns(meta: Any) -> list[tuple[Any, Any]]:
    """Return the names and columns of a frame or a series, including the index."""
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
    """Return the names of columns that may be derived from a converted one."""
    kinds = (pd.StringDtype, pd.CategoricalDtype, pd.ArrowDtype)
    return {
        name
        for name, column in _columns(meta)
        if isinstance(column.dtype, kinds) or column.dtype == np.dtype(object)
    }


def _of_pandas(node: Any) -> set[Any]:
    """Return the object columns of a pandas frame that have other values than strings."""
    frame = node.operand("frame")._data  # noqa: SLF001 # the frame as the user gave it
    columns = node.operand("columns")
    names = None if columns is None else set(columns if isinstance(columns, list) else [columns])
    return {
        name
        for name, column in _columns(frame)
        if column.dtype == np.dtype(object)
        and (names is None or name in names or column is frame.index)
        and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty")
    }


def _of_graph(node: Any) -> set[Any]:
    """Return the string columns of a persisted frame whose values look like reprs of objects."""
    if dask.config.get("dataframe.convert-string", default=None) is False:
        return set()
    meta = node._meta  # noqa: SLF001 # Dask's documented meta
    if LAKE_COLUMNS in getattr(meta, "attrs", {}):
        return set()  # the frame of a lake has no objects
    names = {
        name
        for name, column in _columns(meta)
        if isinstance(column.dtype, pd.StringDtype) and column.dtype.na_value is pd.NA
    }
    parts = [getattr(task, "value", task) for task in dict(node.operand("layer")).values()]
    if not all(isinstance(part, pd.DataFrame | pd.Series | pd.Index) for part in parts):
        return names  # on a cluster: the values cannot be checked here
    return {
        name
        for part in parts
        for name, column in _columns(part)
        if name in names and any(str(v).startswith(_LIKE_REPR) for v in column.dropna())
    }
