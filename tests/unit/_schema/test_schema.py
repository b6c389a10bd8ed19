"""Schemas and specs: accepted forms, equality, differences and errors."""

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
    """Return a schema of keyword arguments."""
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
def test_invalid_specs_are_refused(arguments: dict[str, Any], message: str) -> None:
    """An invalid spec is refused on creation, with the reason."""
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
    """Every spelling of a dtype has the same name in the spec."""
    if name is None:
        arrow_type = TensorSpec(dtype=given).arrow_type
        assert arrow_type is not None
        assert not pa.types.is_dictionary(arrow_type)
        return
    assert TensorSpec(dtype=given).dtype == name


def test_arrow_types_are_kept() -> None:
    """A type that only Arrow has is kept exactly."""
    kind = pa.list_(pa.struct([("a", pa.decimal128(10, 2))]))
    assert TensorSpec(dtype=kind).arrow_type == kind
    assert TensorSpec(dtype="int8").arrow_type is None


def test_aliases() -> None:
    """Aliases of a compression, and coords as a mapping, are equal to the standard forms."""
    assert TensorSpec("image", compression="jpg") == TensorSpec("image", compression="jpeg")
    assert TensorSpec("bbox", coords={"type": "pixel", "mode": "LTWH"}) == TensorSpec(
        "bbox", coords="pixel-ltwh"
    )


def test_defaults_come_from_the_htype() -> None:
    """Omitted parameters have the defaults of the htype."""
    spec = TensorSpec("binary_mask")
    assert (spec.dtype, spec.shape, spec.compression) == (
        "bool",
        (None, None, None),
        "packbits-zstd",
    )
    assert TensorSpec("binary_mask", compression="none").compression is None


def test_schema_takes_shorthands() -> None:
    """An htype, a mapping of parameters and a spec are equivalent."""
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
def test_invalid_schemas_are_refused(tensors: Any) -> None:
    """Invalid tensors, reserved names and invalid descriptions are refused."""
    with pytest.raises(SchemaError):
        Schema(tensors)


def test_schema_names_the_tensor() -> None:
    """An error in the spec of a tensor names the tensor."""
    with pytest.raises(SchemaError, match="tensor 'boxes': Unknown coords"):
        schema_of(ok="text", boxes={"htype": "bbox", "coords": "metres"})


def test_schemas_compare_by_value() -> None:
    """Schemas compare and hash by value and order, and survive JSON and pickling."""
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


def test_unknown_fields_are_ignored() -> None:
    """A schema written by a later release with a further field can be read."""
    document = {"a": {**TensorSpec("text").to_json(), "colour": "blue"}}
    assert Schema.from_json(document) == schema_of(a="text")


def test_differences_are_described() -> None:
    """The differences of two schemas name each tensor and both specs."""
    schema = schema_of(a="text", b="class_label", c="bbox")
    other = schema_of(b=TensorSpec("class_label", dtype="uint8"), c="bbox", d="text")
    assert schema.differences(other) == [
        "'a' is missing",
        "'d' is new",
        "'b' is TensorSpec('class_label', dtype='uint8'), not TensorSpec('class_label')",
    ]
    assert schema.differences(schema) == []


def test_long_lists_of_names_are_shortened() -> None:
    """A description stays readable with a thousand class names."""
    spec = TensorSpec("class_label", class_names=tuple(map(str, range(1000))))
    assert describe(spec) == "TensorSpec('class_label', class_names=['0', … 1000 names])"
    assert "'a': TensorSpec('text')" in repr(schema_of(a="text"))


def test_differences_of_long_lists_of_names_are_described() -> None:
    """A difference of class names that a description omits is reported with its index."""
    names = ("a", "b", "c", "d", "e")
    schema = schema_of(t=TensorSpec("class_label", class_names=names))
    changed = schema_of(t=TensorSpec("class_label", class_names=(*names[:4], "x")))
    longer = schema_of(t=TensorSpec("class_label", class_names=(*names, "f")))
    assert schema.differences(changed) == ["'t' has other class_names: index 4 is 'x', not 'e'"]
    assert "has 6 class_names, not 5: index 5 is 'f', not missing" in schema.differences(longer)[0]


def test_differences_of_arrow_types_are_described() -> None:
    """Categories with different value types are described as different."""
    schema = schema_of(t=TensorSpec(dtype=pd.CategoricalDtype(["a"])))
    other = schema_of(t=TensorSpec(dtype=pd.CategoricalDtype([1])))
    (difference,) = schema.differences(other)
    assert "has values of type int64, not" in difference


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("int64", "int64"),
        ("string", "string"),
        ("datetime64[ns]", "datetime64[ns]"),
        ("Int8", "Int8"),
        (float, "float64"),
        (str, "str"),
        (bytes, "binary"),
        (np.uint8, "uint8"),
        (np.dtype("<f4"), "float32"),
        (pd.BooleanDtype(), "boolean"),
        (pa.int16(), "int16"),
    ],
)
def test_dtypes_describe_scalars(value: Any, dtype: str) -> None:
    """A dtype of NumPy, pandas, Arrow or Python is the spec of a scalar."""
    assert schema_of(a=value) == schema_of(a=TensorSpec(dtype=dtype, shape=()))


def test_an_arrow_schema_is_a_schema() -> None:
    """Each field of an Arrow schema is a scalar; two fields of one name are refused."""
    fields = [("a", pa.int64()), ("b", pa.list_(pa.float32()))]
    expected = {name: TensorSpec(dtype=kind, shape=()) for name, kind in fields}
    assert Schema(pa.schema(fields)) == Schema(expected)
    with pytest.raises(SchemaError, match="different names"):
        Schema(pa.schema([*fields, fields[0]]))


@pytest.mark.parametrize("value", ["images", "object", list, 3, pd.CategoricalDtype(["a"])])
def test_other_values_are_refused_as_specs(value: Any) -> None:
    """A value that is neither an htype nor a dtype of scalars is refused with the tensor's name."""
    with pytest.raises(SchemaError, match="tensor 'a'"):
        schema_of(a=value)
