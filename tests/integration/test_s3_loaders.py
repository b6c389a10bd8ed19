"""Test loaders of PyTorch over S3: forked and spawned workers, kept connections, open files, pickles."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

import dasklake
from tests.support.clusters import wait_until
from tests.support.proxy import Proxy
from tests.support.s3 import S3Bucket

SAMPLES = 60

#: Numbers of a sample: so many that chunks are read in ranges, and not kept in memory.
LENGTH = 5_000

#: Seconds after which a loader whose workers hang is an error.
TIMEOUT = 90

pytestmark = [
    # A machine with fewer cores than the test has workers.
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker:UserWarning"),
]


@pytest.fixture
def url(s3_bucket: S3Bucket) -> str:
    """Write a lake of three chunks to S3, whose values are not kept in memory."""
    lake = dasklake.empty(f"{s3_bucket.url}/lake", storage_options=s3_bucket.options)
    lake.create_tensor("x", dtype="int64", shape=())
    lake.create_tensor("noise", dtype="float32", shape=(None,))
    for begin in range(0, SAMPLES, 20):
        rows = range(begin, begin + 20)
        lake.extend([{"x": i, "noise": np.full(i + LENGTH, i, "float32")} for i in rows])
    return lake.url


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _numbers(batches: Any) -> list[int]:
    """Return the numbers of the samples, whose other values follow from them."""
    numbers: list[int] = []
    for batch in batches:
        for number, noise in zip(batch["x"].tolist(), batch["noise"], strict=True):
            assert noise.shape == (number + LENGTH,)
            assert (noise == number).all()
            numbers.append(number)
    return numbers


@pytest.mark.parametrize(
    ("method", "workers", "persistent"), [("fork", 2, False), ("fork", 2, True), ("spawn", 1, True)]
)
def test_workers_read_two_epochs(
    url: str, s3_bucket: S3Bucket, method: str, workers: int, *, persistent: bool
) -> None:
    """Workers read what the parent reads, after the parent has used its own connections."""
    lake = dasklake.open(url, storage_options=s3_bucket.options)
    dataset = lake.torch(batch_size=7, shuffle=True, seed=2)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        persistent_workers=persistent,
        multiprocessing_context=method,
        timeout=TIMEOUT,
    )
    open_files = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        expected = _numbers(lake.batches(7, shuffle=True, seed=2, epoch=epoch))
        assert sorted(expected) == list(range(SAMPLES))
        assert _numbers(loader) == expected
        open_files.append(_open_files())
    # PyTorch closes the pipes of the last epoch's workers some time after their end.
    wait_until(lambda: _open_files() <= open_files[0], "no file stays open", 20)
    # Neither connections nor chunks that were read are sent to workers.
    assert len(pickle.dumps(dataset)) < 4096


def test_parent_and_workers_have_connections_of_their_own(
    url: str, proxy: Proxy, s3_bucket: S3Bucket
) -> None:
    """Parent and workers read in turn, with connections that the storage keeps open."""
    proxy.keeps_connections = True
    lake = dasklake.open(url, storage_options=proxy.options)
    dataset = lake.torch(batch_size=7)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=TIMEOUT,
    )

    def requests() -> int:
        before = proxy.requests
        assert _numbers(dasklake.open(url, storage_options=proxy.options).batches(7)) == expected
        return proxy.requests - before

    expected = list(range(SAMPLES))
    assert _numbers(lake.batches(7)) == expected
    needed = requests()
    for _ in range(2):
        before = proxy.requests
        assert _numbers(loader) == expected
        assert proxy.requests > before
        # A lost answer would be waited for until a timeout, and its request repeated.
        assert requests() == needed > 0
