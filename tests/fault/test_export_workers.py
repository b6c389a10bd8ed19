"""Exports on a cluster whose workers die, and errors of their tasks."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pyarrow.parquet as pq
import pytest
from distributed import Client, LocalCluster
from tqdm.auto import tqdm

import dasklake
from dasklake._read.export_plan import ExportPlan
from dasklake.exceptions import InvalidInputError, RunFailedError, StoreError
from tests.support.clusters import tasks_of, wait_until

# Dask's own clusters leave sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

CHUNKS, ROWS = 12, 5


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Start a cluster of two processes, which restarts workers that die."""
    addresses: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    settings = {"distributed.scheduler.allowed-failures": 2}
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, **addresses) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def lake(tmp_path: Path) -> dasklake.Lake:
    """Return a lake of many chunks."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    for chunk in range(CHUNKS):
        lake.extend({"x": range(ROWS * chunk, ROWS * (chunk + 1))})
    return lake


def _die_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker that writes the fourth file kill itself the first time."""
    monkeypatch.setattr(ExportPlan, "__reduce__", lambda plan: (_Deadly, (folder, _state(plan))))


def _state(plan: ExportPlan) -> tuple[Any, ...]:
    return plan.store, plan.files, plan.suffix, plan.identity


class _Deadly(ExportPlan):
    """A plan on a worker, whose fourth file kills it while a mark of the test allows it."""

    def __init__(self, folder: Path, state: tuple[Any, ...]) -> None:
        super().__init__(*state)
        object.__setattr__(self, "folder", folder)

    def put(self, number: int, data: Any) -> None:
        """Write a file, or die."""
        marks = sorted(self.folder.glob("die-*"))  # type: ignore[attr-defined] # set above
        if number == 3 and marks:
            marks[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(number, data)


@pytest.mark.parametrize("method", ["to_parquet", "to_webdataset"])
def test_an_export_continues_after_a_killed_worker(
    method: str,
    client: Client,
    lake: dasklake.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker killed by SIGKILL costs the file that it wrote, which another one writes."""
    (tmp_path / "die-0").touch()
    _die_once(tmp_path, monkeypatch)
    arguments: dict[str, Any] = {"shard_size": 8 * ROWS} if method == "to_webdataset" else {}
    files = getattr(lake, method)(tmp_path / "files", **arguments)
    assert not list(tmp_path.glob("die-*"))
    assert files == CHUNKS
    assert len(list((tmp_path / "files").glob("0*"))) == files
    if method == "to_parquet":
        table = pq.read_table(sorted((tmp_path / "files").glob("0*")))
        assert table["x"].to_pylist() == list(range(CHUNKS * ROWS))


def test_workers_that_die_again_and_again_are_an_error_of_dasklake(
    client: Client, lake: dasklake.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to do; the next call writes only the files that are missing."""
    for mark in range(20):
        (tmp_path / f"die-{mark}").touch()
    with monkeypatch.context() as patch:
        _die_once(tmp_path, patch)
        with pytest.raises(RunFailedError, match=r"several workers died.*Call again"):
            lake.to_parquet(tmp_path / "files")
    # A file whose task was cancelled may still be written.
    wait_until(lambda: not any(client.run(tasks_of).values()), "all tasks are over")
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "files").glob("*.parquet")}
    assert "000003.parquet" not in written
    assert lake.to_parquet(tmp_path / "files") == CHUNKS
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "files").glob("*.parquet")}
    assert len(after) == CHUNKS
    assert {name: after[name] for name in written} == written


@pytest.mark.parametrize(
    ("error", "expected"),
    [(OSError(errno.EIO, "broken"), StoreError), (ZeroDivisionError("odd"), RunFailedError)],
    ids=["OSError", "other"],
)
@pytest.mark.parametrize("method", ["to_parquet", "to_webdataset"])
def test_errors_of_tasks_are_errors_of_dasklake(
    method: str,
    error: Exception,
    expected: type[Exception],
    lake: dasklake.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No foreign exception of a task reaches the caller; it is the cause."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ExportPlan, "put", fail)
    with dask.config.set(scheduler="sync"), pytest.raises(expected, match="Call again") as caught:
        getattr(lake, method)(tmp_path / "files")
    assert caught.value.__cause__ is error


def test_an_asynchronous_client_is_refused(
    client: Client, lake: dasklake.Lake, tmp_path: Path
) -> None:
    """An export would return before its files are written."""
    address = client.scheduler_info()["address"]

    async def export() -> None:
        async with Client(address, asynchronous=True):
            lake.to_parquet(tmp_path / "files")

    with pytest.raises(InvalidInputError, match="asynchronous"):
        client.sync(export)


def test_progress_counts_the_files(
    lake: dasklake.Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar starts with the files that exist, and ends with all of them."""
    shown: list[tuple[int, int]] = []
    real: Any = tqdm

    class Recording(real):  # type: ignore[misc] # a class without types
        def refresh(self, *args: Any, **kwargs: Any) -> Any:
            shown.append((self.n, self.total))
            return super().refresh(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr("dasklake._run.progress_bar.tqdm", Recording)
        lake.to_parquet(tmp_path / "files", progress=True)
        assert shown[0] == (0, CHUNKS)
        assert [entry for entry in shown if entry[0]][-1] == (CHUNKS, CHUNKS)
        assert {n for n, _ in shown} == set(range(CHUNKS + 1))
        (tmp_path / "files" / "000003.parquet").unlink()
        shown.clear()
        lake.to_parquet(tmp_path / "files", progress=True)
        assert shown[0] == (CHUNKS - 1, CHUNKS)
        assert shown[-1] == (CHUNKS, CHUNKS)
