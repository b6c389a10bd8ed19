"""Class names that runs discover, and their indices.

While a run is unfinished, its names come after all settled ones, and may move with each commit. Once
it is finished, its names are settled in the order of their first occurrences in its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dasklake._model.commit import RunState
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema
from dasklake.exceptions import SchemaError

#: By tensor: names, each with its partition and its position among the names there.
DiscoveredNames = Mapping[str, Mapping[str, tuple[int, int]]]


def merge_discovered_names(
    discovered: DiscoveredNames | None, receipts: Sequence[Receipt]
) -> DiscoveredNames | None:
    """Add the names of receipts to discovered names, and keep first occurrences; None if empty.

    Examples
    --------
    >>> receipt = Receipt("r", 1, 4, "", (), 2, names={"label": ("dog", "cat")})
    >>> merge_discovered_names({"label": {"cat": (7, 0)}}, [receipt])
    {'label': {'cat': (4, 1), 'dog': (4, 0)}}
    """
    merged = {tensor: dict(positions) for tensor, positions in (discovered or {}).items()}
    for receipt in receipts:
        for tensor, names in receipt.names.items():
            positions = merged.setdefault(tensor, {})
            for rank, name in enumerate(names):
                position = (receipt.partition, rank)
                positions[name] = min(position, positions.get(name, position))
    return {tensor: positions for tensor, positions in merged.items() if positions} or None


def decide_discovery(schema: Schema, receipts: Sequence[Receipt]) -> Schema:
    """Return a schema in which the first labels decide whether their tensor discovers names.

    Raises
    ------
    SchemaError
        Labels are names where others are indices, or the reverse.

    Examples
    --------
    >>> from dasklake import TensorSpec
    >>> receipt = Receipt("r", 1, 4, "", (), 2, names={"label": ("dog",), "x": ()})
    >>> schema = Schema({"label": TensorSpec("class_label"), "x": TensorSpec("class_label")})
    >>> [spec.discover for spec in decide_discovery(schema, [receipt]).values()]
    [True, False]
    """
    tensors = dict(schema)
    for receipt in receipts:
        for tensor, names in receipt.names.items():
            spec = tensors[tensor]
            if spec.discover is None:
                tensors[tensor] = replace(spec, discover=bool(names))
            elif spec.discover != bool(names):
                kind, other = ("names", "indices") if names else ("indices", "names")
                raise SchemaError(
                    f"Labels of tensor {tensor!r} are {kind} in partition {receipt.partition} of run "
                    f"{receipt.run!r}, and {other} in the lake. Convert the labels, or replace the "
                    "lake with a schema that has class_names."
                )
    return schema if tensors == dict(schema) else Schema(tensors)


def apply_discovered_names(
    schema: Schema, runs: Mapping[str, RunState]
) -> tuple[Schema, Mapping[str, RunState]]:
    """Return a schema with the names that runs discovered, and the runs.

    Names of finished runs become settled and are removed from the runs. Names of unfinished runs
    follow in the order of the runs.
    """
    naming = sorted((state.order, name) for name, state in runs.items() if state.names)
    if not naming:
        return schema, runs
    done = {name: replace(runs[name], names=None) for _, name in naming if runs[name].finished}
    tensors = {}
    for tensor, spec in schema.items():
        tensors[tensor] = spec
        if not spec.discover:
            continue
        # Given and settled names keep their indices, even if a run discovers them again.
        names = dict.fromkeys(spec.with_settled_names.class_names)
        for _, name in naming:
            if name in done:
                names |= dict.fromkeys(_in_order(runs[name], tensor))
        settled = len(names)
        for _, name in naming:
            if name not in done:
                names |= dict.fromkeys(_in_order(runs[name], tensor))
        tensors[tensor] = replace(spec, class_names=tuple(names), settled=settled)
    return Schema(tensors), {**runs, **done}


def _in_order(state: RunState, tensor: str) -> list[str]:
    positions = (state.names or {}).get(tensor, {})
    return sorted(positions, key=positions.__getitem__)
