"""Test that a schema inferred from samples takes them, and that conflicts are named."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.bag as db
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake.exceptions import InvalidInputError, SampleError, SchemaError

UTC = dt.UTC

#: Values of one tensor, and the spec that takes them.
CASES: list[tuple[list[Any], TensorSpec]] = [
    ([1, 2], TensorSpec(dtype="int64", shape=())),
    ([1, 2.5], TensorSpec(dtype="float64", shape=())),
    ([True, False], TensorSpec(dtype="bool", shape=())),
    ([2**63, 2**64 - 1], TensorSpec(dtype="uint64", shape=())),
    ([np.float32(1), np.float32(2)], TensorSpec(dtype="float32", shape=())),
    ([np.uint8(1), np.int16(-2)], TensorSpec(dtype="int16", shape=())),
    ([1j, 2], TensorSpec(dtype="complex128", shape=())),
    (["a", np.str_("b")], TensorSpec("text")),
    ([b"a", bytearray(b"b")], TensorSpec(dtype="binary")),
    ([["a", "b"], [], ("c",)], TensorSpec("sequence[text]")),
    ([[], np.array(["a"])], TensorSpec("sequence[text]")),
    ([{"a": 1}, {"b": [1, "x"]}], TensorSpec("json")),
    ([[{"a": 1}], {"b": 2}], TensorSpec("json")),
    ([[1, 2], [3, 4]], TensorSpec(dtype="int64", shape=(2,))),
    ([[1, 2], [3.5], []], TensorSpec(dtype="float64", shape=(None,))),
    ([[[1, 2]], [[3, 4], [5, 6]]], TensorSpec(dtype="int64", shape=(None, 2))),
    (
        [np.zeros((2, 3, 3), "uint8"), np.zeros((4, 3, 3), "uint8")],
        TensorSpec(dtype="uint8", shape=(None, 3, 3)),
    ),
    ([np.zeros((0, 4), "float32")], TensorSpec(dtype="float32", shape=(0, 4))),
    (
        [pd.Timestamp("2020-01-01").to_pydatetime(), pd.Timestamp("2020-01-02")],
        TensorSpec(dtype="datetime64[us]", shape=()),
    ),
    (
        [np.datetime64("2020-01-01T00", "s"), np.datetime64("2020-01-01T00", "ns")],
        TensorSpec(dtype="datetime64[ns]", shape=()),
    ),
    ([dt.datetime(2020, 1, 1, tzinfo=UTC)], TensorSpec(dtype=pa.timestamp("us", "UTC"))),
    ([dt.date(2020, 1, 1)], TensorSpec(dtype=pa.date32())),
    ([dt.time(1, 2)], TensorSpec(dtype=pa.time64("us"))),
    ([dt.timedelta(1)], TensorSpec(dtype="timedelta64[us]", shape=())),
]


@pytest.mark.parametrize(("values", "spec"), CASES, ids=lambda value: str(value)[:40])
def test_values_determine_a_spec_that_takes_them(values: list[Any], spec: TensorSpec) -> None:
    """The inferred spec is the expected one, in any order of the samples, and encodes each value."""
    for order in itertools.permutations(values):
        assert Schema.infer([{"x": value} for value in order]) == Schema({"x": spec})
    for value in values:
        codec_for(spec).encode(value)


def test_missing_values_make_a_tensor_optional() -> None:
    """A tensor that a sample leaves out is optional; every tensor accepts None and NA."""
    samples: list[dict[str, Any]] = [
        {"a": 1, "b": 1, "c": 1},
        {"a": None, "c": 2},
        {"a": pd.NA, "b": pd.NaT, "c": 3},
    ]
    schema = Schema.infer(samples)
    assert [(name, spec.optional, spec.dtype) for name, spec in schema.items()] == [
        ("a", False, "int64"), ("b", True, "int64"), ("c", False, "int64")
    ]  # fmt: skip


def test_a_bounded_number_of_samples_is_examined() -> None:
    """Only ``limit`` samples are taken, also of an endless iterator."""
    taken: list[int] = []

    def samples() -> Iterator[dict[str, int]]:
        for number in itertools.count():
            taken.append(number)
            yield {"x": number}

    Schema.infer(samples())
    assert len(taken) == 1000
    taken.clear()
    assert Schema.infer(samples(), limit=3) == Schema({"x": "int64"})
    assert len(taken) == 3


def test_the_schema_is_printed_edited_and_written(tmp_path: Path) -> None:
    """The printed text is code for the schema; an edited one is a schema of to_lake()."""
    samples = [
        {"x": np.full((2, n), n, "float32"), "label": "cat" if n % 2 else "dog", "meta": {"n": n}}
        for n in range(1, 5)
    ]
    schema = Schema.infer(samples)
    assert eval(repr(schema), {"Schema": Schema, "TensorSpec": TensorSpec}) == schema  # noqa: S307 # own text
    bag = db.from_sequence(samples, npartitions=2)
    options = dasklake.WriteOptions(scheduler="sync")
    dasklake.to_lake(bag, tmp_path / "plain", schema=schema, options=options)
    lake = dasklake.open(tmp_path / "plain")
    assert [sample["label"] for sample in lake] == ["cat", "dog", "cat", "dog"]
    assert [sample["meta"] for sample in lake] == [{"n": n} for n in range(1, 5)]
    assert lake[3]["x"].shape == (2, 4)
    edited = {**schema, "label": "class_label"}
    dasklake.to_lake(bag, tmp_path / "edited", schema=edited, options=options)
    assert dasklake.open(tmp_path / "edited").schema["label"].class_names == ("cat", "dog")


def test_samples_of_a_lake_have_its_specs(tmp_path: Path) -> None:
    """Stored values are not decoded, and keep htype, class names and compression."""
    tensors = {
        "image": TensorSpec("image", compression="png"),
        "label": TensorSpec("class_label", shape=(), class_names=["a", "b"]),
    }
    lake = dasklake.empty(tmp_path / "lake")
    for name, spec in tensors.items():
        lake.create_tensor(name, spec.htype, compression=spec.compression,
                           class_names=spec.class_names, shape=spec.shape)  # fmt: skip
    lake.append({"image": np.zeros((2, 2, 3), "uint8"), "label": "b"})
    assert Schema.infer(dasklake.open(lake.url)) == lake.schema


def test_given_specs_are_not_inferred() -> None:
    """``tensors`` has precedence over values, also over ones that would be refused."""
    samples: list[dict[str, Any]] = [{"x": 1, "image": Image.new("RGB", (2, 2))}, {"x": "a"}]
    given = {"image": {"htype": "image", "compression": "png"}, "x": "json", "more": "text"}
    schema = Schema.infer(samples, given)
    assert list(schema) == ["x", "image", "more"]
    assert schema == Schema({"x": "json", "image": given["image"], "more": "text"})


@pytest.mark.parametrize(
    ("values", "message", "given"),
    [
        ([1, 2, "a"], r"got one int64 in sample 0, and TensorSpec\('text'\) in sample 2", "json"),
        ([1, True], "got one int64 in sample 0, and one bool in sample 1", "json"),
        ([{"a": 1}, 3], r"TensorSpec\('json'\) in sample 0, and one int64 in sample 1", "json"),
        ([[1], [[1]]], r"int64 of shape \(1,\) in sample 0, and int64 of shape \(1, 1\)",
         {"dtype": "int64"}),
        ([np.zeros(2), np.zeros((1, 1))], r"float64 of shape \(2,\)", {"dtype": "float64"}),
        ([[[1], [2, 3]]], r"in sample 0 does not determine .* \[\[1\], \[2, 3\]\] of type list", "json"),
        ([1, ["a", 1]], "in sample 1 does not determine .* of type list", "json"),
        ([[1, True]], "in sample 0 does not determine", "json"),
        ([[2**62 + 1, 0.5]], "in sample 0 does not determine", "json"),
        ([2**70], "in sample 0 does not determine", "json"),
        ([[], []], "is an empty list in all samples", {"dtype": "float32"}),
        ([Image.new("L", (2, 2))], "in sample 0 does not determine .* of type Image",
         {"htype": "image", "compression": "png"}),
        ([dasklake.link("memory://x.png")], "in sample 0 does not determine .* of type Link",
         {"htype": "link[image]", "compression": "png"}),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_conflicts_name_sample_and_tensor_and_their_remedy_works(
    values: list[Any], message: str, given: Any
) -> None:
    """The message has the tensor, the samples and code that works when it is followed."""
    samples = [{"x": value} for value in values]
    with pytest.raises(SchemaError, match=f"(?i)tensor 'x'.*{message}") as raised:
        Schema.infer(samples)
    assert f"Schema.infer(samples, tensors={{'x': {given!r}}})" in str(raised.value)
    spec = Schema.infer(samples, tensors={"x": given})["x"]
    for value in values:
        if not isinstance(value, dasklake.Link):
            codec_for(spec).encode(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [np.array([-1]), np.array([2**63])],
            r"int64 of shape \(1,\) in sample 0, and uint64 of shape",
        ),
        ([b"a", "a"], "must have values of one type"),
        ([dt.datetime(2020, 1, 1, tzinfo=UTC), dt.date(2020, 1, 1)], "must have values of one"),
        ([np.zeros(2), np.array(["a"])], "must have values of one type"),
    ],
)
def test_conflicts_without_a_common_spec_ask_for_a_conversion(
    values: list[Any], message: str
) -> None:
    """No spec takes such values, and the message proposes none."""
    with pytest.raises(SchemaError, match=f"{message}.* Convert the values to one type\\.$"):
        Schema.infer([{"x": value} for value in values])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least one sample"),
        ({"x": [1]}, "iterable of dicts, got dict"),
        ("abc", "iterable of dicts, got str"),
        (3, "iterable of dicts, got int"),
        ([{"x": 1}, 5], "sample 1 is 5"),
        (db.from_sequence([{"x": 1}]), r"got a Dask Bag, .* bag\.take\(100\)"),
    ],
)
def test_wrong_samples_are_refused(samples: Any, message: str) -> None:
    """Only an iterable of mappings has samples, and at least one."""
    with pytest.raises(InvalidInputError, match=message):
        Schema.infer(samples)


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "all", math.inf])
def test_a_wrong_limit_is_refused(limit: Any) -> None:
    """The limit is a positive whole number."""
    with pytest.raises(InvalidInputError, match=r"limit must be a positive number of samples, got"):
        Schema.infer([{"x": 1}], limit=limit)


@pytest.mark.parametrize("name", ["", 3, "a:shape"])
def test_wrong_names_are_refused(name: Any) -> None:
    """Names of tensors are validated as in a schema."""
    with pytest.raises(SchemaError, match="name"):
        Schema.infer([{name: 1}])


def test_later_samples_that_do_not_fit_are_refused_by_the_write() -> None:
    """Nothing is guessed about samples that were not examined."""
    schema = Schema.infer([{"x": 1}, {"x": 2.5}], limit=1)
    with pytest.raises(SampleError):
        codec_for(schema["x"]).encode(2.5)
