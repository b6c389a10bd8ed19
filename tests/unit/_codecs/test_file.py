"""Files: bytes are stored unchanged, shapes come from headers, content is decoded on access."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dasklake
from dasklake import File, TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._media.file import READERS
from dasklake._media.sniff import format_of
from dasklake._schema.htypes import HTYPES
from dasklake.exceptions import LakeError, MissingExtraError, SampleError
from tests.support import media

#: Htype, format, bytes, and the shape of the content.
FILES: list[tuple[str, str, bytes, tuple[int, ...]]] = [
    *(("audio", form, media.sound(form), (8000, 2)) for form in media.SOUNDS),
    *(("video", form, media.video(form), (12, 48, 64, 3)) for form in media.VIDEOS),
    ("dicom", "dcm", media.dicom(), (5, 7)),
    ("dicom", "dcm", media.dicom(frames=3), (3, 5, 7)),
    ("nifti", "nii.gz", media.nifti(), (2, 3, 4)),
    ("nifti", "nii", media.nifti("nii"), (2, 3, 4)),
    ("nifti", "nii", media.nifti("nii", version=2), (2, 3, 4)),
    ("mesh", "ply", media.surface("ply"), (8, 3)),
    ("mesh", "stl", media.surface("stl"), (36, 3)),
    ("point_cloud", "las", media.las(), (5, 3)),
]
IDS = [f"{form}-{len(shape)}-{len(data)}" for _, form, data, shape in FILES]


@pytest.mark.parametrize(("htype", "form", "data", "shape"), FILES, ids=IDS)
def test_files_are_stored_unchanged(
    htype: str, form: str, data: bytes, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """Bytes, paths and lazy files are stored unchanged, with the shape from the header."""
    codec = codec_for(TensorSpec(htype, compression=form))
    path = tmp_path / "file"
    path.write_bytes(data)
    for value in (data, memoryview(data), path, dasklake.read(path), File(data)):
        blob = codec.encode(value)
        assert blob.data == data
        assert blob.shape == shape
    decoded: Any = codec.decode(blob)
    assert isinstance(decoded, File)
    assert (decoded.bytes(), decoded.shape, decoded.format) == (data, shape, form)
    assert pickle.loads(pickle.dumps(decoded)).bytes() == data


@pytest.mark.parametrize(("htype", "form", "data", "shape"), FILES, ids=IDS)
def test_content_is_decoded_on_access(
    htype: str, form: str, data: bytes, shape: tuple[int, ...]
) -> None:
    """The whole content, a slice and a row are numpy arrays that agree."""
    file = File(data)
    whole = file.numpy()
    assert whole.shape == shape == file.shape
    assert len(file) == shape[0]
    assert np.array_equal(np.asarray(file), whole)
    assert np.array_equal(file[1:4:2], whole[1:4:2])
    assert np.array_equal(file[-1], whole[-1])
    assert file[:0].shape == (0, *shape[1:])
    assert file.open() is not None
    assert isinstance(file.info, dict)
    with pytest.raises(IndexError):
        file[shape[0]]
    assert READERS[form].shape(data) == shape
    assert form in HTYPES[htype].files


def test_lossless_audio_round_trips() -> None:
    """A lossless format returns the samples that were written, and their rate."""
    file = File(media.sound("flac"), dtype="int16")
    wave = np.sin(440 * 2 * np.pi * np.arange(8000) / 8000) / 2
    assert file.info["rate"] == 8000
    assert file.numpy().dtype == np.int16
    assert np.abs(file.numpy()[:, 0] / 2**15 - wave).max() < 1e-4


def test_selected_frames_are_decoded() -> None:
    """Selected frames are returned in order."""
    file = File(media.video("mp4"))
    assert file.info["rate"] == 12
    shades = file[2:8:3].mean(axis=(1, 2, 3))
    assert np.abs(shades - [40, 100]).max() < 8


def test_volumes_and_points_round_trip() -> None:
    """Voxels, pixels, vertices and points equal those that were written."""
    assert np.array_equal(File(media.nifti()).numpy(), np.arange(24).reshape(2, 3, 4))
    assert np.array_equal(File(media.dicom()).numpy(), np.arange(35).reshape(5, 7))
    assert File(media.dicom()).info["spacing"] == [0.5, 0.25]
    assert np.array_equal(File(media.las()).numpy()[:, 1], np.arange(5) * 2.0)
    assert np.ptp(File(media.surface("ply")).numpy(), axis=0).tolist() == [1, 2, 3]


@pytest.mark.parametrize("form", media.PICTURES)
def test_images_of_every_format_round_trip(form: str) -> None:
    """Files of every image format are stored unchanged; pixels are encoded and decoded."""
    data = media.picture(form)
    assert format_of(data) == form
    codec = codec_for(TensorSpec("image", compression=form))
    blob = codec.encode(data)
    assert (blob.data, blob.shape) == (data, (16, 24, 3))
    expected = media.pixels(16, 24, 3)
    assert File(data).shape == (16, 24, 3)
    exact = form not in ("jpeg", "webp", "gif")
    for decoded in (codec.decode(blob), codec.decode(codec.encode(expected)), File(data).numpy()):
        pixels: Any = decoded
        assert pixels.shape == expected.shape
        worst = np.abs(pixels.astype(int) - expected).mean()
        assert worst == 0 if exact else worst < 12


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_pixels_can_be_stored_as_compressed_arrays(compression: str) -> None:
    """Pixels can be stored with lz4 or zstd, without an image format."""
    codec = codec_for(TensorSpec("image", compression=compression))
    expected = media.pixels(16, 24, 3)
    for value in (expected, media.picture("png")):
        assert np.array_equal(codec.decode(codec.encode(value)), expected)  # type: ignore[arg-type] # array


@pytest.mark.parametrize(("htype", "channels"), [("image.rgb", 3), ("image.gray", 1)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_images_are_converted_to_fixed_channels(htype: str, channels: int, mode: str) -> None:
    """Images with other channels are converted; images that fit are stored unchanged."""
    codec = codec_for(TensorSpec(htype, compression="png"))
    data = media.picture("png", mode)
    blob = codec.encode(data)
    assert blob.shape == (16, 24, channels)
    assert (blob.data == data) == ({"L": 1, "RGB": 3}.get(mode) == channels)
    decoded: Any = codec.decode(blob)
    assert decoded.shape == blob.shape
    assert codec.encode(np.asarray(File(data))).shape == blob.shape


@pytest.mark.parametrize(
    ("htype", "form", "value", "parts"),
    [
        ("audio", "wav", media.sound("flac"), ["got flac", "must be wav"]),
        ("audio", "wav", b"RIFF", ["unknown format"]),
        ("audio", "flac", media.sound("flac")[:30], ["cannot be decoded"]),
        ("audio", "wav", np.zeros((8, 2)), ["ndarray", "dasklake.read"]),
        ("video", "mp4", "clip.mp4", ["str", "pathlib.Path"]),
        ("video", "mp4", media.video("mp4")[:500], ["cannot be decoded"]),
        ("video", "mkv", media.video("webm"), ["got webm"]),
        ("dicom", "dcm", Path("/nowhere/a.dcm"), ["cannot be read"]),
        ("nifti", "nii.gz", media.nifti()[:20], ["cannot be decoded"]),
        ("mesh", "ply", b"ply\nformat ascii 1.0\nend_header\n", ["must have vertices"]),
        ("point_cloud", "las", media.las()[:50], ["cannot be decoded"]),
    ],
)
def test_invalid_files_are_refused(htype: str, form: str, value: Any, parts: list[str]) -> None:
    """A value that is not a whole file of the tensor's format raises an error that describes it."""
    with pytest.raises(SampleError) as raised:
        codec_for(TensorSpec(htype, compression=form)).encode(value)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("library", "extra", "data"),
    [
        ("soundfile", "audio", media.sound("wav")),
        ("av", "video", media.video("mp4")),
        ("pydicom", "medical", media.dicom()),
        ("nibabel", "medical", media.nifti()),
        ("laspy", "spatial", media.las()),
        ("trimesh", "spatial", media.surface("ply")),
    ],
)
def test_libraries_are_optional(
    library: str, extra: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the library, decoding raises an error that names the extra; bytes do not need it."""
    monkeypatch.setitem(sys.modules, library, None)
    file = File(data, shape=(1,))
    with pytest.raises(MissingExtraError, match=rf"dasklake\[{extra}\]"):
        file.numpy()
    assert file.bytes() == data


@pytest.mark.parametrize(("form", "data"), [(f, d) for _, f, d, _ in FILES], ids=IDS)
def test_damaged_files_raise_only_our_errors(form: str, data: bytes) -> None:
    """A damaged file raises a LakeError, whatever error its library raises."""
    random = np.random.default_rng(0)
    for _ in range(5):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[random.integers(0, len(data), 20)] ^= 0xFF
        cut = broken[: random.integers(1, len(data))]
        for content in (broken.tobytes(), cut.tobytes()):
            try:
                READERS[form].read(content, slice(None), None)
            except LakeError:
                continue
