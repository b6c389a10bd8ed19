"""Base class of the codecs.

A codec belongs to one tensor. It checks a value against the tensor's spec and turns it into what the
tensor's column stores, by the layout of its :class:`~dasklake._schema.arrow_layout.Storage`:

=========  =======================================================================
``ARROW``  one value that Arrow takes (times as ``int64``, links as a mapping)
``TENSOR`` an array of ``storage.element`` and ``storage.shape``
``BLOB``   a :class:`~dasklake._schema.values.Blob`: bytes, and the shape they decode to
=========  =======================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import pyarrow as pa

from dasklake._codecs.compression import Encoded
from dasklake._schema.arrow_layout import Storage, storage_of
from dasklake._schema.schema import TensorSpec

__all__ = ["Codec"]


class Codec(ABC):
    """Encodes the values of one tensor as its column stores them, and decodes them.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.

    Attributes
    ----------
    spec : TensorSpec
        Description of the tensor.
    storage : Storage
        Layout of the tensor in a chunk.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.spec = spec
        self.storage: Storage = storage_of(spec)

    @abstractmethod
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
        """Encode the values of many samples at once, if the codec has a fast path.

        Parameters
        ----------
        values : numpy.ndarray, pandas.Series or pyarrow.Array
            The values; axis 0 is samples.

        Returns
        -------
        pyarrow.Array or None
            An array of ``storage.type``; None if the values have to go one by one, which
            is also how a value that does not fit gets its exact message.

        Raises
        ------
        SampleError
            The values as a whole do not fit the spec.
        """
        del values  # used by codecs that have a fast path
        return None

    @abstractmethod
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
