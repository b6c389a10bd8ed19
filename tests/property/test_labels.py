"""Test that discovered class names do not depend on the order of receipts and commits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasklake._model.commit import Plan, RunState
from dasklake._model.discovered_names import (
    apply_discovered_names,
    decide_discovery,
    merge_discovered_names,
)
from dasklake._model.receipt import Receipt
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import SchemaError

NAMES = st.lists(st.sampled_from("abcdefgh"), max_size=6, unique=True)
PARTITIONS = st.lists(NAMES, min_size=1, max_size=6)
GIVEN = st.lists(st.sampled_from("abxyz"), max_size=3, unique=True)


def schema_of(names: list[str]) -> Schema:
    """Return a schema with one label that discovers names."""
    return Schema({"label": TensorSpec("class_label", class_names=names, discover=True)})


def commit(schema: Schema, runs: dict[str, RunState], run: str, receipts: list[Receipt]) -> Schema:
    """Commit receipts of a run, as its writer does."""
    state = runs[run]
    done = state.partitions + len(receipts)
    runs[run] = replace(
        state,
        partitions=done,
        finished=done == state.plan.partitions,
        names=merge_discovered_names(state.names, receipts),
    )
    schema, updates = apply_discovered_names(schema, runs)
    runs.update(updates)
    return schema


def receipts_of(run: str, partitions: list[list[str]]) -> list[Receipt]:
    """Return a receipt for each partition."""
    return [
        Receipt(run, 1, i, "0" * 16, (), 1, names={"label": tuple(names)})
        for i, names in enumerate(partitions)
    ]


def settled(schema: Schema) -> tuple[str, ...]:
    """Return the names whose indices never change."""
    class_names: tuple[str, ...] = schema["label"].with_settled_names.class_names
    return class_names


@given(GIVEN, PARTITIONS, st.data())
def test_any_order_of_receipts(
    names: list[str], parts: list[list[str]], data: st.DataObject
) -> None:
    """Given names come first, then new names by first occurrence, in any order of commits."""
    schema = schema_of(names)
    runs = {"r": RunState(Plan(len(parts), None, "", None), 0)}
    remaining = data.draw(st.permutations(receipts_of("r", parts)))
    while remaining:
        count = data.draw(st.integers(1, len(remaining)))
        schema = commit(schema, runs, "r", remaining[:count])
        remaining = remaining[count:]
    expected = tuple(dict.fromkeys([*names, *(name for part in parts for name in part)]))
    assert schema["label"].class_names == settled(schema) == expected
    assert runs["r"].names is None


@given(GIVEN, PARTITIONS, PARTITIONS, st.data())
def test_settled_names_never_move(
    names: list[str], one: list[list[str]], other: list[list[str]], data: st.DataObject
) -> None:
    """With a concurrent run, settled names keep their indices, and all names of chunks are listed."""
    schema = schema_of(names)
    parts = {"r": one, "s": other}
    runs = {
        name: RunState(Plan(len(part), None, "", None), order)
        for order, (name, part) in enumerate(parts.items())
    }
    receipts = [receipt_ for name, part in parts.items() for receipt_ in receipts_of(name, part)]
    for receipt in data.draw(st.permutations(receipts)):
        before = settled(schema)
        schema = commit(schema, runs, receipt.run, [receipt])
        assert settled(schema)[: len(before)] == before
        assert set(receipt.names["label"]) <= set(schema["label"].class_names)
    assert settled(schema) == schema["label"].class_names


@given(st.lists(st.none() | NAMES, min_size=1, max_size=6), st.data())
def test_first_labels_decide_in_any_order(
    parts: list[list[str] | None], data: st.DataObject
) -> None:
    """Names are discovered and indices stay indices; both are refused, in any order of commits.

    None stands for a partition without labels, and no names for one whose labels are indices.
    """
    receipts = [
        Receipt("r", 1, i, "0" * 16, (), 1, names={} if names is None else {"label": tuple(names)})
        for i, names in enumerate(parts)
    ]
    schema = Schema({"label": TensorSpec("class_label")})
    kinds = {bool(names) for names in parts if names is not None}
    remaining = data.draw(st.permutations(receipts))
    try:
        while remaining:
            count = data.draw(st.integers(1, len(remaining)))
            schema = decide_discovery(schema, remaining[:count])
            remaining = remaining[count:]
    except SchemaError:
        assert kinds == {True, False}
    else:
        assert schema["label"].discover is (kinds.pop() if kinds else None)
        assert not kinds


def test_labels_of_another_kind_are_named() -> None:
    """The error names tensor, partition and run, and what the lake has."""
    schema = Schema({"label": TensorSpec("class_label", discover=False)})
    receipt = Receipt("nightly", 1, 7, "0" * 16, (), 1, names={"label": ("cat",)})
    with pytest.raises(SchemaError, match="'label' are names in partition 7 of run 'nightly'"):
        decide_discovery(schema, [receipt])
