"""What a codec is.

A codec knows one tensor. It checks a value against the tensor's spec and turns it into what the
tensor's column stores, by the layout of its :class:`~dasklake._schema.arrow_layout.Storage`:

=========  =======================================================================
``ARROW``  one value that Arrow takes (times as ``int64``, links as a mapping)
``TENSOR`` an array of ``storage.element`` and ``storage.shape``
``BLOB``   a :class:`~dasklake._schema.values.Blob`: bytes, and the shape they decode to
=========  =======================================================================
"""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from dasklake._codecs.compression import Encoded
from dasklake._schema.arrow_layout import Storage
from dasklake._schema.schema import TensorSpec

__all__ = ["Codec"]


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
