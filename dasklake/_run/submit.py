"""Submit the graph of a write to a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import cloudpickle  # type: ignore[import-untyped] # it has no types
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from distributed import Client

from dasklake._dask import Dict, GraphNode, Task, TaskRef
from dasklake._schema.printable import safe_str
from dasklake._write.graph import WriteGraph
from dasklake.exceptions import InvalidInputError, LakeError, RunLostError


def submit(client: Client, graph: WriteGraph, retries: int) -> list[Any]:
    """Submit a graph; return the futures of its write tasks.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    graph : WriteGraph
        The tasks.
    retries : int
        How often Dask retries a task that erred.

    Raises
    ------
    InvalidInputError
        The graph cannot be pickled.
    """
    with warnings.catch_warnings():
        # The shared arguments travel with the graph on purpose: they are sent once, and survive
        # the death of every worker, unlike scattered data.
        warnings.filterwarnings("ignore", message="Sending large graph")
        priority = graph.priorities().get
        layer = MaterializedLayer(graph.tasks, annotations={"priority": priority})
        try:
            futures: list[Any] = client.get(
                HighLevelGraph({"to_lake": layer}, {"to_lake": set()}),
                list(graph.keys),
                sync=False,
                retries=retries,
            )
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise InvalidInputError(
                f"The input or the transform cannot be sent to workers ({safe_str(error)}). "
                "Remove objects that only this process has, such as locks and open files."
            ) from error
    return futures


def seal(graph: WriteGraph) -> WriteGraph:
    """Return the graph with pickled tasks, so that only workers need the modules in them."""
    tasks: dict[Any, GraphNode] = {
        key: Task(
            key,
            operator.call,
            Task(None, cloudpickle.loads, cloudpickle.dumps(node)),
            Dict({dependency: TaskRef(dependency) for dependency in node.dependencies}),
        )
        for key, node in graph.tasks.items()
    }
    return WriteGraph(tasks, graph.keys)


@contextlib.contextmanager
def cluster_errors(run: str | None) -> Iterator[None]:
    """Raise a lost connection to the cluster as a ``RunLostError`` that says how to resume."""
    try:
        yield
    except (OSError, asyncio.CancelledError) as error:
        if isinstance(error, LakeError):
            raise
        name = f", run={run!r}" if run else ""
        raise RunLostError(
            f"The connection to the cluster is lost ({error}). Committed samples are kept. Run again "
            f"with mode='resume'{name}."
        ) from error
