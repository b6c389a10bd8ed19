"""Find the values of object columns that this process has, without computing anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

#: Operations that only select rows and columns of their first operand.
KEEPING = frozenset(
    {
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
)

#: Values of a column that are examined.
_MOST = 10_000

#: Beginning of the names of arrays of ``dask.array.from_array``.
_FROM_ARRAY = "array-"


def values_of_column(expr: Any, name: str) -> list[Any] | None:
    """Return the first values of a column, or of a level of the index, if they are known.

    Parameters
    ----------
    expr : expression of dask.dataframe
        The frame.
    name : str
        The column, or the name that ``reset_index`` gives to the level.

    Returns
    -------
    list or None
        At most 10,000 values that are not missing. None if only a computation would show them.
    """
    node = expr
    while type(node).__name__ in KEEPING:
        node = node.frame
    kind = type(node).__name__
    if kind in ("FromPandas", "FromPandasDivisions"):
        frames = [node.operand("frame")._data]  # noqa: SLF001 # the frame as the user gave it
    elif kind == "FromGraph":
        frames = [getattr(task, "value", task) for task in dict(node.operand("layer")).values()]
    else:
        return None
    columns = [_column(frame, name) for frame in frames]
    given: list[Any] = [column for column in columns if column is not None]
    if len(given) < len(columns):
        return None
    return present(value for column in given for value in column)


def _column(frame: Any, name: str) -> pd.Series | None:
    if isinstance(frame, pd.Series):
        frame = frame.to_frame(name=name) if frame.name in (None, name) else None
    if not isinstance(frame, pd.DataFrame):
        return None
    if name not in frame.columns:
        frame = frame.iloc[:, :0].reset_index()
    return frame[name] if name in frame.columns else None


def values_of_array(array: Any) -> list[Any] | None:
    """Return the first values of an array of objects, if this process has made it of them."""
    if not array.name.startswith(_FROM_ARRAY) or any(n > 1 for n in array.numblocks[1:]):
        return None
    nodes = [getattr(task, "value", task) for task in dict(array.dask).values()]
    parts = [node for node in nodes if isinstance(node, np.ndarray) and node.dtype == object]
    return present(row for part in parts for row in part) if parts else None


def present(values: Iterable[Any]) -> list[Any]:
    """Return the first values that are not missing."""
    first: list[Any] = []
    for value in values:
        if value is None or value is pd.NA or value is pd.NaT:
            continue
        first.append(value)
        if len(first) == _MOST:
            break
    if all(isinstance(value, str) or _is_nan(value) for value in first):
        # NaN marks missing values among strings.
        strings = [value for value in first if isinstance(value, str)]
        return strings or first
    return first


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)
