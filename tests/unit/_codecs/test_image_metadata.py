"""Orientation, color profiles, frames and sizes of pictures, and the parameters of their specs."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, ImageSequence

from dasklake import Schema, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._schema.spec import describe
from dasklake.exceptions import SampleError, SchemaError
from tests.support import pictures

KEEPING = ("jpeg", "png", "webp", "tiff")
TAG = 274


def photo(form: str, orientation: int = 6) -> bytes:
    """Make a picture of 40 x 20 pixels that is shown turned."""
    exif = Image.Exif()
    exif[TAG], exif[271] = orientation, "maker"
    image = Image.fromarray(pictures.smooth(40, 20, 3))
    data = pictures.file_of(image, form, exif=exif)
    assert data is not None
    return data


def shown(data: bytes) -> tuple[int, int]:
    """Return height and width as a viewer shows a file."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size[::-1]


@pytest.mark.parametrize("form", KEEPING)
@pytest.mark.parametrize("compression", [*pictures.FORMATS, "zstd"])
@pytest.mark.parametrize("htype", ["image", "image.rgb", "image.gray"])
def test_orientation_is_kept_applied_or_refused(htype: str, form: str, compression: str) -> None:
    """A picture that is encoded again is shown as before, or refused; "apply" turns its pixels."""
    if (htype, compression) in (("image.gray", "webp"), ("image.gray", "gif")):
        return
    spec = TensorSpec(htype, compression=compression, reencode=True)
    for orientation in (1, 3, 6, 8):
        data = photo(form, orientation)
        turned = codec_for(replace(spec, exif="apply"))
        blob = turned.encode(data)
        assert blob.shape[:2] == shown(data) == turned.decode(blob).shape[:2]  # type: ignore[attr-defined] # array
        if compression in pictures.FORMATS:
            assert shown(blob.data) == shown(data)
        if orientation != 1 and compression not in KEEPING and form != "tiff":
            with pytest.raises(SampleError, match=f"orientation tag {orientation}.*exif='apply'"):
                codec_for(spec).encode(data)
            continue
        blob = codec_for(spec).encode(data)
        # Pillow turns the pixels of a TIFF whenever it decodes one.
        turned_by_pillow = form == "tiff" or compression == "tiff"
        assert blob.shape[:2] == (shown(data) if turned_by_pillow else (20, 40))
        if compression in KEEPING:
            assert shown(blob.data) == shown(data)
            assert Image.open(io.BytesIO(blob.data)).getexif()[271] == "maker"


def test_apply_turns_the_right_way() -> None:
    """The pixels are those that a viewer shows, for each orientation."""
    codec = codec_for(TensorSpec("image", compression="png", exif="apply"))
    for orientation in range(1, 9):
        data = photo("png", orientation)
        expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        blob = codec.encode(data)
        assert np.array_equal(codec.decode(blob), expected)  # type: ignore[arg-type] # array
        assert (blob.data == data) == (orientation == 1)


@pytest.mark.parametrize("form", KEEPING)
@pytest.mark.parametrize("compression", KEEPING)
def test_color_profiles_are_kept(form: str, compression: str) -> None:
    """A profile is kept if the image is encoded again, unless its color space changes."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(pictures.smooth(40, 20, 3))
    data = pictures.file_of(image, form, icc_profile=profile)
    assert data is not None
    spec = TensorSpec("image", compression=compression, reencode=True)
    stored = Image.open(io.BytesIO(codec_for(spec).encode(data).data))
    assert stored.info["icc_profile"] == profile
    if compression != "webp":
        gray = codec_for(replace(spec, htype="image.gray", shape=None)).encode(data)
        assert "icc_profile" not in Image.open(io.BytesIO(gray.data)).info


@pytest.mark.parametrize("compression", [*pictures.FORMATS, "zstd"])
def test_images_made_from_others_keep_their_pixels(compression: str) -> None:
    """A Pillow image that was turned by its user is stored as it is, in every compression."""
    image = Image.open(io.BytesIO(photo("jpeg"))).rotate(-90, expand=True)
    codec = codec_for(TensorSpec("image", compression=compression))
    pixels: Any = codec.decode(codec.encode(image))
    assert pixels.shape == (40, 20, 3)
    assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 20


def test_orientation_in_xmp_is_kept() -> None:
    """An orientation that is only in XMP data is kept as a tag."""
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = pictures.file_of(Image.fromarray(pictures.smooth(40, 20, 3)), "jpeg", xmp=xmp)
    if data is None or shown(data) != (40, 20):
        pytest.skip("this release of Pillow does not write XMP data")
    blob = codec_for(TensorSpec("image", compression="png", reencode=True)).encode(data)
    assert blob.shape == (20, 40, 3)
    assert shown(blob.data) == (40, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_tags_do_not_matter() -> None:
    """Damaged EXIF data does not prevent a picture from being stored or encoded again."""
    data = pictures.file_of(Image.new("RGB", (8, 8)), "jpeg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert data is not None
    for compression in (*KEEPING, "zstd"):
        for exif in ("keep", "apply"):
            spec = TensorSpec("image", compression=compression, reencode=True, exif=exif)
            assert codec_for(spec).encode(data).shape == (8, 8, 3)


FRAMES = [Image.fromarray(pictures.smooth(16, 12, 3) + 5 * n) for n in range(3)]


def animated(form: str) -> bytes:
    """Make a file of three frames or pages."""
    data = pictures.file_of(
        FRAMES[0].quantize(64) if form == "gif" else FRAMES[0],
        form,
        save_all=True,
        append_images=FRAMES[1:],
    )
    assert data is not None
    return data


@pytest.mark.parametrize("form", ["gif", "png", "webp", "tiff"])
def test_several_frames_warn(form: str) -> None:
    """The first frame of an animation or a file of pages is read, with a warning."""
    data = animated(form)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined] # plugins have it
    for spec, value in (
        (TensorSpec("image", compression=form), data),
        (TensorSpec("image", compression="zstd"), data),
        (TensorSpec("image", compression="zstd"), Image.open(io.BytesIO(data))),
    ):
        codec = codec_for(spec)
        with pytest.warns(UserWarning, match=r"several frames.*sequence\[image\]"):
            blob = codec.encode(value)
        pixels: Any = codec.decode(blob)
        assert np.abs(pixels.astype(int) - np.asarray(FRAMES[0])).mean() < 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = pictures.file_of(FRAMES[0].quantize(64) if form == "gif" else FRAMES[0], form)
        codec_for(TensorSpec("image", compression=form)).encode(one)


def test_the_remedy_for_frames_works() -> None:
    """A sequence of images stores all frames, as the warning says."""
    image = Image.open(io.BytesIO(animated("png")))
    codec = codec_for(TensorSpec("sequence[image]", compression="png"))
    frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    decoded: Any = codec.decode(codec.encode(frames))
    assert [frame.shape for frame in decoded] == [(12, 16, 3)] * 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["gif", "png", "webp", "tiff"])
def test_a_truncated_later_frame_is_found(form: str) -> None:
    """A truncated animation is refused, or only lacks its end."""
    data = animated(form)[:-60]
    codec = codec_for(TensorSpec("image", compression=form))
    with pytest.raises(SampleError):
        codec.encode(data)


@pytest.mark.parametrize(
    ("compression", "shape"),
    [("jpeg", (65_501, 1)), ("webp", (1, 16_384)), ("gif", (65_536, 1, 3)), ("tga", (1, 70_000))],
)
def test_sides_that_a_format_lacks_are_refused(compression: str, shape: tuple[int, ...]) -> None:
    """A side that is too long is refused; the remedy accepts it."""
    pixels = np.zeros((*shape, 3)[:3], np.uint8)
    with pytest.raises(SampleError, match=r"at most .* pixels, got .*compression='png'"):
        codec_for(TensorSpec("image", compression=compression)).encode(pixels)
    codec = codec_for(TensorSpec("image", compression="png"))
    assert codec.decode(codec.encode(pixels)).shape == pixels.shape  # type: ignore[attr-defined] # array


def test_jpegs_with_long_sides_are_refused_as_files() -> None:
    """A file that its decoder cannot read is refused before its pixels are read."""
    data = pictures.file_of(Image.new("L", (65_500, 1)), "jpeg")
    assert data is not None
    codec = codec_for(TensorSpec("image", compression="jpeg"))
    assert codec.encode(data).shape == (1, 65_500, 1)
    frame = data.index(b"\xff\xc0") + 7
    with pytest.raises(SampleError, match="at most 65,500"):
        codec.encode(data[:frame] + (65_510).to_bytes(2) + data[frame + 2 :])


def test_images_beyond_the_limit_of_pillow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that could not be read again is refused, as a file and as pixels."""
    data = pictures.file_of(Image.new("L", (60, 60)), "png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    codec = codec_for(TensorSpec("image", compression="png"))
    for value in (data, np.zeros((60, 60, 3), np.uint8)):
        with pytest.raises(SampleError, match="MAX_IMAGE_PIXELS"):
            codec.encode(value)


def test_an_opaque_image_in_an_older_lake_is_read() -> None:
    """A WebP whose encoder dropped the opaque alpha channel is read with it."""
    data = pictures.file_of(Image.new("RGBA", (8, 6), (9, 9, 9, 255)), "webp")
    codec = codec_for(TensorSpec("image", compression="webp"))
    blob = codec.encode(data)
    assert blob.shape == (6, 8, 3)
    pixels: Any = codec.decode(blob._replace(shape=(6, 8, 4)))
    assert pixels.shape == (6, 8, 4)
    assert (pixels[:, :, 3] == 255).all()


def test_verify_and_exif_are_stored_compatibly() -> None:
    """Both are kept in the schema, in fields that earlier releases ignore."""
    plain = TensorSpec("image", compression="jpeg")
    assert replace(plain, verify=True) == plain
    assert {"exif", "verify", "verify_files"}.isdisjoint(plain.to_json())
    for spec in (
        plain,
        replace(plain, verify=False),
        replace(plain, verify="decode", exif="apply"),
        TensorSpec("sequence[image]", compression="png", verify="decode", exif="apply"),
        TensorSpec("audio", compression="wav", verify=False),
        TensorSpec("link[image]", compression="jpeg", verify="decode"),
    ):
        document = spec.to_json()
        assert TensorSpec.from_json(document) == spec
        assert ("verify" in document) == spec.linked
        assert eval(describe(spec)) == spec  # noqa: S307 # a call that describe() made
        if spec.sequence:
            assert (spec.item.verify, spec.item.exif) == ("decode", "apply")
    assert Schema({"a": plain}) != Schema({"a": replace(plain, verify=False)})


@pytest.mark.parametrize(
    "arguments",
    [
        {"htype": "image", "compression": "png", "verify": "all"},
        {"htype": "image", "compression": "zstd", "verify": False},
        {"htype": "bbox", "verify": True},
        {"htype": "image", "compression": "png", "exif": "turn"},
        {"htype": "bbox", "exif": "apply"},
        {"htype": "image", "compression": "png", "create_shape_tensor": True},
    ],
)
def test_wrong_parameters_are_refused(arguments: dict[str, Any]) -> None:
    """Parameters that an htype lacks, and unknown values, are refused."""
    with pytest.raises(SchemaError, match=r"verify|exif|create_shape_tensor"):
        TensorSpec(**arguments)
