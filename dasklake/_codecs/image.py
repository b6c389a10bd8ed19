"""Codec of images: stores files of the tensor's format unchanged, and encodes pixels.

The shape of a file comes from its header; its pixels are decoded on access.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, as_blob, from_blob, shorten
from dasklake._codecs.convert import fit_shape, refuse_masked, to_shape
from dasklake._codecs.decoded_origins import remember
from dasklake._codecs.file import bytes_of
from dasklake._codecs.image_encoding import (
    check_sides,
    encode_image,
    is_turned,
    refuse_turned,
    upright,
)
from dasklake._media.check import verify_file
from dasklake._media.complete import frames_of
from dasklake._media.depth import HEAD_OF_DEPTH
from dasklake._media.image import (
    CHANNELS,
    check_depth,
    check_size,
    decode_image,
    open_image,
    pillow,
    quick_shape,
    shape_of,
    to_8_bit_mode,
)
from dasklake._media.sniff import format_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import SampleError

#: Color mode to which the images of an htype are converted.
_MODES = {"image.rgb": "RGB", "image.gray": "L"}

#: Modes with a transparent color, and the modes that show the same.
_WITH_ALPHA = {"1": "LA", "L": "LA", "RGB": "RGBA"}

_REMEDY = "Replace the file, or skip the sample with on_error='skip'."


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
        self._apply = spec.exif == "apply"
        self._tried: set[str] = set()

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
            return self._from_pillow(value)
        return self._from_array(value)

    def decode(self, stored: Encoded) -> object:
        """Return the pixels as uint8, height x width x channels."""
        if not self.spec.encoded:
            return from_blob(stored, np.dtype(np.uint8), self._compression)
        shape = tuple(stored.shape)
        pixels = decode_image(stored.data, channels=shape[2] if len(shape) == 3 else 1)
        if (*pixels.shape, 1)[:3] != (*shape, 1)[:3]:
            raise SampleError(
                f"the image must have the stored shape {shape}, got {pixels.shape}. Write it again, "
                "or get it undecoded with .bytes()."
            )
        pixels = pixels.reshape(shape)
        remember(pixels, stored, self)
        return pixels

    def decode_file(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a file of any format to the pixels that it would have in the lake.

        Parameters
        ----------
        data : bytes
            The whole file.

        Returns
        -------
        numpy.ndarray
            uint8; height x width x channels, or height x width if the tensor has two axes and the
            image one channel.

        Raises
        ------
        SampleError
            ``data`` is not an image with 8 bits per channel.
        """
        image = open_image(data)
        check_depth(image, data[:HEAD_OF_DEPTH])
        turned = self._apply and is_turned(image)
        if turned or self._channels(shape_of(image)[2]) != shape_of(image)[2]:
            check_size(image.height, image.width)
            pixels = np.array(self._converted(image)[0])
        else:
            pixels = decode_image(data)
        return pixels[:, :, np.newaxis] if pixels.ndim == 2 and self._rank == 3 else pixels

    def decoded_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the pixels of a file of some height, width and channels."""
        shape = (*shape[:2], self._channels(shape[2]))
        return shape[:2] if self._rank == 2 and shape[2] == 1 else shape

    def _channels(self, file_channels: int) -> int:
        return file_channels if self._mode is None else CHANNELS[self._mode]

    def _from_bytes(self, data: bytes) -> Blob:
        format_ = format_of(data)
        image = None if format_ == self._compression else open_image(data)
        if format_ is None and image is not None:
            format_ = str(image.format).lower()
        if format_ == self._compression:
            shape = quick_shape(format_, data)
            image = image if shape and not self._apply else image or open_image(data)
            if shape is None:
                check_depth(image, data[:HEAD_OF_DEPTH])
                shape = shape_of(image)
            turned = self._apply and is_turned(image)
            if not turned and self._channels(shape[2]) == shape[2]:
                return self._unchanged(format_, data, shape)
        image = image or open_image(data)
        if self.spec.encoded and format_ != self._compression and not self.spec.reencode:
            raise SampleError(
                f"the image must be {self._compression}, the tensor's compression, got {format_}. "
                "Convert it, or set reencode=True in the TensorSpec."
            )
        check_depth(image, data[:HEAD_OF_DEPTH])
        return self._from_image(image)

    def _unchanged(self, format_: str, data: bytes, shape: tuple[int, ...]) -> Blob:
        """Verify a file, and store it unchanged."""
        check_size(*shape[:2])
        check_sides(format_, *shape[:2])
        blob = Blob(data, self._checked(shape))
        verify_file(format_, data, shape, True if self.spec.verify is None else self.spec.verify)
        if frames_of(format_, data) > 1:
            _warn_frames()
        return blob

    def _from_pillow(self, image: Any) -> Blob:
        """Encode an image of Pillow, which may not have been decoded yet."""
        check_depth(image, b"")
        if image.mode == "YCbCr":
            raise SampleError(
                "an image must be gray, RGB or CMYK, got mode YCbCr. Convert it with "
                '.convert("RGB").'
            )
        return self._from_image(image)

    def _from_image(self, image: Any) -> Blob:
        shape: tuple[int, ...] = shape_of(image)
        check_size(*shape[:2])
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
            _warn_frames()
        pixels, source = self._converted(image)
        return self._compressed(pixels, self._checked(shape_of(pixels)), source)

    def _converted(self, image: Any) -> tuple[Any, Any]:
        """Return the image as it is stored, and the image that it was made from."""
        pixels = to_8_bit_mode(image, _REMEDY)
        # Pillow turns a TIFF whenever it decodes one.
        as_tiff = self._compression == "tiff" and image.format is not None
        source = upright(image) if (self._apply or as_tiff) and is_turned(image) else image
        if source is not image:
            pixels = to_8_bit_mode(source, _REMEDY)
        if "transparency" in image.info and image.mode in _WITH_ALPHA and self._mode is None:
            mode: str | None = _WITH_ALPHA[image.mode]
        else:
            mode = self._mode
        if mode is not None and pixels.mode != mode:
            pixels = pixels.convert(mode)
        return pixels, source

    def _from_array(self, value: Any) -> Blob:
        refuse_masked(value)
        array = np.asarray(value)
        if array.dtype != np.uint8:
            raise SampleError(
                f"an image must be bytes, a path, a PIL image or an array of uint8, got "
                f"{shorten(value)} with dtype {array.dtype}. Convert its pixels to uint8, or store "
                f"them in a tensor {_generic(array)}."
            )
        if array.ndim == 2 and self._rank == 3:
            array = array[:, :, np.newaxis]
        if self._mode is None:
            array = to_shape(array, self.spec.shape, self.spec.kind.ranks)
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or not array.size:
            raise SampleError(
                "an image must have a height and width of at least 1 and 1 to 4 channels, got shape "
                f"{array.shape}. Fix the array, or store it in a tensor {_generic(array)}."
            )
        pixels = array[:, :, 0] if array.ndim == 3 and channels == 1 else array
        image = pillow().fromarray(np.ascontiguousarray(pixels))
        if self._mode is not None:
            return self._from_image(image)
        check_size(*array.shape[:2])
        return self._compressed(image, array.shape, image)

    def _checked(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the pixels, checked against the spec."""
        if self._rank == 2 and shape[2] == 1:
            shape = shape[:2]
        if self.spec.shape != (None, None, None):
            fit_shape(shape, self.spec.shape)
        return shape

    def _compressed(self, image: Any, shape: tuple[int, ...], source: Any) -> Blob:
        if not self.spec.encoded:
            refuse_turned(self._compression, source)
            return as_blob(np.array(image), shape, self._compression)
        blob = Blob(
            encode_image(image, self._compression, source, fixed=self._mode is not None), shape
        )
        if image.mode not in self._tried:
            # An encoder may change a mode: it is tried once that the pixels can be read again.
            self.decode(blob)
            self._tried.add(image.mode)
        return blob


def _generic(array: np.ndarray[Any, Any]) -> str:
    """Return the call that describes a generic tensor of such arrays."""
    shape = (None,) * array.ndim
    return f"TensorSpec(dtype={array.dtype.name!r}, shape={shape}, compression='zstd')"


def _warn_frames() -> None:
    warnings.warn(
        "An image has several frames or pages, and only the first is read. To keep all of them, "
        "declare the tensor as sequence[image], and give the list "
        "[frame.copy() for frame in PIL.ImageSequence.Iterator(image)].",
        UserWarning,
        stacklevel=2,
    )
