"""Spatial data: surfaces by trimesh, point clouds by laspy."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import convert, library, reading, rows_of_item
from dasklake.exceptions import SampleError

__all__ = ["LasReader", "PlyReader", "StlReader", "is_stl"]

#: A binary STL file: 80 bytes of anything, the number of triangles, 50 bytes for each.
_STL_HEAD = 84
_STL_EACH = 50


class _MeshReader:
    """What surfaces have in common."""

    name: str

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the number of faces."""
        return {"faces": len(self.open(data).faces)}

    def open(self, data: bytes) -> Any:
        """Return a ``trimesh.Trimesh``."""
        trimesh = library("trimesh", "The htype 'mesh'", "spatial")
        with reading("surface"):
            return trimesh.load_mesh(io.BytesIO(data), file_type=self.name, process=False)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return vertices."""
        with reading("surface"):
            found = np.asarray(self.open(data).vertices)
        return convert(found[np.asarray(rows_of_item(item, len(found)), int)], item, dtype)


class PlyReader(_MeshReader):
    """Reads PLY files."""

    name = "ply"

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of vertices, and 3."""
        head = data.partition(b"end_header")[0]
        found = re.search(rb"^element vertex (\d+)\s*$", head, re.MULTILINE)
        if found is None:
            raise SampleError("the PLY file has no vertices. Check its source.")
        return int(found[1]), 3


class StlReader(_MeshReader):
    """Reads STL files, of text or binary."""

    name = "stl"

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return three times the number of triangles, and 3."""
        if _is_binary_stl(data):
            return 3 * _triangles(data), 3
        return len(re.findall(rb"^\s*vertex\s", data, re.MULTILINE)), 3


class LasReader:
    """Reads LAS files."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of points, and 3."""
        return self._header(data).point_count, 3

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the format of points, their scales, and what is known of each."""
        header = self._header(data)
        return {
            "point_format": header.point_format.id,
            "scales": header.scales.tolist(),
            "dimensions": list(header.point_format.dimension_names),
        }

    def open(self, data: bytes) -> Any:
        """Return a ``laspy.LasData``."""
        laspy = _laspy()
        with reading("point cloud"):
            return laspy.read(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Return x, y and z of points."""
        with reading("point cloud"):
            found = np.asarray(self.open(data).xyz)
        return convert(found[np.asarray(rows_of_item(item, len(found)), int)], item, dtype)

    def _header(self, data: bytes) -> Any:
        laspy = _laspy()
        with reading("point cloud"), laspy.open(io.BytesIO(data)) as file:
            return file.header


def is_stl(data: bytes) -> bool:
    """Return whether bytes are an STL file, which has no signature."""
    return _is_binary_stl(data) or (data.startswith(b"solid") and b"facet" in data[:1000])


def _is_binary_stl(data: bytes) -> bool:
    return len(data) >= _STL_HEAD and len(data) == _STL_HEAD + _STL_EACH * _triangles(data)


def _triangles(data: bytes) -> int:
    return int.from_bytes(data[_STL_HEAD - 4 : _STL_HEAD], "little")


def _laspy() -> Any:
    return library("laspy", "The compression 'las'", "spatial")
