"""Codec of lists: the concatenated bytes of the items, and a directory of their locations.

The shape column holds the directory: the number of items, then for each item its number of bytes, its
rank and its shape. The directory locates the bytes of a single item.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, wrong_value
from dasklake._codecs.transfer import encode_value
from dasklake._schema.arrow_layout import Layout
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError


class ItemLocation(NamedTuple):
    """Range of the bytes of an item within the sample, and the shape of the item."""

    begin: int
    end: int
    shape: tuple[int, ...]


def item_locations(directory: tuple[int, ...], size: int) -> list[ItemLocation]:
    """Parse the directory of a list.

    Parameters
    ----------
    directory : tuple of int
        Value of the shape column for the sample.
    size : int
        Number of bytes of the sample.

    Raises
    ------
    CorruptionError
        ``directory`` does not describe ``size`` bytes.
    """
    locations: list[ItemLocation] = []
    rest = iter(directory)
    try:
        count, end = next(rest), 0
        for _ in range(count):
            begin, end = end, end + next(rest)
            rank = next(rest)
            locations.append(ItemLocation(begin, end, tuple(next(rest) for _ in range(rank))))
    except (StopIteration, RuntimeError):  # a RuntimeError if a shape is incomplete
        end = -1
    wrong = any(item.begin > item.end or min(item.shape, default=0) < 0 for item in locations)
    if end != size or wrong or next(rest, None) is not None:
        raise CorruptionError(
            f"The directory of a list does not match its {size} bytes. Restore its chunk from a copy."
        )
    return locations


class SequenceCodec(Codec):
    """Codec of ``sequence[...]`` and ``polygon``.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor.
    item : Codec
        Codec of one item.
    """

    def __init__(self, spec: TensorSpec, item: Codec) -> None:
        super().__init__(spec)
        self.item = item

    def encode(self, value: object) -> Encoded:
        """Return the concatenated bytes of all items, and their directory."""
        single = isinstance(value, str | bytes | Mapping) or getattr(value, "ndim", 1) == 0
        if single or not isinstance(value, Iterable):
            raise wrong_value("a list", value, "Give a list of values; it may be empty.")
        pieces: list[Any] = []
        directory = [0]
        for number, item in enumerate(value):
            if item is None:
                raise SampleError(f"item {number}: an item must not be None. Leave it out.")
            try:
                blob = as_item(encode_value(item, self.item), self.item)
            except SampleError as error:
                raise SampleError(f"item {number}: {error.message}") from error
            pieces.append(blob.data)
            directory += (len(blob.data), len(blob.shape), *blob.shape)
        directory[0] = len(pieces)
        return Blob(b"".join(pieces), tuple(directory))

    def decode(self, stored: Blob) -> object:
        """Return the items as a list."""
        return list(map(self.item.decode, self.items(stored)))

    def items(self, stored: Blob) -> Iterator[Encoded]:
        """Yield the stored form of each item, as in a column of the spec of the item."""
        view = memoryview(stored.data)
        for begin, end, shape in item_locations(stored.shape, len(view)):
            yield from_item(Blob(view[begin:end], shape), self.item)


def as_item(encoded: Encoded, codec: Codec) -> Blob:
    """Return the bytes of an encoded value of any layout."""
    storage = codec.storage
    if storage.layout is Layout.BLOB:
        return Blob(encoded.data, encoded.shape)
    if storage.element is not None:
        array = np.ascontiguousarray(encoded, storage.element)
        return Blob(array.tobytes(), storage.shape)
    if isinstance(encoded, str):
        return Blob(encoded.encode(), ())
    if isinstance(encoded, pa.Scalar):
        raise SampleError(
            f"a list cannot have items of dtype {codec.spec.dtype}. Use an Arrow list type."
        )
    # Only links are encoded as mappings.
    return Blob(json.dumps(encoded).encode(), ())


def from_item(blob: Blob, codec: Codec) -> Encoded:
    """Return the encoded value of an item; the inverse of :func:`as_item`.

    Raises
    ------
    CorruptionError
        ``blob`` is not a valid item.
    """
    storage = codec.storage
    if storage.layout is Layout.BLOB:
        return blob
    try:
        if storage.element is not None:
            elements = np.frombuffer(blob.data, storage.element)
            return elements.reshape(storage.shape)[()]
        text = str(blob.data, "utf-8")
        return json.loads(text) if codec.spec.linked else text
    except ValueError as error:
        raise CorruptionError(
            f"An item of a list cannot be decoded: {error}. Restore its chunk from a copy."
        ) from error
