"""Fixtures: real clusters with known process ids, and a stage for their phases."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from distributed import Client

import dasklake
from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import LakeNotFoundError
from tests.support._work import PATIENCE
from tests.support._work import content as content_of

ROOT = Path(__file__).parents[2]

#: True if a long search was requested; slow tests are defined only then.
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

Process = subprocess.Popen[str]


def wait_until(true: Callable[[], Any], description: str, timeout: float = PATIENCE) -> Any:
    """Wait for a condition and return its value.

    Raises
    ------
    AssertionError
        The condition was still false after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (result := true()):
        assert time.monotonic() < deadline, f"timed out waiting until {description}"
        time.sleep(0.01)
    return result


def kill(*processes: Process) -> None:
    """Kill processes and wait until they have ended."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        assert process.wait(timeout=30) == -signal.SIGKILL


def start(command: Sequence[str], *, cwd: Path = ROOT, output: IO[str] | int) -> Process:
    """Start a Python process that can import the project, in its own session."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@dataclass
class Stage:
    """A folder shared by a test and its workers, and the lake that they write.

    Attributes
    ----------
    folder : Path
        The folder of the workers' records.
    """

    folder: Path

    @property
    def url(self) -> str:
        """URL of the lake."""
        return str(self.folder / "lake")

    def reached(self, phase: int | str) -> int:
        """Wait until a phase, such as an item, is reached; return the pid of its process."""
        path = self.folder / f"{phase}.reached"
        wait_until(path.exists, f"phase {phase} is reached")
        return int(path.read_text())

    def held(self, items: Sequence[int], count: int) -> dict[int, int]:
        """Wait until ``count`` of the items are in progress; return their pids."""
        paths = {item: self.folder / f"{item}.reached" for item in items}
        wait_until(
            lambda: sum(path.exists() for path in paths.values()) >= count, f"{count} are held"
        )
        return {item: int(p.read_text()) for item, p in paths.items() if p.exists()}

    def let_go(self, *phases: int | str) -> None:
        """Release phases, both waiting and future ones."""
        for phase in phases:
            (self.folder / f"{phase}.go").touch()

    def arguments(
        self,
        scheduler_file: str,
        *,
        items: int = 60,
        partitions: int = 20,
        checkpoint_every: int = 9,
        pauses: Sequence[int] = (),
        backwards: bool = False,
        **options: Any,
    ) -> str:
        """Return the arguments of a client that writes the lake on a cluster, as JSON."""
        arguments = {
            "scheduler_file": scheduler_file,
            "url": self.url,
            "folder": str(self.folder),
            "items": items,
            "partitions": partitions,
            "checkpoint_every": checkpoint_every,
            "pauses": list(pauses),
            "backwards": backwards,
            "options": options,
        }
        return json.dumps(arguments)

    def job(self, scheduler_file: str, **arguments: Any) -> Process:
        """Start a client that writes the lake on a cluster, or resumes the run."""
        said = self.arguments(scheduler_file, **arguments)
        command = ["-W", "ignore", "-m", "tests.support._job", said]
        return start(command, output=subprocess.PIPE)

    def executions(self) -> Counter[int]:
        """Return the number of transform calls per item."""
        path = self.folder / "executions"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(map(int, lines))

    def forget_executions(self) -> None:
        """Reset the counts of executions."""
        (self.folder / "executions").unlink()

    def checkpoints(self) -> list[Commit]:
        """Return the commits that made samples visible, oldest first."""
        try:
            log = dasklake.open(self.url).log()
        except LakeNotFoundError:
            return []
        return [commit for commit in reversed(log) if commit.progress is not None]

    def wait_for_checkpoints(self, count: int) -> None:
        """Wait until that many commits are visible."""
        wait_until(lambda: len(self.checkpoints()) >= count, f"{count} checkpoints")

    def objects(self) -> dict[str, int]:
        """Return the keys and lengths of all objects under the lake."""
        root = self.folder / "lake"
        files = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.stat().st_size for path in files}


def residue(url: str, options: dict[str, Any] | None = None) -> set[str]:
    """Return the keys of unreferenced objects under a lake, without heartbeats.

    Parameters
    ----------
    url : str
        The lake.
    options : dict, optional
        Storage options.
    """
    store = ObjectStore(url, options)
    log = Log(store)
    named: set[str] = set()
    for commit in log.walk(0):
        named.add(object_keys.commit_key("main", commit.version))
        named |= {object_keys.segment_key(ref.name) for ref in commit.segments}
        named |= {object_keys.failures_key(ref.name) for ref in commit.failures}
        manifest = log.manifest(commit)
        rows = zip(
            manifest.run,
            manifest.partition,
            manifest.epoch,
            manifest.attempt,
            manifest.chunk,
            strict=True,
        )
        for run, partition, epoch, attempt, chunk in rows:
            chunk_path = (manifest.home[run], int(partition), int(epoch), f"{int(attempt):016x}")
            named.add(object_keys.chunk_key(*chunk_path, int(chunk)))
    lies = {key for key, _ in store.walk("", temporary=True)}
    return {key for key in lies - named if not key.startswith("_lake/runs/")}


def check_content(lake: dasklake.Lake, items: Sequence[int]) -> None:
    """Check that a lake holds the samples of the items, once each and in this order."""
    rows = list(lake)
    assert [row["x"] for row in rows] == list(items)
    for row, item in zip(rows, items, strict=True):
        expected = content_of(item)
        assert row["name"] == expected["name"]
        assert row["square"].dtype == expected["square"].dtype
        np.testing.assert_array_equal(row["square"], expected["square"])


@dataclass
class Cluster:
    """A scheduler and workers, each in its own process without a nanny.

    Attributes
    ----------
    folder : Path
        The folder of their files.
    cwd : Path
        Working directory of the scheduler.
    scheduler : subprocess.Popen
        The scheduler.
    workers : list of subprocess.Popen
        The workers, with one thread each.
    """

    folder: Path
    cwd: Path = ROOT
    scheduler: Process = field(init=False)
    workers: list[Process] = field(init=False, default_factory=list)
    others: list[Process] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        where = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start("scheduler", *where, cwd=self.cwd)

    def _start(self, kind: str, *options: str, cwd: Path) -> Process:
        command = ["-m", "dask", kind, "--scheduler-file", self.file, *options]
        with (self.folder / f"{kind}.log").open("a") as output:
            return start(command, cwd=cwd, output=output)

    @property
    def file(self) -> str:
        """Path of the scheduler file."""
        return str(self.folder / "scheduler.json")

    @property
    def address(self) -> str:
        """Address of the scheduler; waits until it listens."""
        return str(json.loads(wait_until(self._said, "the scheduler's file"))["address"])

    def _said(self) -> str:
        path = Path(self.file)
        said = path.read_text() if path.exists() else ""
        return said if said.rstrip().endswith("}") else ""

    def add_worker(self, cwd: Path = ROOT) -> Process:
        """Start one more worker."""
        options = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60"]
        options += ["--local-directory", str(self.folder)]
        worker = self._start("worker", *options, cwd=cwd)
        self.workers.append(worker)
        return worker

    def worker(self, pid: int) -> Process:
        """Return the worker with a pid."""
        return next(worker for worker in self.workers if worker.pid == pid)

    def job(self, stage: Stage, **arguments: Any) -> Process:
        """Start a client; see :meth:`Stage.job`."""
        job = stage.job(self.file, **arguments)
        self.others.append(job)
        return job

    def close(self) -> None:
        """End all running processes."""
        processes = [*self.others, *self.workers, self.scheduler]
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def report_of(job: Process) -> dict[str, Any]:
    """Wait until a client ends, and return its report."""
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, said
    return dict(json.loads(said.splitlines()[-1]))


def last_words(job: Process) -> tuple[int, str]:
    """Wait until a client fails; return its return code and its whole output."""
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode != 0, said
    return job.returncode, said


def tasks_of(dask_worker: Any) -> int:
    """Return the number of tasks that a worker executes or will execute."""
    state = dask_worker.state
    return len(state.executing) + len(state.ready)


def wait_until_reported(client: Client, stage: Stage) -> None:
    """Wait until the scheduler has the outcome of each partition that is complete now.

    A worker sends completions in batches, some milliseconds after its next task has begun. If it is
    killed or frozen in that time, Dask rightly runs the completed task again.
    """
    items = Counter(item // 3 for item in stage.executions())
    complete = {partition for partition, count in items.items() if count == 3}

    def reported(dask_scheduler: Any) -> bool:
        runs = dask_scheduler.plugins["dasklake"].runs.values()
        return all(complete.isdisjoint(active.keys.values()) for active in runs)

    wait_until(
        lambda: client.run_on_scheduler(reported), "the scheduler has the outcomes of all tasks"
    )


StartCluster = Callable[..., Cluster]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Return a stage for a test and its workers."""
    folder = tmp_path / "stage"
    folder.mkdir()
    return Stage(folder)


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """Return a function that starts clusters that the test may kill."""
    with contextlib.ExitStack() as stack:

        def make(workers: int = 2) -> Cluster:
            cluster = Cluster(tmp_path / f"cluster-{time.monotonic_ns()}")
            stack.callback(cluster.close)
            for _ in range(workers):
                cluster.add_worker()
            return cluster

        yield make


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Run one cluster of two workers, shared by all tests that do not harm it."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Iterator[Client]:
    """Connect to the shared cluster, without becoming the default client."""
    client = Client(cluster.address, set_as_default=False, timeout="60s")
    try:
        client.wait_for_workers(2, timeout=60)
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class Front:
    """One way to run a write.

    Attributes
    ----------
    name : str
        ``"sync"``, ``"threads"``, ``"processes"``, ``"scheduler"`` or ``"client"``; the last two
        name the process that commits for a cluster.
    client : Client or None
        The client of the cluster.
    """

    name: str
    client: Client | None = None

    def options(self, **more: Any) -> dasklake.WriteOptions:
        """Return the write options that select this front."""
        if self.client is None:
            return dasklake.WriteOptions(scheduler=self.name, **more)
        return dasklake.WriteOptions(scheduler=self.client, **more)

    def write(self, collection: Any, url: object, **arguments: Any) -> dasklake.WriteReport:
        """Call ``to_lake``."""
        options = self.options(**arguments.pop("options", {}))
        if self.client is not None:
            arguments.setdefault("coordinator", self.name)
        report = dasklake.to_lake(collection, str(url), options=options, **arguments)
        assert isinstance(report, dasklake.WriteReport)
        return report


def front_of(request: pytest.FixtureRequest) -> Front:
    """Return the front named by a fixture's parameter."""
    name: str = request.param
    if name in ("sync", "threads", "processes"):
        return Front(name)
    return Front(name, request.getfixturevalue("client"))


@pytest.fixture(params=["sync", "threads", "scheduler", "client"])
def front(request: pytest.FixtureRequest) -> Front:
    """Return each front in turn."""
    return front_of(request)
