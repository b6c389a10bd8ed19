"""Readers of surfaces (trimesh) and point clouds (laspy)."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import import_optional, select_rows, translate_errors
from dasklake._media.sniff import is_binary_stl, stl_triangles
from dasklake.exceptions import SampleError


class _MeshReader:
    """Base class of the readers that use trimesh."""

    name: str

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the number of faces."""
        return {"faces": len(self.open(data).faces)}

    def open(self, data: bytes) -> Any:
        """Return a ``trimesh.Trimesh``."""
        trimesh = import_optional("trimesh", "The htype 'mesh'", "spatial")
        with translate_errors("surface"):
            return trimesh.load_mesh(io.BytesIO(data), file_type=self.name, process=False)

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode vertices."""
        with translate_errors("surface"):
            vertices = np.asarray(self.open(data).vertices)
        return select_rows(vertices, item, dtype)


class PlyReader(_MeshReader):
    """Reader of PLY files."""

    name = "ply"

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of vertices, and 3."""
        header = data.partition(b"end_header")[0]
        count = re.search(rb"^element vertex (\d+)\s*$", header, re.MULTILINE)
        if count is None:
            raise SampleError(
                "a PLY file must have vertices, got none in its header. Fix the file."
            )
        return int(count[1]), 3


class StlReader(_MeshReader):
    """Reader of text and binary STL files."""

    name = "stl"

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return three times the number of triangles, and 3."""
        if is_binary_stl(data):
            return 3 * stl_triangles(data), 3
        return len(re.findall(rb"^\s*vertex\s", data, re.MULTILINE)), 3


class LasReader:
    """Reader of LAS files."""

    def shape(self, data: bytes) -> tuple[int, ...]:
        """Return the number of points, and 3."""
        return self._header(data).point_count, 3

    def info(self, data: bytes) -> dict[str, Any]:
        """Return the point format, the scales, and the names of the dimensions."""
        header = self._header(data)
        return {
            "point_format": header.point_format.id,
            "scales": header.scales.tolist(),
            "dimensions": list(header.point_format.dimension_names),
        }

    def open(self, data: bytes) -> Any:
        """Return a ``laspy.LasData``."""
        laspy = _laspy()
        with translate_errors("point cloud"):
            return laspy.read(io.BytesIO(data))

    def read(self, data: bytes, item: int | slice, dtype: str | None) -> npt.NDArray[Any]:
        """Decode x, y and z of points."""
        with translate_errors("point cloud"):
            points = np.asarray(self.open(data).xyz)
        return select_rows(points, item, dtype)

    def _header(self, data: bytes) -> Any:
        laspy = _laspy()
        with translate_errors("point cloud"), laspy.open(io.BytesIO(data)) as file:
            return file.header


def _laspy() -> Any:
    return import_optional("laspy", "The compression 'las'", "spatial")
