"""Pictures: files of the tensor's format pass through unchanged, pixels are encoded.

Only the header of a file is read for its shape; pixels are decoded when they are asked for.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, from_blob, shorten
from dasklake._codecs.convert import refuse_masked, to_shape
from dasklake._codecs.file import bytes_of
from dasklake._media.image import (
    CHANNELS,
    decode_image,
    mode_of_8_bits,
    open_image,
    pillow,
    quick_shape,
    to_8_bit_mode,
)
from dasklake._media.sniff import format_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError

__all__ = ["ImageCodec"]

#: Channels that a format keeps.
_CHANNELS_OF = {
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

#: Of JPEG and WebP made from pixels: differences are hard to see, and the file is a tenth of them.
_QUALITY = {"jpeg": {"quality": 95}, "webp": {"quality": 95}}

#: What the pictures of an htype are converted to.
_MODES = {"image.rgb": "RGB", "image.gray": "L"}


class ImageCodec(Codec):
    """Codec of ``image``, ``image.rgb`` and ``image.gray``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    """

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__(spec)
        self._compression = spec.compression or "jpeg"
        self._rank = len(spec.shape or (None, None, None))
        self._mode = _MODES.get(spec.kind.name)

    def encode(self, value: object) -> Encoded:
        """Return the bytes of a picture and the shape of its pixels."""
        data = bytes_of(value)
        if data is not None:
            return self._from_bytes(data)
        if isinstance(value, str):
            raise SampleError(
                f"{shorten(value)} is a string. Give pathlib.Path(...) for a file, or use the "
                f"htype link[image] for a URL."
            )
        if hasattr(value, "getbands") and hasattr(value, "save"):
            return self._from_image(value)
        return self._from_array(value)

    def decode(self, stored: Encoded) -> object:
        """Return the pixels, height x width x channels, as uint8."""
        if not self.spec.encoded:
            return from_blob(stored, np.dtype(np.uint8), self._compression)
        pixels = decode_image(stored.data)
        try:
            return pixels.reshape(stored.shape)
        except ValueError as error:
            raise SampleError(
                f"the {self._compression} is not of shape {stored.shape}: {error}. "
                "Its bytes are returned by .bytes()."
            ) from error

    def _from_bytes(self, data: bytes) -> Blob:
        form = format_of(data)
        if form == self._compression:
            shape = quick_shape(form, data)
            image = None if shape else open_image(data)
            shape = shape or _shape_of(image)
            if self._mode is None or shape[2] == CHANNELS[self._mode]:
                return Blob(data, self._fitted(shape))
            return self._from_image(image or open_image(data))
        image = open_image(data)
        if self.spec.encoded and not self.spec.reencode:
            raise SampleError(
                f"the {len(data)} bytes are {form or str(image.format).lower()}, and the tensor "
                f"holds {self._compression}. Convert the file, or set reencode=True in the "
                "TensorSpec."
            )
        return self._from_image(image)

    def _from_image(self, image: Any) -> Blob:
        shape: tuple[int, ...] = _shape_of(image)
        if self._mode is not None and shape[2] != CHANNELS[self._mode]:
            image = to_8_bit_mode(image).convert(self._mode)
            shape = _shape_of(image)
        if self._compression == "jpeg" and image.mode in ("LA", "RGBA", "PA"):
            raise SampleError(
                f"a picture of mode {image.mode} has transparency and JPEG has none. Convert it "
                'with .convert("RGB"), or use compression="png".'
            )
        shape = self._fitted(shape)
        return self._saved(to_8_bit_mode(image), shape)

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
        if self._mode is None:
            array = to_shape(array, self.spec.shape, self.spec.kind.ranks)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or not array.size:
            raise SampleError(
                f"shape {array.shape} cannot be a picture: height and width are at least 1, "
                "channels are 1 to 4. Fix the array."
            )
        pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
        image = pillow().fromarray(np.ascontiguousarray(pixels))
        if self._mode is not None:
            return self._from_image(image)
        return self._saved(image, array.shape)

    def _fitted(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a picture's pixels, checked against the spec."""
        if self._rank == 2 and shape[2] == 1:
            shape = shape[:2]
        if self.spec.shape != (None, None, None):
            to_shape(np.broadcast_to(np.uint8(0), shape), self.spec.shape)
        return shape

    def _saved(self, image: Any, shape: tuple[int, ...]) -> Blob:
        if not self.spec.encoded:
            return as_blob(np.array(image), shape, self._compression)
        channels = shape[2] if len(shape) == 3 else 1
        allowed = _CHANNELS_OF[self._compression]
        if channels not in allowed:
            raise SampleError(
                f"shape {shape} cannot be a {self._compression}: its channels are one of "
                f"{allowed}. Fix the picture, or change the tensor's compression."
            )
        sink = io.BytesIO()
        image.save(sink, format=self._compression, **_QUALITY.get(self._compression, {}))
        return Blob(sink.getvalue(), shape)


def _shape_of(image: Any) -> tuple[int, int, int]:
    return image.height, image.width, CHANNELS[mode_of_8_bits(image)]
