"""Small files of every format, made by the libraries that know them."""

from __future__ import annotations

import gzip
import io
from fractions import Fraction
from typing import Any

import av
import laspy
import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
import soundfile
import trimesh
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

__all__ = ["PICTURES", "SOUNDS", "SURFACES", "VIDEOS", "dicom", "las", "nifti", "picture"]

#: Formats of each family, and the name that the library knows it by.
PICTURES = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "ppm", "tga")
SOUNDS = {"wav": "PCM_16", "flac": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}
VIDEOS = {"mp4": "mpeg4", "mkv": "mpeg4", "webm": "vp8", "avi": "mpeg4"}
SURFACES = ("ply", "stl")


def pixels(*shape: int) -> npt.NDArray[np.uint8]:
    """Make a smooth picture, which formats that lose something hardly change."""
    height, width, channels = shape
    found = np.empty(shape, np.uint8)
    for channel in range(channels):
        found[:, :, channel] = np.add.outer(np.arange(height), np.arange(width)) * (channel + 1)
    return found


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> bytes:
    """Make a picture of a width and height."""
    sink = io.BytesIO()
    image = Image.fromarray(pixels(size[1], size[0], 3)).convert(mode)
    image.save(sink, form)
    return sink.getvalue()


def sound(form: str, channels: int = 2, rate: int = 8000) -> bytes:
    """Make a second of sound."""
    sink = io.BytesIO()
    times = np.arange(rate) / rate
    waves = np.stack([np.sin(440 * (n + 1) * 2 * np.pi * times) for n in range(channels)], 1) / 2
    soundfile.write(sink, waves, rate, format=form.upper(), subtype=SOUNDS[form])
    return sink.getvalue()


def video(form: str, frames: int = 12, size: tuple[int, int] = (64, 48)) -> bytes:
    """Make frames that grow lighter."""
    sink = io.BytesIO()
    container: Any = {"mkv": "matroska"}.get(form, form)
    with av.open(sink, "w", format=container) as file:
        stream: Any = file.add_stream(VIDEOS[form], rate=Fraction(12))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            shade = np.full((size[1], size[0], 3), 20 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        file.mux(stream.encode())
    return sink.getvalue()


def dicom(frames: int = 1) -> bytes:
    """Make a picture of 16 bits, or a series."""
    found = pydicom.Dataset()
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    found.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    found.SOPClassUID, found.Modality = SecondaryCaptureImageStorage, "CT"
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID
    found.Rows, found.Columns, found.SamplesPerPixel = 5, 7, 1
    found.PhotometricInterpretation = "MONOCHROME2"
    found.BitsAllocated = found.BitsStored = 16
    found.HighBit, found.PixelRepresentation = 15, 0
    found.PixelSpacing = [0.5, 0.25]
    if frames > 1:
        found.NumberOfFrames = frames
    found.PixelData = np.arange(frames * 35, dtype="<u2").tobytes()
    sink = io.BytesIO()
    pydicom.dcmwrite(sink, found, enforce_file_format=True)
    return sink.getvalue()


def nifti(form: str = "nii.gz", version: int = 1) -> bytes:
    """Make a volume."""
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    kind: Any = nibabel.Nifti2Image if version == 2 else nibabel.Nifti1Image
    data: bytes = kind(values, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes()
    return gzip.compress(data, mtime=0) if form == "nii.gz" else data


def surface(form: str) -> bytes:
    """Make a box."""
    found = trimesh.creation.box((1, 2, 3)).export(file_type=form)
    return found.encode() if isinstance(found, str) else bytes(found)


def las(points: int = 5) -> bytes:
    """Make a cloud of points."""
    cloud = laspy.create(point_format=3, file_version="1.2")
    cloud.x, cloud.y, cloud.z = np.arange(points), np.arange(points) * 2.0, np.zeros(points)
    sink = io.BytesIO()
    cloud.write(sink)
    return sink.getvalue()
