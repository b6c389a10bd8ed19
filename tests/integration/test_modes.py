"""Modes of a write on existing lakes and runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

import dasklake
from dasklake.exceptions import (
    ConflictError,
    InvalidInputError,
    LakeExistsError,
    PlanMismatchError,
    RunActiveError,
    SchemaError,
    TransformError,
)
from tests.support._work import PATIENCE, SCHEMA, sample
from tests.support.clusters import Front, Stage, check_content

NUMBERS = {"x": dasklake.TensorSpec(dtype="int64", shape=())}
LOCAL = dasklake.WriteOptions(scheduler="sync")


def write(url: Path, items: range, *, bad: int | None = None, **arguments: Any) -> Any:
    """Write items in partitions of five; an optional bad item ends the run."""

    def make(x: int) -> dict[str, int]:
        if x == bad:
            raise ValueError("bad item")
        return {"x": x}

    bag = db.from_sequence(items, npartitions=len(items) // 5)
    arguments = {"schema": NUMBERS, "checkpoint_every": 5, "options": LOCAL, **arguments}
    return dasklake.to_lake(bag, url, transform=make, **arguments)


def interrupt(url: Path, items: range, bad: int, **arguments: Any) -> None:
    """Write items until a bad one ends the run."""
    with pytest.raises(TransformError):
        write(url, items, bad=bad, **arguments)


def values(url: Path, version: int | None = None) -> list[int]:
    """Return the values of a lake."""
    return [int(row["x"]) for row in dasklake.open(url, version=version)]


def files(url: Path) -> set[Path]:
    """Return all files under a lake."""
    return set(url.rglob("*"))


def test_create_refuses_a_lake(tmp_path: Path) -> None:
    """``create`` writes to an empty location; it refuses an existing lake and changes nothing."""
    assert write(tmp_path, range(10)).samples == 10
    before = files(tmp_path)
    with pytest.raises(LakeExistsError, match=r"10 samples.*'append', 'overwrite' or 'resume'"):
        write(tmp_path, range(10))
    assert files(tmp_path) == before


def test_create_refuses_an_unfinished_run(tmp_path: Path) -> None:
    """``create`` on an unfinished run explains how to resume and how to start over; both work."""
    interrupt(tmp_path, range(20), 12, run="job")
    with pytest.raises(LakeExistsError) as caught:
        write(tmp_path, range(20), run="job")
    for advice in ("mode='resume', run='job'", ".reset()", "mode='overwrite'"):
        assert advice in str(caught.value)
    assert write(tmp_path, range(20), mode="resume", run="job").samples == 20
    assert values(tmp_path) == list(range(20))


def test_create_starts_over_after_failed_runs(tmp_path: Path) -> None:
    """While only failed runs wrote to a lake, the corrected call works, with another schema too."""
    bag = db.from_sequence(range(20), npartitions=4)
    number = dasklake.TensorSpec(dtype="int64", shape=())

    def write(schema: dict[str, dasklake.TensorSpec], name: str) -> Any:
        return dasklake.to_lake(
            bag,
            tmp_path / "lake",
            schema=schema,
            transform=lambda n: {"x": n, name: n},
            progress=False,
        )

    for _ in range(2):
        with pytest.raises(TransformError, match="tensor 'y'"):
            write({"x": number}, "y")
    assert write({"x": number, "y": number}, "y").samples == 20
    lake = dasklake.open(tmp_path / "lake")
    assert sorted(lake["y"][:].tolist()) == list(range(20))
    assert lake.is_complete
    assert lake.verify().ok
    with pytest.raises(LakeExistsError):
        write({"x": number, "z": number}, "z")


def test_append_adds_a_run(tmp_path: Path) -> None:
    """``append`` makes a lake or adds rows at its end; each run has its own name."""
    write(tmp_path, range(10), mode="append", run="first")
    report = write(tmp_path, range(10, 20), mode="append", run="second")
    assert (report.run, report.samples) == ("second", 10)
    assert values(tmp_path) == list(range(20))
    with pytest.raises(LakeExistsError, match=r"'first'.*mode='resume'"):
        write(tmp_path, range(10), mode="append", run="first")
    assert values(tmp_path) == list(range(20))


def test_append_needs_the_same_schema(tmp_path: Path) -> None:
    """``append`` refuses another schema and names the difference; without one it uses the lake's."""
    write(tmp_path, range(10))
    other = {"y": dasklake.TensorSpec(dtype="int64", shape=())}
    with pytest.raises(SchemaError, match="'y'"):
        write(tmp_path, range(10), mode="append", schema=other)
    write(tmp_path, range(10, 20), mode="append", schema=None)
    assert values(tmp_path) == list(range(20))


def test_append_follows_an_unfinished_run(tmp_path: Path) -> None:
    """Rows of an append follow those of an earlier run, even if that run ends later."""
    interrupt(tmp_path, range(20), 12, run="slow")
    write(tmp_path, range(100, 110), mode="append", run="fast")
    assert values(tmp_path) == [*range(10), *range(100, 110)]
    assert not dasklake.open(tmp_path).is_complete
    write(tmp_path, range(20), mode="resume", run="slow")
    assert values(tmp_path) == [*range(20), *range(100, 110)]
    assert dasklake.open(tmp_path).is_complete


def test_overwrite_replaces_rows_and_schema(tmp_path: Path) -> None:
    """``overwrite`` replaces rows and schema; the earlier version is unchanged."""
    before = write(tmp_path, range(10)).version
    schema = {"x": dasklake.TensorSpec(dtype="int16", shape=())}
    report = write(tmp_path, range(20, 30), mode="overwrite", schema=schema)
    lake = dasklake.open(tmp_path)
    assert (report.samples, values(tmp_path)) == (10, list(range(20, 30)))
    assert lake.schema["x"].numpy_dtype == "int16"
    assert values(tmp_path, before) == list(range(10))


def test_overwrite_replaces_once(tmp_path: Path) -> None:
    """An overwrite that ended early has replaced the rows; its resume does not replace again."""
    write(tmp_path, range(10), run="old")
    interrupt(tmp_path, range(20, 40), 32, mode="overwrite", run="new")
    assert values(tmp_path) == list(range(20, 30))
    write(tmp_path, range(20, 40), mode="resume", run="new")
    assert values(tmp_path) == list(range(20, 40))


def test_overwrite_with_a_fixed_name_works_every_night(tmp_path: Path) -> None:
    """A script that overwrites under one name runs every night, also with other input and schema."""
    runs = [
        write(tmp_path, range(night, night + 10), mode="overwrite", run="nightly").run
        for night in (0, 10, 20)
    ]
    assert runs == ["nightly", "nightly-2", "nightly-3"]
    schema = {"x": dasklake.TensorSpec(dtype="int16", shape=())}
    last = write(tmp_path, range(30, 35), mode="overwrite", run="nightly", schema=schema)
    assert (last.run, values(tmp_path)) == ("nightly-4", list(range(30, 35)))


@pytest.mark.parametrize("first", [True, False])
def test_interrupted_night_is_continued(tmp_path: Path, *, first: bool) -> None:
    """The same call continues an interrupted overwrite, and computes only what is missing."""
    night: dict[str, Any] = {"mode": "overwrite", "run": "nightly"}
    name = "nightly" if first else "nightly-2"
    if not first:
        write(tmp_path, range(10), **night)
    interrupt(tmp_path, range(20, 40), 32, **night)
    assert values(tmp_path) == list(range(20, 30))
    computed = tmp_path / "computed"

    def make(x: int) -> dict[str, int]:
        with computed.open("a") as file:
            file.write(f"{x}\n")
        return {"x": x}

    bag = db.from_sequence(range(20, 40), npartitions=4)
    report = dasklake.to_lake(bag, tmp_path, schema=NUMBERS, transform=make, options=LOCAL, **night)
    assert (report.run, values(tmp_path)) == (name, list(range(20, 40)))
    assert computed.read_text().split() == [str(x) for x in range(30, 40)]
    write(tmp_path, range(20, 40), **night)
    assert dasklake.open(tmp_path).is_complete


@pytest.mark.parametrize("input_id", [None, "tonight"])
def test_night_with_another_input_begins_anew(tmp_path: Path, input_id: str | None) -> None:
    """An interrupted night with another input is replaced: rows of two inputs are never mixed."""
    night: dict[str, Any] = {"mode": "overwrite", "run": "nightly"}
    interrupt(tmp_path, range(20), 12, **night)
    report = write(tmp_path, range(100, 120), input_id=input_id, **night)
    assert (report.run, values(tmp_path)) == ("nightly-2", list(range(100, 120)))
    with pytest.raises(ConflictError, match="another writer replaced its rows"):
        write(tmp_path, range(20), mode="resume", run="nightly")


def test_overwrite_without_a_commit_replaces_nothing(tmp_path: Path) -> None:
    """An overwrite that ends before its first checkpoint has replaced nothing."""
    write(tmp_path, range(10))
    interrupt(tmp_path, range(20, 30), 20, mode="overwrite")
    assert values(tmp_path) == list(range(10))


def test_resume_of_a_finished_run_writes_nothing(tmp_path: Path) -> None:
    """``resume`` makes a lake; for a finished run it returns the report and writes nothing."""
    first = write(tmp_path, range(10), mode="resume", run="job")
    before = files(tmp_path)
    second = write(tmp_path, range(10), mode="resume", run="job", bad=3)
    assert (second.samples, second.partitions, second.version) == (10, 2, first.version)
    assert (first.commits, second.commits) == (2, 0)
    assert files(tmp_path) == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("items", "schema", "named"),
    [
        (range(9, -1, -1), NUMBERS, "input_id"),
        (range(15), NUMBERS, "3 partitions"),
        (range(10), {"x": dasklake.TensorSpec(dtype="int32", shape=())}, "schema"),
    ],
)
def test_resume_refuses_another_plan(
    tmp_path: Path, items: range, schema: Any, named: str, *, finished: bool
) -> None:
    """``resume`` refuses another input or schema, names the difference and changes nothing."""
    if finished:
        write(tmp_path, range(10), mode="resume", run="job")
    else:
        interrupt(tmp_path, range(10), 7, mode="resume", run="job")
    before = files(tmp_path)
    with pytest.raises(PlanMismatchError, match=named):
        write(tmp_path, items, mode="resume", run="job", schema=schema)
    assert files(tmp_path) == before


def test_resume_compares_the_input_id(tmp_path: Path) -> None:
    """``input_id`` identifies the input: an equal id is accepted with any items, another id is not."""
    interrupt(tmp_path, range(10), 7, run="job", input_id="v1")
    with pytest.raises(PlanMismatchError, match="v2"):
        write(tmp_path, range(10), mode="resume", run="job", input_id="v2")
    write(tmp_path, range(10, 20), mode="resume", run="job", input_id="v1")
    assert values(tmp_path) == [*range(5), *range(15, 20)]


def test_resume_identifies_frames_by_their_sources(tmp_path: Path) -> None:
    """Frames are identified by their sources, not by the functions applied to them."""
    url = tmp_path / "lake"
    frames = [pd.DataFrame({"x": range(start, start + 20)}) for start in (0, 1)]
    same, other = (dd.from_pandas(frame, npartitions=4) for frame in frames)
    dasklake.to_lake(same, url, mode="resume", run="job", options=LOCAL)
    changed = same.map_partitions(lambda frame: frame)
    report = dasklake.to_lake(changed, url, mode="resume", run="job", options=LOCAL)
    assert report.commits == 0
    with pytest.raises(PlanMismatchError, match="input_id"):
        dasklake.to_lake(other, url, mode="resume", run="job", options=LOCAL)


def test_resume_without_a_name_uses_the_only_run(tmp_path: Path) -> None:
    """Without a name, ``resume`` uses the lake's only run; several runs are an error."""
    interrupt(tmp_path, range(10), 7, run="one")
    assert write(tmp_path, range(10), mode="resume").run == "one"
    write(tmp_path, range(10, 20), mode="append", run="two")
    with pytest.raises(InvalidInputError, match=r"'one', 'two'.*run="):
        write(tmp_path, range(10), mode="resume")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"mode": "replace"}, "'resume'"),
        ({"on_error": "ignore"}, "'skip'"),
        ({"checkpoint_every": 0}, "must be positive"),
        ({"checkpoint_every": "soon"}, "'5min'"),
        ({"max_failures": 1.5}, "fraction from 0"),
        ({"run": "a/b"}, "letters"),
        ({"options": dasklake.WriteOptions(scheduler="best")}, "'threads'"),
        ({"options": dasklake.WriteOptions(partition_timeout="soon")}, "'10min'"),
        ({"options": dasklake.WriteOptions(partition_timeout=0)}, "'10min'"),
        (
            {"options": dasklake.WriteOptions(scheduler="threads", partition_timeout="1h")},
            "workers have nannies",
        ),
        (
            {"options": dasklake.WriteOptions(partition_timeout=60), "compute": False},
            "workers have nannies",
        ),
        ({"transform_kwargs": {"plus": db.range(9, npartitions=3)}}, "one partition, got 3"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any], named: str) -> None:
    """A wrong argument is refused before the write, with the allowed values."""
    with pytest.raises(InvalidInputError, match=named):
        write(tmp_path / "lake", range(10), **arguments)
    assert not (tmp_path / "lake").exists()


@pytest.mark.filterwarnings("ignore:The input has no deterministic identity:UserWarning")
def test_function_that_cannot_be_pickled_is_an_error(client: Client, tmp_path: Path) -> None:
    """A function that cannot be pickled is an error of the call, and leaves no live run."""
    lock = threading.Lock()

    def locked(x: int) -> dict[str, int]:
        with lock:
            return {"x": x}

    bag = db.from_sequence(range(10), npartitions=2)
    options = dasklake.WriteOptions(scheduler=client)
    arguments: dict[str, Any] = {"schema": NUMBERS, "mode": "resume", "run": "job"}
    with pytest.raises(InvalidInputError, match="lock"):
        dasklake.to_lake(bag, tmp_path, transform=locked, options=options, **arguments)
    report = dasklake.to_lake(bag.map(lambda x: {"x": x}), tmp_path, options=options, **arguments)
    assert report.samples == 10


class Held:
    """A write in its own thread that waits at an item."""

    def __init__(self, stage: Stage, front: Front, item: int) -> None:
        self.stage, self.item, self.reports = stage, item, list[Any]()
        self.write: Callable[[], Any] = lambda: front.write(
            db.from_sequence(range(20), npartitions=4),
            stage.url,
            schema=SCHEMA,
            transform=sample,
            transform_kwargs={"folder": str(stage.folder), "pauses": [item]},
            mode="resume",
            run="job",
        )
        self.thread = threading.Thread(target=lambda: self.reports.append(self.write()))
        self.thread.start()
        stage.reached(item)

    def end(self) -> Any:
        """Release the write and wait for its end."""
        self.stage.let_go(self.item)
        self.thread.join(PATIENCE)
        return self.reports[0]


def test_resume_does_not_disturb_a_live_run(stage: Stage) -> None:
    """A resume does not disturb or repeat a run that another coordinator is writing."""
    held = Held(stage, Front("threads"), 7)
    with pytest.raises(RunActiveError, match=r"'job'.*dasklake watch"):
        held.write()
    report = held.end()
    assert report.samples == 20
    check_content(dasklake.open(stage.url), range(20))
    assert stage.executions() == dict.fromkeys(range(20), 1)


def test_resume_attaches_to_a_run_of_the_same_cluster(client: Client, stage: Stage) -> None:
    """On the cluster that is writing the run, a resume waits for the end of that run."""
    held = Held(stage, Front("scheduler", client), 7)
    second: list[Any] = []
    thread = threading.Thread(target=lambda: second.append(held.write()))
    thread.start()
    first = held.end()
    thread.join(PATIENCE)
    assert (second[0].run, second[0].version) == (first.run, first.version)
    assert (second[0].samples, first.samples) == (20, 20)
    check_content(dasklake.open(stage.url), range(20))
    assert stage.executions() == dict.fromkeys(range(20), 1)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"x": [1], "z": ["a"]}, r"no tensor for the columns \['z'\] and no column for .*\['y'\]"),
        ({"x": [1]}, r"no column for the tensors \['y'\]"),
        ({"x": [1], "y": ["a"], "z": [1]}, r"no tensor for the columns \['z'\]"),
    ],
)
def test_frames_of_other_columns_are_refused_at_once(
    tmp_path: Path, columns: dict[str, list[Any]], problem: str
) -> None:
    """An append of a frame with other columns leaves no run; the remedies of the message work."""
    first = pd.DataFrame({"x": [1], "y": ["a"]})
    dd.from_pandas(first, npartitions=1).to_lake(tmp_path / "lake", progress=False)
    frame = pd.DataFrame(columns)
    with pytest.raises(SchemaError, match=problem):
        dd.from_pandas(frame, npartitions=1).to_lake(
            tmp_path / "lake", mode="append", progress=False
        )
    lake = dasklake.open(tmp_path / "lake")
    assert (lake.version, lake.is_complete) == (2, True)
    if "z" in frame:
        if "y" in frame:
            lake.create_tensor("z", dtype="int64", shape=())
        else:
            lake.create_tensor("z", "text")
    if "y" not in frame:
        frame = frame.assign(y=pd.Series([None], dtype=first["y"].dtype))
    dd.from_pandas(frame, npartitions=1).to_lake(tmp_path / "lake", mode="append", progress=False)
    assert dasklake.open(tmp_path / "lake")["x"][:].tolist() == [1, 1]
