"""Test that Hugging Face datasets sees images, labels and arrays of an export as such."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import dasklake
from dasklake.exceptions import InvalidInputError

NAMES = ("cat", "dog")
LINK = "https://example.org/1.png"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the library from asking its server."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def _picture(row: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(row).integers(0, 255, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _sample(row: int) -> dict[str, Any]:
    return {
        "image": _picture(row),
        "views": [_picture(10 * row + view) for view in range(row)],
        "label": None if row == 2 else row % 2,
        "labels": [0, 1][: row % 3],
        "pair": [1, row % 2],
        "boxes": np.full((row, 4), row, "float32"),
        "matrix": None if row == 1 else np.arange(6, dtype="int16").reshape(2, 3) + row,
        "flags": [True, row == 3, False],
        "text": f"“{row}”",
        "link": LINK,
        "mask": np.ones((2, 3, row), bool),
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> dasklake.Lake:
    """Return a lake of four samples in chunks of two."""
    lake = dasklake.empty(tmp_path_factory.mktemp("huggingface") / "lake")
    lake.create_tensor("image", "image", compression="png")
    lake.create_tensor("views", "sequence[image]", compression="png")
    lake.create_tensor("label", "class_label", class_names=NAMES, shape=(), optional=True)
    lake.create_tensor("labels", "class_label", class_names=NAMES, shape=(None,))
    lake.create_tensor("pair", "class_label", class_names=NAMES, shape=(2,))
    lake.create_tensor("boxes", "bbox")
    lake.create_tensor("matrix", dtype="int16", shape=(2, 3), optional=True)
    lake.create_tensor("flags", dtype="bool", shape=(3,))
    lake.create_tensor("text", "text")
    lake.create_tensor("link", "link[image]", verify=False)
    lake.create_tensor("mask", "binary_mask")
    lake.extend(map(_sample, range(2)))
    lake.extend(map(_sample, range(2, 4)))
    return lake


def _check(dataset: Any) -> None:
    features = dataset.features
    label = datasets.ClassLabel(names=list(NAMES))
    assert isinstance(features["image"], datasets.Image)
    assert isinstance(features["views"].feature, datasets.Image)
    assert features["label"] == label
    assert features["labels"].feature == label
    assert (features["pair"].feature, features["pair"].length) == (label, 2)
    assert (features["matrix"].length, features["matrix"].feature.length) == (2, 3)
    assert features["matrix"].feature.feature == datasets.Value("int16")
    assert features["flags"].feature == datasets.Value("bool")
    for row in range(4):
        expected, got = _sample(row), dataset[row]
        with Image.open(io.BytesIO(expected["image"])) as picture:
            np.testing.assert_array_equal(np.asarray(got["image"]), np.asarray(picture))
        assert len(got["views"]) == row
        for picture, data in zip(got["views"], expected["views"], strict=True):
            with Image.open(io.BytesIO(data)) as opened:
                np.testing.assert_array_equal(np.asarray(picture), np.asarray(opened))
        for name in ("label", "labels", "pair", "flags", "text", "link"):
            assert got[name] == expected[name]
        assert got["boxes"] == expected["boxes"].tolist()
        assert got["matrix"] == (None if row == 1 else expected["matrix"].tolist())
        assert sum(got["mask"]["data"]) == 6 * row
    encoded = dataset.cast_column("image", datasets.Image(decode=False))
    assert [row["image"]["bytes"] for row in encoded] == [_picture(row) for row in range(4)]


def test_a_stream_is_a_dataset(lake: dasklake.Lake) -> None:
    """Pictures are decoded by the library from the bytes of the lake; classes have their names."""
    _check(datasets.Dataset(lake.to_arrow(flavor="huggingface").read_all()))


@pytest.mark.skipif(
    int(pa.__version__.split(".")[0]) < 19,
    reason="Arrow 18 cannot read a missing list of a fixed size from Parquet",
)
def test_parquet_files_are_a_dataset(lake: dasklake.Lake, tmp_path: Path) -> None:
    """``load_dataset("parquet")`` needs no cast; the order and the bytes stay."""
    assert lake.to_parquet(tmp_path / "files", flavor="huggingface") == 2
    found = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "files" / "*.parquet"),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    _check(found)


def test_views_and_other_batches_have_the_same_types(lake: dasklake.Lake) -> None:
    """Parts of chunks, empty selections and slices of lists convert like whole chunks."""
    schema = lake.to_arrow(flavor="huggingface").schema
    everything = lake.to_arrow(flavor="huggingface").read_all()
    rows = lake.to_arrow(flavor="huggingface", rows=[3, 1], batch_size=1).read_all()
    assert rows.to_pylist() == everything.take([3, 1]).to_pylist()
    assert lake.to_arrow(flavor="huggingface", rows=[]).read_all().schema == schema
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == {"image", "views", "label", "labels", "pair"}


def test_an_export_of_another_flavor_is_another_export(lake: dasklake.Lake, tmp_path: Path) -> None:
    """Files of both flavors never mix in a folder, and other flavors are refused at once."""
    lake.to_parquet(tmp_path / "files", ["label"])
    with pytest.raises(InvalidInputError, match="export of other samples"):
        lake.to_parquet(tmp_path / "files", ["label"], flavor="huggingface")
    assert pq.read_table(tmp_path / "files")["label"].to_pylist() == ["cat", "dog", None, "dog"]
    with pytest.raises(InvalidInputError, match="flavor must be 'huggingface' or None, got 'hf'"):
        lake.to_arrow(flavor="hf")  # type: ignore[arg-type] # the test's subject
