"""The contract of a storage, over memory behind a local cache."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from dasklake._storage.block_cache import CacheSettings
from dasklake._storage.store import ObjectStore
from dasklake.testing.store import StoreContract


class TestCachedStore(StoreContract):
    race_rounds = 20

    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return a store that reads chunks through a cache."""
        settings = CacheSettings(str(tmp_path), 64 * 2**20)
        return ObjectStore(f"memory://{uuid.uuid4().hex}/lake", cache=settings).cached

    def write_behind(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Write through fsspec itself."""
        fsspec.filesystem("memory").pipe_file(f"{store.url}/{key}", data)

    def read_behind(self, store: ObjectStore, key: str) -> bytes:
        """Read through fsspec itself."""
        return bytes(fsspec.filesystem("memory").cat_file(f"{store.url}/{key}"))

    def delete_behind(self, store: ObjectStore, key: str) -> None:
        """Delete through fsspec itself."""
        fsspec.filesystem("memory").rm_file(f"{store.url}/{key}")
