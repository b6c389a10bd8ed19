"""Register functions that give Dask the size and the token of samples without decoding them."""

from __future__ import annotations

import sys
from typing import Any

from dask.sizeof import sizeof
from dask.tokenize import normalize_token

from dasklake._codecs.sample import Sample, StoredValue, raw_value, sealed
from dasklake._schema.values import Blob


def register_samples() -> None:
    """Register the functions with Dask, once in each process."""
    sizeof.register(Sample, _size)
    normalize_token.register(Sample, _identity)


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
