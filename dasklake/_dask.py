"""The only imports of private and changing modules of Dask and distributed.

Dask 2025.1 has no public ``dask.task_spec``; newer releases have it without all names. The private
module has them in all supported releases.
"""

from __future__ import annotations

from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Task,
    TaskRef,
    _execute_subgraph,
    convert_legacy_graph,
)
from dask.dataframe.dask_expr import new_collection  # type: ignore[attr-defined] # not listed
from dask.dataframe.dask_expr._expr import (
    EQ,
    GE,
    GT,
    LE,
    LT,
    NE,
    And,
    Expr,
    Filter,
    Head,
    Index,
    Lengths,
    Literal,
    Or,
    PartitionsFiltered,
    Projection,
    Sample,
    Tail,
)
from dask.dataframe.dask_expr._indexing import LocElement, LocList, LocSlice
from dask.dataframe.dask_expr._reductions import Len
from dask.dataframe.dask_expr.io.io import BlockwiseIO
from distributed.protocol.pickle import dumps, loads
from distributed.protocol.serialize import Serialize, deserialize
from distributed.scheduler import KilledWorker, WorkerState
from distributed.worker import Worker

__all__ = [
    "EQ",
    "GE",
    "GT",
    "LE",
    "LT",
    "NE",
    "Alias",
    "And",
    "BlockwiseIO",
    "DataNode",
    "Dict",
    "Expr",
    "Filter",
    "GraphNode",
    "Head",
    "Index",
    "KilledWorker",
    "Len",
    "Lengths",
    "List",
    "Literal",
    "LocElement",
    "LocList",
    "LocSlice",
    "Or",
    "PartitionsFiltered",
    "Projection",
    "Sample",
    "Serialize",
    "Tail",
    "Task",
    "TaskRef",
    "Worker",
    "WorkerState",
    "convert_legacy_graph",
    "deserialize",
    "dumps",
    "is_fused",
    "loads",
    "new_collection",
]


def is_fused(task: Task) -> bool:
    """Return whether a task runs a graph of its own; younger releases have ``has_subgraph``."""
    return task.func is _execute_subgraph
