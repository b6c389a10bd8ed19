"""Test that a pickled read plan is small and reads the same values on workers."""

from __future__ import annotations

import pickle

import pytest
from dask.base import tokenize

from dasklake import Schema, TensorSpec
from dasklake._log.log import Log
from dasklake._lru import LRUCache
from dasklake._read import origin as origins
from dasklake._read.origin import Origin
from dasklake._read.partition import read_frame, read_rows
from dasklake._read.plan import ReadPlan
from tests.support.samples import Make

SCHEMA = Schema({f"tensor {i}": TensorSpec(dtype="int64", shape=()) for i in range(300)})


def test_the_schema_is_not_pickled(make_lake: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task contains no schema; its process reads the schema from the commit once."""
    store = make_lake(SCHEMA, [[[dict.fromkeys(SCHEMA, 7)]]])
    log = Log(store)
    commit = log.require_head()
    origin = Origin(store, commit)
    data = pickle.dumps(origin)
    assert len(data) < 1000
    monkeypatch.setattr(origins, "_descriptions", LRUCache(max_entries=32))
    unpickled = pickle.loads(data)
    assert unpickled.schema == SCHEMA
    assert unpickled.schema is pickle.loads(data).schema
    assert tokenize(unpickled) == tokenize(origin)
    locations = ReadPlan(log.manifest(commit)).locations()
    assert list(read_rows(unpickled, locations, ["tensor 299"])) == [{"tensor 299": 7}]
    assert read_frame(locations, origin=unpickled, columns=["tensor 5"])["tensor 5"].tolist() == [7]
