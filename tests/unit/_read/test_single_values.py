"""Test how many bytes a single value of a large Arrow column costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._storage.store import ObjectStore
from tests.support.counting import CountingFileSystem
from tests.support.samples import Make

#: Bytes of a value.
SIZE = 30_000

_RANDOM = np.random.default_rng(0)


def _blob() -> bytes:
    return _RANDOM.bytes(SIZE)


def _numbers() -> list[int]:
    numbers: list[int] = np.frombuffer(_blob(), np.int64).tolist()
    return numbers


TYPES: dict[str, tuple[Any, Any]] = {
    "binary": ("binary", _blob),
    "large binary": (pa.large_binary(), _blob),
    "list": (pa.list_(pa.int64()), _numbers),
    "large list": (pa.large_list(pa.int64()), _numbers),
    "fixed list": (pa.list_(pa.int64(), SIZE // 8), _numbers),
    "fixed binary": (pa.binary(SIZE), _blob),
    "struct": (
        pa.struct([("a", pa.binary()), ("b", pa.int8())]),
        lambda: {"a": _blob(), "b": 1},
    ),
    "list of strings": (pa.list_(pa.string()), lambda: ["a" * 3000] * (SIZE // 3000)),
    "map": (pa.map_(pa.string(), pa.binary()), lambda: [("k", _blob())]),
}


@pytest.mark.parametrize("kind", TYPES)
def test_a_value_costs_its_pages(
    kind: str, make_lake: Make, counting_files: type[CountingFileSystem]
) -> None:
    """A value of 30 kB in a column of 480 kB costs at most 64 kB, and is read back as written."""
    dtype, make = TYPES[kind]
    values = [None if row == 8 else make() for row in range(16)]
    schema = Schema({"value": TensorSpec(dtype=dtype)})
    store = make_lake(schema, [[[{"value": v} for v in values]]], ObjectStore("counted://values"))
    for row in (0, 7, 15):
        lake = dasklake.open(store.url)
        tensor = lake["value"]
        counting_files.reset()
        assert tensor[row] == values[row]
        read = sum(size for path, size in counting_files.reads if "/data/" in path)
        assert SIZE < read <= 64_000
    assert lake["value"][8] is None
    assert lake["value"][6:10] == [*values[6:8], None, values[9]]
