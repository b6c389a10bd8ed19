"""Class names that runs discover: where each was first, and which index that makes.

While a run is unfinished, its names come after all others, and may move as more of it is committed.
When it is finished they are settled, in the order of their first places in its input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dasklake._model.commit import RunState
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema

__all__ = ["DiscoveredNames", "apply_discovered_names", "merge_discovered_names"]

#: By tensor: names, each with its partition and its place among the names there.
DiscoveredNames = Mapping[str, Mapping[str, tuple[int, int]]]


def merge_discovered_names(
    known: DiscoveredNames | None, receipts: Sequence[Receipt]
) -> DiscoveredNames | None:
    """Return where each name was first, with those of more partitions; None where there is none.

    Examples
    --------
    >>> receipt = Receipt("r", 1, 4, "", (), 2, names={"label": ("dog", "cat")})
    >>> merge_discovered_names({"label": {"cat": (7, 0)}}, [receipt])
    {'label': {'cat': (4, 1), 'dog': (4, 0)}}
    """
    found = {tensor: dict(places) for tensor, places in (known or {}).items()}
    for receipt in receipts:
        for tensor, names in receipt.names.items():
            places = found.setdefault(tensor, {})
            for rank, name in enumerate(names):
                place = (receipt.partition, rank)
                places[name] = min(place, places.get(name, place))
    return {tensor: places for tensor, places in found.items() if places} or None


def apply_discovered_names(
    schema: Schema, runs: Mapping[str, RunState]
) -> tuple[Schema, Mapping[str, RunState]]:
    """Return a schema with the names that runs discovered, and the runs.

    Names of finished runs are settled, and forgotten there; those of others follow in the order of
    the runs.
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
        # Those that were given or settled before stay where they are, whoever names them again.
        names = dict.fromkeys(spec.given.class_names)
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
    places = (state.names or {}).get(tensor, {})
    return sorted(places, key=places.__getitem__)
