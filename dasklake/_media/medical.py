"""Medical pictures and volumes: DICOM by pydicom, NIfTI by nibabel."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy.typing as npt

from dasklake._media.reader import convert, library, reading, rows_of_item

__all__ = ["DicomReader", "NiftiReader"]

#: Length of the header of NIfTI-1; that of NIfTI-2 is 540. The field that says so comes first.
_NIFTI_1 = 348
_NIFTI_2 = 540


class DicomReader:
    """Reads DICOM files."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return frames where there are some, rows, columns, and samples where there are some."""
        with reading("DICOM file"):
            header = self._open(data, header=True)
            frames = int(header.get("NumberOfFrames") or 1)
            samples = int(header.get("SamplesPerPixel") or 1)
            plane = (int(header.Rows), int(header.Columns))
        return (*((frames,) if frames > 1 else ()), *plane, *((samples,) if samples > 1 else ()))

    def info(self, data: bytes) -> dict[str, Any]:
        """Return modality, spacing of pixels in millimetres, and the encoding."""
        with reading("DICOM file"):
            header = self._open(data, header=True)
            spacing = header.get("PixelSpacing")
            return {
                "modality": header.get("Modality"),
                "spacing": None if spacing is None else [float(each) for each in spacing],
                "encoding": header.file_meta.TransferSyntaxUID.name,
            }

    def open(self, data: bytes) -> Any:
        """Return a ``pydicom.Dataset``."""
        with reading("DICOM file"):
            return self._open(data, header=False)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return the stored values of pixels, without any rescaling."""
        with reading("DICOM file"):
            pixels = self._open(data, header=False).pixel_array
        return convert(pixels[_span(item, len(pixels))], item, dtype)

    def _open(self, data: bytes, *, header: bool) -> Any:
        pydicom = library("pydicom", "The htype 'dicom'", "medical")
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=header)


class NiftiReader:
    """Reads NIfTI-1 and NIfTI-2 in one file, compressed by gzip or not."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the shape of the volume; only the header is read."""
        return tuple(map(int, self._header(data).get_data_shape()))

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the lengths of voxels, their units, and the stored dtype."""
        header = self._header(data)
        return {
            "zooms": [float(each) for each in header.get_zooms()],
            "units": list(header.get_xyzt_units()),
            "dtype": header.get_data_dtype().name,
        }

    def open(self, data: bytes) -> Any:
        """Return a ``nibabel.Nifti1Image`` or ``Nifti2Image``."""
        nibabel = _nibabel()
        with reading("NIfTI file"):
            plain = gzip.decompress(data) if _is_gzip(data) else data
            kind = nibabel.Nifti2Image if _size(plain) == _NIFTI_2 else nibabel.Nifti1Image
            return kind.from_bytes(plain)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return voxels, scaled as the header says."""
        image = self.open(data)
        span = _span(item, image.shape[0])
        with reading("NIfTI file"):
            voxels = image.dataobj[span]
        return convert(voxels, item, dtype)

    def _header(self, data: bytes) -> Any:
        nibabel = _nibabel()
        with reading("NIfTI file"):
            source = io.BytesIO(data)
            with gzip.GzipFile(fileobj=source) if _is_gzip(data) else source as file:
                start = file.read(_NIFTI_2)
            two = _size(start) == _NIFTI_2
            kind = nibabel.Nifti2Header if two else nibabel.Nifti1Header
            return kind(start if two else start[:_NIFTI_1])


def _nibabel() -> Any:
    return library("nibabel", "The htype 'nifti'", "medical")


def _is_gzip(data: bytes) -> bool:
    return data[:2] == b"\x1f\x8b"


def _size(header: bytes) -> int:
    """Return the length of a header that says it, in whichever order of bytes."""
    found = {int.from_bytes(header[:4], "little"), int.from_bytes(header[:4], "big")}
    return _NIFTI_2 if _NIFTI_2 in found else _NIFTI_1


def _span(item: int | slice, length: int) -> Any:
    """Return an index of rows that keeps the first axis."""
    rows = rows_of_item(item, length)
    return item if isinstance(item, slice) else slice(rows[0], rows[0] + 1)
