"""Layout of tensors in Arrow columns, and links."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from dasklake._schema.arrow_layout import Layout, shape_column, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Link, link
from dasklake.exceptions import SampleError


@pytest.mark.parametrize(
    ("spec", "layout", "column"),
    [
        (TensorSpec(dtype="int16", shape=()), Layout.ARROW, pa.int16()),
        (TensorSpec(dtype="bool", shape=()), Layout.ARROW, pa.bool_()),
        (TensorSpec(dtype="datetime64[us]", shape=()), Layout.ARROW, pa.timestamp("us")),
        (TensorSpec("text"), Layout.ARROW, pa.large_string()),
        (TensorSpec(dtype=pa.decimal128(10, 2)), Layout.ARROW, pa.decimal128(10, 2)),
        (
            TensorSpec(dtype="float32", shape=(2, 3)),
            Layout.TENSOR,
            pa.fixed_shape_tensor(pa.float32(), (2, 3)),
        ),
        (
            TensorSpec(dtype="bool", shape=(4,)),
            Layout.TENSOR,
            pa.fixed_shape_tensor(pa.uint8(), (4,)),
        ),
        (
            TensorSpec(dtype="complex64", shape=()),
            Layout.TENSOR,
            pa.fixed_shape_tensor(pa.float32(), (2,)),
        ),
        (
            TensorSpec(dtype="datetime64[ns]", shape=(2,)),
            Layout.TENSOR,
            pa.fixed_shape_tensor(pa.int64(), (2,)),
        ),
        (TensorSpec("bbox"), Layout.BLOB, pa.large_binary()),
        (TensorSpec("binary_mask"), Layout.BLOB, pa.large_binary()),
        (TensorSpec("image", compression="png"), Layout.BLOB, pa.large_binary()),
        (
            TensorSpec(dtype="float32", shape=(2,), compression="lz4"),
            Layout.BLOB,
            pa.large_binary(),
        ),
        (TensorSpec(dtype="float32", shape=(0, 3)), Layout.BLOB, pa.large_binary()),
        (TensorSpec(dtype="uint8", shape=(2**16, 2**15)), Layout.BLOB, pa.large_binary()),
    ],
    ids=str,
)
def test_layouts(spec: TensorSpec, layout: Layout, column: pa.DataType) -> None:
    """The spec alone determines the layout; values that Arrow lacks are blobs."""
    storage = storage_of(spec)
    assert (storage.layout, storage.type) == (layout, column)


def test_ragged_shapes_have_a_column() -> None:
    """A shape column has one length for each axis, or a variable number if the rank is open."""
    assert storage_of(TensorSpec("binary_mask")).shape_type == pa.list_(pa.int64(), 3)
    assert storage_of(TensorSpec(dtype="int8")).shape_type == pa.list_(pa.int64())
    assert shape_column("masks") == "masks:shape"


def test_stored_elements() -> None:
    """Types that Arrow tensors lack are stored as views of plain numbers."""
    elements = {
        "bool": "uint8",
        "complex128": "float64",
        "datetime64[s]": "int64",
        "timedelta64[ns]": "int64",
        "float16": "float16",
    }
    for dtype, element in elements.items():
        assert storage_of(TensorSpec(dtype=dtype, shape=(3,))).element == np.dtype(element)


def test_link_is_a_url_and_a_key() -> None:
    """A link holds a URL and the name of credentials, and can be pickled."""
    value = link("s3://bucket/a.jpg", "reader")
    assert value == Link("s3://bucket/a.jpg", "reader") == pickle.loads(pickle.dumps(value))
    assert TensorSpec("link[image]", compression="jpeg").linked


def test_link_refuses_other_types() -> None:
    """A URL or key that is not a string is refused, with its type."""
    with pytest.raises(SampleError, match="got int"):
        link(7)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(SampleError, match="creds_key"):
        link("s3://b/a", 7)  # type: ignore[arg-type]  # the point of the test
