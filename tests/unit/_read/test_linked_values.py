"""Test links: targets are read only on request."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dasklake import Schema, TensorSpec, link
from dasklake._api.lake import open as open_lake
from dasklake._read.linked_values import LinkedImage, check_rows, fetched, linked, unwrapped
from dasklake._schema.values import Link
from dasklake.exceptions import LinkError, SampleError
from tests.support.samples import Make

SPEC = TensorSpec("link[image]", compression="png")
SCHEMA = Schema({"image": SPEC})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write a picture of 4 x 5 pixels."""
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_link_gives_bytes_and_pixels(picture: Path, make_lake: Make) -> None:
    """A value of a link tensor names its file, and reads it on request."""
    lake = open_lake(make_lake(SCHEMA, [[[{"image": link(str(picture))}, {"image": None}]]]).url)
    image = lake[0]["image"]
    assert (image.url, image.creds_key) == (str(picture), None)
    assert lake[1]["image"] is None
    assert lake["image"].bytes(1) is None
    assert image.bytes() == lake["image"].bytes(0) == picture.read_bytes()
    pixels = np.asarray(Image.open(picture))
    assert np.array_equal(image.numpy(), pixels)
    assert np.array_equal(np.asarray(image), pixels)


def test_metadata_of_a_target_are_stored(make_lake: Make) -> None:
    """Shape, size, etag and format come from the chunk, by row and by chunk."""
    facts = {"shape": [4, 5, 3], "size": 9, "etag": "v1", "format": "png"}
    stored = {"url": "memory://x/a.png", "creds_key": "old", **facts}
    image = linked(SPEC, stored, {"old": "new"})
    assert isinstance(image, LinkedImage)
    assert (image.url, image.creds_key) == ("memory://x/a.png", "new")
    assert (image.shape, image.size, image.etag, image.format) == ((4, 5, 3), 9, "v1", "png")
    nothing = linked(SPEC, {"url": "u", "creds_key": None}, {})
    assert (nothing.shape, nothing.size, nothing.etag, nothing.format) == (None,) * 4


def test_gray_pictures_have_three_axes(tmp_path: Path) -> None:
    """A gray picture has the shape height x width x 1."""
    Image.new("L", (5, 4)).save(tmp_path / "gray.png")
    assert LinkedImage(str(tmp_path / "gray.png")).numpy().shape == (4, 5, 1)


def test_a_link_can_be_written_again() -> None:
    """A value read from one lake can be written to another unchanged."""
    assert isinstance(LinkedImage("s3://b/a.jpg"), Link)


def test_unreadable_targets_are_errors(tmp_path: Path) -> None:
    """A missing file, a file that is not a picture, and a URL without a file are clear errors."""
    with pytest.raises(LinkError, match="is dead"):
        LinkedImage(str(tmp_path / "none.jpg")).bytes()
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(SampleError, match="not a valid image"):
        LinkedImage(str(tmp_path / "text.jpg")).numpy()


def test_broken_and_changed_targets_are_distinguished(picture: Path, tmp_path: Path) -> None:
    """A missing target is broken; one with another size or etag is changed."""
    url, size = str(picture), picture.stat().st_size
    samples: list[dict[str, Any]] = [
        {"image": LinkedImage(url, size=size)},
        {"image": None},
        {"image": LinkedImage(url, size=size + 1, etag="other")},
        {"image": LinkedImage(str(tmp_path / "none.png"))},
        {"image": LinkedImage(url)},
    ]
    problems = check_rows(samples, 10, {"image": SPEC}, decode=False)
    assert [(problem.sample, problem.problem) for problem in problems] == [
        (12, "changed"),
        (13, "broken"),
    ]
    assert f"its size is {size}, and was {size + 1}" in problems[0].message
    assert "is dead" in problems[1].message


def test_bytes_are_fetched_in_order(picture: Path, tmp_path: Path) -> None:
    """Each sample gets its own bytes; a missing target fails alone, in order."""
    sink = io.BytesIO()
    Image.new("RGB", (3, 2)).save(sink, "png")
    (tmp_path / "b.png").write_bytes(sink.getvalue())
    urls = [str(picture), str(tmp_path / "none.png"), str(tmp_path / "b.png")]
    samples = [{"n": n, "image": LinkedImage(url)} for n, url in enumerate(urls)]
    first, second, third, fourth = fetched([*samples, {"n": 3, "image": None}], ["image"])
    assert unwrapped(first) == {"n": 0, "image": picture.read_bytes()}
    with pytest.raises(LinkError, match=r"tensor 'image'.*is dead"):
        unwrapped(second)
    assert unwrapped(third) == {"n": 2, "image": sink.getvalue()}
    assert unwrapped(fourth) == {"n": 3, "image": None}
