"""Base class of the codecs.

A codec belongs to one tensor. It checks a value against the spec of the tensor and encodes it for the
column of the tensor. The form depends on the layout of its :class:`~dasklake._schema.arrow_layout.Storage`:

=========  =======================================================================
``ARROW``  one value that Arrow accepts (times as ``int64``, links as a mapping)
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


class Codec(ABC):
    """Encoder and decoder of the values of one tensor.

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
        """Check the value of one sample, and encode it for its column.

        Parameters
        ----------
        value : object
            The value; never None.

        Returns
        -------
        scalar, numpy.ndarray or Blob
            The form that the layout of ``storage`` requires. An array or blob may share the memory
            of ``value``.

        Raises
        ------
        SampleError
            ``value`` does not fit the spec. The caller adds the tensor and the sample.
        """

    def encode_column(self, values: object) -> pa.Array | None:
        """Encode the values of many samples at once, if the codec has a fast path.

        Parameters
        ----------
        values : numpy.ndarray, pandas.Series or pyarrow.Array
            The values, with the samples along axis 0.

        Returns
        -------
        pyarrow.Array or None
            An array of ``storage.type``, or None if the values have to be encoded one by one. None
            also means that some value does not fit: encoding it alone raises the exact error.

        Raises
        ------
        SampleError
            The dtype of ``values`` does not fit the spec, or they are a masked array.
        """
        del values  # for codecs that have a fast path
        return None

    @abstractmethod
    def decode(self, stored: Encoded) -> object:
        """Decode a value that :meth:`encode` returned.

        Parameters
        ----------
        stored : scalar, numpy.ndarray or Blob
            The stored form of one sample; never None.

        Returns
        -------
        object
            The value. An array owns its memory or shares that of ``stored``.

        Raises
        ------
        CorruptionError
            ``stored`` cannot be decoded.
        """
