"""Test that schemas survive storage, pickling and their own description."""

from __future__ import annotations

import json
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dasklake import Schema, TensorSpec
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import describe

NUMBERS = ["bool", "int8", "uint16", "int64", "float16", "float64", "complex64", "datetime64[us]"]
AXES = st.one_of(st.none(), st.integers(0, 2**20))
NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: not name.endswith(":shape")
)


def _specs() -> st.SearchStrategy[TensorSpec]:
    generic = st.builds(
        TensorSpec,
        dtype=st.sampled_from(NUMBERS),
        shape=st.one_of(st.none(), st.lists(AXES, max_size=4).map(tuple)),
        compression=st.sampled_from([None, "lz4", "zstd"]),
        optional=st.booleans(),
    )
    labels = st.builds(
        TensorSpec,
        st.just("class_label"),
        dtype=st.sampled_from(["uint8", "int64"]),
        class_names=st.one_of(st.none(), st.lists(st.text(), unique=True).map(tuple)),
    )
    boxes = st.builds(
        TensorSpec,
        st.just("bbox"),
        shape=st.sampled_from([None, (4,), (None, 4), (3, 4)]),
        coords=st.sampled_from([None, "pixel-ltwh", "fractional-ccwh"]),
    )
    plain = st.sampled_from(
        [
            TensorSpec("text"),
            TensorSpec("embedding", shape=(8,)),
            TensorSpec("binary_mask"),
            TensorSpec("image", compression="jpeg"),
            TensorSpec("link[image]", compression="png"),
            TensorSpec(dtype="Int64"),
            TensorSpec(dtype="string"),
        ]
    )
    return st.one_of(generic, labels, boxes, plain)


@given(st.dictionaries(NAMES, _specs(), min_size=1, max_size=5))
def test_round_trips(tensors: dict[str, TensorSpec]) -> None:
    """A schema is unchanged after a round trip through JSON or pickle."""
    schema = Schema(tensors)
    document: Any = json.loads(json.dumps(schema.to_json()))
    assert Schema.from_json(document) == schema == pickle.loads(pickle.dumps(schema))
    assert schema.differences(Schema.from_json(document)) == []


@given(_specs())
def test_description_is_the_call(spec: TensorSpec) -> None:
    """The description of a spec evaluates to an equal spec, unless names were shortened."""
    text = describe(spec)
    if "…" not in text and spec.arrow is None:
        namespace = {"TensorSpec": TensorSpec}
        assert eval(text, namespace) == spec  # noqa: S307  # our own text, in a test


@given(_specs())
def test_every_spec_has_one_layout(spec: TensorSpec) -> None:
    """Every valid spec has exactly one layout, with all parameters that the layout needs."""
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        assert spec.fixed
        assert storage.type.shape == list(storage.shape)
    if storage.layout is Layout.BLOB:
        assert storage.shape_type is not None
