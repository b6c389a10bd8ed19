"""The current code reads the lakes of every earlier release in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dasklake
from dasklake._format import object_keys
from dasklake._format.documents import FORMAT_VERSION
from dasklake._log.log import Log
from dasklake._maintenance.verify import verify
from dasklake._storage.store import ObjectStore
from dasklake.exceptions import UnsupportedFormatError
from tests.compat.write import plain
from tests.hostile.sealing import Attacker

HERE = Path(__file__).parent
STORED = sorted(folder.parent.name for folder in HERE.glob("*/expected.json"))


@pytest.fixture(params=STORED)
def folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of one stored lake."""
    return HERE / str(request.param)


@pytest.fixture
def expected(folder: Path) -> dict[str, Any]:
    """Return the expected content of the lake."""
    document: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return document


@pytest.fixture
def lake(folder: Path) -> dasklake.Lake:
    """Open the stored lake."""
    return dasklake.open(folder / "lake")


def test_there_is_one_for_each_format() -> None:
    """At least one lake of each format version is stored."""
    formats = {json.loads((HERE / name / "expected.json").read_text())["format"] for name in STORED}
    assert formats == set(range(1, FORMAT_VERSION + 1))


def test_history(lake: dasklake.Lake, expected: dict[str, Any]) -> None:
    """Schema, log, failures and state are read back unchanged."""
    assert {name: spec.htype for name, spec in lake.schema.items()} == expected["schema"]
    names = {n: list(s.class_names) for n, s in lake.schema.items() if s.class_names}
    assert names == expected["class_names"]
    assert [[c.version, c.kind] for c in lake.log(entries=True)] == expected["log"]
    assert lake.is_complete is expected["complete"]
    failures = lake.failures()
    columns = ["run", "partition", "position", "exception", "message"]
    assert json.loads(failures[columns].to_json(orient="records")) == expected["failures"]


def test_samples_whole_and_one_by_one(lake: dasklake.Lake, expected: dict[str, Any]) -> None:
    """Every sample is the same by iteration, by index, in a slice and by column."""
    samples = expected["samples"]
    assert len(lake) == len(samples)
    assert [plain(sample) for sample in lake] == samples
    assert [plain(lake[row]) for row in range(len(lake))] == samples
    assert [plain(sample) for sample in lake[:]] == samples
    for name in lake.schema:
        column = [sample[name] for sample in samples]
        assert [plain(value) for value in lake[name]] == column
        assert [plain(value) for value in lake[name][:]] == column


def test_dask_collections(lake: dasklake.Lake, expected: dict[str, Any]) -> None:
    """Bag, frame and arrays have the same samples in the same order."""
    samples = expected["samples"]
    bag = lake.to_dask_bag().compute(scheduler="sync")
    assert [plain(sample) for sample in bag] == samples
    frame = lake.to_dask_dataframe().compute(scheduler="sync")
    assert list(frame.columns) == list(lake.schema)
    assert frame.index.tolist() == list(range(len(samples)))
    numbers = [sample["number"]["data"][0] for sample in samples]
    assert frame["number"].tolist() == numbers
    assert lake.to_dask_array("number").compute(scheduler="sync").tolist() == numbers
    for name in ("fixed", "zstd", "wave", "day", "embedding"):
        array = lake.to_dask_array(name).compute(scheduler="sync")
        assert [plain(row) for row in array] == [sample[name] for sample in samples]


def test_lakes_without_statistics_are_summarized(
    folder: Path, lake: dasklake.Lake, expected: dict[str, Any]
) -> None:
    """The summary of each tensor is that of its samples, also if segments have no statistics."""
    log = Log(ObjectStore(folder / "lake"))
    assert log.manifest(log.require_head(), statistics=True).statistics is None
    table = lake.stats()
    for name in lake.schema:
        present = [sample[name] for sample in expected["samples"] if sample[name] is not None]
        assert table.loc[name, "count"] == len(present), name
        assert table.loc[name, "nulls"] == len(lake) - len(present), name
    numbers = [sample["number"]["data"][0] for sample in expected["samples"]]
    assert (table.loc["number", "min"], table.loc["number", "max"]) == (min(numbers), max(numbers))


def test_older_version(lake: dasklake.Lake, folder: Path, expected: dict[str, Any]) -> None:
    """An older version still has the overwritten samples."""
    version = min(v for v, kind in expected["log"] if kind == "overwrite") - 1
    old = dasklake.open(folder / "lake", version=version)
    assert [plain(sample) for sample in old] == expected["old samples"]


def test_stored_lakes_are_sound(folder: Path) -> None:
    """No byte of a stored lake has changed since it was written."""
    store = ObjectStore(folder / "lake")
    assert verify(store, Log(store)).damaged == ()


def _copy(folder: Path, url: str) -> ObjectStore:
    source, target = ObjectStore(folder / "lake"), ObjectStore(url)
    for key, _ in source.walk(""):
        target.put(key, source.get(key))
    return target


@pytest.mark.parametrize(
    "change",
    [
        {"features": {"reader": ["deletion-vectors"], "writer": []}},
        {"format": 2},
        {"format": 2, "schema": "of a new kind"},
    ],
)
def test_commits_of_newer_formats_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A commit with an unknown feature for readers, or an unknown format, asks for an upgrade."""
    store = _copy(folder, str(tmp_path))
    attacker = Attacker(store)
    attacker.commit(lambda document: document | change)
    with pytest.raises(UnsupportedFormatError, match="Upgrade"):
        dasklake.open(tmp_path)


def test_fields_of_newer_releases_are_ignored(
    folder: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    """Unknown fields without a feature for readers are ignored."""
    store = _copy(folder, str(tmp_path))

    def change(document: dict[str, Any]) -> None:
        document["mood"] = "good"
        for run in document["runs"].values():
            run["mood"] = run["plan"]["mood"] = "good"
        document["segments"][0]["mood"] = document["totals"]["mood"] = "good"
        next(iter(document["schema"]["tensors"].values()))["mood"] = "good"

    Attacker(store).commit(change)
    assert store.exists(object_keys.commit_key("main", expected["log"][0][0]))
    assert [plain(sample) for sample in dasklake.open(tmp_path)] == expected["samples"]
