"""A media file as a value; its content is decoded on access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._media.reader import MediaReader
from dasklake._media.sniff import FORMATS, format_of
from dasklake.exceptions import SampleError

__all__ = ["File"]


class File:
    """A file whose content is decoded when it is asked for.

    ``lake[i]["sound"]`` is one, and :func:`dasklake.read` makes one of a path or URL, as a value
    for a sample. Indexing it, ``file[10:20]``, decodes what is asked for only, where its format
    allows that.

    Parameters
    ----------
    source : bytes or callable
        The bytes, or what fetches them; it is called once.
    url : str, optional
        Where they lie.
    shape : tuple of int, optional
        Shape of the content, where it is known.
    dtype : str, optional
        What :meth:`numpy` converts to; left out, the file's own.
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
        there = "not read" if callable(self._source) else f"{len(self._source)} bytes"
        what = there if self.url is None else repr(self.url)
        shape = "" if self._shape is None else f", shape={self._shape}"
        return f"<File {what}{shape}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _file, (self._source, self.url, self._shape, self._dtype)

    def __dask_tokenize__(self) -> Any:
        return ("dasklake-file", self.url if self.url is not None else self.bytes())

    def bytes(self) -> bytes:
        """Return the bytes, as they were written.

        Returns
        -------
        bytes
            The whole file.

        Raises
        ------
        StoreError
            They cannot be read.
        """
        if callable(self._source):
            self._source = self._source()
        if not isinstance(self._source, bytes):
            self._source = bytes(self._source)
        return self._source

    @property
    def format(self) -> str | None:
        """The format of the bytes, such as ``"mp4"``; or None if unknown."""
        return format_of(self.bytes())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the content, from the file's header or from the lake."""
        if self._shape is None:
            self._shape = self._reader().shape(self.bytes())
        return self._shape

    @property
    def info(self) -> dict[str, Any]:
        """Other facts from the header: rates, durations, spacings."""
        return self._reader().info(self.bytes())

    def numpy(self) -> npt.NDArray[Any]:
        """Return all of the content.

        Returns
        -------
        numpy.ndarray
            Of :attr:`shape`.

        Raises
        ------
        SampleError
            The bytes cannot be decoded.
        MissingExtraError
            The library for the format is not installed.
        """
        return self[:]

    def open(self) -> Any:
        """Return the file as the library that reads it has it.

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
        found = self._reader().read(self.bytes(), item, self._dtype)
        return np.asarray(found)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # Decoded afresh every time: there is nothing that a copy would protect.
        return np.asarray(self.numpy(), dtype=dtype)

    def _reader(self) -> MediaReader:
        found = self.format
        if found is None:
            data = self.bytes()
            raise SampleError(
                f"{len(data)} bytes that begin with {data[:8]!r} are of no known format. Its bytes "
                "are returned by .bytes()."
            )
        return FORMATS[found]


def _file(source: Any, url: str | None, shape: Any, dtype: str | None) -> File:
    return File(source, url=url, shape=shape, dtype=dtype)
