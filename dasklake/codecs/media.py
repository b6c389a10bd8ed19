"""Pictures: JPEG and PNG bytes pass through unchanged, everything else is encoded.

Only the header of a file is read for its shape; pixels are decoded when they are asked for.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._model.schema import TensorSpec
from dasklake._model.values import Blob, storage_of
from dasklake.codecs.convert import refuse_masked, to_shape
from dasklake.codecs.headers import jpeg_shape, png_shape
from dasklake.codecs.packing import Encoded, shorten
from dasklake.exceptions import MissingExtraError, SampleError

__all__ = ["ImageCodec", "decode_image"]

_MAGIC = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}

#: What reads the shape from the first bytes.
_QUICK = {"jpeg": jpeg_shape, "png": png_shape}

#: Colour modes whose pixels are bytes, and their channels.
_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}

#: Colour modes of fewer bits or with a palette, and the mode that shows the same.
_PLAINER = {"1": "L", "P": "RGB", "PA": "RGBA"}

#: Of JPEG made from arrays: differences are hard to see, and the file is a tenth of the pixels.
_QUALITY = 95


class ImageCodec:
    """Codec of ``image``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.storage = storage_of(spec)
        self._compression = spec.compression or "jpeg"
        self._rank = len(spec.shape or (None, None, None))

    def encode(self, value: object) -> Encoded:
        """Return the bytes of a picture and the shape of its pixels."""
        if isinstance(value, os.PathLike):
            value = _read(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._from_bytes(bytes(value))
        if isinstance(value, str):
            raise SampleError(
                f"{shorten(value)} is a string. Give pathlib.Path(...) for a file, or use the "
                f"htype link[image] for a URL."
            )
        if hasattr(value, "getbands") and hasattr(value, "save"):
            return self._from_image(value)
        return self._from_array(value)

    def encode_column(self, values: object) -> None:
        """Pictures have no faster way than one by one."""

    def decode(self, stored: Encoded) -> object:
        """Return the pixels, height x width x channels, as uint8."""
        pixels = decode_image(stored.data)
        try:
            return pixels.reshape(stored.shape)
        except ValueError as error:
            raise SampleError(
                f"the {self._compression} is not of shape {stored.shape}: {error}. "
                "Its bytes are returned by .bytes()."
            ) from error

    def _from_bytes(self, data: bytes) -> Blob:
        if not data.startswith(_MAGIC[self._compression]):
            return self._from_image(_open(data))
        shape = _QUICK[self._compression](data)
        return Blob(data, self._fitted(shape) if shape else self._shape(_open(data)))

    def _from_image(self, image: Any) -> Blob:
        shape = self._shape(image)
        if self._compression == "jpeg" and image.mode in ("LA", "RGBA", "PA"):
            raise SampleError(
                f"a picture of mode {image.mode} has transparency and JPEG has none. Convert it "
                'with .convert("RGB"), or use compression="png".'
            )
        return Blob(self._save(_plain(image)), shape)

    def _from_array(self, value: Any) -> Blob:
        refuse_masked(value)
        array = np.asarray(value)
        if array.dtype != np.uint8:
            raise SampleError(
                f"{shorten(value)} has dtype {array.dtype}; pixels are uint8. Give bytes, a path, "
                "a PIL image, or an array of uint8."
            )
        if array.ndim == 2 and self._rank == 3:
            array = array[:, :, np.newaxis]
        array = to_shape(array, self.spec.shape, self.spec.kind.ranks)
        channels = array.shape[2] if array.ndim == 3 else 1
        allowed = (1, 3) if self._compression == "jpeg" else (1, 2, 3, 4)
        if channels not in allowed or not array.size:
            raise SampleError(
                f"shape {array.shape} cannot be a {self._compression}: height and width are at "
                f"least 1, channels are one of {allowed}. Mend the array."
            )
        pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
        image = _pillow().Image.fromarray(np.ascontiguousarray(pixels))
        return Blob(self._save(image), array.shape)

    def _shape(self, image: Any) -> tuple[int, ...]:
        """Return the shape of an image's pixels, checked against the spec."""
        width, height = image.size
        return self._fitted((height, width, _CHANNELS[_plain_mode(image)]))

    def _fitted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self._rank == 2 and shape[2] == 1:
            shape = shape[:2]
        if self.spec.shape != (None, None, None):
            to_shape(np.broadcast_to(np.uint8(0), shape), self.spec.shape)
        return shape

    def _save(self, image: Any) -> bytes:
        sink = io.BytesIO()
        options = {"quality": _QUALITY} if self._compression == "jpeg" else {}
        image.save(sink, format=self._compression, **options)
        return sink.getvalue()


def decode_image(data: Any) -> npt.NDArray[np.uint8]:
    """Decode the bytes of a picture.

    Parameters
    ----------
    data : bytes-like
        A whole file of any format that Pillow reads.

    Returns
    -------
    numpy.ndarray
        uint8, height x width x channels, or height x width for one channel.

    Raises
    ------
    SampleError
        The bytes are not a picture of 8 bits a channel.
    MissingExtraError
        Pillow is not installed.
    """
    image = _plain(_open(data))
    try:
        return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def _open(data: Any) -> Any:
    pillow = _pillow()
    try:
        return pillow.Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"{len(data)} bytes that begin with {bytes(data[:8])!r} are not a picture that can be "
            "read. Look at where they came from."
        ) from error
    except pillow.Image.DecompressionBombError as error:
        raise SampleError(f"{error} Raise PIL.Image.MAX_IMAGE_PIXELS if it is meant.") from error


def _plain_mode(image: Any) -> str:
    mode = str(image.mode)
    if mode == "P" and "transparency" in image.info:
        mode = "RGBA"
    mode = _PLAINER.get(mode, mode)
    if mode not in _CHANNELS:
        raise SampleError(
            f"a picture of mode {image.mode} has not 8 bits a channel. Store it as a generic "
            "tensor, or convert it."
        )
    return mode


def _plain(image: Any) -> Any:
    mode = _plain_mode(image)
    try:
        return image if image.mode == mode else image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(
            f"the picture cannot be decoded: {error}. Its bytes are returned by .bytes()."
        ) from error


def _read(path: os.PathLike[Any]) -> bytes:
    try:
        return Path(os.fsdecode(path)).read_bytes()
    except OSError as error:
        raise SampleError(f"the file cannot be read: {error}. Look at the path.") from error


def _pillow() -> Any:
    # An optional door: lakes without pictures do not need Pillow.
    try:
        import PIL.Image  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("The htype 'image'", "images") from error
    return PIL
