"""Links: nothing is read before it is asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dasklake import Schema, TensorSpec, link
from dasklake._model.values import Link
from dasklake._read.links import LinkedImage
from dasklake.exceptions import InvalidInputError, SampleError, StoreError
from dasklake.lake import open as open_lake
from tests.support.samples import Make

SCHEMA = Schema({"image": TensorSpec("link[image]", compression="png")})


def test_a_link_gives_bytes_and_pixels(tmp_path: Path, make_lake: Make) -> None:
    """What a link tensor gives names the file, and reads it when it is asked to."""
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "png")
    path = tmp_path / "a.png"
    path.write_bytes(sink.getvalue())
    lake = open_lake(
        make_lake(SCHEMA, [[[{"image": link(str(path), "key")}, {"image": None}]]]).url
    )
    found = lake[0]["image"]
    assert (found.url, found.creds_key) == (str(path), "key")
    assert lake[1]["image"] is None
    assert lake["image"].bytes(1) is None
    mine = LinkedImage(str(path))
    assert mine.bytes() == path.read_bytes()
    assert np.array_equal(mine.numpy(), pixels)
    assert np.array_equal(np.asarray(mine), pixels)


def test_a_link_can_be_written_again() -> None:
    """What is read from one lake can be written into another as it is."""
    assert isinstance(LinkedImage("s3://b/a.jpg"), Link)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """A missing file, a file that is no picture, and a URL that names none, are clear errors."""
    with pytest.raises(StoreError):
        LinkedImage(str(tmp_path / "none.jpg")).bytes()
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(SampleError, match="not a picture"):
        LinkedImage(str(tmp_path / "text.jpg")).numpy()
    with pytest.raises(InvalidInputError, match="names no file"):
        LinkedImage("s3://bucket/").bytes()
