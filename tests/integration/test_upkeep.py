"""Maintenance of lakes through their handle: vacuum, compact and verify beside readers and writers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake import exceptions
from dasklake._model.commit import Kind
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import InvalidInputError, VersionExpiredError
from tests.support.lakes import SmallLake
from tests.support.s3 import S3Server

SCHEMA: dict[str, Any] = {
    "n": dasklake.TensorSpec(dtype="int64", shape=()),
    "name": "text",
    "vector": "embedding",
    "boxes": dasklake.TensorSpec("bbox", compression="lz4"),
    "mask": "binary_mask",
    "image": dasklake.TensorSpec("image", compression="png"),
}


def make_sample(n: int) -> dict[str, Any]:
    """Make a sample with one tensor of each layout, some with missing values."""
    return {
        "n": n,
        "name": f"sample {n}" if n % 3 else None,
        "vector": np.arange(4, dtype="float32") + n,
        "boxes": np.full((n % 3, 4), n, "float32"),
        "mask": np.indices((5, 4, n % 2)).sum(0) % 2 == 0,
        "image": np.full((2 + n % 3, 3, 3), n, "uint8"),
    }


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal."""
    return one is None if other is None else bool(np.array_equal(one, other))


@pytest.fixture(params=["file", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any] | None]:
    """Return a URL and its storage options, on each kind of storage."""
    if request.param == "file":
        return str(tmp_path / "lake"), None
    server: S3Server = request.getfixturevalue("s3_server")
    bucket = server.bucket()
    return f"{bucket.url}/lake", bucket.options


def write(url: str, options: Any, start: int, run: str | None, mode: Any = "append") -> None:
    """Write twenty samples as ten partitions."""
    with dask.config.set(scheduler="threads"):
        dasklake.to_lake(
            db.from_sequence(range(start, start + 20), npartitions=10),
            url,
            storage_options=options,
            schema=SCHEMA,
            transform=make_sample,
            mode=mode,
            run=run,
            checkpoint_every=8,
        )


def test_compaction_and_vacuum_keep_samples(location: tuple[str, dict[str, Any] | None]) -> None:
    """Compaction and vacuum keep samples and rows; readers of expired versions get an error."""
    url, options = location
    write(url, options, 200, "first", "create")
    write(url, options, 0, "second", "overwrite")
    write(url, options, 20, "third")
    lake = dasklake.open(url, storage_options=options)
    old = dasklake.open(url, storage_options=options)
    unread = dasklake.open(url, storage_options=options)
    before = old.commit.totals
    report = lake.compact(progress=False)
    assert (report.joined, report.into) == (20, 1)
    assert lake.version == report.version
    assert (lake.commit.totals.samples, lake.commit.totals.chunks) == (40, 1)
    assert before.chunks == 20
    for seen in (old, lake):
        for n, sample in enumerate(seen):
            expected = make_sample(n)
            assert all(same(sample[name], expected[name]) for name in expected), n
    assert lake[33]["image"].shape == (2, 3, 3)
    assert lake["n"][10:30].tolist() == list(range(10, 30))
    assert lake.to_dask_dataframe(["n"]).compute()["n"].tolist() == list(range(40))

    planned = lake.vacuum(older_than=None, dry_run=True)
    done = lake.vacuum(older_than=None, progress=False)
    assert planned.objects == done.objects
    assert len([key for key in done.objects if key.startswith("data/")]) == 30
    assert lake.verify().ok
    assert lake.verify(quick=True).chunks == 1
    assert lake["n"][:].tolist() == list(range(40))
    with pytest.raises(VersionExpiredError, match="expired"):
        dasklake.open(url, storage_options=options, version=old.version)
    with pytest.raises(VersionExpiredError, match="refresh"):
        unread[0]
    assert unread.refresh()[0]["n"] == 0
    assert lake.vacuum(older_than=None).objects == ()
    assert lake.compact().version is None
    # A compacted lake can be written like every lake.
    write(url, options, 40, "fourth")
    assert lake.refresh()["n"][:].tolist() == list(range(60))
    assert lake.is_complete


def test_resume_ignores_compactions(tmp_path: Path) -> None:
    """The only run of a lake is still its only run after a compaction."""
    url = str(tmp_path / "lake")
    write(url, None, 0, "run", "create")
    dasklake.open(url).compact()
    write(url, None, 0, None, "resume")
    lake = dasklake.open(url)
    assert len(lake) == 20
    assert len([c for c in lake.log(entries=True) if c.kind is Kind.COMPACT]) == 1


def test_invalid_ages_and_sizes_are_refused(tmp_path: Path) -> None:
    """Invalid ages and sizes are refused before any operation."""
    url = str(tmp_path / "lake")
    write(url, None, 0, "run", "create")
    lake = dasklake.open(url)
    with pytest.raises(InvalidInputError, match="older_than must be"):
        lake.vacuum(older_than="30")
    with pytest.raises(InvalidInputError):
        lake.compact(chunk_size="much")
    assert lake.refresh().version == lake.version


class Asleep:
    """A thread that pauses before its next call of a store's operation, until it is woken."""

    def __init__(
        self, store: ObjectStore, operation: str, prefix: str, call: Callable[[], Any]
    ) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        real = getattr(store, operation)

        def wait(key: str, *args: Any, **kwargs: Any) -> Any:
            if key.startswith(prefix) and not self.reached.is_set():
                self.reached.set()
                assert self.go_on.wait(60)
            return real(key, *args, **kwargs)

        setattr(store, operation, wait)

        def run() -> None:
            try:
                self.result = call()
            except exceptions.LakeError as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()
        assert self.reached.wait(60)

    def wake(self) -> None:
        """Release the thread and wait for its end."""
        self.go_on.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture
def sleepy(location: tuple[str, dict[str, Any] | None]) -> SmallLake:
    """Make a lake with objects to vacuum and a run in progress."""
    lake = SmallLake(ObjectStore(*location))
    for run in ("old", "new"):
        writer = lake.begin(run, 1, overwrite=run == "new")
        writer.commit([lake.write(writer, 0)], [])
    return lake


@pytest.mark.parametrize("operation", ["put", "create"])
def test_a_zombie_commits_correctly_after_a_vacuum(
    location: tuple[str, dict[str, Any] | None], sleepy: SmallLake, operation: str
) -> None:
    """A writer paused before its segment or commit during a whole vacuum commits correctly."""
    writer = sleepy.begin("run", 1)
    receipt = sleepy.write(writer, 0)
    prefix = "_lake/segments" if operation == "put" else "_lake/log"
    zombie = Asleep(writer.log.store, operation, prefix, lambda: writer.commit([receipt], []))
    other = SmallLake(copy.copy(sleepy.store))
    lake = dasklake.open(location[0], storage_options=location[1])
    report = lake.vacuum(older_than=None)
    assert len(report.objects) == (3 if operation == "create" else 2)
    zombie.wake()
    assert zombie.error is None
    assert lake.refresh().version == zombie.result.version
    assert len(lake) == 6
    assert lake.verify().ok
    assert other.keys(receipt) <= other.objects()
    assert lake.vacuum(older_than=None).bytes >= 0
    assert lake.verify().ok


@pytest.mark.parametrize("operation", ["put", "create"])
def test_a_zombie_stops_after_a_reset_and_a_vacuum(
    location: tuple[str, dict[str, Any] | None], sleepy: SmallLake, operation: str
) -> None:
    """A writer paused during a reset, a resume and a vacuum stops, and restores nothing."""
    writer = sleepy.begin("run", 2)
    receipt = sleepy.write(writer, 0)
    prefix = "_lake/segments" if operation == "put" else "_lake/log"
    zombie = Asleep(writer.log.store, operation, prefix, lambda: writer.commit([receipt], []))
    other = SmallLake(copy.copy(sleepy.store))
    lake = dasklake.open(location[0], storage_options=location[1])
    assert set(lake.reset(force=True).objects) == other.keys(receipt)
    again = other.resume("run")
    again.commit([other.write(again, 0)], [])
    lake.vacuum(older_than=None)
    waiting = other.write(again, 1)
    zombie.wake()
    assert isinstance(zombie.error, exceptions.ConflictError)
    again.commit([waiting], [])
    assert len(lake.refresh()) == 9
    assert lake.verify().ok
    # The next vacuum deletes the objects of the zombie.
    lake.vacuum(older_than=None)
    assert lake.verify().ok
    assert not [key for key in other.objects() if receipt.attempt in key]
