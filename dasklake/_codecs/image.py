"""Codec of images: stores files of the tensor's format unchanged, and encodes pixels.

The shape of a file comes from its header; its pixels are decoded on access.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, from_blob, shorten
from dasklake._codecs.convert import fit_shape, refuse_masked, to_shape
from dasklake._codecs.decoded_origins import remember
from dasklake._codecs.file import bytes_of
from dasklake._media.image import (
    CHANNELS,
    decode_image,
    open_image,
    pillow,
    quick_shape,
    shape_of,
    to_8_bit_mode,
)
from dasklake._media.reader import translate_errors
from dasklake._media.sniff import format_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError

__all__ = ["ImageCodec"]

#: Numbers of channels that a format supports.
_FORMAT_CHANNELS = {
    "jpeg": (1, 3),
    "png": (1, 2, 3, 4),
    "webp": (3, 4),
    "tiff": (1, 2, 3, 4),
    "bmp": (1, 3),
    "gif": (3,),
    "jpeg2000": (1, 2, 3, 4),
    "ppm": (1, 3),
    "tga": (1, 2, 3, 4),
}

#: Options for encoding pixels: losses are hard to see, and the file has a tenth of their size.
_QUALITY = {"jpeg": {"quality": 95}, "webp": {"quality": 95}}

#: Color mode to which the images of an htype are converted.
_MODES = {"image.rgb": "RGB", "image.gray": "L"}


class ImageCodec(Codec):
    """Codec of ``image``, ``image.rgb`` and ``image.gray``.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._compression = spec.compression or "jpeg"
        self._rank = len(spec.shape or (None, None, None))
        self._mode = _MODES.get(spec.kind.name)

    def encode(self, value: object) -> Encoded:
        """Return the bytes of an image and the shape of its pixels."""
        data = bytes_of(value)
        if data is not None:
            return self._from_bytes(data)
        if isinstance(value, str):
            raise SampleError(
                f"an image must not be a string, got {shorten(value)}. Give pathlib.Path(...) for a "
                "file, or use the htype link[image] for a URL."
            )
        if hasattr(value, "getbands") and hasattr(value, "save"):
            return self._from_image(value)
        return self._from_array(value)

    def decode(self, stored: Encoded) -> object:
        """Return the pixels as uint8, height x width x channels."""
        if not self.spec.encoded:
            return from_blob(stored, np.dtype(np.uint8), self._compression)
        pixels = decode_image(stored.data)
        with translate_errors("image"):
            pixels = pixels.reshape(stored.shape)
        remember(pixels, stored, self)
        return pixels

    def _from_bytes(self, data: bytes) -> Blob:
        format_ = format_of(data)
        if format_ == self._compression:
            shape = quick_shape(format_, data)
            image = None if shape else open_image(data)
            shape = shape or shape_of(image)
            if self._mode is None or shape[2] == CHANNELS[self._mode]:
                return Blob(data, self._checked(shape))
            return self._from_image(image or open_image(data))
        image = open_image(data)
        if self.spec.encoded and not self.spec.reencode:
            raise SampleError(
                f"the image must be {self._compression}, the tensor's compression, got "
                f"{format_ or str(image.format).lower()}. Convert it, or set reencode=True in the "
                "TensorSpec."
            )
        return self._from_image(image)

    def _from_image(self, image: Any) -> Blob:
        shape: tuple[int, ...] = shape_of(image)
        if self._mode is not None and shape[2] != CHANNELS[self._mode]:
            image = to_8_bit_mode(image).convert(self._mode)
            shape = shape_of(image)
        if self._compression == "jpeg" and image.mode in ("LA", "RGBA", "PA"):
            raise SampleError(
                f"a JPEG image cannot have transparency, got mode {image.mode}. Convert it with "
                '.convert("RGB"), or use compression="png".'
            )
        shape = self._checked(shape)
        return self._compressed(to_8_bit_mode(image), shape)

    def _from_array(self, value: Any) -> Blob:
        refuse_masked(value)
        array = np.asarray(value)
        if array.dtype != np.uint8:
            raise SampleError(
                f"an image must be bytes, a path, a PIL image or an array of uint8, got "
                f"{shorten(value)} with dtype {array.dtype}. Convert its pixels to uint8."
            )
        if array.ndim == 2 and self._rank == 3:
            array = array[:, :, np.newaxis]
        if self._mode is None:
            array = to_shape(array, self.spec.shape, self.spec.kind.ranks)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or not array.size:
            raise SampleError(
                "an image must have a height and width of at least 1 and 1 to 4 channels, got shape "
                f"{array.shape}. Fix the array."
            )
        pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
        image = pillow().fromarray(np.ascontiguousarray(pixels))
        if self._mode is not None:
            return self._from_image(image)
        return self._compressed(image, array.shape)

    def _checked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the pixels, checked against the spec."""
        if self._rank == 2 and shape[2] == 1:
            shape = shape[:2]
        if self.spec.shape != (None, None, None):
            fit_shape(shape, self.spec.shape)
        return shape

    def _compressed(self, image: Any, shape: tuple[int, ...]) -> Blob:
        if not self.spec.encoded:
            return as_blob(np.array(image), shape, self._compression)
        channels = shape[2] if len(shape) == 3 else 1
        allowed = _FORMAT_CHANNELS[self._compression]
        if channels not in allowed:
            raise SampleError(
                f"a {self._compression} image must have {' or '.join(map(str, allowed))} channels, "
                f"got {channels}. Convert the image, or change the tensor's compression."
            )
        sink = io.BytesIO()
        image.save(sink, format=self._compression, **_QUALITY.get(self._compression, {}))
        return Blob(sink.getvalue(), shape)
