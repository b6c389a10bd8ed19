"""The contract of a storage, over a real S3 server."""

from __future__ import annotations

import pickle

import pytest

from dasklake._storage.store import ObjectStore
from dasklake.exceptions import ObjectNotFoundError, StoreError
from dasklake.testing.store import StoreContract
from tests.support.s3 import SECRET, S3Bucket


class TestS3Store(StoreContract):
    bucket: S3Bucket

    @pytest.fixture
    def store(self, s3_bucket: S3Bucket) -> ObjectStore:
        """Return a store in a separate bucket."""
        self.bucket = s3_bucket
        return ObjectStore(f"{s3_bucket.url}/some/lake", s3_bucket.options)

    def path(self, store: ObjectStore, key: str) -> str:
        """Return the URL path of an object."""
        return f"/{store.url.removeprefix('s3://')}/{key}"

    def write_behind(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Send a plain request."""
        self.bucket.server.request("PUT", self.path(store, key), data)

    def read_behind(self, store: ObjectStore, key: str) -> bytes:
        """Send a plain request."""
        return self.bucket.server.request("GET", self.path(store, key))

    def delete_behind(self, store: ObjectStore, key: str) -> None:
        """Send a plain request."""
        self.bucket.server.request("DELETE", self.path(store, key))

    def test_missing_bucket(self, s3_bucket: S3Bucket) -> None:
        """Reading from or writing to a missing bucket is an error that names it."""
        store = ObjectStore("s3://no-such-bucket/lake", s3_bucket.options)
        assert store.names("_lake") == []
        with pytest.raises(ObjectNotFoundError, match="no-such-bucket"):
            store.put("key", b"")

    def test_secrets_stay_hidden(self, store: ObjectStore) -> None:
        """Neither the repr nor the errors of a store show secret options."""
        broken = ObjectStore(
            store.url, {"key": "testing", "secret": SECRET, "client_kwargs": {"nonsense": SECRET}}
        )
        with pytest.raises(StoreError) as caught:
            broken.get("key")
        assert SECRET not in f"{broken!r} {caught.value} {caught.value.__cause__}"

    def test_options_of_each_process(self, s3_bucket: S3Bucket) -> None:
        """Options may come from a function; only the function is pickled."""
        store = ObjectStore(f"{s3_bucket.url}/x", Options(s3_bucket.server.port))
        store.put("key", b"value")
        assert SECRET.encode() not in pickle.dumps(store)
        assert pickle.loads(pickle.dumps(store)).get("key") == b"value"


class Options:
    """A picklable function that returns the secret of its process."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self) -> dict[str, str]:
        """Return storage options for s3fs."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return {"key": "testing", "secret": SECRET, "endpoint_url": endpoint}
