"""Test what filters may be, and what they read."""

from __future__ import annotations

import math
import operator as op
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import dasklake
from dasklake import Lake, Schema, TensorSpec
from dasklake._read import filter_values
from dasklake._read.filters import parse_filters
from dasklake._read.in_threads import AHEAD
from dasklake._read.origin import open_chunk
from dasklake.exceptions import CorruptionError, InvalidInputError, VersionNotFoundError
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="int64", shape=()),
        "score": TensorSpec(dtype="float32", shape=()),
        "flag": TensorSpec(dtype="bool", shape=()),
        "z": TensorSpec(dtype="complex64", shape=()),
        "vector": TensorSpec("embedding", shape=(3,)),
        "label": TensorSpec("class_label", class_names=["cat", "dog"]),
        "boxes": TensorSpec("bbox"),
        "steps": TensorSpec("sequence[bbox]"),
        "text": TensorSpec("text"),
        "document": TensorSpec("json"),
        "image": TensorSpec("image", compression="png"),
        "x.length": TensorSpec(dtype="int64", shape=()),
        "when": TensorSpec(dtype="datetime64[ns]", shape=()),
        "money": TensorSpec(dtype=pa.decimal128(5, 2), shape=()),
    }
)

F = pc.field


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ([], "must be a list of"),
        ({}, "must be a list of"),
        ("x > 3", "must be a list of"),
        (("x", "==", 3), "must be a list of"),
        ([[]], "must be a list of"),
        ([("x", "==")], "must be a list of"),
        ([(1, "==", 2)], "must be a list of"),
        ([("x", "like", 2)], "must be one of '==', .*'contains', got 'like'"),
        ([("x", "==", None)], "no value.*'is' or 'is not'"),
        ([("x", "is", 3)], "must compare with None"),
        ([("x", "in", 3)], "needs a list"),
        ([("text", "in", "abc")], "needs a list"),
        ([("x", "==", "3")], "int64, with '3' of type str"),
        ([("x", "in", [1, "a"])], "int64, with 'a' of type str"),
        ([("x", "in", [0.5])], "int64"),
        ([("flag", "==", 1)], "bool, with 1 of type int"),
        ([("when", ">", "2024-01-01")], "timestamp.*of type str"),
        ([("money", ">", "3")], "decimal256.*of type str"),
        ([("text", "<", 3)], "with 3 of type int"),
        (
            [("label", "==", "cta")],
            "does not have the class 'cta'. Did you mean 'cat'.*'cat', 'dog'",
        ),
        ([("label", "==", 2)], "2 classes.*got 2"),
        ([("label", "==", True)], "must be a name or an index, got True"),
        ([("label", "in", ["cat", "owl"])], "does not have the class 'owl'"),
        ([("vector", "==", 3)], r"one value for each sample.*vector.shape\[0\]"),
        ([("boxes", "==", 3)], "boxes.n_objects"),
        ([("image", "==", 3)], r"image.shape\[0\]"),
        ([("z", "==", 3)], "one value for each sample"),
        ([("document", "==", "a")], "one value for each sample"),
        ([("boxes.height", ">", 3)], "does not have 'height'"),
        ([("boxes.shape[2]", ">", 3)], r"does not have 'shape\[2\]'"),
        ([("steps.shape[1]", ">", 3)], r"does not have 'shape\[1\]'"),
        ([("vector.n_objects", ">", 3)], "does not have 'n_objects'"),
        ([("text.n_objects", ">", 3)], "does not have 'n_objects'"),
        ([("x", "contains", 3)], "items of labels"),
        ([("text", "contains", "a")], "items of labels"),
        ([("boxes.n_objects", "contains", 1)], "must compare a tensor"),
        ([("label", "contains", "cta")], "Did you mean 'cat'"),
        ([("boxes", "contains", "a")], "items of tensor 'boxes' are float32, got 'a'"),
        (F("x") == "a", "does not fit the tensors"),
        (F("x") + 1, "does not fit the tensors"),
        (F("vector") == 1, "one value for each sample"),
        (F("label") == F("flag"), "does not fit the tensors"),
        (F("x", "y") == 1, "does not fit the tensors"),
    ],
    ids=str,
)
def test_wrong_filters(filters: Any, message: str) -> None:
    """A filter that is malformed or does not fit the tensors is refused at once, with a remedy."""
    with pytest.raises(InvalidInputError, match=message):
        parse_filters(filters, SCHEMA)


@pytest.mark.parametrize(
    "filters", [[("lable", "==", "cat")], F("lable") == "cat", [("lable.length", ">", 3)]], ids=str
)
def test_unknown_tensors(filters: Any) -> None:
    """A tensor that does not exist is named, with the most similar one."""
    with pytest.raises(
        VersionNotFoundError, match=r"'lable'.* Did you mean 'label'\?.*'x', 'score'"
    ):
        parse_filters(filters, SCHEMA)


def test_tensors_come_before_properties() -> None:
    """The name of a tensor that looks like a property is that of the tensor."""
    condition = parse_filters([("x.length", ">", 3)], SCHEMA)
    assert condition.tensors == ["x.length"]
    assert parse_filters([("text.length", ">", 3)], SCHEMA).tensors == ["text"]


@pytest.mark.parametrize("filters", [[("x", "in", [1, None])], F("label") == "cat"], ids=str)
def test_conditions_are_pickled(filters: Any) -> None:
    """A filter is the same in another process, with the same token."""
    condition = parse_filters(filters, SCHEMA)
    again = pickle.loads(pickle.dumps(condition))  # our own bytes
    assert again.expression.equals(condition.expression)
    assert again.__dask_tokenize__() == parse_filters(filters, SCHEMA).__dask_tokenize__()


def _lake(rows: int = 6) -> Lake:
    lake = dasklake.empty("counted://filters", overwrite=True)
    lake.create_tensor("x", dtype="int64", shape=())
    lake.create_tensor("label", "class_label", class_names=["cat", "dog"])
    lake.create_tensor("blob", dtype="uint8", shape=(None,))
    lake.create_tensor("size", dtype="uint8", shape=(None,))
    for i in range(rows):
        big = np.random.default_rng(i).integers(0, 255, 500_000, np.uint8)
        lake.append({"x": i, "label": i % 2, "blob": big, "size": big[: 200_000 + i]})
    return lake


def test_only_the_tensors_of_a_filter_are_read(counting_files: type[CountingFileSystem]) -> None:
    """A filter of scalars and shapes reads no large values."""
    lake = _lake()
    counting_files.reset()
    view = lake.where([("x", ">", 1), ("size.length", "<", 200_005), ("label", "==", "dog")])
    assert view.rows.tolist() == [3]
    read = sum(size for key, size in counting_files.reads if key.startswith("/filters/data"))
    assert 0 < read < 6 * 140_000


def test_members_of_lists_are_exact(make_lake: Make) -> None:
    """Values of ``in`` are compared exactly, as those of ``==``, and are never rounded."""
    schema = Schema({"f": TensorSpec(dtype="float32", shape=())})
    lake = dasklake.open(
        make_lake(schema, [[[{"f": 0.1}, {"f": 0.5}, {"f": np.nan}, {"f": None}]]]).url
    )
    rounded = float(np.float32(0.1))
    for values, rows in (
        ([0.1, 0.5], [1]),
        ([rounded], [0]),
        ([np.nan], [2]),
        ([], []),
        ([1, None], [3]),
    ):
        assert lake.where([("f", "in", values)]).rows.tolist() == rows
    assert lake.where([("f", "==", 0.1)]).rows.tolist() == []
    assert lake.where([("f", "not in", [0.5])]).rows.tolist() == [0, 2, 3]
    with pytest.raises(InvalidInputError, match="timestamp"):
        parse_filters([("when", "in", ["2024"])], SCHEMA)


#: Integers at the limits of types, beyond them, and where floats round.
_INTEGERS = [0, 1, -1, -129, 127, 255, 256, 2**53 + 1, 2**63 - 1, 2**63 + 5, 2**64 - 1, 2**70]
_COMPARE = {"==": op.eq, "!=": op.ne, "<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64"])
def test_integers_of_all_sizes_are_compared_exactly(make_lake: Make, dtype: str) -> None:
    """No integer, float, number of Arrow or scalar of numpy overflows, or is rounded."""
    limits = np.iinfo(dtype)
    stored = [n for n in _INTEGERS if limits.min <= n <= limits.max]
    schema = Schema({"n": TensorSpec(dtype=dtype, shape=())})
    samples = [{"n": np.array(n, dtype)} for n in stored]
    lake = dasklake.open(make_lake(schema, [[[sample] for sample in samples]]).url)
    others = [0.5, -0.5, 1.0, 2.0**63, math.inf, -math.inf, math.nan]
    typed = [pa.scalar(-1), pa.scalar(2**64 - 1, pa.uint64()), pa.scalar(0.5), np.int8(-1)]
    for value in [*_INTEGERS, *others, *typed, np.uint64(2**63 + 5), np.float32(0.5)]:
        plain = value.as_py() if isinstance(value, pa.Scalar) else value
        plain = plain.item() if isinstance(plain, np.generic) else plain
        for name, compare in _COMPARE.items():
            expected = [i for i, n in enumerate(stored) if compare(n, plain)]
            assert lake.where([("n", name, value)]).rows.tolist() == expected, (name, value)
        if plain in _INTEGERS:
            member = [i for i, n in enumerate(stored) if n in (plain, 1)]
            rest = [i for i in range(len(stored)) if i not in member]
            assert lake.where([("n", "in", [value, 1, None])]).rows.tolist() == member
            assert lake.where([("n", "not in", [value, 1])]).rows.tolist() == rest


@pytest.mark.parametrize("name", ["boxes", "labels", "steps", "tags", "mask"])
def test_numbers_of_objects_exclude_chunks(
    make_lake: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A filter of the number of objects opens only the chunks whose counts allow it."""
    spec, value = _COUNTED[name]
    chunks = [[{name: value(n)}, {name: value(n + 1)}, {name: None}] for n in (0, 2, 4, 6)]
    lake = dasklake.open(make_lake(Schema({name: spec}), [chunks]).url)
    opened: list[Any] = []

    def count(origin: Any, location: Any) -> Any:
        opened.append(location)
        return open_chunk(origin, location)

    monkeypatch.setattr(filter_values, "open_chunk", count)
    for operator, number, rows, most in (
        ("==", 3, [4], 1),
        (">", 5, [9, 10], 1),
        ("<=", 2, [0, 1, 3], 2),
        ("in", [0, 7], [0, 10], 2),
        ("in", [2**70, 2**63 + 5], [], 0),
        ("is not", None, [0, 1, 3, 4, 6, 7, 9, 10], 4),
        ("is", None, [2, 5, 8, 11], 4),
        ("==", 8, [], 0),
    ):
        opened.clear()
        found = lake.where([(f"{name}.n_objects", operator, number)]).rows.tolist()
        assert (found, len(opened)) == (rows, most), (operator, number)


_COUNTED: dict[str, tuple[TensorSpec, Callable[[int], Any]]] = {
    "boxes": (TensorSpec("bbox"), lambda n: np.zeros((n, 4), "f4")),
    "labels": (
        TensorSpec("class_label", shape=(None,), class_names=["cat"]),
        lambda n: np.zeros(n, "u4"),
    ),
    "steps": (TensorSpec("sequence[bbox]"), lambda n: [np.zeros((1, 4), "f4")] * n),
    "tags": (TensorSpec("tag"), lambda n: ["a"] * n),
    "mask": (TensorSpec("binary_mask"), lambda n: np.zeros((5, 7, n), bool)),
}


def test_a_sample_that_is_no_scalar_is_named() -> None:
    """A value that is not a scalar, in a tensor of any shape, is refused by its sample."""
    lake = dasklake.empty("memory://not-scalar", overwrite=True)
    lake.create_tensor("label", "class_label", class_names=["cat", "dog"])
    lake.extend({"label": [0, [0, 1]]})
    with pytest.raises(InvalidInputError, match=r"shape \(2,\) in sample 1.*'contains'"):
        lake.where([("label", "==", "cat")])
    assert lake.select([0]).where([("label.n_objects", "is", None)]).rows.tolist() == [0]


def test_an_expression_that_cannot_be_computed(make_lake: Make) -> None:
    """An error of Arrow in the data is reported with the samples."""
    schema = Schema({"x": TensorSpec(dtype="int8", shape=())})
    url = make_lake(schema, [[[{"x": 1}], [{"x": 127}]]]).url
    with pytest.raises(InvalidInputError, match="cannot be computed for samples 1 to 1: overflow"):
        dasklake.open(url).where(F("x") + pa.scalar(1, pa.int8()) > 0)


def test_filters_of_damaged_chunks(make_lake: Make) -> None:
    """A damaged chunk is an error, or its samples do not match with ``on_corrupt="skip"``."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=())})
    store = make_lake(schema, [[[{"x": 1}], [{"x": 1}]]])
    key = dasklake.open(store.url)._reader.plan.location(0).key
    store.put(key, store.get(key)[:-10] + b"x" * 10)
    with pytest.raises(CorruptionError, match="damaged"):
        dasklake.open(store.url).where([("x", "==", 1)])
    with pytest.warns(UserWarning, match="damaged"):
        found = dasklake.open(store.url, on_corrupt="skip").where([("x", "==", 1)])
    assert found.rows.tolist() == [1]


def test_tensors_that_old_chunks_lack() -> None:
    """Samples from before a tensor was added have no value of it."""
    lake = dasklake.empty("memory://filters-new", overwrite=True)
    lake.create_tensor("x", dtype="int64", shape=())
    lake.extend({"x": [1, 2]})
    lake.create_tensor("y", "class_label", class_names=["a", "b"])
    assert len(lake.columns(["x"]).where([("x", ">", 1)])) == 1
    lake.extend({"x": [3], "y": [1]})
    assert lake.where([("y", "==", "b")]).rows.tolist() == [2]
    assert lake.where([("y", "is", None)]).rows.tolist() == [0, 1]
    assert lake.where([("y.n_objects", "is", None), ("x", "<", 2)]).rows.tolist() == [0]


def test_text_labels_are_compared_by_name() -> None:
    """Class names that were found while writing are those of the version, in every chunk."""
    lake = dasklake.empty("memory://filters-text-labels", overwrite=True)
    lake.create_tensor("label", "class_label", discover=True)
    lake.create_tensor("labels", "class_label", discover=True)
    lake.extend([{"label": "cat", "labels": ["cat"]}, {"label": "dog", "labels": []}])
    lake.extend([{"label": "eel", "labels": ["eel", "cat"]}, {"label": "cat", "labels": ["dog"]}])
    assert lake.where([("label", "==", "cat")]).rows.tolist() == [0, 3]
    assert lake.where(F("label") == "eel").rows.tolist() == [2]
    assert lake.where([("labels", "contains", "cat")]).rows.tolist() == [0, 2]


def test_errors_end_a_scan_at_once(make_lake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that were not read yet are not read after an error."""
    schema = Schema({"x": TensorSpec(dtype="int64", shape=())})
    url = make_lake(schema, [[[{"x": i}] for i in range(200)]]).url
    opened = []

    def fail(_: Any, location: Any) -> None:
        opened.append(location)
        raise CorruptionError("broken")

    monkeypatch.setattr(filter_values, "open_chunk", fail)
    with pytest.raises(CorruptionError, match="broken"):
        dasklake.open(url).where([("x", "==", 1)])
    assert 0 < len(opened) <= AHEAD
