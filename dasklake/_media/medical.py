"""Readers of medical images: DICOM (pydicom) and NIfTI (nibabel)."""

from __future__ import annotations

import gzip
import io
import math
from typing import Any

import numpy.typing as npt

from dasklake._media.reader import (
    convert,
    import_optional,
    select_rows,
    selected_rows,
    translate_errors,
)

#: Lengths of the headers of NIfTI-1 and NIfTI-2. The first field of a header holds its length.
_NIFTI_1 = 348
_NIFTI_2 = 540


class DicomReader:
    """Reader of DICOM files."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return frames (if several), rows, columns, and samples per pixel (if several)."""
        with translate_errors("DICOM file"):
            header = self._open(data, header=True)
            frames = int(header.get("NumberOfFrames") or 1)
            samples = int(header.get("SamplesPerPixel") or 1)
            plane = (int(header.Rows), int(header.Columns))
        return (*((frames,) if frames > 1 else ()), *plane, *((samples,) if samples > 1 else ()))

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the modality, the pixel spacing in millimetres, and the encoding."""
        with translate_errors("DICOM file"):
            header = self._open(data, header=True)
            spacing = header.get("PixelSpacing")
            return {
                "modality": header.get("Modality"),
                "spacing": None if spacing is None else list(map(float, spacing)),
                "encoding": header.file_meta.TransferSyntaxUID.name,
            }

    def open(self, data: bytes) -> Any:
        """Return a ``pydicom.Dataset``."""
        with translate_errors("DICOM file"):
            return self._open(data, header=False)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode the stored values of pixels, without rescaling."""
        with translate_errors("DICOM file"):
            pixels = self._open(data, header=False).pixel_array
        return select_rows(pixels, item, dtype)

    def _open(self, data: bytes, *, header: bool) -> Any:
        pydicom = import_optional("pydicom", "The htype 'dicom'", "medical")
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=header)


class NiftiReader:
    """Reader of single-file NIfTI-1 and NIfTI-2, with or without gzip compression."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the shape of the volume from the header."""
        return tuple(map(int, self._header(data).get_data_shape()))

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the voxel sizes, their units, and the stored dtype."""
        header = self._header(data)
        return {
            "zooms": list(map(float, header.get_zooms())),
            "units": list(header.get_xyzt_units()),
            "dtype": header.get_data_dtype().name,
        }

    def open(self, data: bytes) -> Any:
        """Return a ``nibabel.Nifti1Image`` or ``Nifti2Image``."""
        nibabel = _nibabel()
        with translate_errors("NIfTI file"):
            content = gzip.decompress(data) if _is_gzip(data) else data
            image_class = (
                nibabel.Nifti2Image if _header_length(content) == _NIFTI_2 else nibabel.Nifti1Image
            )
            return image_class.from_bytes(content)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode voxels, scaled as given in the header."""
        image = self.open(data)
        rows = selected_rows(item, image.shape[0])
        # nibabel reads slices of the file; an index becomes a slice of one row.
        span = item if isinstance(item, slice) else slice(rows[0], rows[0] + 1)
        with translate_errors("NIfTI file"):
            voxels = image.dataobj[span]
        return convert(voxels, item, dtype)

    def size(self, data: bytes) -> int:
        """Return the size in bytes, without compression, that the header requires."""
        header = self._header(data)
        voxels = math.prod(map(int, header.get_data_shape()))
        return int(header.get_data_offset()) + voxels * int(header.get_data_dtype().itemsize)

    def _header(self, data: bytes) -> Any:
        nibabel = _nibabel()
        with translate_errors("NIfTI file"):
            source = io.BytesIO(data)
            with gzip.GzipFile(fileobj=source) if _is_gzip(data) else source as file:
                start = file.read(_NIFTI_2)
            if _header_length(start) == _NIFTI_2:
                return nibabel.Nifti2Header(start)
            return nibabel.Nifti1Header(start[:_NIFTI_1])


def _nibabel() -> Any:
    return import_optional("nibabel", "The htype 'nifti'", "medical")


def _is_gzip(data: bytes) -> bool:
    return data[:2] == b"\x1f\x8b"


def _header_length(header: bytes) -> int:
    """Return the length of a header from its first field, in either byte order."""
    lengths = {int.from_bytes(header[:4], "little"), int.from_bytes(header[:4], "big")}
    return _NIFTI_2 if _NIFTI_2 in lengths else _NIFTI_1
