"""The contract of a storage, over the memory of this process."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from dasklake._storage.store import ObjectStore
from dasklake.testing.store import StoreContract


class TestMemoryStore(StoreContract):
    race_rounds = 200

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return a store under a unique name."""
        return ObjectStore(f"memory://{uuid.uuid4().hex}/lake")

    def write_behind(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Write through fsspec itself."""
        fsspec.filesystem("memory").pipe_file(f"{store.url}/{key}", data)

    def read_behind(self, store: ObjectStore, key: str) -> bytes:
        """Read through fsspec itself."""
        return bytes(fsspec.filesystem("memory").cat_file(f"{store.url}/{key}"))

    def delete_behind(self, store: ObjectStore, key: str) -> None:
        """Delete through fsspec itself."""
        fsspec.filesystem("memory").rm_file(f"{store.url}/{key}")

    def test_is_not_shared(self, store: ObjectStore) -> None:
        """A memory store is reported as not shared between processes."""
        assert not store.shared
