"""Images: shapes from headers equal those of the decoder; truncated files are detected."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dasklake._media.image import (
    HEAD,
    TAIL,
    decode_completely,
    ends_like,
    image_format_and_shape,
    jpeg_shape,
    png_shape,
    starts_like_image,
)
from dasklake.exceptions import SampleError

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
def test_shapes_equal_those_of_the_decoder(mode: str, form: str) -> None:
    """If the header gives a shape, it equals the shape of the decoded pixels."""
    data = _file(mode, form)
    if data is None:
        return
    shape = (jpeg_shape if form == "jpeg" else png_shape)(data)
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image)
    if shape is not None:
        assert pixels.dtype == np.uint8
        assert shape == (pixels.shape if pixels.ndim == 3 else (*pixels.shape, 1))
    assert (shape is None) == (mode in ("P", "CMYK", "I;16") or (mode == "1" and form == "png"))


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"quality": 30}, {"exif": b"Exif\0\0" + b"x" * 300}]
)
def test_unusual_jpegs_are_read(options: dict[str, object]) -> None:
    """The shape of progressive files, and of files with long metadata, is read."""
    data = _file("RGB", "jpeg", **options)
    assert data is not None
    assert jpeg_shape(data) == (21, 33, 3)


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_damaged_headers_do_not_raise(form: str) -> None:
    """Truncated or changed headers never raise; a truncated header gives the right shape or None."""
    data = _file("RGB", form)
    assert data is not None
    shape = jpeg_shape if form == "jpeg" else png_shape
    for length in range(len(data)):
        assert shape(data[:length]) in (None, (21, 33, 3))
    for offset in range(2, 200):
        shape(data[:offset] + b"\xff" + data[offset + 1 :])


FORMATS = ["jpeg", "png", "gif", "webp", "tiff", "bmp"]


def encoded(format_: str, mode: str = "RGB") -> bytes:
    """Encode noise of 90 x 120 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(sink, format_)
    return sink.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_whole_images_are_recognized_and_decoded(format_: str) -> None:
    """Every format is recognized, and can be decoded completely."""
    data = encoded(format_)
    assert starts_like_image(data)
    assert decode_completely(data) == (format_, (90, 120, 3))
    assert image_format_and_shape(data[:HEAD]) in (None, (format_, (90, 120, 3)))


@pytest.mark.parametrize("format_", ["jpeg", "png", "gif"])
def test_truncated_files_are_detected_by_their_end(format_: str) -> None:
    """The last bytes distinguish a whole file from a truncated one."""
    data = encoded(format_)
    assert image_format_and_shape(data[:HEAD]) == (format_, (90, 120, 3))
    assert ends_like(format_, data[-TAIL:])
    assert ends_like(format_, (data + bytes(20))[-TAIL:])
    assert not ends_like(format_, data[:-20][-TAIL:])
    assert not ends_like("bmp", data[-TAIL:])


@pytest.mark.parametrize("format_", FORMATS)
def test_truncated_images_fail_to_decode(format_: str) -> None:
    """Decoding half of a file raises an error."""
    data = encoded(format_)
    with pytest.raises(SampleError):
        decode_completely(data[: len(data) // 2])


def test_channels_of_gray_and_cmyk_images() -> None:
    """Gray images have one channel, CMYK images four."""
    assert image_format_and_shape(encoded("jpeg", "L")) == ("jpeg", (90, 120, 1))
    assert image_format_and_shape(encoded("jpeg", "CMYK")) == ("jpeg", (90, 120, 4))


@pytest.mark.parametrize("data", [b"<html>", b"", b"PK\3\4", b"%PDF-1.7"])
def test_other_files_are_not_recognized_as_images(data: bytes) -> None:
    """A file with another signature is not an image."""
    assert not starts_like_image(data)
    assert image_format_and_shape(data) is None
