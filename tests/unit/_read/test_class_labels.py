"""Test chunks with their own class names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake._codecs.registry import codec_for
from dasklake._format.class_names import read_class_names, renumber_labels, unify_class_names
from dasklake._format.columns import ColumnBuilder, iterate_stored
from dasklake._read.column_checks import label_indices
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError

SHAPES: Mapping[tuple[int, ...] | None, list[Any]] = {
    (): ["b", "a", None, "b"],
    (2,): [["b", "a"], None, ["c", "b"]],
    None: [["b"], None, []],
}


def columns_of(spec: TensorSpec, values: list[object]) -> list[tuple[pa.Field, pa.Array]]:
    """Return the columns of labels."""
    codec, builder = codec_for(spec), ColumnBuilder("label", spec)
    for value in values:
        builder.append(None if value is None else codec.encode(value))
    return builder.finish()


def stored(spec: TensorSpec, columns: list[tuple[pa.Field, pa.Array]]) -> list[object]:
    """Return the numbers of each row."""
    shapes = columns[1][1] if len(columns) > 1 else None
    rows = []
    for row in iterate_stored(columns[0][1], shapes, spec):
        value = np.frombuffer(row.data, "<u4") if isinstance(row, Blob) else row
        rows.append(None if value is None else np.asarray(value).tolist())
    return rows


def named(spec: TensorSpec, columns: list[tuple[pa.Field, pa.Array]]) -> list[object]:
    """Return the names of each row, by the list of the chunk."""
    names = read_class_names(columns[0][0]) or ()

    def name(value: object) -> object:
        return [name(item) for item in value] if isinstance(value, list) else names[value]  # type: ignore[call-overload] # a number

    return [None if row is None else name(row) for row in stored(spec, columns)]


@pytest.mark.parametrize("shape", SHAPES)
def test_chunk_has_its_own_list(shape: tuple[int, ...] | None) -> None:
    """A chunk lists its names in the order of their first samples, in every layout."""
    spec = TensorSpec("class_label", shape=shape, class_names=["c"], discover=True)
    columns = columns_of(spec, SHAPES[shape])
    assert (read_class_names(columns[0][0]) or ())[0] == "b"
    assert named(spec, columns) == SHAPES[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_joined_chunks_keep_their_names(shape: tuple[int, ...] | None) -> None:
    """Joined chunks have one list, and every row keeps its names."""
    spec = TensorSpec("class_label", shape=shape, discover=True)
    kinds = [SHAPES[shape], SHAPES[shape][::-1], [None], []]
    batches = [
        pa.RecordBatch.from_arrays(
            [array for _, array in columns], schema=pa.schema([field for field, _ in columns])
        )
        for columns in (columns_of(spec, values) for values in kinds)
    ]
    joined = unify_class_names(batches)
    assert len({read_class_names(batch.schema.field(0)) for batch in joined}) == 1
    for batch, values in zip(joined, kinds, strict=True):
        columns = [(batch.schema.field(i), batch.column(i)) for i in range(len(batch.schema))]
        assert named(spec, columns) == values


@pytest.mark.parametrize("shape", SHAPES)
def test_sliced_column_is_renumbered(shape: tuple[int, ...] | None) -> None:
    """A part of a column is renumbered as that part."""
    spec = TensorSpec("class_label", shape=shape, discover=True)
    columns = columns_of(spec, SHAPES[shape])
    parts = [(field, array.slice(1)) for field, array in columns]
    new = renumber_labels(parts[0][1], np.array([10, 11, 12], np.uint32))
    old = stored(spec, parts)
    shifted = [None if row is None else (np.asarray(row, np.int64) + 10).tolist() for row in old]
    assert stored(spec, [(parts[0][0], new), *parts[1:]]) == shifted


def test_index_outside_the_list_is_detected() -> None:
    """An index outside the list is detected, and not read as another name."""
    with pytest.raises(IndexError):
        renumber_labels(pa.array([0, 3], pa.uint32()), np.zeros(3, np.uint32))


def test_indices_are_those_of_the_version() -> None:
    """Chunk indices become the version's indices of the same names; a missing name is an error."""
    spec = TensorSpec("class_label", shape=(), class_names=["x", "a", "b"], discover=True)
    field = columns_of(spec, ["b", "a"])[0][0]
    indices = label_indices(field, spec)
    assert indices is not None
    assert indices.tolist() == [2, 1]
    assert label_indices(pa.field("label", pa.uint32()), spec) is None
    with pytest.raises(KeyError):
        label_indices(columns_of(spec, ["q"])[0][0], spec)
    with pytest.raises(ValueError, match="must be a list of strings"):
        label_indices(pa.field("l", pa.uint32(), metadata={"dasklake": '{"names": "ab"}'}), spec)


@pytest.mark.parametrize("value", [["a", 1], "\ud800", 1, [["a"]], b"a"])
def test_invalid_labels_are_errors(value: object) -> None:
    """Mixed values, broken text, and indices beyond the given names are errors."""
    spec = TensorSpec("class_label", shape=(None,), class_names=["a"], discover=True)
    with pytest.raises(SampleError):
        codec_for(spec).encode(value)
