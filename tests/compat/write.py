"""Write a small lake with everything that a release can write, and its expected content.

``python -m tests.compat.write FOLDER`` makes ``FOLDER/lake`` and ``FOLDER/expected.json``. See the
README beside this file for when to do that.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import numpy as np
import pyarrow as pa
from PIL import Image

import dasklake
from dasklake import TensorSpec
from dasklake._format.documents import FORMAT_VERSION
from dasklake._schema.htypes import HTYPES
from dasklake.exceptions import TransformError

#: One tensor of each htype, dtype, compression and layout that matters to a reader.
SCHEMA: dict[str, Any] = {
    "number": TensorSpec(dtype="int64", shape=()),
    "flag": TensorSpec(dtype="bool", shape=(), optional=True),
    "wave": TensorSpec(dtype="complex64", shape=(2,)),
    "time": TensorSpec(dtype="datetime64[ms]", shape=()),
    "day": TensorSpec(dtype="datetime64[D]", shape=(2,)),
    "fixed": TensorSpec(dtype="float32", shape=(2, 3)),
    "ragged": TensorSpec(dtype="int16", shape=(None, 2)),
    "free": TensorSpec(dtype="uint8"),
    "lz4": TensorSpec(dtype="float64", shape=(None,), compression="lz4"),
    "zstd": TensorSpec(dtype="float64", shape=(4,), compression="zstd"),
    "string": TensorSpec(dtype="string", optional=True),
    "decimal": TensorSpec(dtype=pa.decimal128(10, 2)),
    "nested": TensorSpec(dtype=pa.list_(pa.int32())),
    "jpeg": TensorSpec("image", compression="jpeg"),
    "png": TensorSpec("image", compression="png", optional=True),
    "label": TensorSpec("class_label", class_names=["cat", "dog"], shape=()),
    "labels": TensorSpec("class_label", class_names=["red", "green", "blue"]),
    "boxes": TensorSpec("bbox", coords="pixel-ltwh"),
    "mask": TensorSpec("binary_mask"),
    "mask_lz4": TensorSpec("binary_mask", compression="packbits-lz4"),
    "mask_plain": TensorSpec("binary_mask", compression="none"),
    "text": TensorSpec("text"),
    "embedding": TensorSpec("embedding", shape=(4,)),
    "link": TensorSpec("link[image]", compression="jpeg", verify=False),
    "gray": TensorSpec("image.gray", compression="png"),
    "rgb": TensorSpec("image.rgb", compression="zstd"),
    "tag": TensorSpec("tag"),
    "boxes3": TensorSpec("bbox.3d"),
    "instances": TensorSpec("instance_label"),
    "segments": TensorSpec("segment_mask", class_names=["road", "sky"]),
    "polygons": TensorSpec("polygon"),
    "keypoints": TensorSpec("keypoints_coco", keypoints=["nose", "tail"]),
    "points": TensorSpec("point"),
    "cloud": TensorSpec("point_cloud"),
    "camera": TensorSpec("intrinsics"),
    "json": TensorSpec("json"),
    "list": TensorSpec("list"),
    "several": TensorSpec("sequence[bbox]"),
}

#: Htypes that the lake does not hold: whole files, kept byte for byte, that only libraries of their
#: own can write.
LEFT_OUT = frozenset({"audio", "video", "dicom", "nifti", "mesh"})


def _picture(i: int, form: str) -> bytes:
    sink = io.BytesIO()
    pixels = np.full((4 + i % 3, 5, 3), 40 * (i % 6), np.uint8)
    Image.fromarray(pixels).save(sink, format=form)
    return sink.getvalue()


def make_sample(i: int) -> dict[str, Any]:
    """Create a sample. Every fifth fails."""
    if i % 5 == 3:
        raise ValueError(f"no sample {i}")
    return {
        "number": i,
        "flag": None if i % 4 == 1 else i % 2 == 0,
        "wave": np.array([i, 1j * i], "complex64"),
        "time": np.datetime64("2026-01-01T00:00:00", "ms") + i,
        "day": np.array(["2026-01-01", "2026-02-01"], "datetime64[D]") + i,
        "fixed": np.arange(6, dtype="float32").reshape(2, 3) + i,
        "ragged": np.full((i % 3, 2), i, "int16"),
        "free": np.full((1,) * (i % 3) + (2,), i, "uint8"),
        "lz4": np.linspace(0, i, i % 4),
        "zstd": np.arange(4.0) * i,
        "string": None if i % 4 == 2 else f"string {i} ä",
        "decimal": Decimal(i) / 4,
        "nested": list(range(i % 4)),
        "jpeg": _picture(i, "jpeg"),
        "png": None if i % 3 == 0 else _picture(i, "png"),
        "label": ("cat", "dog")[i % 2],
        "labels": [("red", "green", "blue")[k % 3] for k in range(i % 4)],
        "boxes": np.full((i % 3, 4), i, "float32"),
        "mask": np.indices((4, 5, i % 3)).sum(0) % 2 == 0,
        "mask_lz4": np.indices((4, 5, i % 3)).sum(0) % 3 == 0,
        "mask_plain": np.indices((2, 2, i % 3)).sum(0) % 2 == 1,
        "text": f"text {i} 文",
        "embedding": np.arange(4, dtype="float32") - i,
        "link": f"s3://bucket/{i}.jpg",
        "gray": np.full((3, 4, 1), i, "uint8"),
        "rgb": np.full((3, i % 2 + 1, 3), i, "uint8"),
        "tag": ["new", "old"][: i % 3],
        "boxes3": np.full((i % 2, 8), i, "float32"),
        "instances": np.full((3, 4), i, "uint32"),
        "segments": np.full((2, 2), i % 2, "uint32"),
        "polygons": [np.full((3 + k, 2), k, "float32") for k in range(i % 3)],
        "keypoints": np.full((6, i % 3), i % 3, "int32"),
        "points": np.full((i % 3, 2), i, "int32"),
        "cloud": np.full((i % 4, 3), i, "float32"),
        "camera": np.eye(3, dtype="float32") * (i + 1),
        "json": {"number": i, "list": [1, None, "two"]},
        "list": [i, "two", None][: i % 4],
        "several": [np.full((k, 4), i, "float32") for k in range(i % 3)],
    }


def _stopped(i: int) -> dict[str, Any]:
    if i > 101:
        raise RuntimeError("stop")
    return make_sample(i)


def write_lake(url: str) -> None:
    """Write a lake: a run that is overwritten, two runs with failures, and one that is unfinished."""
    missing = set(HTYPES) - {spec.kind.name for spec in SCHEMA.values()} - LEFT_OUT
    if missing:
        raise SystemExit(f"Add tensors of {', '.join(sorted(missing))} to SCHEMA, or to LEFT_OUT.")
    common: dict[str, Any] = {"schema": SCHEMA, "progress": False}
    with dask.config.set(scheduler="sync"):
        runs: tuple[tuple[str, Any, range], ...] = (
            ("old", "create", range(2)),
            ("first", "overwrite", range(8)),
            ("second", "append", range(20, 23)),
        )
        for run, mode, numbers in runs:
            dasklake.to_lake(
                db.from_sequence(numbers, partition_size=4),
                url,
                transform=make_sample,
                run=run,
                mode=mode,
                on_error="skip",
                checkpoint_every=3,
                **common,
            )
        try:
            dasklake.to_lake(
                db.from_sequence([100, 101, 102, 104], npartitions=2),
                url,
                transform=_stopped,
                run="unfinished",
                mode="append",
                **common,
            )
        except TransformError:
            return
    raise SystemExit("The last run should have stopped.")


def plain(value: Any) -> Any:
    """Return a value as JSON, with its type if that is not a plain one."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if hasattr(value, "url"):
        return {"url": value.url, "creds_key": value.creds_key}
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "mM":
            numbers = array.astype("int64")
        elif array.dtype.kind == "c":
            numbers = array.view(f"f{array.dtype.itemsize // 2}")
        else:
            numbers = array
        return {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "data": numbers.ravel().tolist(),
        }
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {type(value).__name__: str(value)}


def expected(url: str) -> dict[str, Any]:
    """Return the expected content as JSON."""
    lake = dasklake.open(url)
    return {
        "format": FORMAT_VERSION,
        "schema": {name: spec.htype for name, spec in lake.schema.items()},
        "class_names": {n: list(s.class_names) for n, s in lake.schema.items() if s.class_names},
        "log": [[commit.version, commit.kind] for commit in lake.log(entries=True)],
        "complete": lake.is_complete,
        "samples": [plain(sample) for sample in lake],
        "old samples": [plain(s) for s in dasklake.open(url, version=_old(lake))],
        "failures": json.loads(
            lake.failures()[["run", "partition", "position", "exception", "message"]].to_json(
                orient="records"
            )
        ),
    }


def _old(lake: dasklake.Lake) -> int:
    """Return the newest version that holds the overwritten run."""
    commits = lake.log(entries=True)
    return min(commit.version for commit in commits if commit.kind == "overwrite") - 1


def main(folder: str) -> None:
    """Write a lake and its expected content."""
    root = Path(folder)
    write_lake(str(root / "lake"))
    content = expected(str(root / "lake"))
    numbers = [sample["number"]["data"][0] for sample in content["samples"]]
    numbers_expected = [0, 1, 2, 4, 5, 6, 7, 20, 21, 22, 100, 101]
    if numbers != numbers_expected:
        raise SystemExit(f"The lake holds {numbers}, not {numbers_expected}.")
    (root / "expected.json").write_text(
        json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
