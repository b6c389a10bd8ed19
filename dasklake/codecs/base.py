"""What a codec is, and which one a tensor has.

A codec knows one tensor. It checks a value against the tensor's spec and turns it into what the
tensor's column stores, by the layout of its :class:`~dasklake._model.values.Storage`:

=========  =======================================================================
``ARROW``  one value that Arrow takes (times as ``int64``, links as a mapping)
``TENSOR`` an array of ``storage.element`` and ``storage.shape``
``BLOB``   a :class:`~dasklake._model.values.Blob`: bytes, and the shape they decode to
=========  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import pyarrow as pa

from dasklake._model.schema import TensorSpec
from dasklake._model.values import Storage
from dasklake.codecs.array import ArrayCodec, LabelCodec
from dasklake.codecs.link import LinkCodec
from dasklake.codecs.mask import MaskCodec
from dasklake.codecs.media import ImageCodec
from dasklake.codecs.packing import Encoded
from dasklake.codecs.text import ArrowCodec, TextCodec

__all__ = ["CODECS", "Codec", "codec_for"]


class Codec(Protocol):
    """Turns the values of one tensor into what its column stores, and back.

    Attributes
    ----------
    spec : TensorSpec
        What the tensor holds.
    storage : Storage
        How it lies in a chunk.
    """

    spec: TensorSpec
    storage: Storage

    def encode(self, value: object) -> Encoded:
        """Check one sample's value and return what its column stores.

        Parameters
        ----------
        value : object
            The value; never None.

        Returns
        -------
        scalar, numpy.ndarray or Blob
            By the layout of ``storage``. An array or blob may share the memory of ``value``.

        Raises
        ------
        SampleError
            The value does not fit the spec. The caller adds tensor and sample.
        """

    def encode_column(self, values: object) -> pa.Array | None:
        """Check the values of many samples at once, where there is a fast way.

        Parameters
        ----------
        values : numpy.ndarray, pandas.Series or pyarrow.Array
            The values; axis 0 is samples.

        Returns
        -------
        pyarrow.Array or None
            An array of ``storage.type``; None where the values have to go one by one, which
            is also how a value that does not fit gets its exact message.

        Raises
        ------
        SampleError
            The values as a whole do not fit the spec.
        """

    def decode(self, stored: Encoded) -> object:
        """Return the value that :meth:`encode` was given, in its plainest form.

        Parameters
        ----------
        stored : scalar, numpy.ndarray or Blob
            What the column holds for one sample; never None.

        Returns
        -------
        object
            The value; arrays own their memory or share that of ``stored``.

        Raises
        ------
        CorruptionError
            The bytes cannot be decoded.
        """


def _array(spec: TensorSpec) -> Codec:
    arrow = spec.arrow_type
    if arrow is not None:
        strings = pa.types.is_large_string(arrow) or pa.types.is_string(arrow)
        return TextCodec(spec) if strings else ArrowCodec(spec)
    return LabelCodec(spec) if spec.kind.name == "class_label" else ArrayCodec(spec)


#: By the codec's name in the table of htypes, ``"link"`` for linked data.
CODECS: Mapping[str, Callable[[TensorSpec], Codec]] = MappingProxyType(
    {"array": _array, "mask": MaskCodec, "image": ImageCodec, "text": TextCodec, "link": LinkCodec}
)


def codec_for(spec: TensorSpec) -> Codec:
    """Return the codec of a tensor.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.

    Returns
    -------
    Codec
        A fresh codec; making it costs some microseconds.

    Examples
    --------
    >>> from dasklake import TensorSpec
    >>> codec_for(TensorSpec(dtype="uint8", shape=())).encode(7)
    np.uint8(7)
    """
    return CODECS["link" if spec.linked else spec.kind.codec](spec)
