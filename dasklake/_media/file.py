"""``File``: a media file as a value, decoded on access; and the reader of each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.audio import AudioReader
from dasklake._media.image import ImageReader
from dasklake._media.medical import DicomReader, NiftiReader
from dasklake._media.mesh import LasReader, PlyReader, StlReader
from dasklake._media.reader import MediaReader
from dasklake._media.sniff import format_of
from dasklake._media.video import VideoReader
from dasklake.exceptions import SampleError

_IMAGES = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "jpeg2000", "ppm", "tga")

#: Reader of each file format.
READERS: Mapping[str, MediaReader] = MappingProxyType(
    {
        **dict.fromkeys(_IMAGES, ImageReader()),
        **dict.fromkeys(("wav", "flac", "mp3", "ogg"), AudioReader()),
        **dict.fromkeys(("mp4", "mkv", "webm", "avi"), VideoReader()),
        **dict.fromkeys(("nii", "nii.gz"), NiftiReader()),
        "dcm": DicomReader(),
        "ply": PlyReader(),
        "stl": StlReader(),
        "las": LasReader(),
    }
)


class File:
    """A media file whose content is decoded on access.

    Reading a sample with a file tensor returns a ``File``, as in ``lake[i]["sound"]``.
    :func:`dasklake.read` returns one for a path or URL, to be stored in a sample. Indexing, as in
    ``file[10:20]``, decodes only the selected rows if the format allows it.

    Parameters
    ----------
    source : bytes or callable
        The bytes, or a function that returns them. It is called once, when the bytes are needed.
    url : str, optional
        URL of the file.
    shape : tuple of int, optional
        Shape of the content, if known. By default it is read from the header.
    dtype : str, optional
        Dtype to which the decoded content is converted. By default the dtype of the file.
    """

    def __init__(
        self,
        source: bytes | memoryview | Callable[[], bytes],
        *,
        url: str | None = None,
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
    ) -> None:
        self._source = source
        self._shape = shape
        self._dtype = dtype
        self.url = url

    def __repr__(self) -> str:
        size = "not read" if callable(self._source) else f"{len(self._source)} bytes"
        shape = "" if self._shape is None else f", shape={self._shape}"
        return f"<File {size if self.url is None else repr(self.url)}{shape}>"

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(File, url=self.url, shape=self._shape, dtype=self._dtype)
        return make, (self._source,)

    def __dask_tokenize__(self) -> Any:
        return ("dasklake-file", self.url if self.url is not None else self.bytes())

    def bytes(self) -> bytes:
        """Return the whole file, undecoded.

        Returns
        -------
        bytes
            The bytes, exactly as they were written.

        Raises
        ------
        StoreError
            The bytes cannot be read from their storage.
        """
        data = bytes(self._source() if callable(self._source) else self._source)
        self._source = data
        return data

    @property
    def format(self) -> str | None:
        """Format of the file, such as ``"mp4"``, or None if unknown."""
        return format_of(self.bytes())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the content, from the lake or from the header of the file."""
        if self._shape is None:
            self._shape = self._reader().shape(self.bytes())
        return self._shape

    @property
    def info(self) -> dict[str, Any]:
        """Further facts from the header, such as rate, duration or pixel spacing."""
        return self._reader().info(self.bytes())

    def numpy(self) -> npt.NDArray[Any]:
        """Decode the whole content.

        Returns
        -------
        numpy.ndarray
            The content, with the shape given by :attr:`shape`.

        Raises
        ------
        SampleError
            The bytes cannot be decoded, or their format is unknown.
        MissingExtraError
            The library that reads the format is not installed.
        """
        return self[:]

    def open(self) -> Any:
        """Open the file with the library that reads its format.

        Returns
        -------
        object
            ``soundfile.SoundFile``, ``av.container.InputContainer``, ``pydicom.Dataset``,
            ``nibabel.Nifti1Image``, ``trimesh.Trimesh``, ``laspy.LasData`` or
            ``PIL.Image.Image``.
        """
        return self._reader().open(self.bytes())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, item: int | slice) -> npt.NDArray[Any]:
        return self._reader().read(self.bytes(), item, self._dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # Every call decodes into a new array, so `copy` needs no handling.
        return np.asarray(self.numpy(), dtype=dtype)

    def _reader(self) -> MediaReader:
        name = self.format
        if name is None:
            data = self.bytes()
            raise SampleError(
                f"the file has an unknown format: its {len(data)} bytes begin with {data[:8]!r}. "
                "Get them with .bytes()."
            )
        return READERS[name]
