"""Register functions that give Dask the size, the token and examples of stored values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from dask.dataframe.extensions import make_array_nonempty
from dask.sizeof import sizeof
from dask.tokenize import normalize_token

from dasklake._codecs.sample import Sample, StoredValue, raw_value, sealed
from dasklake._read.tensor_array import TensorArray
from dasklake._read.tensor_dtype import TensorDtype
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import LakeError


def register_types() -> None:
    """Register the functions with Dask, once in each process."""
    sizeof.register(Sample, _size)
    normalize_token.register(Sample, _identity)
    normalize_token.register(TensorDtype, _dtype_identity)
    normalize_token.register(TensorArray, _array_identity)
    make_array_nonempty.register(TensorDtype, _example)


def _size(sample: Sample) -> int:
    """Return the size in bytes: of a stored value, of its stored form."""
    return sys.getsizeof(sample) + sum(_value_size(raw_value(sample, name)) for name in sample)


def _value_size(value: Any) -> int:
    if not isinstance(value, StoredValue):
        return int(sizeof(value))
    stored = value.stored
    size = len(stored.data) if isinstance(stored, Blob) else int(sizeof(stored))
    return size + (int(sizeof(value.get())) if value.is_decoded else 0)


def _identity(sample: Sample) -> Any:
    stored = sealed(sample, lambda value: value)
    values = [(name, _value_identity(raw_value(stored, name))) for name in stored]
    return "dasklake-sample", values


def _value_identity(value: Any) -> Any:
    if not isinstance(value, StoredValue):
        return normalize_token(value)
    stored = value.stored
    if isinstance(stored, Blob):
        stored = (bytes(stored.data), stored.shape)
    return normalize_token((value.spec.to_json(), stored))


def _dtype_identity(dtype: TensorDtype) -> Any:
    # The name lacks the class names.
    return "dasklake-dtype", normalize_token(dtype.spec.to_json())


def _array_identity(array: TensorArray) -> Any:
    # The function of extension arrays would decode the values.
    return "dasklake-array", _dtype_identity(array.dtype), list(array.digests())


def _example(dtype: TensorDtype) -> TensorArray:
    """Return two values, with which Dask tries functions to find the dtype of their results."""
    spec = dtype.spec
    for value in (*_arrays(spec), [], {}):
        with suppress(LakeError):
            return TensorArray.of([value, value], dtype)
    return TensorArray.of([None, None], dtype)


def _arrays(spec: TensorSpec) -> Iterator[Any]:
    """Yield arrays of zeros, of which one fits most specs of numbers and images."""
    dtype = spec.numpy_dtype or np.dtype("uint8")
    for rank in range(4) if spec.shape is None else [len(spec.shape)]:
        axes = (None,) * rank if spec.shape is None else spec.shape
        shape = [1 if axis is None else axis for axis in axes]
        if spec.kind.codec == "image" and axes[-1] is None:
            shape[-1] = 3  # most images have colors
        yield np.zeros(shape, dtype)
