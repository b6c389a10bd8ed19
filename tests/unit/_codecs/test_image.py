"""Images: files are stored unchanged, arrays and other formats are encoded."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._media.image import decode_image
from dasklake.exceptions import MissingExtraError, SampleError

JPEG = TensorSpec("image", compression="jpeg")
ANY = TensorSpec("image", compression="jpeg", reencode=True)
PNG = TensorSpec("image", compression="png")
GRAY = TensorSpec("image", compression="png", shape=(None, None))


def _pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def _file(mode: str, form: str, size: tuple[int, int] = (7, 5)) -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, form)
    return sink.getvalue()


@pytest.mark.parametrize("spec", [JPEG, PNG])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_bytes_are_stored_unchanged(spec: TensorSpec, wrap: Any) -> None:
    """Bytes of the tensor's format are stored unchanged, with the shape of their pixels."""
    data = _file("RGB", str(spec.compression))
    blob = codec_for(spec).encode(wrap(data))
    assert blob.data == data
    assert blob.shape == (5, 7, 3)


def test_files_are_stored_unchanged(tmp_path: Path) -> None:
    """A file given as a path is stored unchanged."""
    path = tmp_path / "a.jpg"
    path.write_bytes(_file("L", "jpeg"))
    blob = codec_for(JPEG).encode(path)
    assert blob.data == path.read_bytes()
    assert blob.shape == (5, 7, 1)


@pytest.mark.parametrize(
    ("spec", "data", "channels"),
    [
        (JPEG, _file("RGB", "png"), 3),
        (JPEG, _file("P", "png"), 3),
        (JPEG, _file("1", "png"), 1),
        (PNG, _file("RGB", "jpeg"), 3),
        (PNG, _file("L", "bmp"), 1),
        (PNG, _file("LA", "webp"), 4),
    ],
)
def test_other_formats_are_converted(spec: TensorSpec, data: bytes, channels: int) -> None:
    """Other formats are converted to the tensor's format if reencode=True."""
    with pytest.raises(SampleError, match=r"tensor's compression.*reencode"):
        codec_for(spec).encode(data)
    codec = codec_for(replace(spec, reencode=True))
    blob = codec.encode(data)
    with Image.open(io.BytesIO(blob.data)) as image:
        assert str(image.format).lower() == spec.compression
    decoded: Any = codec.decode(blob)
    assert decoded.shape == (5, 7, channels)


@pytest.mark.parametrize("shape", [(5, 6, 3), (5, 6, 1), (5, 6, 4), (5, 6)])
def test_arrays_round_trip_through_png(shape: tuple[int, ...]) -> None:
    """A PNG returns the same pixels; one channel gets its own axis."""
    codec = codec_for(PNG)
    pixels = _pixels(*shape)
    decoded: Any = codec.decode(codec.encode(pixels))
    assert np.array_equal(decoded, pixels if pixels.ndim == 3 else pixels[:, :, None])


def test_gray_images_may_have_two_axes() -> None:
    """A tensor of rank 2 stores images of one channel without a channel axis."""
    codec = codec_for(GRAY)
    pixels = _pixels(4, 5)
    assert np.array_equal(codec.decode(codec.encode(pixels)), pixels)  # type: ignore[arg-type] # array
    with pytest.raises(SampleError, match="rank"):
        codec.encode(_file("RGB", "png"))


def test_pillow_images_are_encoded() -> None:
    """A Pillow image is accepted like a file."""
    codec = codec_for(JPEG)
    decoded: Any = codec.decode(codec.encode(Image.new("RGB", (3, 2), (200, 0, 0))))
    assert decoded.shape == (2, 3, 3)
    assert abs(int(decoded[0, 0, 0]) - 200) < 8


@pytest.mark.parametrize(
    ("spec", "value", "message"),
    [
        (JPEG, b"not an image", "not a valid image"),
        (JPEG, b"", "not a valid image"),
        (JPEG, "a.jpg", "Path"),
        (JPEG, Path("/nowhere/a.jpg"), "cannot be read"),
        (JPEG, np.zeros((2, 2, 3)), "uint8"),
        (JPEG, _pixels(2, 2, 4), "channels"),
        (JPEG, _pixels(0, 2, 3), "at least 1"),
        (JPEG, _pixels(2), "rank"),
        (ANY, _file("RGBA", "png"), "transparency"),
        (ANY, _file("I;16", "png"), "8 bits"),
        (
            TensorSpec("image", compression="jpeg", shape=(None, None, 3)),
            _file("L", "jpeg"),
            "last axis",
        ),
    ],
)
def test_invalid_images_are_refused(spec: TensorSpec, value: Any, message: str) -> None:
    """A value that is not a valid image of the tensor raises an error that gives the reason."""
    with pytest.raises(SampleError, match=message):
        codec_for(spec).encode(value)


def test_a_truncated_image_fails_when_it_is_decoded() -> None:
    """A truncated file is refused, or stored unverified and refused when it is decoded."""
    noise = io.BytesIO()
    Image.fromarray(_pixels(50, 50, 3)).save(noise, "jpeg")
    data = noise.getvalue()[:2000]
    with pytest.raises(SampleError, match=r"cannot be decoded.*truncated.*verify=False"):
        codec_for(JPEG).encode(data)
    codec = codec_for(replace(JPEG, verify=False))
    blob = codec.encode(data)
    with pytest.raises(SampleError, match=r"^the image cannot be decoded") as raised:
        codec.decode(blob)
    assert "stored shape" not in str(raised.value)


def test_an_image_of_another_shape_than_stored_is_refused() -> None:
    """Decoding raises an error if the pixels do not have the stored shape."""
    codec = codec_for(PNG)
    with pytest.raises(SampleError, match="shape"):
        codec.decode(codec.encode(_pixels(3, 3, 3))._replace(shape=(9, 9, 3)))


def test_decode_image_accepts_any_format() -> None:
    """Linked images are decoded in any format."""
    assert decode_image(_file("L", "bmp")).shape == (5, 7)


def test_pillow_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow, the error names the extra to install."""
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(MissingExtraError, match=r"dasklake\[images\]"):
        codec_for(JPEG).encode(_pixels(2, 2, 3))


def test_masked_pixels_are_refused() -> None:
    """A masked array of pixels is refused, because its mask would be lost."""
    with pytest.raises(SampleError, match="filled"):
        codec_for(PNG).encode(np.ma.masked_equal(_pixels(3, 3, 3), 0))
