"""Truncated and damaged audio, video, medical and spatial files are refused before they are stored."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import trimesh

from dasklake import TensorSpec
from dasklake._codecs.registry import codec_for
from dasklake._media.check import decode_file
from dasklake._media.file import File
from dasklake._media.stream import truncation
from dasklake.exceptions import LakeError, SampleError
from tests.support import media


def _mesh(form: str, **options: Any) -> bytes:
    data = trimesh.creation.icosphere(2).export(file_type=form, **options)
    return data.encode() if isinstance(data, str) else bytes(data)


#: Htype, format, file, and bytes at the end whose loss cannot be noticed.
FILES: list[tuple[str, str, bytes, int]] = [
    ("audio", "wav", media.sound("wav"), 0),
    ("audio", "flac", media.sound("flac"), 0),
    ("audio", "ogg", media.sound("ogg"), 0),
    ("audio", "mp3", media.sound("mp3"), 0),
    ("video", "mp4", media.video("mp4"), 0),
    ("video", "mkv", media.video("mkv"), 0),
    ("video", "webm", media.video("webm"), 0),
    ("video", "avi", media.video("avi"), 1),
    ("dicom", "dcm", media.dicom(frames=30), 0),
    ("nifti", "nii", media.nifti("nii"), 0),
    ("nifti", "nii.gz", media.nifti(), 0),
    ("mesh", "ply", _mesh("ply"), 0),
    ("mesh", "ply", _mesh("ply", encoding="ascii"), 3),
    ("mesh", "stl", _mesh("stl"), 0),
    ("mesh", "stl", _mesh("stl_ascii"), 1),
    ("point_cloud", "las", media.las(200), 0),
]
#: Sizes differ between processes, because some files hold names made at random.
IDS = [f"{form}-{number}" for number, (_, form, _, _) in enumerate(FILES)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("htype", "form", "data", "unnoticed"), FILES, ids=IDS)
def test_truncated_files_are_refused(htype: str, form: str, data: bytes, unnoticed: int) -> None:
    """A whole file is accepted at every level; a truncated one is refused, with a remedy that works."""
    for verify in (True, "decode", False):
        assert codec_for(TensorSpec(htype, compression=form, verify=verify)).encode(data)
    size = len(data)
    for cut in (1, 3, 20, size // 4, size // 2, size * 3 // 4):
        if cut <= unnoticed:
            continue
        broken = data[:-cut]
        for verify in (True, "decode"):
            with pytest.raises(SampleError) as raised:
                codec_for(TensorSpec(htype, compression=form, verify=verify)).encode(broken)
        if "verify=False" in str(raised.value):
            spec = TensorSpec(htype, compression=form, verify=False)
            assert codec_for(spec).encode(broken).data == broken


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("htype", "form", "data", "unnoticed"), FILES, ids=IDS)
def test_what_is_verified_by_decoding_can_be_read(
    htype: str, form: str, data: bytes, unnoticed: int
) -> None:
    """A damaged file that verify="decode" accepts can be decoded; only our errors are raised."""
    del unnoticed
    random = np.random.default_rng(1)
    codec = codec_for(TensorSpec(htype, compression=form, verify="decode"))
    for _ in range(6):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[random.integers(0, len(data), 10)] ^= 0xFF
        try:
            blob = codec.encode(broken.tobytes())
        except LakeError:
            continue
        file: Any = codec.decode(blob)
        assert file.numpy() is not None


@pytest.mark.parametrize("form", ["wav", "mp4", "avi"])
def test_data_after_the_end_is_allowed(form: str) -> None:
    """A file with data after its end is complete."""
    data = media.sound(form) if form == "wav" else media.video(form)
    assert truncation(form, data + b"\xff\xfe trailer, of any text") is None


def test_sizes_that_a_writer_did_not_know_are_allowed() -> None:
    """A recording whose header has no size, as of a stream, is complete."""
    wav = media.sound("wav")
    at = wav.index(b"data") + 4
    for unknown in (bytes(4), b"\xff" * 4):
        assert truncation("wav", wav[:at] + unknown + wav[at + 4 :]) is None


def test_zeroed_video_is_found_by_decoding() -> None:
    """A zeroed part of a video is found if it is decoded."""
    data = media.video("mp4")
    pixels = data.index(b"mdat") + 4
    decode_file("mp4", data)
    with pytest.raises(SampleError, match="cannot be decoded"):
        decode_file("mp4", data[: pixels + 100] + bytes(300) + data[pixels + 400 :])


def test_verification_does_not_change_how_files_are_read() -> None:
    """A file stored unverified is still read as a File, and its errors are ours."""
    cut = media.sound("wav")[:-100]
    codec = codec_for(TensorSpec("audio", compression="wav", verify=False))
    file: Any = codec.decode(codec.encode(cut))
    assert isinstance(file, File)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(file.numpy()) < 8000
