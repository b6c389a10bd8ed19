"""Sizes from headers: the same as the decoder finds, or none at all."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dasklake.codecs.headers import jpeg_shape, png_shape

MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]


def _file(mode: str, form: str, **options: object) -> bytes | None:
    sink = io.BytesIO()
    try:
        Image.new(mode, (33, 21)).save(sink, form, **options)
    except OSError:
        return None
    return sink.getvalue()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_sizes_are_those_of_the_decoder(mode: str, form: str) -> None:
    """Where a size is found, it is the one that decoding gives."""
    data = _file(mode, form)
    if data is None:
        return
    found = (jpeg_shape if form == "jpeg" else png_shape)(data)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image)
    if found is not None:
        assert pixels.dtype == np.uint8
        assert found == (pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1))
    assert (found is None) == (mode in ("P", "CMYK", "I;16") or (mode == "1" and form == "png"))


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"quality": 30}, {"exif": b"Exif\0\0" + b"x" * 300}]
)
def test_unusual_jpegs_are_read(options: dict[str, object]) -> None:
    """Progressive files and files with a lot before the frame have their size found."""
    data = _file("RGB", "jpeg", **options)
    assert data is not None
    assert jpeg_shape(data) == (21, 33, 3)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_cut_and_spoiled_headers_are_left_alone(form: str) -> None:
    """No prefix and no changed byte of a header is an error; a prefix has the size or none."""
    data = _file("RGB", form)
    assert data is not None
    shape = jpeg_shape if form == "jpeg" else png_shape
    for length in range(len(data)):
        assert shape(data[:length]) in (None, (21, 33, 3))
    for place in range(2, 200):
        shape(data[:place] + b"\xff" + data[place + 1 :])
