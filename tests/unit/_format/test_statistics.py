"""Tests of the statistics that a writer measures for a chunk, and of their JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dasklake._codecs.registry import codec_for
from dasklake._format import statistics as module
from dasklake._format.columns import ColumnBuilder
from dasklake._format.statistics import MAX_BYTES, decode_statistics, encode_statistics
from dasklake._model.statistics import StoredStatistics
from dasklake._schema.schema import TensorSpec

SCALAR: dict[str, Any] = {"shape": ()}


def columns_of(name: str, spec: TensorSpec, values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Encode values, each alone, as the columns of a tensor."""
    codec, builder = codec_for(spec), ColumnBuilder(name, spec)
    for value in values:
        builder.append(None if value is None else codec.encode(value))
    return builder.finish()


def text_of(spec: TensorSpec, values: Sequence[Any]) -> str | None:
    """Return the JSON of the statistics of one tensor."""
    return encode_statistics(columns_of("x", spec, values), {"x": spec})


def test_the_json_is_that_of_the_specification() -> None:
    """Fields with their default values are omitted."""
    spec = TensorSpec("class_label", shape=(None,), class_names=["a", "b", "c"])
    assert text_of(TensorSpec(dtype="int64", **SCALAR), [3, None, -1]) == (
        '{"x":{"nulls":1,"min":-1,"max":3}}'
    )
    assert text_of(spec, [[2, 0, 2], []]) == (
        '{"x":{"classes":"BQ==","counts":[1,2],"objects":[0,3,3]}}'
    )
    assert text_of(TensorSpec("bbox"), [[[1, 2, 3, 4]]]) == '{"x":{"objects":[1,1,1]}}'


boxes = [np.ones((count, 4)) for count in (2, 0, 5)]
CASES: dict[str, tuple[TensorSpec, list[Any], dict[str, Any]]] = {
    "integers": (
        TensorSpec(dtype="uint64", **SCALAR),
        [2**64 - 1, 0],
        {"min": 0, "max": 2**64 - 1},
    ),
    "NaN": (
        TensorSpec(dtype="float32", **SCALAR),
        [math.nan, 0.5],
        {"nan": 1, "min": 0.5, "max": 0.5},
    ),
    "only NaN": (TensorSpec(dtype="float64", **SCALAR), [math.nan], {"nan": 1}),
    "infinite": (
        TensorSpec(dtype="float16", **SCALAR),
        [-math.inf, 1],
        {"min": "-inf", "max": 1.0},
    ),
    "bools": (
        TensorSpec(dtype="bool", **SCALAR),
        [True, None],
        {"nulls": 1, "min": True, "max": True},
    ),
    "no value": (TensorSpec(dtype="int8", **SCALAR), [None, None], {"nulls": 2}),
    "NaT": (
        TensorSpec(dtype="datetime64[s]", **SCALAR),
        [np.datetime64("NaT"), np.datetime64(7, "s")],
        {"nan": 1, "min": 7, "max": 7},
    ),
    "durations": (
        TensorSpec(dtype="timedelta64[ms]", **SCALAR),
        [np.timedelta64(2, "s")],
        {"min": 2000, "max": 2000},
    ),
    "decimals": (
        TensorSpec(dtype=pa.decimal128(5, 2)),
        [Decimal("9.50"), Decimal("-10.00")],
        {"min": "-10.00", "max": "9.50"},
    ),
    "nullable": (TensorSpec(dtype="Int64"), [None, 4], {"nulls": 1, "min": 4, "max": 4}),
    "text": (TensorSpec("text"), ["b", "", "äz"], {"min": "", "max": "äz"}),
    "long text": (
        TensorSpec("text"),
        ["a" * 40, "z" * 40],
        {"min": "a" * 32, "max": "z" * 31 + "{"},
    ),
    "text of 32 characters": (TensorSpec("text"), ["a" * 32], {"min": "a" * 32, "max": "a" * 32}),
    "a character before surrogates": (
        TensorSpec("text"),
        ["a" * 31 + "\ud7ff" + "b"],
        {"min": "a" * 31 + "\ud7ff", "max": "a" * 31 + "\ue000"},
    ),
    "the last character": (
        TensorSpec("text"),
        ["\U0010ffff" * 33],
        {"min": "\U0010ffff" * 32},
    ),
    "complex": (TensorSpec(dtype="complex64", **SCALAR), [1j], {}),
    "compressed": (TensorSpec(dtype="int64", shape=(), compression="lz4"), [1, 2], {}),
    "labels": (
        TensorSpec("class_label", **SCALAR),
        [9, 0, 9],
        {"classes": "AQI=", "counts": (1, 2)},
    ),
    "large labels": (
        TensorSpec("class_label", **SCALAR),
        [5000, 2**31],
        {"min": 5000, "max": 2**31},
    ),
    "no labels": (
        TensorSpec("class_label", shape=(None,)),
        [[], []],
        {"classes": "", "counts": (), "objects": (0, 0, 0)},
    ),
    "labels of fixed shape": (
        TensorSpec("class_label", shape=(2,)),
        [[1, 1], None],
        {"nulls": 1, "classes": "Ag==", "counts": (2,)},
    ),
    "compressed labels": (
        TensorSpec("class_label", shape=(None,), compression="zstd"),
        [[1, 2]],
        {"objects": (2, 2, 2)},
    ),
    "boxes": (TensorSpec("bbox"), [*boxes, None], {"nulls": 1, "objects": (0, 5, 7)}),
    "masks": (
        TensorSpec("binary_mask"),
        [np.zeros((4, 6, 2), bool), np.zeros((5, 3, 1), bool)],
        {"objects": (1, 2, 3), "shape": ((4, 3, 1), (5, 6, 2))},
    ),
    "arrays of any rank": (
        TensorSpec(dtype="int8", shape=None),
        [np.zeros((3, 2), "i1"), np.zeros(1, "i1")],
        {"objects": (1, 3, 4)},
    ),
    "scalars among arrays of any rank": (
        TensorSpec(dtype="int8", shape=None),
        [np.zeros((3, 2), "i1"), np.int8(1)],
        {},
    ),
    "lists": (
        TensorSpec("sequence[bbox]"),
        [[np.ones((1, 4))] * 2, []],
        {"objects": (0, 2, 2)},
    ),
    "tags": (TensorSpec("tag"), [["a", "b"], ["c"]], {"objects": (1, 2, 3)}),
    "images": (
        TensorSpec("image.rgb", compression="png"),
        [np.zeros((3, 9, 3), "u1"), np.zeros((4, 5, 3), "u1")],
        {"shape": ((3, 5, 3), (4, 9, 3))},
    ),
    "links": (TensorSpec("link[image]", verify=False), [None], {"nulls": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_statistics_of_each_kind_of_tensor(case: str) -> None:
    """Every kind of tensor has the statistics that its values allow, and no others."""
    spec, values, expected = CASES[case]
    text = text_of(spec, values)
    assert decode_statistics(text, None) == {"x": StoredStatistics(**expected)}


def test_discovered_names_are_listed_by_name() -> None:
    """The classes of a chunk with its own list of names are names."""
    spec = TensorSpec("class_label", shape=(), discover=True)
    text = text_of(spec, ["dog", "cat", "dog"])
    assert text == '{"x":{"names":["dog","cat"],"counts":[2,1]}}'


def test_many_classes_are_a_bitmap_without_counts() -> None:
    """If the counts do not fit, the classes are listed alone; if these do not fit, nothing is."""
    spec = TensorSpec("class_label", shape=())
    [entry] = decode_statistics(text_of(spec, range(2000)), None).values()
    assert entry.counts is None
    assert entry.classes is not None
    names = TensorSpec("class_label", shape=(), discover=True)
    text = text_of(names, [f"class {number}" for number in range(100)])
    assert (
        decode_statistics(text, None)["x"]
        == StoredStatistics(names=tuple(f"class {number}" for number in range(100)))
        or len(text or "") < 1100
    )
    text = text_of(names, [f"class {number}" for number in range(1000)])
    assert decode_statistics(text, None) == {"x": StoredStatistics()}


def test_slices_are_measured_alone() -> None:
    """Only the rows of a slice count."""
    spec = TensorSpec(dtype="int64", shape=())
    labels = TensorSpec("class_label", shape=(None,))
    [(field, column)] = columns_of("x", spec, [9, 1, None, 2, 8])
    sliced = [(field, column.slice(1, 3))]
    assert encode_statistics(sliced, {"x": spec}) == '{"x":{"nulls":1,"min":1,"max":2}}'
    pairs = columns_of("x", labels, [[7], [1, 2], [3], [9]])
    sliced = [(field, column.slice(1, 2)) for field, column in pairs]
    assert encode_statistics(sliced, {"x": labels}) == (
        '{"x":{"classes":"Dg==","counts":[1,1,1],"objects":[1,2,3]}}'
    )


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of tensors, few are measured; scalars come first."""
    specs = {f"emb{n}": TensorSpec("embedding", shape=(None,)) for n in range(3000)}
    specs |= {f"x{n}": TensorSpec(dtype="int64", shape=()) for n in range(3000)}
    columns = []
    for name, spec in specs.items():
        value = [1.0] if spec.shape else 1
        columns += columns_of(name, spec, [value])
    measured = 0

    def count(*args: Any, **kwargs: Any) -> StoredStatistics:
        nonlocal measured
        measured += 1
        return original(*args, **kwargs)

    original = module.measure
    monkeypatch.setattr(module, "measure", count)
    text = encode_statistics(columns, specs)
    assert text is not None
    assert MAX_BYTES - 40 < len(text) <= MAX_BYTES
    assert measured < 150
    assert {name[0] for name in decode_statistics(text, None)} == {"x"}


def test_a_tensor_that_does_not_fit_leaves_room_for_others() -> None:
    """A tensor with a name of kilobytes is left out alone."""
    spec = TensorSpec(dtype="int64", shape=())
    specs = {"n" * 3000: spec, "x": spec}
    columns = [column for name in specs for column in columns_of(name, spec, [1])]
    assert encode_statistics(columns, specs) == '{"x":{"min":1,"max":1}}'


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{", '{"x":1}', '{"x":{"nulls":-1}}', '{"x":{"nulls":1.5}}'),
        *('{"x":{"min":[]}}', '{"x":{"objects":[1,2]}}', '{"x":{"counts":"12"}}'),
        '{"x":' + "[" * 5000 + "]" * 5000 + "}",
    ],
)
def test_invalid_json_is_left_out(text: str) -> None:
    """Readers ignore entries that are not valid; strict readers raise an error."""
    assert decode_statistics(text, ["x"]) == {}
    with pytest.raises(ValueError, match=r".+"):
        decode_statistics(text, None, strict=True)


def test_columns_of_foreign_writers_are_left_out() -> None:
    """Columns that do not match their spec have no statistics; those of other tensors stay."""
    label = TensorSpec("class_label", shape=(), discover=True)
    number = TensorSpec(dtype="int64", shape=())
    [(field, _)] = columns_of("label", label, ["a"])
    columns = [(field, pa.array([7], pa.uint32())), *columns_of("x", number, [1])]
    specs = {"label": label, "x": number}
    assert encode_statistics(columns, specs, trusted=False) == '{"x":{"min":1,"max":1}}'
    broken = pa.Array.from_buffers(
        pa.large_string(), 2, [None, pa.py_buffer(np.array([0, 99, 2])), pa.py_buffer(b"abc")]
    )
    columns = [(pa.field("x", pa.large_string()), broken)]
    assert encode_statistics(columns, {"x": TensorSpec("text")}, trusted=False) is None
