"""Tests of ``lake.stats``: the same answers with, without and with some statistics in segments."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._format import segment
from dasklake._read.rows import Rows
from dasklake._read.statistics import VersionStatistics
from dasklake._read.summary import summarize
from dasklake.exceptions import CorruptionError, CorruptionWarning, InvalidInputError, LakeError
from tests.support.counting import CountingFileSystem

SCHEMA = Schema(
    {
        "x": TensorSpec(dtype="int64", shape=()),
        "w": TensorSpec(dtype="float32", shape=()),
        "time": TensorSpec(dtype="datetime64[s]", shape=()),
        "stamp": TensorSpec(dtype=pa.timestamp("ms", "UTC")),
        "date": TensorSpec(dtype=pd.ArrowDtype(pa.date32())),
        "price": TensorSpec(dtype=pa.decimal128(6, 2)),
        "list": TensorSpec(dtype=pa.list_(pa.int32())),
        "data": TensorSpec(dtype="binary"),
        "ok": TensorSpec(dtype="bool", shape=(), optional=True),
        "text": TensorSpec("text"),
        "label": TensorSpec("class_label", shape=(), discover=True),
        "index": TensorSpec("class_label", shape=()),
        "labels": TensorSpec("class_label", shape=(None,), class_names=list("abcd")),
        "free": TensorSpec("class_label", class_names=list("abcd")),
        "boxes": TensorSpec("bbox"),
        "masks": TensorSpec("binary_mask"),
        "image": TensorSpec("image.rgb", compression="png"),
        "vector": TensorSpec("embedding", shape=(3,)),
        "points": TensorSpec("point", shape=(5, 2)),
        "packed": TensorSpec(dtype="int64", shape=(), compression="lz4"),
        "link": TensorSpec("link[image]", verify=False),
    }
)


def make(i: int) -> dict[str, Any]:
    """Return a sample."""
    count = i % 4
    return {
        "x": 50 - i,
        "w": math.nan if i % 5 == 0 else i / 4,
        "time": np.datetime64("NaT") if i == 3 else np.datetime64(i, "s"),
        "stamp": dt.datetime(2026, 1, 1 + i % 28, tzinfo=dt.UTC),
        "date": dt.date(2026, 1, 1 + i % 28),
        "price": Decimal(i) / 4,
        "list": [i] * count,
        "data": None if i == 5 else b"x" * count,
        "ok": None if i % 3 == 0 else i % 2 == 0,
        "text": f"{'word ' * 8}{i % 7}",
        "label": ["dog", "cat", "bird"][i * i % 3],
        "index": i % 6,
        "labels": ["abd"[j % 3] for j in range(count)],
        "free": "abcd"[count],
        "boxes": np.ones((count, 4), np.float32),
        "masks": np.zeros((4 + i % 2, 8, count), bool),
        "image": np.zeros((3, 5 + i % 3, 3), np.uint8),
        "vector": np.ones(3, np.float32),
        "points": np.ones((5, 2), np.int32),
        "packed": i,
        "link": dasklake.link(f"file:///data/{i}.png"),
    }


def write(url: Any, count: int = 40) -> dasklake.Lake:
    """Write samples in four chunks."""
    bag = db.from_sequence(range(count), npartitions=4).map(make)
    with dask.config.set(scheduler="sync"):
        dasklake.to_lake(bag, url, schema=SCHEMA, progress=False)
    return dasklake.open(url)


EXPECTED: dict[str, dict[str, Any]] = {
    "x": {"count": 40, "nulls": 0, "min": 11, "max": 50},
    "w": {"count": 40, "nulls": 0, "nan": 8, "min": 0.25, "max": 9.75},
    "time": {
        "count": 40,
        "nulls": 0,
        "nan": 1,
        "min": np.datetime64(0, "s"),
        "max": np.datetime64(39, "s"),
    },
    "stamp": {
        "count": 40,
        "nulls": 0,
        "nan": 0,
        "min": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "max": dt.datetime(2026, 1, 28, tzinfo=dt.UTC),
    },
    "date": {
        "count": 40,
        "nulls": 0,
        "nan": 0,
        "min": dt.date(2026, 1, 1),
        "max": dt.date(2026, 1, 28),
    },
    "price": {"count": 40, "nulls": 0, "min": Decimal("0.00"), "max": Decimal("9.75")},
    "list": {"count": 40, "nulls": 0},
    "data": {"count": 39, "nulls": 1},
    "ok": {"count": 26, "nulls": 14, "min": False, "max": True},
    "text": {"count": 40, "nulls": 0, "min": f"{'word ' * 8}0", "max": f"{'word ' * 8}6"},
    "label": {"count": 40, "nulls": 0, "classes": {"dog": 14, "cat": 26}},
    "index": {
        "count": 40,
        "nulls": 0,
        "classes": {0: 7, 1: 7, 2: 7, 3: 7, 4: 6, 5: 6},
        "min": 0,
        "max": 5,
    },
    "labels": {
        "count": 40,
        "nulls": 0,
        "classes": {"a": 30, "b": 20, "d": 10},
        "objects": 60,
        "min_objects": 0,
        "max_objects": 3,
    },
    "free": {"count": 40, "nulls": 0, "classes": dict.fromkeys("abcd", 10)},
    "boxes": {"count": 40, "nulls": 0, "objects": 60, "min_objects": 0, "max_objects": 3},
    "masks": {
        "count": 40,
        "nulls": 0,
        "objects": 60,
        "min_objects": 0,
        "max_objects": 3,
        "min_shape": (4, 8, 0),
        "max_shape": (5, 8, 3),
    },
    "image": {"count": 40, "nulls": 0, "min_shape": (3, 5, 3), "max_shape": (3, 7, 3)},
    "vector": {"count": 40, "nulls": 0},
    "points": {"count": 40, "nulls": 0, "objects": 200, "min_objects": 5, "max_objects": 5},
    "packed": {"count": 40, "nulls": 0},
    "link": {"count": 40, "nulls": 0},
}


def test_answers_are_those_of_the_samples(tmp_path: Path) -> None:
    """Every kind of tensor is summarized; values have the types that samples have."""
    lake = write(tmp_path / "lake")
    for name, expected in EXPECTED.items():
        assert lake.stats(name) == expected, name
    assert type(lake.stats("x")["min"]) is np.int64
    assert lake.stats("time")["min"].dtype == "M8[s]"
    table = lake.stats()
    assert list(table.index) == list(SCHEMA)
    assert table.loc["boxes", "objects"] == 60
    assert table.loc["x", "objects"] is pd.NA
    assert table.loc["label", "classes"] == {"dog": 14, "cat": 26}


def test_lakes_of_earlier_releases_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without statistics in segments, the answers are the same; compaction adds them."""
    monkeypatch.setattr(segment, "_STATISTICS", "renamed")
    lake = write(tmp_path / "lake")
    monkeypatch.undo()
    lake = dasklake.open(tmp_path / "lake")
    assert lake._reader.statistics().of(0, list(SCHEMA)) == {}
    assert summarize(lake._reader, range(40), list(SCHEMA)) == EXPECTED
    lake.compact()
    lake.refresh()
    assert set(lake._reader.statistics().of(0, list(SCHEMA))) == set(SCHEMA)
    assert summarize(lake._reader, range(40), list(SCHEMA)) == EXPECTED


def test_some_chunks_without_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and tensors without statistics are read, and no others."""
    lake = write(tmp_path / "lake")
    original = VersionStatistics.of

    def some(self: VersionStatistics, chunk: int, names: Any) -> Any:
        return {} if chunk == 1 else original(self, chunk, [n for n in names if n != "boxes"])

    monkeypatch.setattr(VersionStatistics, "of", some)
    assert summarize(lake._reader, range(40), list(SCHEMA)) == EXPECTED


ROWS: list[Rows] = [
    range(3, 37),
    range(10, 20),
    range(0),
    np.array([5]),
    np.arange(39, -1, -1),
    np.array([7, 7, 12, 0, 39, 7]),
]


@pytest.mark.parametrize("rows", ROWS, ids=map(str, range(len(ROWS))))
def test_some_samples(tmp_path: Path, rows: Rows) -> None:
    """Summaries of any samples, also repeated ones, are those of a lake of these samples."""
    lake = write(tmp_path / "lake")
    summary = summarize(lake._reader, rows, ["x", "label", "boxes", "text", "masks"])
    numbers = np.asarray(rows, np.int64).tolist()
    samples = [make(number) for number in numbers]
    assert summary["x"] == {
        "count": len(numbers),
        "nulls": 0,
        "min": min((s["x"] for s in samples), default=None),
        "max": max((s["x"] for s in samples), default=None),
    }
    names = [s["label"] for s in samples]
    counts = {name: names.count(name) for name in ("dog", "cat") if name in names}
    assert summary["label"] == {"count": len(numbers), "nulls": 0, "classes": counts}
    assert summary["boxes"]["objects"] == sum(len(s["boxes"]) for s in samples)
    assert summary["text"]["max"] == max((s["text"] for s in samples), default=None)
    assert summary["masks"].get("max_shape", (0, 0, 0))[2] == max(
        (s["masks"].shape[2] for s in samples), default=0
    )


def test_no_chunk_is_opened(counting_files: type[CountingFileSystem]) -> None:
    """Numbers, labels and objects are answered from the segment; a long text opens two chunks."""
    write("counted://lake", count=200)
    lake = dasklake.open("counted://lake")
    counting_files.reset()
    for name in SCHEMA:
        if name != "text":
            lake.stats(name)
    assert not [path for path in counting_files.files_read() if "/data/" in path]
    lake.stats("text")
    assert 0 < len([p for p in counting_files.files_read() if "/data/" in p]) <= 4


def test_only_shapes_are_fetched(
    counting_files: type[CountingFileSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a chunk without statistics, the pixels of images are not fetched."""
    schema = Schema({"image": TensorSpec("image.rgb", compression="bmp")})
    image = np.zeros((200, 300, 3), np.uint8)
    monkeypatch.setattr(segment, "_STATISTICS", "renamed")
    bag = db.from_sequence([{"image": image}] * 20, npartitions=1)
    with dask.config.set(scheduler="sync"):
        dasklake.to_lake(bag, "counted://lake", schema=schema, progress=False)
    monkeypatch.undo()
    lake = dasklake.open("counted://lake")
    counting_files.reset()
    assert lake.stats("image")["max_shape"] == (200, 300, 3)
    assert counting_files.bytes_read() < 200_000 < 20 * image.nbytes


def test_added_tensors_and_appended_samples(tmp_path: Path) -> None:
    """A new tensor is empty, then null in older samples; appended samples are counted at once."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="int64", shape=())
    lake.extend([{"x": 1}, {"x": 2}])
    lake.create_tensor("label", "class_label", shape=(), class_names=["a", "b"])
    assert lake.stats("label") == {"count": 0, "nulls": 0, "classes": {}}
    assert lake.stats("x")["count"] == 2
    assert lake.stats().loc["x", "count"] == 2
    lake.append({"x": 3, "label": "b"})
    assert lake.stats("label") == {"count": 1, "nulls": 2, "classes": {"b": 1}}
    lake.rename_tensor("label", "kind")
    assert lake.stats("kind") == {"count": 1, "nulls": 2, "classes": {"b": 1}}
    with lake:
        lake.append({"x": 9, "kind": "a"})
        assert lake.stats("x")["max"] == 9
    assert dasklake.empty(tmp_path / "none").stats().empty


def test_copies_have_statistics(tmp_path: Path) -> None:
    """A copied lake has statistics of its own."""
    lake = write(tmp_path / "lake")
    with dask.config.set(scheduler="sync"):
        lake.copy_to(tmp_path / "copy", rows=range(5, 15), progress=False)
    copy = dasklake.open(tmp_path / "copy")
    assert copy._reader.statistics().of(0, ["x"])["x"].present > 0
    assert copy.stats("x") == {"count": 10, "nulls": 0, "min": 36, "max": 45}


def test_damaged_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged chunk that must be read is an error, or left out with a warning."""
    monkeypatch.setattr(segment, "_STATISTICS", "renamed")
    write(tmp_path / "lake")
    monkeypatch.undo()
    first = min((tmp_path / "lake" / "data").rglob("*.arrow"))
    first.write_bytes(bytes(first.stat().st_size))
    with pytest.raises(CorruptionError, match=first.name):
        dasklake.open(tmp_path / "lake").stats("x")
    skipping = dasklake.open(tmp_path / "lake", on_corrupt="skip")
    with pytest.warns(CorruptionWarning, match=first.name):
        assert skipping.stats("x")["count"] == 30


def test_arguments_are_validated(tmp_path: Path) -> None:
    """A tensor that does not exist, or that is not a name, is an error."""
    lake = write(tmp_path / "lake")
    with pytest.raises(LakeError, match="no tensor 'nothing'"):
        lake.stats("nothing")
    with pytest.raises(InvalidInputError, match="tensor must be a string or None, got 3"):
        lake.stats(3)  # type: ignore[call-overload] # it is refused
