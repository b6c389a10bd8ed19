"""Fixtures: real clusters, each of its processes known by its pid, and a stage for their phases."""

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

#: Whether a long search is asked for: tests that need a while are defined then only.
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

Process = subprocess.Popen[str]


def wait_until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait for a condition, and return it.

    Raises
    ------
    AssertionError
        It did not come true.
    """
    deadline = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)
    return found


def kill(*processes: Process) -> None:
    """Kill processes, so that they cannot do anything any more, and make sure of it."""
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        assert process.wait(timeout=30) == -signal.SIGKILL


def start(command: Sequence[str], *, cwd: Path = ROOT, output: IO[str] | int) -> Process:
    """Start a Python process that sees the project, in a session of its own."""
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
    """A folder by which a test and its workers meet, and the lake they write.

    Attributes
    ----------
    folder : Path
        Where the workers note what they do.
    """

    folder: Path

    @property
    def url(self) -> str:
        """Where the lake lies."""
        return str(self.folder / "lake")

    def reached(self, phase: int | str) -> int:
        """Wait until a phase is reached, such as an item; the pid of who is there."""
        path = self.folder / f"{phase}.reached"
        wait_until(path.exists, f"phase {phase} is reached")
        return int(path.read_text())

    def held(self, items: Sequence[int], count: int) -> dict[int, int]:
        """Wait until that many of some items are under way; their pids."""
        paths = {item: self.folder / f"{item}.reached" for item in items}
        wait_until(
            lambda: sum(path.exists() for path in paths.values()) >= count, f"{count} are held"
        )
        return {item: int(p.read_text()) for item, p in paths.items() if p.exists()}

    def let_go(self, *phases: int | str) -> None:
        """Let phases go on, those that wait and those that will come."""
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
        """Start a client that writes the lake on a cluster, and resumes it the next time."""
        said = self.arguments(scheduler_file, **arguments)
        command = ["-W", "ignore", "-m", "tests.support._job", said]
        return start(command, output=subprocess.PIPE)

    def executions(self) -> Counter[int]:
        """Return how often each item was given to the transform."""
        path = self.folder / "executions"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(map(int, lines))

    def forget_executions(self) -> None:
        """Count from here on."""
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
        """Return everything that lies under the lake, with its length."""
        root = self.folder / "lake"
        files = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.stat().st_size for path in files}


def residue(url: str, options: dict[str, Any] | None = None) -> set[str]:
    """Return the keys of what lies under a lake and is named by no version; heartbeats are not told.

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
        found = log.manifest(commit)
        places = zip(
            found.run, found.partition, found.epoch, found.attempt, found.chunk, strict=True
        )
        for run, partition, epoch, attempt, chunk in places:
            place = (found.home[run], int(partition), int(epoch), f"{int(attempt):016x}")
            named.add(object_keys.chunk_key(*place, int(chunk)))
    lies = {key for key, _ in store.walk("", temporary=True)}
    return {key for key in lies - named if not key.startswith("_lake/runs/")}


def check_content(lake: dasklake.Lake, items: Sequence[int]) -> None:
    """Check that a lake holds the samples of some items, once each and in this order."""
    rows = list(lake)
    assert [row["x"] for row in rows] == list(items)
    for row, item in zip(rows, items, strict=True):
        wanted = content_of(item)
        assert row["name"] == wanted["name"]
        assert row["square"].dtype == wanted["square"].dtype
        np.testing.assert_array_equal(row["square"], wanted["square"])


@dataclass
class Cluster:
    """A scheduler and workers, each a process of its own without a nanny.

    Attributes
    ----------
    folder : Path
        For their files.
    cwd : Path
        Where the scheduler is at home.
    scheduler : subprocess.Popen
        The scheduler.
    workers : list of subprocess.Popen
        The workers, of one thread each.
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
        """Where the scheduler writes its address."""
        return str(self.folder / "scheduler.json")

    @property
    def address(self) -> str:
        """Where the scheduler listens, once it does."""
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
        """Return the worker of a pid."""
        return next(worker for worker in self.workers if worker.pid == pid)

    def job(self, stage: Stage, **arguments: Any) -> Process:
        """Start a client, as :meth:`Stage.job`."""
        job = stage.job(self.file, **arguments)
        self.others.append(job)
        return job

    def close(self) -> None:
        """End what still runs."""
        processes = [*self.others, *self.workers, self.scheduler]
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def report_of(job: Process) -> dict[str, Any]:
    """Wait for a client's end, and return its report."""
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, said
    return dict(json.loads(said.splitlines()[-1]))


def last_words(job: Process) -> tuple[int, str]:
    """Wait for the end of a client that fails: its return code, and all that it said."""
    said, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode != 0, said
    return job.returncode, said


StartCluster = Callable[..., Cluster]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Return a folder for a test and its workers."""
    folder = tmp_path / "stage"
    folder.mkdir()
    return Stage(folder)


@pytest.fixture
def start_cluster(tmp_path: Path) -> Iterator[StartCluster]:
    """Start clusters that the test may kill."""
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
    """Run one cluster of two workers for all tests that leave it alone."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        for _ in range(2):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="session")
def client(cluster: Cluster) -> Iterator[Client]:
    """Connect to the cluster that all share; not as the default."""
    client = Client(cluster.address, set_as_default=False, timeout="60s")
    try:
        client.wait_for_workers(2, timeout=60)
        yield client
    finally:
        client.close()


@dataclass(frozen=True)
class Front:
    """One of the ways to run a write.

    Attributes
    ----------
    name : str
        ``"sync"``, ``"threads"``, ``"processes"``, ``"scheduler"`` or ``"client"``; the last two
        are who commits on the cluster.
    client : Client or None
        The cluster's client.
    """

    name: str
    client: Client | None = None

    def options(self, **more: Any) -> dasklake.WriteOptions:
        """Return the options that choose it."""
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
    """Return the front that a fixture's parameter names."""
    name: str = request.param
    if name in ("sync", "threads", "processes"):
        return Front(name)
    return Front(name, request.getfixturevalue("client"))


@pytest.fixture(params=["sync", "threads", "scheduler", "client"])
def front(request: pytest.FixtureRequest) -> Front:
    """Return each way to run a write in turn."""
    return front_of(request)
