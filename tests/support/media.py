"""Small files of every format, made by the libraries of the formats."""

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

#: Formats of each family, each with its name in the library.
PICTURES = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "ppm", "tga")
SOUNDS = {"wav": "PCM_16", "flac": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}
VIDEOS = {"mp4": "mpeg4", "mkv": "mpeg4", "webm": "vp8", "avi": "mpeg4"}
SURFACES = ("ply", "stl")


def pixels(*shape: int) -> npt.NDArray[np.uint8]:
    """Make a smooth picture, which lossy formats hardly change."""
    height, width, channels = shape
    image = np.empty(shape, np.uint8)
    for channel in range(channels):
        image[:, :, channel] = np.add.outer(np.arange(height), np.arange(width)) * (channel + 1)
    return image


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
    """Make frames of increasing brightness."""
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
    """Make a 16-bit picture, or a series of them."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    # A random one would change the length of the file, and with it the names of tests.
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["dasklake"])
    dataset.SOPClassUID, dataset.Modality = SecondaryCaptureImageStorage, "CT"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 5, 7, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelSpacing = [0.5, 0.25]
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = np.arange(frames * 35, dtype="<u2").tobytes()
    sink = io.BytesIO()
    pydicom.dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()


def nifti(form: str = "nii.gz", version: int = 1) -> bytes:
    """Make a volume."""
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    kind: Any = nibabel.Nifti2Image if version == 2 else nibabel.Nifti1Image
    data: bytes = kind(values, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes()
    return gzip.compress(data, mtime=0) if form == "nii.gz" else data


def surface(form: str) -> bytes:
    """Make a box."""
    data = trimesh.creation.box((1, 2, 3)).export(file_type=form)
    return data.encode() if isinstance(data, str) else bytes(data)


def las(points: int = 5) -> bytes:
    """Make a point cloud."""
    cloud = laspy.create(point_format=3, file_version="1.2")
    cloud.x, cloud.y, cloud.z = np.arange(points), np.arange(points) * 2.0, np.zeros(points)
    sink = io.BytesIO()
    cloud.write(sink)
    return sink.getvalue()
