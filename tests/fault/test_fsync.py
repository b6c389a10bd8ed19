"""Power loss: acknowledged commits and all objects that they reference are on the disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask.bag as db
import numpy as np
import pytest

import dasklake
from dasklake._format import object_keys
from dasklake._log import heartbeat
from dasklake._log.log import Log
from dasklake._maintenance.verify import verify
from dasklake._storage.local_backend import LocalBackend
from dasklake._storage.store import ObjectStore
from dasklake._write.chunk_writer import ChunkWriter
from tests.support._disk import ANY, NAMES, NOTHING, Call, Disk, Recorder, without
from tests.support._work import SCHEMA, content
from tests.support.clusters import ROOT

RUN = "job"

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

#: Number of calls between two power cuts with a resume.
EVERY = 1 if DEEP else 19

#: Number of random choices of the surviving data.
CHANCES = 40 if DEEP else 1


def write(url: str | Path, items: int = 12) -> dasklake.WriteReport:
    """Write a lake with two chunks per partition and several checkpoints, in this process."""
    report = dasklake.to_lake(
        db.from_sequence(range(items), partition_size=2).map(content),
        url,
        schema=SCHEMA,
        checkpoint_every=4,
        mode="resume",
        run=RUN,
        options=dasklake.WriteOptions(scheduler="sync", chunk_size=1),
    )
    assert isinstance(report, dasklake.WriteReport)
    return report


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Record the calls of a write, and the acknowledgements between them."""
    folder = tmp_path_factory.mktemp("disk")
    recorder = Recorder(folder)
    with recorder.recording() as record, pytest.MonkeyPatch.context() as patch:
        # Forget all durable folders, as in a fresh process.
        patch.setattr(LocalBackend, "_durable", set())
        acknowledging(patch, record)
        record.mark("reported", write(folder / "lake").version)
    return record.calls


def acknowledging(patch: pytest.MonkeyPatch, record: Recorder) -> None:
    """Record each commit and receipt when it is returned to its caller."""
    publish, finish = Log.publish, ChunkWriter.finish

    def noted_publish(self: Log, *args: Any) -> Any:
        commit = publish(self, *args)
        if commit is not None:
            record.mark("committed", commit.version)
        return commit

    def noted_finish(self: ChunkWriter, *args: Any) -> Any:
        receipt = finish(self, *args)
        home = self.location.home
        record.mark(
            "receipt",
            [
                object_keys.chunk_key(
                    home, self.partition, receipt.epoch, receipt.attempt, ref.chunk
                )
                for ref in receipt.chunks
            ],
        )
        return receipt

    patch.setattr(Log, "publish", noted_publish)
    patch.setattr(ChunkWriter, "finish", noted_finish)


def power_cuts(calls: Sequence[Call], folder: Path, survives: str, seed: int = 0) -> Iterator[str]:
    """Cut the power after each call; yield the problems of the surviving files."""
    disk, rng = Disk(folder), np.random.default_rng(seed)
    version, whole = -1, set[str]()
    seen = set[int]()
    for number, call in enumerate(calls):
        disk.carry_out(call)
        if call.path in ("committed", "reported"):
            version = max(version, call.data)
        elif call.path == "receipt":
            whole |= {f"lake/{key}" for key in call.data}
        files = disk.after_power_cut(survives, rng)
        state = hash((version, len(whole), *sorted(files.items())))
        if state not in seen:
            seen.add(state)
            for problem in problems(files, folder, version, whole):
                yield f"after call {number} ({call.name} {call.path}): {problem}"


def problems(files: dict[str, bytes], folder: Path, version: int, whole: set[str]) -> list[str]:
    """Return the problems of the files that survived a power cut, as the next process sees them."""
    root = folder / "left"
    put_back(files, root)
    store = ObjectStore(root / "lake")
    log = Log(store)
    head = log.head_version()
    messages = [f"{key} of a receipt is gone" for key in sorted(whole) if not files.get(key)]
    if version > (-1 if head is None else head):
        messages.append(f"version {version} was acknowledged, and the newest is {head}")
    if head is not None:
        # Heartbeats need not survive.
        damaged = [bad for bad in verify(store, log).damaged if "/runs/" not in bad.key]
        messages += [f"{bad.key}: {bad.problem}" for bad in damaged]
    shutil.rmtree(root)
    return messages


def put_back(files: dict[str, bytes], root: Path) -> None:
    """Write the files that survived a power cut."""
    root.mkdir()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.fixture
def folder(recorded: list[Call], tmp_path: Path) -> Path:
    """Return the root of the recorded calls, emptied."""
    first = next(call.path for call in recorded if call.name == "mkdir")
    root = Path(first).parent
    shutil.rmtree(root / "lake", ignore_errors=True)
    return root


@pytest.mark.parametrize(
    ("survives", "seed"), [(NOTHING, 0), (NAMES, 0), *((ANY, seed) for seed in range(CHANCES))]
)
def test_power_cut_after_any_call_loses_nothing_acknowledged(
    recorded: list[Call], folder: Path, survives: str, seed: int
) -> None:
    """After a power cut at any call, acknowledged versions and all referenced objects exist."""
    assert sum(call.path == "receipt" for call in recorded) == 6
    assert sum(call.path == "committed" for call in recorded) >= 4
    assert len(recorded) > 150
    assert list(power_cuts(recorded, folder, survives, seed)) == []


@pytest.mark.parametrize(
    ("left_out", "survives"),
    [
        (lambda calls: without(calls, "fsync", ending=".tmp"), NAMES),
        (lambda calls: without(calls, "fsync", ending="/000000"), NOTHING),
        (lambda calls: without(calls, "fsync", ending=f"/{RUN}"), NOTHING),
        (lambda calls: without(calls, "fsync", ending="/segments"), NOTHING),
        (lambda calls: without(calls, "fsync", ending="/_lake"), NOTHING),
    ],
    ids=["files", "log", "data", "segments", "parents"],
)
def test_missing_flush_is_detected(
    recorded: list[Call],
    folder: Path,
    left_out: Callable[[Sequence[Call]], list[Call]],
    survives: str,
) -> None:
    """The same search detects a loss if any one kind of flush is missing."""
    careless = left_out(recorded)
    assert len(careless) < len(recorded)
    assert next(power_cuts(careless, folder, survives), None) is not None


def test_run_is_resumed_after_a_power_cut(
    recorded: list[Call], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is resumed from the files that survived a power cut, and every sample exists."""
    # No process is alive, so liveness need not be observed for long.
    monkeypatch.setattr(heartbeat, "OBSERVE_SECONDS", 0.0)
    rng = np.random.default_rng(5)
    disk = Disk(folder)
    for number, call in enumerate(recorded):
        disk.carry_out(call)
        if number % EVERY == 0:
            root = folder / f"resumed-{number}"
            put_back(disk.after_power_cut(ANY, rng), root)
            assert write(root / "lake").samples == 12
            lake = dasklake.open(root / "lake")
            assert [row["x"] for row in lake] == list(range(12))


# ------------------------------------------------------------------ system calls traced by strace

SCRIPT = """
import sys
from pathlib import Path
from tests.fault.test_fsync import write
write(sys.argv[1])
Path(sys.argv[1] + ".reported").mkdir()
"""


class Traced(NamedTuple):
    """A call traced by strace, with the lines of its start and its end."""

    name: str
    path: str
    began: int
    ended: int


_CALL = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<pid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_PATHS = re.compile(r'<(/[^>]*)>|"(/[^"]*)"')


def parse(trace: str) -> list[Traced]:
    """Parse a trace; omit failed calls."""
    begun: dict[tuple[str, str], tuple[int, str]] = {}
    traced_calls = []
    for number, line in enumerate(trace.splitlines()):
        if match := _RESUMED.match(line):
            began, text = begun.pop((match["pid"], match["name"]))
            rest = text + match["rest"]
        elif match := _CALL.match(line):
            began, rest = number, match["rest"]
            if rest.endswith("<unfinished ...>"):
                begun[match["pid"], match["name"]] = number, rest.removesuffix("<unfinished ...>")
                continue
        else:
            continue
        paths = [a or b for a, b in _PATHS.findall(rest)]
        # If there are two paths, the last one is the new name.
        if paths and " = -1 " not in rest:
            traced_calls.append(Traced(match["name"], paths[-1], began, number))
    return traced_calls


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Traced]]:
    """Write a lake in a process whose system calls are traced."""
    strace = shutil.which("strace")
    folder = tmp_path_factory.mktemp("strace")
    trace = folder / "trace"
    calls = "write,fsync,fdatasync,link,linkat,rename,renameat,renameat2,mkdir,mkdirat"
    command = [
        *(str(strace), "-f", "-y", "-s", "0", "-e", f"trace={calls}", "-o", str(trace)),
        *(sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder / "lake")),
    ]
    if strace is None:
        pytest.skip("strace is not installed")
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "ptrace" in said.stderr and "Operation not permitted" in said.stderr:
        pytest.skip("strace may not trace")
    assert said.returncode == 0, said.stderr
    return folder / "lake", parse(trace.read_text())


def durable(calls: Sequence[Traced], path: Path) -> tuple[int, int, int]:
    """Return when a file was first written, named and durable; check the order."""
    of_file = re.compile(rf"{re.escape(str(path.parent))}/\.{re.escape(path.name)}\.\w+\.tmp")
    written = [call for call in calls if call.name == "write" and of_file.fullmatch(call.path)]
    flushed = [call for call in calls if call.name == "fsync" and of_file.fullmatch(call.path)]
    names = ("link", "linkat", "rename", "renameat", "renameat2")
    named = [call for call in calls if call.name in names and call.path == str(path)]
    assert len(flushed) == len(named) == 1, path
    assert max(call.ended for call in written) < flushed[0].began
    assert flushed[0].ended < named[0].began
    folder = [call.ended for call in calls if (call.name, call.path) == ("fsync", str(path.parent))]
    return written[0].began, named[0].began, next(at for at in folder if at > named[0].ended)


def test_chunks_are_durable_before_their_commit(traced: tuple[Path, list[Traced]]) -> None:
    """Chunks are durable before their commit, and the commit before its acknowledgement."""
    root, calls = traced
    log = Log(ObjectStore(root))
    (reported,) = [call.began for call in calls if call.path == f"{root}.reported"]
    names: dict[str, int] = {}
    for version in range(log.require_head().version + 1):
        commit = log.read(version)
        _, visible, acknowledged = durable(calls, root / object_keys.commit_key("main", version))
        assert acknowledged < reported
        new = [object_keys.segment_key(ref.name) for ref in commit.segments]
        manifest = log.manifest(commit)
        for row, (run, chunk) in enumerate(zip(manifest.run, manifest.chunk, strict=True)):
            attempt = f"{int(manifest.attempt[row]):016x}"
            partition_path = (
                manifest.home[run],
                int(manifest.partition[row]),
                int(manifest.epoch[row]),
            )
            new.append(object_keys.chunk_key(*partition_path, attempt, int(chunk)))
        for key in new:
            if key not in names:
                *_, names[key] = durable(calls, root / key)
            assert names[key] < visible, key
    assert sum(key.startswith("data/") for key in names) == 12
    for folder_call in [call for call in calls if call.name.startswith("mkdir")]:
        if folder_call.path.startswith(f"{root}/"):
            parent = str(Path(folder_call.path).parent)
            flushes = [c.ended for c in calls if (c.name, c.path) == ("fsync", parent)]
            assert any(folder_call.ended < at < reported for at in flushes), folder_call
