"""Test that Dask's configuration has the defaults of arguments, and that each key has an effect."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import dask.array as da
import dask.bag as db
import fsspec
import pytest

import dasklake
from dasklake._api.configuration import _DEFAULTS, open_store
from dasklake._run.options import LinkPolicy
from dasklake._storage.block_cache import CacheSettings
from dasklake._storage.retry import STORE_RETRIES
from dasklake._storage.store import ObjectStore
from dasklake._storage.store_limits import StoreLimits
from dasklake.exceptions import InvalidInputError, StoreError
from tests.support.clusters import wait_until
from tests.support.counting import CountingFileSystem

SCHEMA = {"x": dasklake.TensorSpec(dtype="int64", shape=())}


class FailingFileSystem(CountingFileSystem):
    """Files under ``failing://``; the next operations on some names fail as a busy storage does."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    name: ClassVar[str] = ""
    remaining: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("failing://")))

    def fail(self, path: str) -> None:
        """Raise an error if the operation has to fail."""
        if self.remaining and self.name in path:
            type(self).remaining -= 1
            raise TimeoutError("busy")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        """Read a range of a file."""
        self.fail(path)
        return super().cat_file(path, start=start, end=end, **kwargs)

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        """Write a file."""
        self.fail(path)
        super().pipe_file(path, value, **kwargs)


@pytest.fixture
def failing_files() -> Iterator[type[FailingFileSystem]]:
    """Register the file system, without files or failures."""
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    FailingFileSystem.store.clear()
    yield FailingFileSystem
    FailingFileSystem.remaining = 0


def chunks(url: object) -> int:
    """Return the number of chunks of a lake."""
    return int(dasklake.read_lake(str(url)).npartitions)


def write_one(url: str, **options: Any) -> dasklake.WriteReport:
    """Write a lake of one sample in this process."""
    bag = db.from_sequence([{"x": 1}], npartitions=1)
    write_options = dasklake.WriteOptions(scheduler="sync", single_writer=True, **options)
    return dasklake.to_lake(bag, url, schema=SCHEMA, options=write_options)


def test_chunk_size_divides_what_is_written_and_joined(tmp_path: Path) -> None:
    """A write makes chunks of the configured size, and a compaction joins them up to it."""
    columns = {"x": da.zeros((100, 1000), chunks=(100, 1000))}
    with dask.config.set({"dasklake.chunk-size": "64 KiB"}):
        dasklake.to_lake(columns, tmp_path / "small")
        assert chunks(tmp_path / "small") > 5
        options = dasklake.WriteOptions(chunk_size="64 MiB")
        dasklake.to_lake(columns, tmp_path / "explicit", options=options)
        assert chunks(tmp_path / "explicit") == 1
        dasklake.open(tmp_path / "small").compact()
        assert chunks(tmp_path / "small") > 5
    dasklake.open(tmp_path / "small").compact()
    assert chunks(tmp_path / "small") == 1


def test_checkpoint_every_commits_while_the_write_runs(tmp_path: Path) -> None:
    """The last partition sees the commit of the first ones, unless the argument is None."""

    def seen(url: str, *, wait: bool) -> dict[str, int]:
        lake = dasklake.open(url)
        if wait:
            wait_until(lambda: len(lake.refresh()) >= 2, "two samples are committed")
        return {"x": len(lake)}

    def write(name: str, **arguments: Any) -> int:
        url = str(tmp_path / name)
        dasklake.to_lake(
            db.from_sequence(range(4), npartitions=4),
            url,
            schema=SCHEMA,
            transform=lambda x: seen(url, wait=not arguments and x == 3),
            options=dasklake.WriteOptions(scheduler="sync"),
            **arguments,
        )
        return int(dasklake.open(url)["x"][3])

    with dask.config.set({"dasklake.checkpoint-every": 2}):
        assert write("configured") >= 2
        assert write("explicit", checkpoint_every=None) == 0
    with dask.config.set({"dasklake.checkpoint-every": None}):
        assert write("once", checkpoint_every="auto") == 0


def test_eval_uses_the_configured_interval(tmp_path: Path) -> None:
    """``checkpoint_interval=None`` of eval() means the configured interval."""

    @dasklake.compute
    def squares(sample_in: int, sample_out: dasklake.SampleOut) -> None:
        sample_out.append({"x": sample_in**2})

    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    with (
        dask.config.set({"dasklake.checkpoint-every": "never"}),
        pytest.raises(InvalidInputError, match=r"key dasklake\.checkpoint-every must"),
    ):
        squares().eval([1, 2], lake)
    assert squares().eval([1, 2], lake).samples == 2


@pytest.mark.parametrize(("retries", "attempts"), [(None, 2), (0, 1)])
def test_retries_repeat_a_task(tmp_path: Path, retries: int | None, attempts: int) -> None:
    """A task that the storage failed is repeated as often as configured."""
    calls: list[int] = []

    def fail(x: int) -> dict[str, int]:
        calls.append(x)
        raise StoreError("busy")

    with dask.config.set({"dasklake.retries": 1}), pytest.raises(StoreError, match="busy"):
        dasklake.to_lake(
            db.from_sequence([7], npartitions=1),
            tmp_path / "lake",
            schema=SCHEMA,
            transform=fail,
            options=dasklake.WriteOptions(scheduler="sync", retries=retries),
        )
    assert calls == [7] * attempts


@pytest.mark.parametrize(("key", "name"), [("write", "/data/"), ("commit", "/_lake/log/main/")])
def test_retry_time_bounds_the_retries_of_a_write(
    failing_files: type[FailingFileSystem], key: str, name: str
) -> None:
    """An object that fails once is written by default, and fails the run without time to retry."""
    failing_files.name, failing_files.remaining = name, 1
    assert write_one("failing://default", retries=0).samples == 1
    assert failing_files.remaining == 0
    failing_files.remaining = 1
    with (
        dask.config.set({f"dasklake.retry-time.{key}": "1ms"}),
        pytest.raises(StoreError, match="busy"),
    ):
        write_one("failing://short", retries=0)


def test_retry_time_bounds_the_retries_of_a_read(failing_files: type[FailingFileSystem]) -> None:
    """A read that fails once succeeds by default, and raises an error without time to retry."""
    write_one("failing://read")
    failing_files.name = "/data/"
    for _ in range(2):
        failing_files.remaining = 1
        assert dasklake.open("failing://read")["x"][:].tolist() == [1]
        assert failing_files.remaining == 0
    with dask.config.set({"dasklake.retry-time.read": "1ms"}):
        lake = dasklake.open("failing://read")
        failing_files.remaining = 1
        with pytest.raises(StoreError, match="busy"):
            lake["x"][:]


def test_memory_cache_size_bounds_what_is_kept(
    counting_files: type[CountingFileSystem],
) -> None:
    """Chunks that are read alternately are fetched once, unless only one fits into the cache."""
    bag = db.from_sequence([{"x": 1}, {"x": 2}], npartitions=2)
    options = dasklake.WriteOptions(scheduler="sync", single_writer=True)
    dasklake.to_lake(bag, "counted://lake", schema=SCHEMA, options=options)

    def reads() -> int:
        lake = dasklake.open("counted://lake")
        assert [lake[0]["x"], lake[1]["x"]] == [1, 2]
        counting_files.reset()
        assert [lake[0]["x"], lake[1]["x"]] == [1, 2]
        return len(counting_files.reads)

    assert reads() == 0
    with dask.config.set({"dasklake.memory-cache-size": 1}):
        assert reads() > 0


def test_cache_size_is_the_default_of_the_argument(tmp_path: Path) -> None:
    """A cache on the disk has the configured size; an argument has precedence."""

    def size(**arguments: Any) -> int | None:
        dasklake.to_lake({"x": da.arange(2)}, tmp_path / "lake", mode="overwrite")
        lake = dasklake.open(tmp_path / "lake", cache=tmp_path / "cache", **arguments)
        cache = lake._store._cache
        return None if cache is None else cache.size

    assert size() == 50 * 2**30
    with dask.config.set({"dasklake.cache-size": "20 MiB"}):
        assert size() == 20 * 2**20
        assert size(cache_size="30 MiB") == 30 * 2**20


def test_limits_travel_with_a_store(tmp_path: Path) -> None:
    """Another process has the limits of the one that opened the store, not its own configuration."""
    with dask.config.set({"dasklake.retry-time.read": 7, "dasklake.memory-cache-size": "1 MiB"}):
        store = open_store(tmp_path, None, cache=CacheSettings(str(tmp_path / "cache"), 2**24))
    expected = StoreLimits(read_seconds=7.0, cache_bytes=2**20)
    for copy in (store, store.cached):
        again = pickle.loads(pickle.dumps(copy))
        assert again.limits == expected
        assert again._retries.seconds == 7.0


def test_packaged_defaults_are_those_of_a_store() -> None:
    """A store without a configuration has the same limits as one with the packaged defaults."""
    assert open_store("memory://defaults", None).limits == StoreLimits()
    assert ObjectStore("memory://defaults")._retries == STORE_RETRIES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chunk-size": "large"}, "dasklake.chunk-size must be a positive number .* got 'large'"),
        ({"chunk_size": 0}, "dasklake.chunk-size must be a positive number of bytes, got 0"),
        ({"checkpoint-every": "x"}, "dasklake.checkpoint-every must be a duration .* got 'x'"),
        ({"checkpoint-every": -1}, "dasklake.checkpoint-every must be positive, got -1"),
        ({"retries": -1}, "dasklake.retries must be a whole number of at least 0, got -1"),
        ({"retry-time.read": "x"}, "dasklake.retry-time.read must be a positive .* got 'x'"),
        ({"retry-time.write": 0}, "dasklake.retry-time.write must be a positive .* got 0"),
        ({"retry-time.commit": None}, "dasklake.retry-time.commit must be .* got None"),
        ({"memory-cache-size": True}, "dasklake.memory-cache-size must be .* got True"),
        ({"cache-size": "1 MiB"}, "dasklake.cache-size must be a size of at least 16.*'1 MiB'"),
        ({"chunksize": 1}, "dasklake.chunksize does not exist. Remove it, or use dasklake.chunk-s"),
        ({"retry-time": 3}, "dasklake.retry-time must be a mapping, got 3. Set dasklake.retry-tim"),
        (
            {"retry-time.reads": 3},
            "dasklake.retry-time.reads does not exist. .* dasklake.retry-time.read",
        ),
    ],
)
def test_wrong_values_name_their_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    """A wrong value or an unknown key is an error of the call that uses it; nothing is written."""

    def call() -> None:
        if "cache-size" in values:
            dasklake.open(tmp_path / "lake", cache=tmp_path / "cache")
        dasklake.to_lake({"x": da.arange(2)}, tmp_path / "lake")

    with (
        dask.config.set({f"dasklake.{key}": value for key, value in values.items()}),
        pytest.raises(InvalidInputError, match=f"^The configuration key {message}"),
    ):
        call()
    assert not list(tmp_path.iterdir())


def test_a_section_that_is_no_mapping_is_an_error(tmp_path: Path) -> None:
    """A value in place of the whole section is refused, and an empty section means the defaults."""
    with (
        dask.config.set({"dasklake": "fast"}),
        pytest.raises(InvalidInputError, match=r"key dasklake must be a mapping .* got 'fast'"),
    ):
        dasklake.to_lake({"x": da.arange(2)}, tmp_path / "lake")
    with dask.config.set({"dasklake": None}):
        assert dasklake.to_lake({"x": da.arange(2)}, tmp_path / "lake").samples == 2


def test_arguments_are_validated_like_keys() -> None:
    """A wrong number of retries is refused, and the argument is named."""
    for retries in (-1, 1.5, True, "3"):
        with pytest.raises(InvalidInputError, match=r"^retries must be a whole number of at least"):
            dasklake.WriteOptions(retries=retries)  # type: ignore[arg-type] # wrong
    assert LinkPolicy().retries == 3


@pytest.mark.parametrize("source", ["environment", "file"])
def test_variables_and_files_are_read(tmp_path: Path, source: str) -> None:
    """A variable of the environment and a file of Dask's folder replace a default."""
    environment = {**os.environ, "DASK_CONFIG": str(tmp_path)}
    if source == "environment":
        environment["DASK_DASKLAKE__CHUNK_SIZE"] = "1 MiB"
        environment["DASK_DASKLAKE__RETRY_TIME__READ"] = "3s"
    else:
        text = "dasklake:\n  chunk-size: 1 MiB\n  retry-time:\n    read: 3s\n"
        (tmp_path / "mine.yaml").write_text(text)
    code = (
        "import json\n"
        "from dasklake._api.configuration import chunk_size_of, open_store\n"
        "limits = open_store('memory://x', None).limits\n"
        "print(json.dumps([chunk_size_of(None), limits.read_seconds, limits.commit_seconds]))"
    )
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert json.loads(output) == [2**20, 3.0, 600.0]


def test_the_page_lists_each_key_with_its_default() -> None:
    """The page of the reference has a row for each packaged key."""
    page = (Path(__file__).parents[3] / "docs/reference/configuration.md").read_text()
    for key, default in _DEFAULTS.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `dasklake.{key}` |"))
        assert row.endswith(f"| `{default}` |")
