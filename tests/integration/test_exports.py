"""Test that other libraries read what a lake is exported to."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import dask
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

import dasklake
from dasklake._read import export_webdataset
from dasklake.exceptions import InvalidInputError, VersionNotFoundError

NAMES = ("cat", "dog")


def _picture(row: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(row).integers(0, 255, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _sample(row: int) -> dict[str, Any]:
    return {
        "image": _picture(row),
        "label": row % 2,
        "labels": [0, 1][: row % 3],
        "boxes": np.full((row, 4), row, "float32"),
        "masks": np.ones((8, 9, row), bool),
        "text": f"“{row}”",
        "doc": {"row": [row, None]},
        "score": np.nan if row == 1 else row / 2,
        "matrix": np.full((2, 3), row, "int16"),
        "ragged": np.full((row, 2), row, "float32"),
        "optional": None if row == 2 else row,
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake of six samples, in chunks of three."""
    lake = dasklake.empty(tmp_path_factory.mktemp("exports") / "lake")
    lake.create_tensor("image", "image", compression="jpeg")
    lake.create_tensor("label", "class_label", class_names=NAMES, shape=())
    lake.create_tensor("labels", "class_label", class_names=NAMES, shape=(None,))
    lake.create_tensor("boxes", "bbox")
    lake.create_tensor("masks", "binary_mask")
    lake.create_tensor("text", "text")
    lake.create_tensor("doc", "json")
    lake.create_tensor("score", dtype="float64", shape=())
    lake.create_tensor("matrix", dtype="int16", shape=(2, 3))
    lake.create_tensor("ragged", dtype="float32", shape=(None, None))
    lake.create_tensor("optional", dtype="int64", shape=(), optional=True)
    lake.extend(map(_sample, range(3)))
    lake.extend(map(_sample, range(3, 6)))
    return lake


def _check_table(table: pa.Table) -> None:
    assert table["label"].to_pylist() == [NAMES[row % 2] for row in range(6)]
    assert table["labels"].to_pylist() == [list(NAMES[: row % 3]) for row in range(6)]
    assert table["image"].to_pylist() == [_picture(row) for row in range(6)]
    assert table["boxes"].to_pylist() == [[[row] * 4] * row for row in range(6)]
    assert table["text"].to_pylist() == [f"“{row}”" for row in range(6)]
    scores = table["score"].to_pylist()
    assert table["score"].null_count == 0
    assert np.isnan(scores.pop(1))
    assert scores == [0, 1, 1.5, 2, 2.5]
    assert table["optional"].to_pylist() == [0, 1, None, 3, 4, 5]


def test_an_arrow_stream_has_every_value(lake: dasklake.Lake) -> None:
    """Names of classes, bytes of files, NaN and missing values arrive as they are."""
    reader = lake.to_arrow()
    assert reader.schema.field("boxes").metadata == {b"htype": b"bbox", b"dtype": b"float32"}
    batches = list(reader)
    assert [batch.num_rows for batch in batches] == [3, 3]
    _check_table(pa.Table.from_batches(batches))
    _check_table(pa.table(lake))


def test_views_and_empty_selections_are_streams_too(lake: dasklake.Lake) -> None:
    """A filtered view exports its samples only; the types do not depend on them."""
    view = lake.where([("label", "==", "dog")]).columns(["score", "labels"])
    assert pa.table(view)["score"].to_pylist()[1:] == [1.5, 2.5]
    empty = pa.table(lake.select([]))
    assert empty.num_rows == 0
    assert empty.schema == pa.table(lake).schema


@pytest.mark.parametrize(
    "rows",
    [slice(1, 5), [5, 0, 0, 3], np.array([4, -1]), np.arange(6) % 2 == 0, range(5, 0, -2), []],
    ids=["slice", "list", "array", "mask", "range", "empty"],
)
def test_a_stream_has_the_rows_that_were_asked_for(lake: dasklake.Lake, rows: Any) -> None:
    """Every form of rows selects what it selects of a NumPy array, in its order."""
    expected = np.arange(6)[np.asarray(rows, int) if isinstance(rows, list) else rows]
    everything = pa.table(lake)
    selected = lake.to_arrow(rows=rows).read_all()
    assert repr(selected.to_pylist()) == repr(everything.take(pa.array(expected)).to_pylist())
    view = lake.select([3, 1])
    assert view.to_arrow(["text"], rows=[1]).read_all().to_pylist() == [{"text": "“1”"}]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 100])
def test_batches_of_a_stream_have_the_size_that_was_asked_for(
    lake: dasklake.Lake, size: int
) -> None:
    """Chunks are divided and joined; the values stay the same, only the last batch is smaller."""
    batches = list(lake.to_arrow(batch_size=size))
    lengths = [batch.num_rows for batch in batches]
    assert lengths == [min(size, 6 - begin) for begin in range(0, 6, size)]
    assert repr(pa.Table.from_batches(batches).to_pylist()) == repr(pa.table(lake).to_pylist())
    assert not list(lake.to_arrow(["text"], rows=[], batch_size=size).read_all()["text"])


def test_duckdb_and_polars_read_the_stream(lake: dasklake.Lake) -> None:
    """DuckDB groups by the names of classes; Polars sees the same columns."""
    stream = duckdb.from_arrow(lake.to_arrow(["label", "optional"]))
    rows = stream.aggregate("label, sum(optional)").order("label").fetchall()
    assert rows == [("cat", 4), ("dog", 9)]
    frame = pl.DataFrame(lake.to_arrow(["label", "text"]))
    assert frame["label"].cast(pl.String).to_list() == [NAMES[row % 2] for row in range(6)]


def test_wrong_calls_are_refused_at_once(lake: dasklake.Lake, tmp_path: Path) -> None:
    """Unknown tensors and sizes are errors before anything is written."""
    with pytest.raises(VersionNotFoundError, match="no tensor 'z'"):
        lake.to_arrow(["z"])
    with pytest.raises(VersionNotFoundError, match="no tensor 'z'"):
        lake.to_webdataset(tmp_path / "shards", ["z"])
    for size in (0, -1, True, 2.5, "3"):
        with pytest.raises(InvalidInputError, match="batch_size must be"):
            lake.to_arrow(batch_size=size)  # type: ignore[arg-type] # the test's subject
    with pytest.raises(InvalidInputError, match="rows must be a slice"):
        lake.to_arrow(rows=3)  # type: ignore[arg-type] # the test's subject
    with pytest.raises(IndexError, match="Sample 6 is out of range"):
        lake.to_arrow(rows=[6])
    with pytest.raises(InvalidInputError, match="shard_size"):
        lake.to_webdataset(tmp_path / "shards", shard_size="much")
    assert not list(tmp_path.iterdir())


def test_parquet_files_hold_every_value(lake: dasklake.Lake, tmp_path: Path) -> None:
    """Pandas and Arrow read the files; a repeated call writes only those that are missing."""
    assert lake.to_parquet(tmp_path / "parquet") == 2
    files = sorted((tmp_path / "parquet").glob("*.parquet"))
    _check_table(pa.concat_tables([pq.read_table(file) for file in files]))
    frame = pd.read_parquet(tmp_path / "parquet")
    assert frame["label"].tolist() == [NAMES[row % 2] for row in range(6)]
    written = files[0].stat().st_mtime_ns
    files[1].unlink()
    assert lake.to_parquet(tmp_path / "parquet") == 2
    assert files[1].exists()
    assert files[0].stat().st_mtime_ns == written
    with pytest.raises(InvalidInputError, match="an export of other samples"):
        lake.select([0]).to_parquet(tmp_path / "parquet")


# webdataset does not close the shards.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_webdataset_reads_the_shards(lake: dasklake.Lake, tmp_path: Path) -> None:
    """Files keep their bytes, values decode to what they were, and missing ones have no member."""
    assert lake.to_webdataset(tmp_path / "shards", shard_size="1 kB") > 1
    shards = [str(path) for path in sorted((tmp_path / "shards").glob("*.tar"))]
    raw = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["image.jpg"] for sample in raw] == [_picture(row) for row in range(6)]
    for row, sample in enumerate(webdataset.WebDataset(shards, shardshuffle=False).decode()):
        expected = _sample(row)
        assert sample["label.cls"] == row % 2
        assert sample["text.txt"] == expected["text"]
        assert sample["doc.json"] == expected["doc"]
        assert np.array_equal(sample["boxes.npy"], expected["boxes"])
        assert np.array_equal(sample["masks.npz"]["arr_0"], expected["masks"])
        assert ("optional.json" in sample) == (row != 2)


def test_an_interrupted_export_continues(
    lake: dasklake.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure in a shard, the same call writes only the shards that are missing."""
    members = export_webdataset._members
    left = [0, 0, 0]

    def failing(sample: Any, specs: Any) -> Any:
        if not left:
            raise OSError("the disk is gone")
        left.pop()
        return members(sample, specs)

    with monkeypatch.context() as patch, dask.config.set(scheduler="sync"):
        patch.setattr(export_webdataset, "_members", failing)
        with pytest.raises(OSError, match="the disk is gone"):
            lake.to_webdataset(tmp_path, shard_size="1 kB")
    existing = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    count = lake.to_webdataset(tmp_path, shard_size="1 kB")
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    assert (len(existing), count, len(after)) == (3, 6, 6)
    assert existing.items() < after.items()


def test_values_without_an_exact_form_are_stored_as_numpy_or_refused(tmp_path: Path) -> None:
    """Tar files keep times and complex numbers exactly; Arrow refuses complex numbers by name."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("time", dtype="datetime64[ns]", shape=())
    lake.create_tensor("wave", dtype="complex64", shape=())
    time, wave = np.datetime64("2026-01-01T00:00:00.123456789"), np.complex64(1 + 2j)
    lake.append({"time": time, "wave": wave})
    with pytest.raises(InvalidInputError, match=r"'wave'.*Leave it out"):
        lake.to_arrow()
    assert lake.to_arrow(["time"]).read_all().num_rows == 1
    lake.to_webdataset(tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
        members = {member.name.partition(".")[2]: archive.extractfile(member) for member in archive}
        values = {name: np.load(io.BytesIO(file.read())) for name, file in members.items() if file}
    assert (values["time.npy"], values["time.npy"].dtype) == (time, time.dtype)
    assert (values["wave.npy"], values["wave.npy"].dtype) == (wave, wave.dtype)


def test_times_in_sequences_are_refused_by_tar_files(tmp_path: Path) -> None:
    """JSON has no exact form of a time, so the error names the tensor."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("times", "sequence[generic]", dtype="datetime64[ns]", shape=(1,))
    lake.append({"times": [np.array(["2026-01-01"], "datetime64[ns]")]})
    with pytest.raises(InvalidInputError, match=r"'times'.*datetime64"):
        lake.to_webdataset(tmp_path / "shards")


def test_nan_is_not_a_missing_value(tmp_path: Path) -> None:
    """An optional number keeps NaN and None apart, in frames and streams."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("x", dtype="float32", shape=(), optional=True)
    lake.extend({"x": [np.nan, None, 1]})
    nan, missing, one = lake.to_arrow().read_all()["x"].to_pylist()
    assert np.isnan(nan)
    assert (missing, one) == (None, 1)


def test_samples_and_names_that_webdataset_would_change_are_refused(tmp_path: Path) -> None:
    """A sample without values would vanish, a slash change keys, and names in two cases collide."""
    lake = dasklake.empty(tmp_path / "lake")
    for name in ("x", "X", "group/x"):
        lake.create_tensor(name, dtype="int64", shape=(), optional=True)
    lake.extend([{"x": 1, "X": 1, "group/x": 1}, {"x": None, "X": None, "group/x": None}])
    with pytest.raises(InvalidInputError, match="'group/x' has a slash"):
        lake.to_webdataset(tmp_path / "a", ["group/x"])
    with pytest.raises(InvalidInputError, match="'x' and 'X'"):
        lake.to_webdataset(tmp_path / "a", ["x", "X"])
    assert not (tmp_path / "a").exists()
    with pytest.raises(InvalidInputError, match="Sample 1 of shard 0 has no value"):
        lake.to_webdataset(tmp_path / "a", ["x"])


def test_long_names_have_members(tmp_path: Path) -> None:
    """Names of more than 100 characters are written whole."""
    name = "t" * 120
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor(name, dtype="int64", shape=())
    lake.append({name: 1})
    lake.to_webdataset(tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
        assert archive.getnames() == [f"000000000000.{name}.json"]


def test_files_in_lists_keep_their_bytes_in_tar_files(tmp_path: Path) -> None:
    """Each file is a member; an empty list differs from a missing one; equal members are refused."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("frames", "sequence[image]", compression="jpeg", optional=True)
    lake.create_tensor("row", dtype="int64", shape=())
    for row, frames in enumerate([[_picture(0), _picture(1)], [], None]):
        lake.append({"frames": frames, "row": row})
    lake.to_webdataset(tmp_path / "shards")
    with tarfile.open(tmp_path / "shards" / "000000.tar") as archive:
        members = {m.name.partition(".")[0::2]: archive.extractfile(m) for m in archive}
        read = {
            name: file.read() for name, file in members.items() if file and "row" not in name[1]
        }
    assert read == {
        ("000000000000", "frames.000000.jpg"): _picture(0),
        ("000000000000", "frames.000001.jpg"): _picture(1),
        ("000000000001", "frames.json"): b"[]",
    }


def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """A tensor whose name is that of a file in a list of another one is refused."""
    lake = dasklake.empty(tmp_path / "lake")
    lake.create_tensor("frames", "sequence[image]", compression="jpeg")
    lake.create_tensor("frames.000000", "image", compression="jpeg")
    lake.append({"frames": [_picture(0)], "frames.000000": _picture(1)})
    with pytest.raises(InvalidInputError, match=r"two members 'frames\.000000\.jpg'"):
        lake.to_webdataset(tmp_path / "shards")
    assert not list((tmp_path / "shards").glob("*.tar"))


def test_a_tensor_has_one_column(lake: dasklake.Lake, tmp_path: Path) -> None:
    """A name that is given twice is refused by name, before anything is written."""
    with pytest.raises(InvalidInputError, match="each tensor once, got 'score'"):
        lake.to_arrow(["score", "label", "score"])
    with pytest.raises(InvalidInputError, match="each tensor once, got 'score'"):
        lake.to_parquet(tmp_path / "parquet", ["score", "score"])
    assert not list(tmp_path.iterdir())
