"""Links as readers see them: where the data lie, and the data themselves when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._model.values import Link
from dasklake._store.objects import ObjectStore
from dasklake.codecs.media import decode_image
from dasklake.exceptions import InvalidInputError

__all__ = ["LinkedImage"]


@dataclass(frozen=True, slots=True)
class LinkedImage(Link):
    """What a ``link[image]`` tensor gives for one sample.

    Nothing is read until the bytes or pixels are asked for.

    Attributes
    ----------
    url : str
        Where the picture lies.
    creds_key : str or None
        Name of the credentials to read it with.

    Examples
    --------
    >>> LinkedImage("s3://bucket/train2017/000000000009.jpg")
    LinkedImage(url='s3://bucket/train2017/000000000009.jpg', creds_key=None)
    """

    @classmethod
    def of(cls, link: Link) -> LinkedImage:
        """Make it of what the tensor stores."""
        return cls(link.url, link.creds_key)

    def bytes(self) -> bytes:
        """Return the bytes of the file.

        Returns
        -------
        bytes
            As they are there now.

        Raises
        ------
        StoreError
            They cannot be read.
        """
        folder, _, name = self.url.rpartition("/")
        if not folder or not name:
            raise InvalidInputError(f"{self.url!r} names no file. Mend the link.")
        return _store(folder, self.creds_key).get(name)

    def numpy(self) -> npt.NDArray[np.uint8]:
        """Return the pixels.

        Returns
        -------
        numpy.ndarray
            uint8; height x width x channels, or height x width for one channel.

        Raises
        ------
        StoreError
            The file cannot be read.
        SampleError
            It is not a picture.
        """
        return decode_image(self.bytes())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:  # noqa: FBT001 # numpy's protocol
        # The pixels are fresh every time: there is nothing that a copy would protect.
        return np.asarray(self.numpy(), dtype=dtype)


@lru_cache(maxsize=256)
def _store(folder: str, creds_key: str | None) -> ObjectStore:
    return ObjectStore(folder, creds_key)
