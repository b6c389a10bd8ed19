"""Processes over one storage, run one operation at a time in any order, with real code.

A :class:`Simulation` has the processes that use a lake: writers, resumes, resets, readers. Each runs
real code of the package over its own storage object, which waits before every operation. A
:class:`Slice` gives the number of operations of a process and the fault of the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import pytest

from dasklake._format import object_keys
from dasklake._log.log import Log
from dasklake._log.refs import create_branch, delete_branch, restore, tag
from dasklake._log.run_writer import RunWriter
from dasklake._log.transactions import create_lake
from dasklake._maintenance import compact as compact_module
from dasklake._maintenance.compact import compact
from dasklake._maintenance.reset import reset
from dasklake._maintenance.vacuum import vacuum
from dasklake._model.commit import Commit, Kind
from dasklake._model.receipt import Receipt
from dasklake._read.reader import make_reader
from dasklake._run.coordinator import load_failures
from dasklake._run.run_spec import Assignment, RunSpec
from dasklake._run.start import start_run
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._write.chunk_writer import ChunkWriter, RunLocation
from dasklake.exceptions import ConflictError, LakeError, VersionExpiredError
from dasklake.testing.faults import Crash, Fault, FaultStore
from dasklake.testing.invariants import (
    History,
    check_acknowledged,
    check_history,
    check_inputs,
)
from tests.support.flaky import Turns, quick_log
from tests.support.lakes import failure

SCHEMA = Schema({"x": TensorSpec(dtype="int64", shape=())})

#: Samples per partition: two chunks, the first with two samples.
SAMPLES = 3
_CHUNK = 16

#: More operations than any history needs.
_ENDLESS = 20_000


class _Inline:
    """Replacement of a thread pool: runs submitted calls at once, in order."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, function: Callable[..., Any], *iterables: Iterable[Any]) -> Iterator[Any]:
        return iter([function(*arguments) for arguments in zip(*iterables, strict=False)])

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 # as in a thread pool
            future.set_exception(error)
        return future


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Run the concurrent work of a process in one fixed order."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("dasklake.") and "ThreadPoolExecutor" in vars(module):
                patch.setattr(module, "ThreadPoolExecutor", _Inline)
        # Heartbeats only inform observers, and come from a separate thread.
        patch.setattr(compact_module, "send_heartbeats", lambda *_: nullcontext())
        yield


class Slice(NamedTuple):
    """A part of the operations of a process.

    Attributes
    ----------
    name : str
        Name of the process.
    operations : int
        Number of operations that succeed.
    fault : Fault or None
        Fault of the next operation; None if the process waits before it.
    """

    name: str
    operations: int
    fault: Fault | None = None


class Simulation:
    """A lake in memory, its processes, and the commits acknowledged to them.

    Parameters
    ----------
    partitions : mapping of str to int
        Number of partitions by run.

    Attributes
    ----------
    acknowledged : list of (Commit, sequence of Receipt)
        Returned commits, each with its receipts.
    seen : History or None
        The lake at the last check.
    """

    def __init__(self, partitions: Mapping[str, int] | None = None) -> None:
        self.root = FaultStore()
        self.turns = Turns(self.root)
        self.partitions = dict(partitions or {"R": 2, "S": 1, "O": 1})
        self.acknowledged: list[tuple[Commit, Sequence[Receipt]]] = []
        self.seen: History | None = None
        self.steps = 0
        self._running: dict[str, FaultStore] = {}

    # ------------------------------------------------------------------------- actions of processes

    def make(self) -> None:
        """Make the lake, outside the simulated processes."""
        create_lake(Log(self.root), SCHEMA)

    def write(
        self, store: FaultStore, run: str, mode: str = "append", branch: str = "main"
    ) -> None:
        """Begin or continue a run, and write the missing partitions."""
        log = quick_log(store, branch)
        self.finish(store, log, start_run(log, self.request(run, mode)))

    def request(self, run: str, mode: str) -> RunSpec:
        """Return the specification that a writer of a run requests."""
        partitions = self.partitions[run]
        return RunSpec(mode, run, SCHEMA, partitions, SAMPLES * partitions, "the input")

    def finish(self, store: FaultStore, log: Log, start: Assignment) -> None:
        """Write and commit the missing partitions of a run, one after the other."""
        writer = RunWriter(log, start.run, start.state.epoch, start.entry, SCHEMA)
        if start.recovered:
            self.commit(store, writer, start.recovered)
        for partition in start.missing:
            self.commit(store, writer, [self.chunks(store, writer, partition)])

    def chunks(self, store: FaultStore, writer: RunWriter, partition: int) -> Receipt:
        """Write the chunks of a partition; one sample fails in runs whose name begins with F."""
        location = RunLocation(store, writer.home, writer.run, writer.epoch)
        chunks = ChunkWriter(location, SCHEMA, partition, _CHUNK)
        for value in samples(writer.run, partition):
            chunks.add(chunks.encoder.encode({"x": np.int64(value)}))
        failed = writer.run.startswith("F")
        if failed:
            chunks.failures.append(failure(writer.run, partition, SAMPLES))
        return chunks.finish(SAMPLES + failed)

    def commit(self, store: FaultStore, writer: RunWriter, receipts: Sequence[Receipt]) -> None:
        """Commit receipts and record the acknowledged commit."""
        commit = writer.commit(receipts, lambda: load_failures(store, receipts))
        self.acknowledged.append((commit, receipts))

    def reset(self, store: FaultStore, *, force: bool = False) -> None:
        """Close the unfinished runs and delete their leftovers."""
        reset(store, quick_log(store), force=force)

    def vacuum(self, store: FaultStore) -> None:
        """Expire all versions that may expire, and delete unreferenced objects."""
        vacuum(store, quick_log(store))

    def compact(self, store: FaultStore) -> None:
        """Join the small chunks of finished runs."""
        compact(store, quick_log(store), chunk_size=1 << 20)

    def tag(self, store: FaultStore, name: str, branch: str, version: int) -> None:
        """Tag a version."""
        log = quick_log(store)
        tag(log, log.require_head(), name, branch, version)

    def restore(self, store: FaultStore, branch: str, version: int) -> None:
        """Restore an earlier version of a branch."""
        log = quick_log(store, branch)
        restore(log, log.require_head(), version)

    def branch(self, store: FaultStore, name: str, version: int) -> None:
        """Make a branch from a version of main."""
        log = quick_log(store)
        create_branch(log, log.require_head(), name, ("main", version))

    def delete_branch(self, store: FaultStore, name: str) -> None:
        """Delete a branch."""
        log = quick_log(store)
        delete_branch(log, log.require_head(), name)

    def read(self, store: FaultStore, branch: str = "main") -> list[int]:
        """Read all samples of the newest version, which may expire in the meantime."""
        log = quick_log(store, branch)
        head = log.require_head()
        try:
            return [int(sample["x"]) for sample in make_reader(log, head).stream(["x"])]
        except VersionExpiredError:
            return []

    # --------------------------------------------------------------------------------- scheduling

    def start(self, name: str, action: Callable[[FaultStore], Any]) -> None:
        """Start a process, up to its first operation."""
        store = self.root.another()
        store.gate = self.turns.wait
        self._running[name] = store
        self.turns.start(name, partial(action, store))

    def step(self, name: str, fault: Fault = Fault.NONE) -> bool:
        """Execute one operation of a process; return False if it has already ended."""
        if name not in self.turns.waiting:
            return False
        self.steps += 1
        assert self.steps < _ENDLESS, f"{name} does not end: {self.turns.waiting[name]}"
        self.turns.step(name, fault)
        return True

    def end(self, name: str) -> Any:
        """Run a process to its end; return its result or raise its exception."""
        while self.step(name):
            pass
        result = self.turns.results[name]
        if isinstance(result, BaseException):
            raise result
        return result

    def until(self, name: str, operation: str, key: str = "", *, skip: int = 0) -> None:
        """Run a process until it is about to do an operation, or has ended."""
        while name in self.turns.waiting:
            step = self.turns.waiting[name]
            if step.operation == operation and key in step.key:
                if not skip:
                    return
                skip -= 1
            self.step(name)

    def play(
        self, processes: Mapping[str, Callable[[FaultStore], Any]], slices: Iterable[Slice]
    ) -> bool:
        """Run processes slice by slice, then each to its end, in the order of the mapping.

        Returns
        -------
        bool
            False if a process ended before its slice: the schedule does not exist.
        """
        exists = True
        for name, operations, fault in slices:
            if name not in self._running:
                self.start(name, processes[name])
            exists &= all(self.step(name) for _ in range(operations)) and (
                name in self.turns.waiting
            )
            if not exists:
                return False
            if fault is not None:
                self.step(name, fault)
            self.look()
        return exists

    def rest(self, processes: Mapping[str, Callable[[FaultStore], Any]]) -> None:
        """Run all processes to their ends, one after the other."""
        for name, action in processes.items():
            if name not in self._running:
                self.start(name, action)
            while self.step(name):
                pass
            self._judge(name, self.turns.results[name])

    def _judge(self, name: str, result: object) -> None:
        """Check that a process ended with an allowed result."""
        assert result is None or isinstance(result, list | LakeError | Crash), (name, result)
        if isinstance(result, Crash):
            assert self._running[name].crashed

    # --------------------------------------------------------------------------- invariants

    def look(self) -> History:
        """Check all invariants that must hold at every moment."""
        if not self.root.exists(object_keys.commit_key("main", 0)):
            return History(self.root, {}, {}, {})
        self.seen = check_history(self.root, self.seen)
        check_acknowledged(self.seen, self.acknowledged)
        return self.seen

    def settle(self) -> None:
        """Check that a single process can finish every run, each sample once and in order."""
        self.root.arrive_all()
        self.look()
        for branch in list(self.seen.commits) if self.seen else []:
            log = quick_log(self.root, branch)
            for run, state in log.require_head().runs.items():
                if state.plan.compaction:
                    continue
                try:
                    self.write(self.root, run, "resume", branch)
                except ConflictError:
                    head = log.require_head()
                    assert state.replaced or head.kind is Kind.CLOSED, f"{run} of {branch} is stuck"
        self.reset(self.root)
        self.look()
        self.vacuum(self.root)
        history = self.look()
        for branch, commits in history.commits.items():
            if all(c.kind not in (Kind.RESTORE, Kind.CLOSED, Kind.BRANCH) for c in commits):
                check_inputs(history, branch, "x", self.expected(commits))

    def expected(self, commits: Sequence[Commit]) -> list[int]:
        """Return the samples that the newest version of a branch must hold."""
        runs = dict(commits[-1].runs)
        for commit in commits:
            if commit.kind is Kind.OVERWRITE:
                gone = set(commit.runs) - {commit.entry["run"]}
                runs = {run: state for run, state in runs.items() if run not in gone}
        runs = {run: state for run, state in runs.items() if not state.plan.compaction}
        ordered_runs = sorted(runs, key=lambda run: runs[run].order)
        return [
            value
            for run in ordered_runs
            for partition in range(runs[run].plan.partitions)
            for value in samples(run, partition)
        ]

    def close(self) -> None:
        """End waiting processes and free the memory."""
        self.turns.abandon()
        self.root.clear()


def samples(run: str, partition: int) -> list[int]:
    """Return the samples of a partition; a sample identifies its run and partition."""
    first = ord(run[0]) * 10_000 + partition * 100
    return [first + row for row in range(SAMPLES)]
