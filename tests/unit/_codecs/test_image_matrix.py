"""Pictures of every mode, size, format, depth and damage, in every image htype and compression.

What is accepted reads back right: pixel for pixel without losses, closely with losses, byte for byte
if stored unchanged. Everything else is a SampleError whose remedy works.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._media.check import SMALL, decode_file
from dasklake.exceptions import SampleError
from tests.support import pictures

HTYPES = {"image": None, "image.rgb": "RGB", "image.gray": "L"}
COMPRESSIONS = (*pictures.FORMATS, "lz4", "zstd")
LOSSY = {"jpeg": 8, "webp": 8, "gif": 20}

#: A damaged file may warn, and may be decoded wrongly; it must not raise an error of another library.
pytestmark = pytest.mark.filterwarnings("ignore")


def expected(image: Image.Image, fixed: str | None) -> np.ndarray[Any, Any]:
    """Return the pixels that a picture shows, as height x width x channels."""
    shown = {"1": "L", "P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}.get(image.mode, image.mode)
    if image.mode == "P" and "transparency" in image.info:
        shown = "RGBA"
    if image.mode in ("LAB", "I", "F", "I;16"):
        return np.zeros(0)  # such pictures are refused
    image = image.convert(shown)
    pixels = np.array(image if fixed is None or image.mode == fixed else image.convert(fixed))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def check(spec: TensorSpec, value: Any, right: np.ndarray[Any, Any]) -> bool:
    """Encode and decode a value; return whether it was accepted."""
    codec = codec_for(spec)
    try:
        blob = codec.encode(value)
    except SampleError as error:
        remedy(spec, value, error)
        return False
    pixels: Any = codec.decode(blob)
    assert (pixels.dtype, pixels.shape, blob.shape) == (np.uint8, right.shape, right.shape)
    unchanged = isinstance(value, bytes) and blob.data == value
    worst = np.abs(pixels.astype(int) - right).mean()
    limit = 0 if unchanged else LOSSY.get(str(spec.compression), 0)
    # Pillow changes the colors of a GIF with transparency so much that the next format blurs them.
    limit *= 9 if isinstance(value, bytes) and value[:3] == b"GIF" else 1
    assert worst <= limit, (spec, worst)
    return True


def remedy(spec: TensorSpec, value: Any, error: SampleError) -> None:
    """Follow the remedy of an error: the result is accepted, or has another problem with a remedy."""
    text = error.message
    image = Image.open(io.BytesIO(value)) if isinstance(value, bytes) else value
    modes = re.findall(r"\.convert\([\"'](\w+)[\"']\)", text)
    table = re.search(r"TensorSpec\(dtype='(\w+)', shape=\((.*?)\), compression='zstd'\)", text)
    compression = re.search(r"compression=[\"'](\w+)[\"']", text)
    if "reencode=True" in text:
        spec = replace(spec, reencode=True)
    elif modes:
        for mode in modes:
            image = image.convert(mode)
        value = image
    elif table:
        shape = tuple(int(axis) if axis != "None" else None for axis in table[2].split(", "))
        codec = codec_for(TensorSpec(dtype=table[1], shape=shape, compression="zstd"))
        stored: Any = codec.decode(codec.encode(np.asarray(image)))
        assert np.array_equal(stored, np.asarray(image))
        return
    else:
        assert compression, text
        spec = replace(spec, compression=compression[1], reencode=True)
    try:
        codec_for(spec).encode(value)
    except SampleError as second:
        if second.message == text:
            raise
        remedy(spec, value, second)


@pytest.mark.parametrize("mode", pictures.MODES)
@pytest.mark.parametrize("htype", HTYPES)
def test_pictures_read_back_right_or_are_refused(htype: str, mode: str) -> None:
    """Files, Pillow images and arrays of every mode and format, in every compression."""
    accepted = 0
    fixed = HTYPES[htype]
    for size in pictures.SIZES:
        image = pictures.make(mode, size)
        for compression in COMPRESSIONS:
            spec = TensorSpec(htype, compression=compression, reencode=True)
            accepted += check(spec, image, expected(image, fixed))
        for form in pictures.FORMATS:
            data = pictures.file_of(image, form)
            if data is None:
                continue
            opened = Image.open(io.BytesIO(data))
            for compression in COMPRESSIONS if size == (7, 5) else (form, "png", "zstd"):
                spec = TensorSpec(htype, compression=compression, reencode=True)
                try:
                    right = expected(opened, fixed)
                except OSError:  # Pillow 11 cannot read each TIFF that it writes
                    with pytest.raises(SampleError, match="cannot be decoded"):
                        codec_for(spec).encode(data)
                    continue
                accepted += check(spec, data, right)
                if compression != form and compression in pictures.FORMATS:
                    with pytest.raises(SampleError):
                        codec_for(replace(spec, reencode=False)).encode(data)
    # Pillow stores images of the other modes with 8 bits in some formats.
    assert accepted or mode in ("LAB", "I", "F", "I;16")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_arrays_read_back_right_or_are_refused(channels: int) -> None:
    """Arrays of 1 to 4 channels in every compression; RGBA keeps its opaque alpha."""
    for size in pictures.SIZES:
        for compression in COMPRESSIONS:
            pixels = pictures.smooth(*size, channels)
            if channels == 4:
                pixels[:, :, 3] = 255
            mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
            image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
            assert image.mode == mode
            codec = codec_for(TensorSpec("image", compression=compression))
            try:
                blob = codec.encode(pixels)
            except SampleError as error:
                remedy(codec.spec, image, error)
                convert = re.search(r"an array with (.*?)\), or", error.message)
                assert convert
                array = eval(convert[1], {"np": np, "array": pixels})  # noqa: S307 # our message
                assert codec.encode(array).data
                continue
            decoded: Any = codec.decode(blob)
            assert decoded.shape == pixels.shape
            assert np.abs(decoded.astype(int) - pixels).mean() <= LOSSY.get(compression, 0)


WIDE = {
    "gray": pictures.png16(1, 0),
    "gray+alpha": pictures.png16(2, 4),
    "rgb": pictures.png16(3, 2),
    "rgba": pictures.png16(4, 6),
    "ppm": b"P6 4 4 65535\n" + np.full((4, 4, 3), 60000, ">u2").tobytes(),
    "pgm": b"P5 4 4 1000\n" + np.full((4, 4), 900, ">u2").tobytes(),
    "plain ppm": b"P3 2 1 65535\n60000 1 2 3 4 5\n",
    "jpeg2000": pictures.file_of(pictures.make("I;16", (6, 4)), "jpeg2000"),
    "tiff": pictures.file_of(pictures.make("I;16", (6, 4)), "tiff"),
    "float tiff": pictures.file_of(pictures.make("F", (6, 4)), "tiff"),
}


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("htype", HTYPES)
def test_more_than_8_bits_are_refused(htype: str, name: str) -> None:
    """Files of 16 bits are refused in every compression, as bytes and as Pillow images."""
    data = WIDE[name]
    assert data is not None
    for compression in COMPRESSIONS:
        spec = TensorSpec(htype, compression=compression, reencode=True)
        for value in (data, Image.open(io.BytesIO(data))):
            with pytest.raises(SampleError, match="8 bits") as raised:
                codec_for(spec).encode(value)
            assert "truncated" not in str(raised.value)
        if compression == "png":
            remedy(spec, data, raised.value)


def _noise(size: tuple[int, int]) -> Image.Image:
    random = np.random.default_rng(0)
    small = random.integers(0, 255, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(48, 40), (270, 250)], ids=["small", "large"])
@pytest.mark.parametrize("form", pictures.FORMATS)
def test_damaged_files_are_refused(form: str, size: tuple[int, int]) -> None:
    """A damaged file is refused with a remedy, or decoded; a truncated one keeps its pixels."""
    data = pictures.file_of(_noise(size).quantize(64) if form == "gif" else _noise(size), form)
    assert data is not None
    spec = TensorSpec("image", compression=form)
    codec = codec_for(spec)
    right: Any = codec.decode(codec.encode(data))
    refused = dict.fromkeys(("truncated", "zeroed", "padded", "flipped", "other"), 0)
    for kind, broken in pictures.damaged(data, 1 if size[0] < 256 else 4):
        for verify in (True, "decode", False):
            codec = codec_for(replace(spec, verify=verify))
            try:
                blob = codec.encode(broken)
            except SampleError:
                refused[kind] += verify is True
                continue
            try:
                pixels: Any = codec.decode(blob)
            except SampleError:
                # Only what the header and the end of a large file do not show.
                large = blob.shape[0] * blob.shape[1] > SMALL
                assert not verify or (verify is True and kind != "truncated" and large)
                continue
            assert pixels.shape == blob.shape
            if verify and kind == "truncated":
                assert np.array_equal(pixels, right), "a truncated picture was accepted"
    assert refused["truncated"]
    if form in ("jpeg", "png", "gif", "jpeg2000"):
        assert refused["padded"] == 2
    assert refused["other"] == 3
    assert refused["flipped"]


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_data_after_the_end_is_allowed(form: str) -> None:
    """Files with data after their end are stored unchanged, because many cameras append some."""
    for size in ((48, 40), (320, 240)):
        data = pictures.file_of(_noise(size).quantize(64) if form == "gif" else _noise(size), form)
        assert data is not None
        for tail in (b"\0" * 100, b"SAMSUNG trailer" * 9, data[: len(data) // 2]):
            for verify in (True, "decode"):
                codec = codec_for(TensorSpec("image", compression=form, verify=verify))
                try:
                    blob = codec.encode(data + tail)
                except SampleError:
                    assert form == "jpeg2000"  # Pillow cannot decode it with some such data
                    continue
                assert blob.data == data + tail
                decoded: Any = codec.decode(blob)
                right: Any = codec.decode(codec.encode(data))
                assert np.array_equal(decoded, right)


def test_small_pictures_are_decoded_by_default() -> None:
    """The limit of pictures that are always decoded is between the sizes of these tests."""
    assert 48 * 40 <= SMALL < 320 * 240


@pytest.mark.parametrize(
    ("options", "verify"),
    [
        ({}, True),
        ({"subsampling": 0}, True),
        ({"quality": 30}, True),
        ({"progressive": True}, "decode"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_zeroed_parts_of_a_jpeg_are_found(options: Any, verify: Any, mode: str) -> None:
    """A zeroed part that Pillow passes over is found; FFmpeg finds it in progressive files."""
    image = _noise((320, 240)).convert(mode)
    data = pictures.file_of(image, "jpeg", **{"quality": 90, **options})
    assert data is not None
    codec = codec_for(TensorSpec("image", compression="jpeg", verify=verify))
    assert codec.encode(data).data == data
    decode_file("jpeg", data)
    middle = len(data) // 2
    zeroed = data[:middle] + bytes(1000) + data[middle + 1000 :]
    with pytest.raises(SampleError, match=r"cannot be decoded.*verify=False"):
        codec.encode(zeroed)
    with pytest.raises(SampleError, match="cannot be decoded"):
        decode_file("jpeg", zeroed)


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_pictures_of_one_color_are_whole(shade: int, optimize: bool) -> None:  # noqa: FBT001 # parametrized
    """Long runs of equal bytes in a picture of one color are not damage."""
    for mode in ("L", "RGB", "CMYK"):
        image = Image.new("L", (900, 700), shade).convert(mode)
        for options in ({}, {"progressive": True}, {"quality": 10}, {"subsampling": 0}):
            data = pictures.file_of(image, "jpeg", optimize=optimize, **options)
            for verify in (True, "decode"):
                spec = TensorSpec("image", compression="jpeg", verify=verify)
                assert codec_for(spec).encode(data).data == data


def test_a_wrong_checksum_of_a_png_is_found() -> None:
    """A changed byte of the pixels is found by its checksum, also if the pixels can be decoded."""
    data = pictures.file_of(_noise((320, 240)), "png")
    assert data is not None
    codec = codec_for(TensorSpec("image", compression="png"))
    for offset in range(len(data) - 60, len(data) - 12, 7):
        changed = data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]
        with pytest.raises(SampleError, match=r"cannot be decoded.*checksum"):
            codec.encode(changed)


def test_files_without_a_signature_are_recognized() -> None:
    """A TGA without a footer, and a BMP with reserved bytes, are files of the tensor's format."""
    tga, bmp = (pictures.file_of(_noise((48, 40)), form) for form in ("tga", "bmp"))
    assert tga is not None
    assert bmp is not None
    for form, data in (("tga", tga[:-26]), ("bmp", bmp[:6] + b"\1\2\3\4" + bmp[10:])):
        assert codec_for(TensorSpec("image", compression=form)).encode(data).data == data


def test_a_preview_does_not_hide_a_truncation() -> None:
    """The end marker of a preview in the EXIF data is not taken for that of the picture."""
    preview = pictures.file_of(_noise((64, 48)), "jpeg")
    picture = pictures.file_of(_noise((640, 480)), "jpeg")
    assert preview is not None
    assert picture is not None
    segment = b"\xff\xe1" + (len(preview) + 8).to_bytes(2) + b"Exif\0\0" + preview
    data = picture[:2] + segment + picture[2:]
    codec = codec_for(TensorSpec("image", compression="jpeg"))
    assert codec.encode(data).shape == (480, 640, 3)
    with pytest.raises(SampleError, match="truncated"):
        codec.encode(data[:-3000])


@pytest.mark.parametrize(
    "array",
    [
        np.full((3, 4, 3), 40_000, np.uint16),
        np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
        np.ones((3, 4), bool),
        np.ones((3, 4, 7), np.uint8),
        np.ones((0, 4, 3), np.uint8),
    ],
    ids=["uint16", "float32", "bool", "channels", "empty"],
)
def test_other_arrays_are_refused_with_a_tensor_that_stores_them(array: Any) -> None:
    """Arrays that are not pixels of an image fit the generic tensor of the error."""
    with pytest.raises(SampleError, match=r"TensorSpec\(dtype=") as raised:
        codec_for(TensorSpec("image", compression="png")).encode(array)
    call = re.search(r"TensorSpec\(.*\)", raised.value.message)
    assert call
    codec = codec_for(eval(call[0], {"TensorSpec": TensorSpec}))  # noqa: S307 # our message
    stored: Any = codec.decode(codec.encode(array))
    assert stored.dtype == array.dtype
    assert np.array_equal(stored, array)
