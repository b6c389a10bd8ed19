"""Compare reading many samples with one raw file, and with a bare client of an object storage."""

from __future__ import annotations

import asyncio
import os
import pickle
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dask.bag as db
import fsspec
import numpy as np
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

import dasklake
from tests.benchmarks.common import scratch
from tests.benchmarks.jpegs import pictures
from tests.support.proxy import Proxy
from tests.support.s3 import serving

SAMPLES, BATCH, BLOCK, RUNS = 2_000, 32, 64, 7

#: Seconds of each request, bytes per second of each connection, connections, bytes of a request.
LATENCY, BANDWIDTH, CONNECTIONS, PIECE = 0.03, 50e6, 10, 8 * 2**20

SCHEMA = {
    "image": dasklake.TensorSpec("image", compression="jpeg"),
    "label": dasklake.TensorSpec(dtype="int64", shape=()),
    "boxes": dasklake.TensorSpec(dtype="float32", shape=(None, 4)),
}


def samples() -> list[dict[str, Any]]:
    """Return JPEGs, labels and boxes."""
    data, _ = pictures()
    boxes = np.random.default_rng(0).random((12, 4), np.float32)
    return [
        {"image": data[i % len(data)], "label": i % 80, "boxes": boxes[: i % 12]}
        for i in range(SAMPLES)
    ]


def write(url: str, items: list[dict[str, Any]], **options: Any) -> None:
    """Write the samples as a lake."""
    dasklake.to_lake(
        db.from_sequence(range(SAMPLES), npartitions=8),
        url,
        schema=SCHEMA,
        transform=items.__getitem__,
        progress=False,
        options=dasklake.WriteOptions(scheduler="sync"),
        **options,
    )


def main() -> None:
    """Print the ratios of interleaved runs."""
    items = samples()
    with scratch() as folder:
        _disk(items, Path(folder))
    _object_storage(items)


def _consume(lake: dasklake.Lake, rows: Any = None) -> None:
    for batch in lake.batches(BATCH, rows, decode=False):
        for image, _, _ in zip(batch["image"], batch["label"], batch["boxes"], strict=True):
            len(image)


def _disk(items: list[dict[str, Any]], folder: Path) -> None:
    write(str(folder / "lake"), items)
    records = [pickle.dumps(item, 5) for item in items]
    ends = np.cumsum([len(record) for record in records]).tolist()
    (folder / "raw").write_bytes(b"".join(records))
    fd = os.open(folder / "raw", os.O_RDONLY)
    lake = dasklake.open(folder / "lake")
    order = np.random.default_rng(0).permutation(SAMPLES)

    def read(row: int) -> bytes:
        begin = ends[row - 1] if row else 0
        return os.pread(fd, ends[row] - begin, begin)

    def raw(rows: Any) -> None:
        for row in rows:
            len(pickle.loads(read(row))["image"])  # made above

    def pread() -> None:
        for row in order.tolist():
            read(row)

    def single() -> None:
        tensor = lake["image"]
        for row in order.tolist():
            tensor.bytes(row)

    _compare(
        {
            "sequential, raw file": lambda: raw(range(SAMPLES)),
            "sequential, lake": lambda: _consume(lake),
            "shuffled, raw file": lambda: raw(order.tolist()),
            "shuffled, lake": lambda: _consume(lake, order),
            "single, pread": pread,
            "single, lake": single,
        }
    )
    os.close(fd)


def _object_storage(items: list[dict[str, Any]]) -> None:
    with serving() as server:
        bucket = server.bucket()
        write(f"{bucket.url}/lake", items, storage_options=bucket.options)
        proxy = Proxy(server)
        proxy.latency, proxy.bandwidth = LATENCY, BANDWIDTH
        files = fsspec.filesystem("s3", **bucket.options)
        objects = {
            key: info["size"]
            for key, info in files.find(f"{bucket.url[5:]}/lake/data", detail=True).items()
        }
        blocks = np.random.default_rng(0).permutation(-(-SAMPLES // BLOCK))
        rows = (blocks[:, np.newaxis] * BLOCK + np.arange(BLOCK)).ravel()
        rows = rows[rows < SAMPLES]
        slow = fsspec.filesystem("s3", **proxy.options)
        key = next(iter(objects))

        def opened() -> dasklake.Lake:
            return dasklake.open(f"{bucket.url}/lake", storage_options=proxy.options)

        def one_by_one() -> None:
            for start in range(0, 50 * 64_000, 64_000):
                slow.cat_file(key, start=start, end=start + 64_000)

        durations = _compare(
            {
                "50 requests, one by one": one_by_one,
                "bare client": lambda: asyncio.run(_bare(objects, proxy.options)),
                "lake": lambda: _consume(opened()),
                "lake, blocks in random order": lambda: _consume(opened(), rows),
            },
            runs=3,
        )
        ratio = durations["50 requests, one by one"] * SAMPLES / 50 / durations["lake"]
        proxy.requests = proxy.sent = 0
        _consume(opened(), rows)
        stored = sum(len(item["image"]) + item["boxes"].nbytes + 8 for item in items)
        print(
            f"{ratio:.0f} times as fast as one request after the other; blocks: {proxy.requests} "
            f"requests, {proxy.sent / stored:.3f} times the bytes of the samples"
        )
        proxy.close()


async def _bare(objects: Mapping[str, int], options: Mapping[str, Any]) -> None:
    """Read all bytes of some objects with an asyncio client."""
    gate = asyncio.Semaphore(CONNECTIONS)
    config = AioConfig(max_pool_connections=CONNECTIONS)
    async with get_session().create_client(
        "s3",
        endpoint_url=options["endpoint_url"],
        aws_access_key_id=options["key"],
        aws_secret_access_key=options["secret"],
        region_name="us-east-1",
        config=config,
    ) as client:

        async def read(key: str, start: int) -> None:
            bucket, name = key.split("/", 1)
            async with gate:
                part = f"bytes={start}-{start + PIECE - 1}"
                answer = await client.get_object(Bucket=bucket, Key=name, Range=part)
                async with answer["Body"] as body:
                    await body.read()

        starts = [(key, start) for key, size in objects.items() for start in range(0, size, PIECE)]
        await asyncio.gather(*(read(key, start) for key, start in starts))


def _compare(actions: Mapping[str, Callable[[], Any]], runs: int = RUNS) -> dict[str, float]:
    durations: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            durations[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) for name, values in durations.items()}
    for name, median in medians.items():
        spread = f"{min(durations[name]):.3f} to {max(durations[name]):.3f}"
        print(f"{name:30s}: {median:.3f} s ({spread}), {SAMPLES / median:8.0f} samples/s")
    return medians
