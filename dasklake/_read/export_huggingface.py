"""Convert columns of Arrow to the types of Hugging Face ``datasets``: files, class labels, arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError

__all__ = ["huggingface_column", "huggingface_metadata"]

#: A file, as the library stores it.
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

#: Types of features by htype. The library finds those of other columns by their Arrow types.
_FILES = {"image": "Image", "audio": "Audio"}

#: Most bytes of the files, and most items of the lists, that are one array.
_MOST = 2**31 - 1

_Convert = Callable[[pa.Array], pa.Array]


def huggingface_metadata(schema: pa.Schema, specs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Return the metadata of a schema by which the library finds its features.

    Parameters
    ----------
    schema : pyarrow.Schema
        Schema of columns of :func:`huggingface_column`.
    specs : mapping of str to TensorSpec
        The tensors.

    References
    ----------
    .. [1] Features of Hugging Face datasets,
       https://huggingface.co/docs/datasets/about_dataset_features.
    """
    leaves = {name: _leaf_feature(specs[name]) for name in schema.names}
    features = {
        name: feature
        for name, leaf in leaves.items()
        if leaf and (feature := _feature(schema.field(name).type, leaf))
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


def _leaf_feature(spec: TensorSpec) -> dict[str, Any] | None:
    """Return the feature of a value, or of an item of a sequence; None if its type shows it."""
    if spec.class_names:
        return {"names": list(spec.class_names), "_type": "ClassLabel"}
    name = _FILES.get(_file_htype(spec))
    return {"_type": name} if name else None


def _file_htype(spec: TensorSpec) -> str:
    return spec.item.htype if spec.sequence else spec.htype


def _feature(kind: pa.DataType, leaf: dict[str, Any]) -> dict[str, Any] | None:
    """Return the feature of a type, with the lists around its values; None if it is another type."""
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _feature(kind.value_type, leaf)
        length = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        # Releases before 4.0 have no other name of a list.
        return inner and {"feature": inner, "length": length, "_type": "Sequence"}
    expected = pa.int64() if leaf["_type"] == "ClassLabel" else _FILE
    return leaf if kind == expected else None


def huggingface_column(column: pa.Array, spec: TensorSpec, name: str) -> pa.Array:
    """Return a column in the types of the library.

    Parameters
    ----------
    column : pyarrow.Array
        The values.
    spec : TensorSpec
        The tensor.
    name : str
        Its name, for messages.

    Raises
    ------
    InvalidInputError
        The values are too large for one array.
    """
    try:
        return _converted(column, partial(_leaf, spec=spec))
    except (pa.ArrowInvalid, OverflowError) as error:
        raise InvalidInputError(
            f"Tensor {name!r} has too many bytes or items for an array of Hugging Face datasets "
            f"({error}). Give a smaller blocksize=."
        ) from error


def _converted(column: pa.Array, convert: _Convert) -> pa.Array:
    """Return lists, also of fixed size, of converted values."""
    kind = column.type
    missing = column.is_null() if column.null_count else None
    if isinstance(kind, pa.FixedShapeTensorType):
        return _nested(column, convert, missing)
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return convert(column)
    offsets = np.asarray(column.offsets)
    values = column.values
    if len(offsets):
        values = values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
        offsets = offsets - offsets[0]
        if offsets[-1] > _MOST:
            raise OverflowError(f"{offsets[-1]} items")
    indices = pa.array(offsets, pa.int32())
    return pa.ListArray.from_arrays(indices, _converted(values, convert), mask=missing)


def _nested(column: pa.Array, convert: _Convert, missing: pa.Array | None) -> pa.Array:
    """Return arrays of a fixed shape as lists of fixed size in such lists."""
    storage, shape = column.storage, column.type.shape
    count = storage.type.list_size
    values = convert(storage.values.slice(storage.offset * count, len(storage) * count))
    for size in reversed(shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return pa.FixedSizeListArray.from_arrays(values, shape[0], mask=missing)


def _leaf(values: pa.Array, spec: TensorSpec) -> pa.Array:
    """Return values without lists around them."""
    if spec.class_names and (
        pa.types.is_dictionary(values.type) or pa.types.is_integer(values.type)
    ):
        indices = values.indices if pa.types.is_dictionary(values.type) else values
        return indices.cast(pa.int64())
    if spec.class_names and pa.types.is_large_string(values.type):  # a list of labels has names
        names = pa.array(spec.class_names, values.type)
        return pc.index_in(values, names).cast(pa.int64())
    if pa.types.is_dictionary(values.type):
        return values.dictionary_decode()
    if pa.types.is_large_binary(values.type) and _file_htype(spec) in _FILES:
        files = values.cast(pa.binary())
        paths = pa.nulls(len(files), pa.string())
        missing = files.is_null() if files.null_count else None
        return pa.StructArray.from_arrays([files, paths], fields=list(_FILE), mask=missing)
    if spec.dtype == "bool" and values.type == pa.uint8():
        return values.cast(pa.bool_())
    return values
