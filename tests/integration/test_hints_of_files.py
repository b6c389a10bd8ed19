"""Follow the proposals of errors about pictures, links, exports and loaders."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask
import dask.bag as db
import numpy as np
import pytest
from dask.base import compute
from PIL import Image

import dasklake
from dasklake import Schema, TensorSpec
from dasklake._write.encoder import Encoder
from dasklake.sources import coco
from tests.support import pictures
from tests.support.hints import follows, refused

write = partial(dasklake.to_lake, progress=False)
PNG = TensorSpec("image", compression="png")
RGB = pictures.smooth(6, 5, 3)
GRAY = RGB[:, :, 0]
LINK: dict[str, Any] = {"htype": "link[image]", "compression": "png"}


@pytest.fixture(autouse=True)
def one_process() -> Iterator[None]:
    """Compute in this process."""
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture
def url() -> str:
    """Return the URL of a new lake."""
    return f"memory://{uuid4().hex}"


def encoded(spec: TensorSpec, value: Any) -> Any:
    """Encode a value of one tensor, as a write does."""
    return Encoder(Schema({"x": spec})).encode({"x": value})["x"]


def lake_of(url: str, spec: Any, *values: Any, **options: Any) -> dasklake.Lake:
    """Write values of one tensor; return the lake."""
    items = db.from_sequence([{"x": value} for value in values], npartitions=1)
    write(items, url, schema={"x": spec}, **options)
    return dasklake.open(url)


def turned(form: str = "jpeg") -> bytes:
    """Return a file with an orientation tag."""
    exif = Image.Exif()
    exif[274] = 6
    data = pictures.file_of(Image.fromarray(RGB), form, exif=exif)
    assert data is not None
    return data


@follows("Set exif='apply' in the TensorSpec to turn the pixels, or use compression='png'.")
def test_a_turned_picture_is_stored() -> None:
    """The pixels are turned, or the format keeps the tag."""
    spec: dict[str, Any] = {"htype": "image", "compression": "bmp", "reencode": True}
    refused(encoded, TensorSpec(**spec), turned())
    encoded(TensorSpec(**spec, exif="apply"), turned())
    encoded(TensorSpec(**spec | {"compression": "png"}), turned())


@follows("np.dstack([array] * 3)")
def test_gray_pixels_become_colors() -> None:
    """Formats without gray take three equal channels."""
    webp = TensorSpec("image", compression="webp")
    refused(encoded, webp, GRAY)
    encoded(webp, np.dstack([GRAY] * 3))


@follows(
    "Keep 8 bits with PIL.Image.open(file).convert(",
    "), or decode the file with another library and store the array in a tensor TensorSpec(dtype='uint16', shape=(None, None, ",
    "compression='zstd').",
)
def test_deep_colors_are_kept_or_reduced() -> None:
    """A picture of 16 bits in three channels is reduced, or its array is stored."""
    data = pictures.png16(3, 2)
    deep = np.full((4, 6, 3), 40_000, np.uint16)
    message = refused(encoded, PNG, data)
    mode = message.partition(".convert('")[2].partition("'")[0]
    encoded(PNG, Image.open(io.BytesIO(data)).convert(mode))
    code = message.partition("in a tensor ")[2].rstrip(".")
    encoded(eval(code, {"TensorSpec": TensorSpec}), deep)  # noqa: S307 # the proposal


@follows(
    "Convert it with .convert(",
    "shape=(None, None, 3), compression='zstd')",
    "Store its pixels, np.asarray(PIL.Image.open(file)), in a tensor TensorSpec(dtype='uint8', ",
)
def test_odd_modes_are_converted_or_stored() -> None:
    """Pictures of modes that are not stored are converted, or their pixels are stored."""
    refused(
        encoded,
        TensorSpec("image", compression="tiff"),
        pictures.file_of(pictures.make("LAB", (6, 5)), "tiff"),
    )
    pixels = np.asarray(pictures.make("LAB", (6, 5)))
    encoded(TensorSpec(dtype="uint8", shape=(None, None, 3), compression="zstd"), pixels)
    odd = Image.new("RGBa", (6, 5))
    refused(encoded, PNG, odd)
    encoded(PNG, odd.convert("RGBA"))


@follows(
    "Replace the file, skip the sample with on_error='skip', or store the file unverified with verify=False in the TensorSpec."
)
def test_a_damaged_picture_is_replaced_skipped_or_stored(url: str) -> None:
    """A truncated file is left out, or stored as it is."""
    whole = pictures.file_of(Image.fromarray(RGB), "png")
    assert whole is not None
    broken = whole[: len(whole) // 2]
    refused(encoded, PNG, broken)
    encoded(PNG, whole)
    lake = lake_of(url, PNG, whole, broken, on_error="skip", max_failures=1)
    assert len(lake) == 1
    encoded(TensorSpec("image", compression="png", verify=False), broken)


@follows(
    "Compare another tensor, or write links with create_shape_tensor=True.",
    " are not stored. For links, write them with verify=True.",
)
def test_shapes_of_links_are_stored(url: str, tmp_path: Path) -> None:
    """Links that were verified have shapes, which filters compare."""
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)
    value = dasklake.link(str(path))
    lake = lake_of(url, TensorSpec(**LINK, verify=False), value)
    refused(lake.where, [("x.shape[0]", ">", 1)])
    refused(lake["x"].shapes)
    spec = TensorSpec(**LINK, verify=True, create_shape_tensor=True)
    stored = lake_of(f"{url}-shapes", spec, value)
    assert len(stored.where([("x.shape[0]", ">", 1)])) == 1
    assert len(stored["x"].shapes()) == 1


@follows(
    "Use lake.copy_to(url, rows=...) or lake.to_dask_bag(), or give a schema to write the URLs."
)
def test_moved_links_are_copied_otherwise(url: str) -> None:
    """A copy, a bag, or a schema of text writes links after rows were moved."""
    lake = lake_of(url, TensorSpec(**LINK, verify=False), dasklake.link("https://host/a.png"))
    frame = lake.to_dask_dataframe(tensors="arrow")
    moved = frame.drop_duplicates(subset=["x"]).sort_values("x")
    refused(write, moved, f"{url}-moved")
    lake.copy_to(f"{url}-copy", rows=[0], progress=False)
    write(lake.to_dask_bag(), f"{url}-bag")
    write(moved, f"{url}-text", schema={"x": "text"})


@follows(
    " was not kept: only numbers, texts, and small lists and dicts of them are kept. Give the input as items, or a function of the row of failures().",
    " is not in items, which must be the whole input. Give all items, or a function of the row of failures().",
)
def test_items_of_failures_are_given(url: str) -> None:
    """Items that are not kept are given as the input, or by a function."""

    def first(item: bytes) -> dict[str, Any]:
        return {"x": 1} if item == b"good" else {"x": 1 / 0}

    items = [b"good", b"bad"]
    write(
        db.from_sequence(items, npartitions=1), url, schema={"x": "int64"}, transform=first,
        on_error="skip", max_failures=1,
    )  # fmt: skip
    lake = dasklake.open(url)
    refused(lake.retry_failures, lambda item: {"x": len(item)})
    refused(lake.retry_failures, lambda item: {"x": len(item)}, items=[b"good"])
    report = lake.retry_failures(lambda item: {"x": len(item)}, items=items, progress=False)
    assert report is not None
    assert report.samples == 1
    assert list(lake["x"]) == [1, 3]


@follows("Set them, or give shard=(rank, ranks).")
def test_the_shard_of_a_loader_is_given(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that are no numbers are replaced by an argument."""
    lake = lake_of(url, "int64", 1, 2)
    monkeypatch.setenv("RANK", "first")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(lake.torch, batch_size=1)
    assert len(list(lake.torch(batch_size=1, shard=(0, 2)))) == 1


@follows("Use ragged='list', or a transform.", " cannot be joined with ragged=")
def test_ragged_tensors_are_lists(url: str) -> None:
    """Text is given as a list."""
    lake = lake_of(
        url, TensorSpec(dtype="float32", shape=None), np.zeros(2, "f4"), np.zeros((1, 2), "f4")
    )
    refused(lambda: list(lake.torch(batch_size=2, ragged="pad")))
    assert len(next(iter(lake.torch(batch_size=2, ragged="list")))["x"]) == 2


@follows("Leave it out with columns, or use drop_last=True.")
def test_padding_is_not_hidden(url: str) -> None:
    """A tensor of the name of the flags is left out, or there is no padding."""
    items = db.from_sequence([{"is_padding": 1, "x": 1}] * 4, npartitions=1)
    write(items, url, schema={"is_padding": "int64", "x": "int64"})
    lake = dasklake.open(url)
    refused(lake.torch, batch_size=1, shard=(0, 2))
    lake.torch(batch_size=1, shard=(0, 2), columns=["x"])
    lake.torch(batch_size=1, shard=(0, 2), drop_last=True)


@follows(" is unknown. Give compression='jpeg', or another format.")
def test_the_format_of_linked_files_is_given(url: str, tmp_path: Path) -> None:
    """Links without a format are materialized in the format of the argument."""
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path)
    lake = lake_of(url, TensorSpec("link[image]"), dasklake.link(str(path)))
    refused(lake.materialize_links, f"{url}-a")
    lake.materialize_links(f"{url}-b", compression="jpeg", progress=False)
    assert dasklake.open(f"{url}-b")[0]["x"].shape == (5, 6, 3)


@follows(
    "Give tensors= with the name of a class_label tensor for 'categories'.",
    "an annotation file needs a value. Leave such samples out with where([",
    "Name them, such as tensors={'boxes': 'my_boxes', 'categories': 'my_labels'}.",
)
def test_tensors_of_annotations_are_named(url: str, tmp_path: Path) -> None:
    """The names of boxes and labels are given, and samples without values are left out."""
    boxes = TensorSpec("bbox", coords="pixel-ltwh")
    labels = TensorSpec("class_label", class_names=["cat"])
    size = TensorSpec(dtype="uint8", shape=(None, None, 3), compression="png", htype="image")
    schema = {
        "image": size,
        "my_boxes": boxes,
        "my_labels": labels,
        "my_numbers": TensorSpec("class_label"),
    }
    full = {"image": RGB, "my_boxes": [[0, 0, 1, 1]], "my_labels": [0], "my_numbers": [0]}
    items = db.from_sequence([full, full | {"my_boxes": None}], npartitions=1)
    write(items, url, schema=schema)
    lake = dasklake.open(url)
    refused(lake.to_coco, str(tmp_path / "a.json"))
    refused(
        lake.to_coco,
        str(tmp_path / "b.json"),
        tensors={"boxes": "my_boxes", "categories": "my_numbers"},
    )
    tensors = {"images": "image", "boxes": "my_boxes", "categories": "my_labels"}
    message = refused(lake.to_coco, str(tmp_path / "c.json"), tensors=tensors)
    assert "where([('my_boxes.n_objects', '>=', 0)])" in message
    some = lake.where([("my_boxes.n_objects", ">=", 0)])
    some.to_coco(str(tmp_path / "d.json"), tensors=tensors)
    assert len(coco.read_index(str(tmp_path / "d.json"), on_unsegmented="empty").image_ids) == 1


@follows("Return a list, or write with compute=True.")
def test_a_shared_bag_returns_lists(url: str) -> None:
    """A lazy write shares tasks that return lists, or is computed at once."""

    def generated(part: list[int]) -> Iterator[dict[str, int]]:
        return ({"x": item} for item in part)

    def listed(part: list[int]) -> list[dict[str, int]]:
        return [{"x": item} for item in part]

    numbers = db.from_sequence([1, 2], npartitions=1)
    lazy = numbers.map_partitions(generated)
    first = write(lazy, f"{url}-a", schema={"x": "int64"}, compute=False)
    other = lazy.count()
    refused(compute, first, other)
    write(lazy, f"{url}-b", schema={"x": "int64"}, compute=True)
    second = numbers.map_partitions(listed)
    compute(write(second, f"{url}-c", schema={"x": "int64"}, compute=False), second.count())


@follows("Pass input_id=... to identify the input.")
def test_an_input_is_identified(url: str) -> None:
    """An input without an identity of its own is given one."""
    items = db.from_sequence([object()], npartitions=1).map(lambda _: {"x": 1})
    refused(write, items, url, schema={"x": "int64"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(items, f"{url}-id", schema={"x": "int64"}, input_id="mine")
