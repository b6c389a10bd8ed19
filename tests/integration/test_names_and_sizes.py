"""Test unusual names of files, empty masks, and boxes of other dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.bag as db
import fsspec
import numpy as np
import pytest

import dasklake
from dasklake import TensorSpec, creds
from dasklake.exceptions import SampleError, TransformError
from tests.support.s3 import S3Bucket

LOCAL = dasklake.WriteOptions(scheduler="sync")


def round_trip(path: Path, values: list[Any], spec: TensorSpec) -> list[Any]:
    """Write values to a lake, and read them."""
    bag = db.from_sequence([{"v": value} for value in values], npartitions=1)
    dasklake.to_lake(bag, str(path / "lake"), schema={"v": spec}, progress=False, options=LOCAL)
    return list(dasklake.open(str(path / "lake"))["v"])


@pytest.mark.parametrize("name", ["in//a", "in/a::b.bin", "a/./b", "a/../b", "zip::a", "a::s3://b"])
def test_keys_on_s3(s3_bucket: S3Bucket, name: str) -> None:
    """``read`` reads the object of exactly this key, although similar keys exist."""
    s3_bucket.server.request("PUT", f"/{s3_bucket.url[5:]}/in/a", b"other")
    fs = fsspec.filesystem("s3", **s3_bucket.options)
    fs.call_s3("put_object", Bucket=s3_bucket.url[5:], Key=name, Body=b"right")
    creds.populate("names", s3_bucket.options)
    try:
        assert dasklake.read(f"{s3_bucket.url}/{name}", "names").bytes() == b"right"
    finally:
        creds.populate("names", None)


@pytest.mark.parametrize("name", ["a::b.bin", "::", "zip::x", "caf\udce9::c"])
def test_local_names(tmp_path: Path, name: str) -> None:
    """Local files may have two colons in their names."""
    (tmp_path / name).write_bytes(b"right")
    assert dasklake.read(tmp_path / name).bytes() == b"right"
    assert dasklake.read(f"file://{tmp_path / name}").bytes() == b"right"


def test_chains_still_work(tmp_path: Path) -> None:
    """URLs that chain file systems are read through both."""
    import zipfile  # noqa: PLC0415 # only here

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a.txt", b"inside")
    assert dasklake.read(f"zip://a.txt::file://{tmp_path / 'x.zip'}").bytes() == b"inside"


@pytest.mark.parametrize("compression", ["rle", "zstd", None])
def test_masks_without_pixels(tmp_path: Path, compression: str | None) -> None:
    """Masks of height or width 0, or without masks, round-trip."""
    shapes = [(0, 5, 2), (5, 0, 3), (0, 0, 1), (0, 0, 0), (4, 4, 0)]
    spec = TensorSpec("binary_mask", compression=compression or "none")
    stored = round_trip(tmp_path, [np.zeros(shape, bool) for shape in shapes], spec)
    assert [value.shape for value in stored] == shapes


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8", "float16"])
@pytest.mark.parametrize("shape", [None, (2, 4)])
def test_boxes_of_other_dtypes(tmp_path: Path, dtype: str, shape: Any) -> None:
    """Boxes of any numeric dtype are cast by value, as lists of the same numbers are."""
    box = np.array([[1, 2, 3, 4], [10, 20, 30, 100]], dtype)
    box = box + np.array(0.1, dtype) if dtype == "float64" else box
    spec = TensorSpec("bbox", coords="pixel-ltwh", **({} if shape is None else {"shape": shape}))
    first, second = round_trip(tmp_path, [box, box.tolist()], spec)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, box.astype("float32"))


@pytest.mark.parametrize("value", [1e300, 2**24 + 1])
def test_boxes_that_do_not_fit(tmp_path: Path, value: Any) -> None:
    """A value that float32 cannot hold is refused with the value."""
    box = np.array([[1, 2, 3, value]])  # float64 is rounded, but integers stay exact
    with pytest.raises((SampleError, TransformError), match="does not fit"):
        round_trip(tmp_path, [box], TensorSpec("bbox"))
