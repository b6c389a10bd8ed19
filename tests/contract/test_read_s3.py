"""Test reading a lake from a real S3 server."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest

from dasklake import Schema, TensorSpec
from dasklake._api.lake import Lake, read_lake
from dasklake._api.lake import open as open_lake
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import CorruptionError
from tests.support.s3 import SECRET, S3Bucket
from tests.support.samples import Make

SCHEMA = Schema(
    {
        "id": TensorSpec(dtype="int64", shape=()),
        "big": TensorSpec(dtype="uint8", shape=(None,)),
    }
)
ROWS = [{"id": i, "big": np.full(20_000, i, np.uint8)} for i in range(20)]


@pytest.fixture
def lake(s3_bucket: S3Bucket, make_lake: Make) -> Lake:
    """Open a lake of two chunks in a separate bucket."""
    store = ObjectStore(f"{s3_bucket.url}/lake", s3_bucket.options)
    make_lake(SCHEMA, [[ROWS[:15]], [ROWS[15:]]], store)
    return open_lake(store.url, storage_options=s3_bucket.options)


def test_samples_and_collections(lake: Lake, s3_bucket: S3Bucket) -> None:
    """Samples, slices, bags and frames of a remote lake equal the written ones."""
    assert lake[17]["big"].tolist() == [17] * 20_000
    assert [row["id"] for row in lake[12:18]] == list(range(12, 18))
    assert [row["id"] for row in pickle.loads(pickle.dumps(lake))] == list(range(20))
    with dask.config.set(scheduler="threads"):
        assert lake.to_dask_bag(["id"]).compute() == [{"id": i} for i in range(20)]
        frame = read_lake(lake.url, ["id"], s3_bucket.options).compute()
    assert frame["id"].tolist() == list(range(20))
    assert SECRET not in repr(lake) + lake._repr_html_() + repr(lake.to_dask_bag().dask)


def test_damage_is_found(lake: Lake, s3_bucket: S3Bucket) -> None:
    """A changed byte in the bucket is detected when it is read."""
    store = ObjectStore(lake.url, s3_bucket.options)
    key, size = max(store.walk("data"), key=lambda entry: entry[1])
    data = bytearray(store.get(key))
    data[size // 2] ^= 1
    s3_bucket.server.request("PUT", f"/{lake.url.removeprefix('s3://')}/{key}", bytes(data))
    assert lake["id"][3] == 3
    with pytest.raises(CorruptionError, match="0 to 14"):
        lake["big"][:15]
