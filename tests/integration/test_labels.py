"""Labels given as text: the same indices however the work was done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
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
    """Compare a lake with the job's labels: given names first, then by first place in the input."""
    wanted = labels()
    lake = dasklake.open(url)
    names = lake.schema["label"].class_names
    assert names == tuple(dict.fromkeys([*GIVEN, *wanted]))
    frame = lake.to_dask_dataframe().compute(scheduler="sync")
    assert list(frame["label"]) == wanted
    assert [names[i] for i in lake["label"][:300]] == wanted[:300]
    more = lake.schema["more"].class_names
    lists = [sample(name)["more"] for name in wanted]
    assert more == tuple(dict.fromkeys(name for each in lists for name in each))
    assert [[more[i] for i in each] for each in frame["more"]] == lists
    assert [more[i] for i in lake["more"][17]] == lists[17]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_local_schedulers(tmp_path: Path, scheduler: str, workers: int) -> None:
    """Threads and processes, however many, give the same indices, with the right names."""
    with dask.config.set(num_workers=workers):
        write(str(tmp_path / "lake"), scheduler=scheduler)
    check(str(tmp_path / "lake"))


@pytest.mark.parametrize("workers", WORKERS)
def test_clusters(tmp_path: Path, start_cluster: StartCluster, workers: int) -> None:
    """The workers of a cluster, however many, give the same indices, with the right names."""
    cluster = start_cluster(workers)
    with Client(cluster.address, set_as_default=False) as client:
        write(str(tmp_path / "lake"), scheduler=client)
    check(str(tmp_path / "lake"))


def test_killed_and_resumed(tmp_path: Path) -> None:
    """A job that was killed in the middle and resumed gives the same indices."""
    url = str(tmp_path / "lake")
    words = json.dumps({"url": url, "stop": str(tmp_path), "scheduler": "threads"})
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support._labels", words], cwd=ROOT, check=False, timeout=120
    )
    assert ended.returncode == -signal.SIGKILL
    before = dasklake.open(url)
    assert 0 < before.max_len < len(labels())
    # What is there has its names already.
    found = before.to_dask_dataframe().compute(scheduler="sync")["label"]
    assert set(found) <= set(labels())
    write(url, scheduler="threads")
    check(url)


@pytest.fixture
def animals(tmp_path: Path) -> str:
    """Make a lake of four labels that were given as text."""
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
    found: tuple[str, ...] = dasklake.open(url).schema["label"].class_names
    return found


def indices(url: str) -> list[int]:
    """Return the labels of a lake, as they are stored."""
    return [int(row["label"]) for row in dasklake.open(url)]


def test_indices_never_change(animals: str) -> None:
    """Later runs and names that people add come last; older versions keep their own list."""
    version = dasklake.open(animals).version
    dasklake.open(animals).update_class_names("label", ["emu"])
    append(animals, "fox", "cat", 0, "emu")
    assert names(animals) == ("cat", "cow", "dog", "emu", "fox")
    assert indices(animals) == [1, 0, 1, 2, 4, 0, 0, 3]
    assert dasklake.open(animals, version=version).schema["label"].class_names == (
        *("cat", "cow", "dog"),
    )


def test_failed_sample_registers_nothing(tmp_path: Path) -> None:
    """A sample that fails on another tensor leaves no name behind."""
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
    """A run that stopped keeps its names after those of runs that finish before it."""
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


def test_resume_with_other_names(animals: str) -> None:
    """A resume goes on with fewer given names; with others it is an error that says which."""
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


def test_overwrite_and_restore(animals: str) -> None:
    """An overwrite begins a list of its own; a restore brings the old one back."""
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
    """Chunks with different lists of names are joined, and say the same."""
    append(animals, "fox", "cow")
    lake = dasklake.open(animals)
    before = indices(animals)
    report = lake.compact()
    assert report.into == 1
    assert report.joined > 1
    assert indices(animals) == before


def test_known_list(tmp_path: Path) -> None:
    """With all names given, text is looked up, and an unknown name is an error that names it."""
    url = str(tmp_path / "lake")
    tensors = schema_of(class_names=["a", "b"])
    append(url, "b", "a", mode="create", schema=tensors)
    assert indices(url) == [1, 0]
    with pytest.raises(TransformError, match="c is not one of the class names"):
        append(url, "c", schema=tensors)


@pytest.mark.parametrize("names", [["a", "x"], ["a"], ["b", "a", "c"], ["c", "c"]])
def test_update_class_names_refuses(tmp_path: Path, names: list[str]) -> None:
    """Names that are there, left out, in another order or given twice are refused."""
    lake = dasklake.empty(str(tmp_path / "lake"))
    lake.create_tensor("label", htype="class_label", class_names=["a", "b"])
    with pytest.raises(SchemaError):
        lake.update_class_names("label", names)
    lake.update_class_names("label", ["a", "b", "c"])
    assert lake.schema["label"].class_names == ("a", "b", "c")


def test_schema_of_the_job() -> None:
    """The job's own schema says what it has been told, and survives a round trip."""
    found = dasklake.Schema(schema())
    assert dasklake.Schema.from_json(json.loads(json.dumps(found.to_json()))) == found
