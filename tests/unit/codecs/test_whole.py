"""Whether a file is a whole picture, from its first and last bytes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dasklake.codecs.whole import HEAD, TAIL, claims, ends, picture, whole_picture
from dasklake.exceptions import SampleError

FORMATS = ["jpeg", "png", "gif", "webp", "tiff", "bmp"]


def encoded(format_: str, mode: str = "RGB") -> bytes:
    """Encode noise of 90 x 120 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, format_)
    return sink.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_whole_pictures(format_: str) -> None:
    """Every format is recognised, and decoded where the ends of a file do not suffice."""
    data = encoded(format_)
    assert claims(data)
    assert whole_picture(data) == (format_, (90, 120, 3))
    assert picture(data[:HEAD]) in (None, (format_, (90, 120, 3)))


@pytest.mark.parametrize("format_", ["jpeg", "png", "gif"])
def test_ends_of_files(format_: str) -> None:
    """The last bytes of a whole file are told from those of one that is cut off."""
    data = encoded(format_)
    assert picture(data[:HEAD]) == (format_, (90, 120, 3))
    assert ends(format_, data[-TAIL:])
    assert ends(format_, (data + bytes(20))[-TAIL:])
    assert not ends(format_, data[:-20][-TAIL:])
    assert not ends("bmp", data[-TAIL:])


@pytest.mark.parametrize("format_", FORMATS)
def test_pictures_that_are_cut_off(format_: str) -> None:
    """Half a file is found to be one when it is decoded."""
    data = encoded(format_)
    with pytest.raises(SampleError):
        whole_picture(data[: len(data) // 2])


def test_channels() -> None:
    """Gray pictures have one channel, those of print four."""
    assert picture(encoded("jpeg", "L")) == ("jpeg", (90, 120, 1))
    assert picture(encoded("jpeg", "CMYK")) == ("jpeg", (90, 120, 4))


@pytest.mark.parametrize("data", [b"<html>", b"", b"PK\3\4", b"%PDF-1.7"])
def test_other_files(data: bytes) -> None:
    """What begins like nothing that is a picture is none."""
    assert not claims(data)
    assert picture(data) is None
