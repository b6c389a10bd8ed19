"""What a schema accepts, and how it says what it does not."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dasklake import Schema, TensorSpec
from dasklake._schema.schema import describe
from dasklake.exceptions import SchemaError


def schema_of(**tensors: Any) -> Schema:
    """Make a schema, with shorthands."""
    return Schema(tensors)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"htype": "generic"}, "needs a dtype"),
        ({"htype": "picture"}, "Unknown htype"),
        ({"htype": "image"}, "needs a compression"),
        ({"htype": "image", "compression": "mp4"}, "not support compression"),
        ({"htype": "bbox", "shape": (None, 5)}, "last axis"),
        ({"htype": "bbox", "shape": (None, None, 4)}, "cannot have shape"),
        ({"htype": "bbox", "dtype": "bool"}, "cannot have dtype"),
        ({"htype": "bbox", "coords": "pixel-xyxy"}, "Unknown coords"),
        ({"htype": "bbox", "class_names": ["a"]}, "not support class_names"),
        ({"htype": "class_label", "class_names": ["a", "a"]}, "twice"),
        ({"htype": "class_label", "class_names": "abc"}, "list of names"),
        ({"htype": "class_label", "class_names": [1]}, "must be strings"),
        ({"htype": "class_label", "coords": "pixel-ltwh"}, "not support coords"),
        ({"htype": "embedding", "dtype": "int8"}, "cannot have dtype"),
        ({"dtype": "object"}, "cannot be stored"),
        ({"dtype": "float31"}, "Unknown dtype"),
        ({"dtype": "int8", "shape": (-1,)}, "negative"),
        ({"dtype": "int8", "shape": 3}, "must be a sequence"),
        ({"dtype": "int8", "shape": "34"}, "must be a sequence"),
        ({"dtype": "int8", "shape": (2.7,)}, "must be a sequence"),
        ({"dtype": "int8", "shape": {3}}, "must be a sequence"),
        ({"dtype": "int8", "compression": ["lz4"]}, "a name"),
        ({"dtype": "int8", "optional": "no"}, "True or False"),
        ({"htype": None}, "a name"),
        ({"htype": "class_label", "class_names": ["\ud800"]}, "valid text"),
        ({"dtype": "string", "shape": (3,)}, "one value per sample"),
        ({"dtype": "string", "compression": "lz4"}, "one value per sample"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    """A description that contradicts itself is refused when it is made, and says why."""
    with pytest.raises(SchemaError, match=message):
        TensorSpec(**arguments)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (np.float32, "float32"),
        (">i4", "int32"),
        (pa.int16(), "int16"),
        (pa.timestamp("us"), "datetime64[us]"),
        (str, "str"),
        ("string", "string"),
        (bytes, "binary"),
        ("Int64", "Int64"),
        (pd.CategoricalDtype(), None),
        (pa.decimal128(10, 2), "decimal128(10, 2)[pyarrow]"),
    ],
    ids=str,
)
def test_dtypes_have_one_name(given: Any, name: str | None) -> None:
    """However a dtype is written, the spec holds one name for it."""
    if name is None:
        return_value = TensorSpec(dtype=given).arrow_type
        assert return_value is not None
        assert not pa.types.is_dictionary(return_value)
        return
    assert TensorSpec(dtype=given).dtype == name


def test_arrow_types_come_back() -> None:
    """A type that only Arrow knows is kept exactly."""
    kind = pa.list_(pa.struct([("a", pa.decimal128(10, 2))]))
    assert TensorSpec(dtype=kind).arrow_type == kind
    assert TensorSpec(dtype="int8").arrow_type is None


def test_aliases() -> None:
    """Other spellings of a compression, and boxes as a mapping, mean the same."""
    assert TensorSpec("image", compression="jpg") == TensorSpec("image", compression="jpeg")
    assert TensorSpec("bbox", coords={"type": "pixel", "mode": "LTWH"}) == TensorSpec(
        "bbox", coords="pixel-ltwh"
    )


def test_defaults_come_from_the_htype() -> None:
    """What is left out is what the htype says."""
    spec = TensorSpec("binary_mask")
    assert (spec.dtype, spec.shape, spec.compression) == (
        "bool",
        (None, None, None),
        "packbits-zstd",
    )
    assert TensorSpec("binary_mask", compression="none").compression is None


def test_schema_takes_shorthands() -> None:
    """An htype, a mapping of parameters and a spec say the same."""
    assert (
        schema_of(t="class_label")
        == schema_of(t={"htype": "class_label"})
        == schema_of(t=TensorSpec("class_label"))
    )


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        {"": "text"},
        {"a:shape": "text"},
        {"a\n": "text"},
        {1: "text"},
        {"a": 7},
        {"a": {"b": 1}},
        {"a": {1: 1}},
        {"\ud800": "text"},
        ["a"],
    ],
    ids=ascii,
)
def test_schema_refuses(tensors: Any) -> None:
    """No tensor, a reserved name, or something that describes nothing is refused."""
    with pytest.raises(SchemaError):
        Schema(tensors)


def test_schema_names_the_tensor() -> None:
    """An error in one tensor's description names the tensor."""
    with pytest.raises(SchemaError, match="tensor 'boxes': Unknown coords"):
        schema_of(ok="text", boxes={"htype": "bbox", "coords": "metres"})


def test_schema_is_a_value() -> None:
    """Equal schemas are equal, hash alike and survive JSON and another process; order counts."""
    schema = schema_of(a="text", b=TensorSpec("bbox", coords="pixel-ltwh"))
    copy = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert schema == copy == pickle.loads(pickle.dumps(schema))
    assert hash(schema) == hash(copy)
    assert schema != schema_of(b=schema["b"], a="text")
    assert schema != {"a": "text"}


def test_copies_keep_a_compression_of_none() -> None:
    """The copies of a schema keep ``compression="none"`` where the htype has another default."""
    schema = schema_of(a=TensorSpec("binary_mask", compression="none"), b="class_label")
    assert schema.with_all_names_settled == schema
    assert schema.with_settled_names == schema.without_discovered_names == schema


def test_unknown_fields_are_left_alone() -> None:
    """A schema written by a later release with a further field can be read."""
    document = {"a": {**TensorSpec("text").to_json(), "colour": "blue"}}
    assert Schema.from_json(document) == schema_of(a="text")


def test_differences_are_said_in_words() -> None:
    """The difference of two schemas names each tensor and what it is instead."""
    ours = schema_of(a="text", b="class_label", c="bbox")
    theirs = schema_of(b=TensorSpec("class_label", dtype="uint8"), c="bbox", d="text")
    assert ours.differences(theirs) == [
        "'a' is missing",
        "'d' is new",
        "'b' is TensorSpec('class_label', dtype='uint8'), not TensorSpec('class_label')",
    ]
    assert ours.differences(ours) == []


def test_long_lists_of_names_are_shortened() -> None:
    """A description stays readable with a thousand class names."""
    spec = TensorSpec("class_label", class_names=tuple(map(str, range(1000))))
    assert describe(spec) == "TensorSpec('class_label', class_names=['0', … 1000 names])"
    assert "'a': TensorSpec('text')" in repr(schema_of(a="text"))


def test_differences_of_names_are_said_where_they_are_too_many_to_show() -> None:
    """Class names that differ behind what a description shows are named by their index."""
    names = ("a", "b", "c", "d", "e")
    ours = schema_of(t=TensorSpec("class_label", class_names=names))
    other = schema_of(t=TensorSpec("class_label", class_names=(*names[:4], "x")))
    longer = schema_of(t=TensorSpec("class_label", class_names=(*names, "f")))
    assert ours.differences(other) == ["'t' has other class_names: index 4 is 'x', not 'e'"]
    assert "has 6 class_names, not 5: index 5 is 'f', not missing" in ours.differences(longer)[0]


def test_differences_of_arrow_types_are_said() -> None:
    """Categories of other values differ in words, though both are called the same."""
    ours = schema_of(t=TensorSpec(dtype=pd.CategoricalDtype(["a"])))
    theirs = schema_of(t=TensorSpec(dtype=pd.CategoricalDtype([1])))
    (words,) = ours.differences(theirs)
    assert "has values of type int64, not" in words
