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
from distributed.protocol.pickle import dumps, loads
from distributed.protocol.serialize import Serialize, deserialize
from distributed.scheduler import KilledWorker, WorkerState
from distributed.worker import Worker

__all__ = [
    "Alias",
    "DataNode",
    "Dict",
    "GraphNode",
    "KilledWorker",
    "List",
    "Serialize",
    "Task",
    "TaskRef",
    "Worker",
    "WorkerState",
    "convert_legacy_graph",
    "deserialize",
    "dumps",
    "is_fused",
    "loads",
]


def is_fused(task: Task) -> bool:
    """Return whether a task runs a graph of its own; younger releases have ``has_subgraph``."""
    return task.func is _execute_subgraph
