"""Test loaders of PyTorch: forked, spawned and killed workers, threads, and open files."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dasklake
from dasklake.torch import LakeDataset
from tests.support.clusters import wait_until
from tests.support.s3 import S3Bucket

SAMPLES = 60


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake of compressed arrays, which are decoded in threads, in several chunks."""
    made = dasklake.empty(tmp_path_factory.mktemp("workers") / "lake")
    made.create_tensor("x", dtype="int64", shape=())
    made.create_tensor("noise", dtype="float32", shape=(None,), compression="lz4")
    for part in range(3):
        rows = range(part * SAMPLES // 3, (part + 1) * SAMPLES // 3)
        made.extend([{"x": i, "noise": np.full(i + 1, i, "float32")} for i in rows])
    return made


def _open_files() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def _check(batch: dict[str, Any]) -> list[int]:
    numbers: list[int] = batch["x"].tolist()
    for number, noise in zip(numbers, batch["noise"], strict=True):
        assert noise.shape == (number + 1,)
        assert (noise == number).all()
    return numbers


def _three_epochs(dataset: LakeDataset, **options: Any) -> None:
    """Read three epochs, with the same open files after each."""
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, **options)
    open_files = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        numbers = [number for batch in loader for number in _check(batch)]
        assert sorted(numbers) == list(range(SAMPLES))
        open_files.append(_open_files())
    # The first epoch may open what stays open: pipes of the spawned workers' parent, for example. PyTorch
    # closes the pipes of the last epoch's workers some time after their end.
    wait_until(lambda: _open_files() <= open_files[1], "no file stays open", 20)


@pytest.mark.parametrize(
    ("method", "persistent"), [("fork", False), ("fork", True), ("spawn", True)]
)
def test_epochs_with_workers_leave_no_open_files(
    lake: dasklake.Lake, method: str, *, persistent: bool
) -> None:
    """Forked and spawned workers read three epochs, after the parent has used threads itself."""
    dataset = lake.torch(batch_size=7, shuffle=True)
    assert len(_check(next(iter(dataset)))) == 7
    _three_epochs(
        dataset, num_workers=2, multiprocessing_context=method, persistent_workers=persistent
    )


def test_epochs_in_the_main_process_leave_no_open_files(lake: dasklake.Lake) -> None:
    """Without workers, the threads of an epoch end with it."""
    _three_epochs(lake.torch(batch_size=7, shuffle=True))


def test_workers_are_forked_while_threads_read(lake: dasklake.Lake) -> None:
    """A fork while other threads hold locks of the lake does not hang the workers."""
    stop: list[bool] = []

    def read() -> int:
        reads = 0
        while not stop:
            _check(lake.take(range(reads % 50, reads % 50 + 10)))
            reads += 1
        return reads

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for epoch in range(3):
                dataset = lake.torch(batch_size=7, shuffle=True, epoch=epoch)
                loader: DataLoader[Any] = DataLoader(
                    dataset, batch_size=None, num_workers=2, multiprocessing_context="fork"
                )
                numbers = [number for batch in loader for number in _check(batch)]
                assert sorted(numbers) == list(range(SAMPLES))
        finally:
            stop.append(True)
        assert all(reader.result() for reader in readers)


def test_threads_share_a_data_set_of_samples(lake: dasklake.Lake) -> None:
    """Several threads read the samples of one lake at the same time."""
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: lake.__getitems__([i, 59 - i]), range(SAMPLES)))
    assert [int(part[0]["x"]) for part in parts] == list(range(SAMPLES))
    assert all((part[1]["noise"] == part[1]["x"]).all() for part in parts)


@pytest.mark.parametrize(
    ("kind", "method"), [("iterable", "fork"), ("map-style", "fork"), ("iterable", "spawn")]
)
def test_a_killed_worker_is_an_error_and_leaves_no_open_files(
    lake: dasklake.Lake, kind: str, method: str
) -> None:
    """The loader reports the death of a worker, does not hang, and another loader works."""
    _kill_workers(lake.url, kind, method)


@pytest.mark.parametrize("kind", ["iterable", "map-style"])
def test_a_killed_worker_is_an_error_on_s3(
    lake: dasklake.Lake, s3_bucket: S3Bucket, kind: str
) -> None:
    """The same holds on S3, where each worker has connections and an event loop of its own."""
    copy = f"{s3_bucket.url}/lake"
    dasklake.to_lake(
        lake.to_dask_bag(),
        copy,
        schema=lake.schema,
        storage_options=s3_bucket.options,
        options=dasklake.WriteOptions(scheduler="sync"),
        progress=False,
    )
    _kill_workers(
        copy,
        kind,
        "fork",
        AWS_ACCESS_KEY_ID=s3_bucket.options["key"],
        AWS_SECRET_ACCESS_KEY=s3_bucket.options["secret"],
        AWS_ENDPOINT_URL=s3_bucket.options["endpoint_url"],
    )


def _kill_workers(url: str, kind: str, method: str, **environment: str) -> None:
    script = [sys.executable, "-m", "tests.support._killed_worker", url, kind, method]
    run = subprocess.run(
        script,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    *kills, last = run.stdout.splitlines()
    open_files, messages = zip(*(line.split(maxsplit=1) for line in kills), strict=True)
    assert all(
        message.startswith(("RuntimeError", "Connection", "FileNotFoundError", "EOFError"))
        for message in messages
    )
    # A worker that dies while it sends a tensor may leave one file open: PyTorch's, not that of each
    # loader.
    assert any(int(after) <= int(before) for before, after in pairwise(open_files))
    assert last == f"{SAMPLES} samples"


def test_a_loader_that_is_left_early_ends_its_workers(lake: dasklake.Lake) -> None:
    """A loop that ends after the first batch leaves neither processes nor open files."""
    open_files = []
    for _ in range(3):
        loader: DataLoader[Any] = DataLoader(
            lake.torch(batch_size=2), batch_size=None, num_workers=2, multiprocessing_context="fork"
        )
        batches: Any = iter(loader)
        next(batches)
        workers = list(batches._workers)
        del batches, loader
        gc.collect()
        assert not any(worker.is_alive() for worker in workers)
        open_files.append(_open_files())
    assert open_files[2] <= open_files[1]


def test_spawned_workers_read_the_version_of_the_data_set(tmp_path: Path) -> None:
    """A worker reads the version of the data set, also if the lake has a newer one."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    lake.extend({"x": range(10)})
    dataset = lake.torch(batch_size=3)
    lake.append({"x": 10})
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert torch.cat([batch["x"] for batch in loader]).tolist() == list(range(10))
