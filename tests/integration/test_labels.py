"""Text labels have the same indices with every scheduler and after every failure."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

import dasklake
from dasklake._log.log import Log
from dasklake._log.refs import restore
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import PlanMismatchError, SchemaError, TransformError
from tests.support._labels import GIVEN, labels, sample, schema, write
from tests.support.clusters import DEEP, ROOT, StartCluster

LOCAL = dasklake.WriteOptions(scheduler="sync")
WORKERS = [1, 2, 5] if DEEP else [1, 2]


def check(url: str) -> None:
    """Compare a lake with the job's labels: given names first, then by first occurrence."""
    expected = labels()
    lake = dasklake.open(url)
    names = lake.schema["label"].class_names
    assert names == tuple(dict.fromkeys([*GIVEN, *expected]))
    frame = lake.to_dask_dataframe().compute(scheduler="sync")
    assert list(frame["label"]) == expected
    assert [names[i] for i in lake["label"][:300]] == expected[:300]
    more = lake.schema["more"].class_names
    lists = [sample(name)["more"] for name in expected]
    assert more == tuple(dict.fromkeys(name for labels_of_row in lists for name in labels_of_row))
    assert [list(labels_of_row) for labels_of_row in frame["more"]] == lists
    assert [more[i] for i in lake["more"][17]] == lists[17]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_local_schedulers_give_the_same_indices(
    tmp_path: Path, scheduler: str, workers: int
) -> None:
    """Any number of threads or processes gives the same indices and names."""
    with dask.config.set(num_workers=workers):
        write(str(tmp_path / "lake"), scheduler=scheduler)
    check(str(tmp_path / "lake"))


@pytest.mark.parametrize("workers", WORKERS)
def test_clusters_give_the_same_indices(
    tmp_path: Path, start_cluster: StartCluster, workers: int
) -> None:
    """Any number of cluster workers gives the same indices and names."""
    cluster = start_cluster(workers)
    with Client(cluster.address, set_as_default=False) as client:
        write(str(tmp_path / "lake"), scheduler=client)
    check(str(tmp_path / "lake"))


def test_killed_and_resumed_job_gives_the_same_indices(tmp_path: Path) -> None:
    """A killed and resumed job gives the same indices."""
    url = str(tmp_path / "lake")
    arguments = json.dumps({"url": url, "stop": str(tmp_path), "scheduler": "threads"})
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support._labels", arguments],
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL
    before = dasklake.open(url)
    assert 0 < before.max_len < len(labels())
    # Committed labels have their names already.
    committed = before.to_dask_dataframe().compute(scheduler="sync")["label"]
    assert set(committed) <= set(labels())
    write(url, scheduler="threads")
    check(url)


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """Make a lake of four text labels."""
    url = str(tmp_path / "animals")
    bag = db.from_sequence([{"label": name} for name in ("cow", "cat", "cow", "dog")])
    spec = dasklake.TensorSpec("class_label", shape=(), class_names=["cat"], discover=True)
    dasklake.to_lake(bag, url, schema={"label": spec}, run="first", progress=False, options=LOCAL)
    return url


def append(url: str, *values: Any, **more: Any) -> Any:
    """Append labels."""
    bag = db.from_sequence([{"label": value} for value in values], npartitions=1)
    how = {"mode": "append", "progress": False, "options": LOCAL, **more}
    return dasklake.to_lake(bag, url, **how)


def names(url: str) -> tuple[str, ...]:
    """Return the class names of a lake."""
    class_names: tuple[str, ...] = dasklake.open(url).schema["label"].class_names
    return class_names


def indices(url: str) -> list[int]:
    """Return the stored labels of a lake."""
    return [int(row["label"]) for row in dasklake.open(url)]


def test_indices_never_change(animals: str) -> None:
    """Names of later runs and updates come last; older versions keep their own list."""
    version = dasklake.open(animals).version
    dasklake.open(animals).update_class_names("label", ["emu"])
    append(animals, "fox", "cat", 0, "emu")
    assert names(animals) == ("cat", "cow", "dog", "emu", "fox")
    assert indices(animals) == [1, 0, 1, 2, 4, 0, 0, 3]
    assert dasklake.open(animals, version=version).schema["label"].class_names == (
        *("cat", "cow", "dog"),
    )


def test_failed_sample_registers_nothing(tmp_path: Path) -> None:
    """A sample that fails on another tensor registers no name."""
    url = str(tmp_path / "lake")
    tensors = {
        "label": dasklake.TensorSpec("class_label", shape=(), discover=True),
        "x": dasklake.TensorSpec(dtype="int64", shape=()),
    }
    rows = [{"label": "a", "x": 1}, {"label": "b", "x": "wrong"}, {"label": "c", "x": 2}]
    bag = db.from_sequence(rows, npartitions=1)
    dasklake.to_lake(bag, url, schema=tensors, on_error="skip", max_failures=1, options=LOCAL)
    assert names(url) == ("a", "c")


def test_unfinished_names_move_until_they_are_settled(animals: str) -> None:
    """The names of a stopped run follow those of runs that finish before it."""
    values = ["new", "cat", 99]
    with pytest.raises(TransformError):
        append(animals, *values, run="second")
    bag = db.from_sequence([{"label": v} for v in ("elk", "ox", 99)], npartitions=3)
    with pytest.raises(TransformError):
        dasklake.to_lake(
            bag,
            animals,
            mode="append",
            run="third",
            progress=False,
            options=LOCAL,
        )
    assert names(animals) == ("cat", "cow", "dog", "elk", "ox")
    append(animals, "yak", run="fourth")
    assert names(animals) == ("cat", "cow", "dog", "yak", "elk", "ox")
    frame = dasklake.open(animals).to_dask_dataframe().compute(scheduler="sync")
    assert list(frame["label"]) == ["cow", "cat", "cow", "dog", "elk", "ox", "yak"]


def test_resume_refuses_other_names(animals: str) -> None:
    """A resume accepts fewer given names; different names are an error that lists them."""
    bag = db.from_sequence([{"label": name} for name in ("cow", "cat", "cow", "dog")])
    how: dict[str, Any] = {"mode": "resume", "run": "first", "options": LOCAL}
    for given in ([], ["cat"], ["cat", "cow"]):
        spec = dasklake.TensorSpec("class_label", shape=(), class_names=given, discover=True)
        assert dasklake.to_lake(bag, animals, schema={"label": spec}, **how).samples == 4
    spec = dasklake.TensorSpec("class_label", shape=(), class_names=["cow"], discover=True)
    with pytest.raises(SchemaError, match="index 0 is 'cow', not 'cat'"):
        dasklake.to_lake(bag, animals, schema={"label": spec}, **how)
    with pytest.raises(PlanMismatchError, match="another schema"):
        dasklake.to_lake(bag, animals, schema={"label": "class_label"}, **how)


def test_overwrite_starts_a_new_list(animals: str) -> None:
    """An overwrite starts a new list; a restore returns to the old one."""
    lake = dasklake.open(animals)
    version = lake.version
    append(animals, "ant", "bee", mode="overwrite", schema=schema_of(discover=True))
    assert names(animals) == ("ant", "bee")
    log = Log(ObjectStore(animals))
    restore(log, log.require_head(), version)
    assert names(animals) == ("cat", "cow", "dog")
    assert indices(animals) == [1, 0, 1, 2]


def schema_of(**parameters: Any) -> dict[str, dasklake.TensorSpec]:
    """Return the schema of one label."""
    return {"label": dasklake.TensorSpec("class_label", shape=(), **parameters)}


def test_compaction_keeps_names(animals: str) -> None:
    """Chunks with different lists of names are joined, and keep their labels."""
    append(animals, "fox", "cow")
    lake = dasklake.open(animals)
    before = indices(animals)
    report = lake.compact()
    assert report.into == 1
    assert report.joined > 1
    assert indices(animals) == before


def test_complete_list_refuses_unknown_names(tmp_path: Path) -> None:
    """With all names given, text is resolved; an unknown name is an error that names it."""
    url = str(tmp_path / "lake")
    tensors = schema_of(class_names=["a", "b"])
    append(url, "b", "a", mode="create", schema=tensors)
    assert indices(url) == [1, 0]
    with pytest.raises(TransformError, match="c is not one of the class names"):
        append(url, "c", schema=tensors)


@pytest.mark.parametrize("names", [["a", "x"], ["a"], ["b", "a", "c"], ["c", "c"]])
def test_update_class_names_refuses_invalid_lists(tmp_path: Path, names: list[str]) -> None:
    """Existing, missing, reordered and duplicate names are refused."""
    lake = dasklake.empty(str(tmp_path / "lake"))
    lake.create_tensor("label", htype="class_label", class_names=["a", "b"])
    with pytest.raises(SchemaError):
        lake.update_class_names("label", names)
    lake.update_class_names("label", ["a", "b", "c"])
    assert lake.schema["label"].class_names == ("a", "b", "c")


def test_schema_of_the_job_survives_a_round_trip() -> None:
    """The job's schema has the given names and survives a round trip."""
    job_schema = dasklake.Schema(schema())
    assert dasklake.Schema.from_json(json.loads(json.dumps(job_schema.to_json()))) == job_schema


def undecided(url: str, *values: Any, npartitions: int = 1, **more: Any) -> Any:
    """Write labels of a tensor without given names."""
    bag = db.from_sequence([{"label": value} for value in values], npartitions=npartitions)
    how = {"schema": {"label": "class_label"}, "progress": False, "options": LOCAL, **more}
    return dasklake.to_lake(bag, url, **how)


def test_names_are_discovered_without_being_asked(tmp_path: Path) -> None:
    """Text labels of a tensor without names are collected, in bags, frames and single samples."""
    url = str(tmp_path / "lake")
    undecided(url, "cow", "cat", "cow", npartitions=2)
    undecided(url, "dog", 1, mode="append")
    dasklake.open(url).append({"label": "cat"})
    assert names(url) == ("cow", "cat", "dog")
    assert indices(url) == [0, 1, 0, 2, 1, 1]
    lake = dasklake.empty(tmp_path / "created")
    lake.create_tensor("label", htype="class_label")
    frame = pd.DataFrame({"label": ["x", None, "y"]})
    dd.from_pandas(frame, npartitions=2).to_lake(
        str(tmp_path / "created"),
        schema={"label": dasklake.TensorSpec("class_label", optional=True)},
        mode="overwrite",
        progress=False,
    )
    assert names(str(tmp_path / "created")) == ("x", "y")


def test_indices_stay_indices(tmp_path: Path) -> None:
    """Integers of a tensor without names need none; a later name is refused with its sample."""
    url = str(tmp_path / "lake")
    undecided(url, [], [7, 3], npartitions=2)
    assert dasklake.open(url).schema["label"].class_names is None
    with pytest.raises(
        TransformError, match="must be indices, because the tensor has no class_nam"
    ):
        undecided(url, "cat", mode="append")
    assert undecided(url, 5, mode="append").samples == 1
    assert [row["label"].tolist() for row in dasklake.open(url)] == [[], [7, 3], 5]


@pytest.mark.parametrize("values", [("cat", 1), (1, "cat")])
def test_names_and_indices_are_not_mixed(tmp_path: Path, values: tuple[Any, Any]) -> None:
    """Both in one partition fail as a sample, both in one lake as a run; what is right stays."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    with pytest.raises(TransformError, match=r"must be (names|indices) like those before, got"):
        undecided(one, *values)
    how: dict[str, Any] = {"npartitions": 2, "run": "r", "mode": "resume", "input_id": "same"}
    with pytest.raises(SchemaError, match=r"are (names|indices) in partition 1 of run 'r'"):
        undecided(two, *values, **how, checkpoint_every=1)
    assert indices(two) == [0 if values[0] == "cat" else 1]
    with pytest.raises(TransformError, match="index 1 of the input data"):
        undecided(two, *values, **how)
    fixed = ("cat", "dog") if values[0] == "cat" else (1, 2)
    assert undecided(two, *fixed, **how).samples == 2
    assert indices(two) == [0, 1] if values[0] == "cat" else [1, 2]
    spec = dasklake.TensorSpec("class_label", class_names=["a", "cat"], shape=())
    undecided(two, *values, npartitions=2, mode="overwrite", schema={"label": spec})
    assert indices(two) == [1, 1]


@pytest.mark.parametrize("schema", [{"label": "class_label"}, None])
def test_discovering_run_is_resumed(tmp_path: Path, schema: Any) -> None:
    """A run that has decided to discover names continues with the schema of its script or lake."""
    url = str(tmp_path / "lake")
    values = ["cow", "cat", "cow", "dog"]
    marker = tmp_path / "fixed"

    def label(value: str) -> dict[str, Any]:
        if value == "dog" and not marker.exists():
            raise ValueError("not yet")
        return {"label": value}

    def write(schema: Any) -> Any:
        bag = db.from_sequence(values, npartitions=4)
        how: dict[str, Any] = {"mode": "resume", "run": "r", "progress": False, "options": LOCAL}
        return dasklake.to_lake(bag, url, schema=schema, transform=label, **how)

    with pytest.raises(TransformError):
        write({"label": "class_label"})
    assert names(url) == ("cow", "cat")
    marker.touch()
    assert write(schema).samples == 4
    assert (names(url), indices(url)) == (("cow", "cat", "dog"), [0, 1, 0, 2])
