"""Lists of values in one sample: the bytes of the items in a row, and where each one lies.

The shape column holds the directory: the number of items, then for each item the number of its
bytes, its rank and its shape. A reader of one item needs the directory and the bytes of that item.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.compression import Encoded, shorten
from dasklake._schema.arrow_layout import Layout
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import CorruptionError, SampleError

__all__ = ["ItemLocation", "SequenceCodec", "item_locations"]


class ItemLocation(NamedTuple):
    """Where the bytes of an item lie in the sample's, and what they decode to."""

    begin: int
    end: int
    shape: tuple[int, ...]


def item_locations(directory: tuple[int, ...], size: int) -> list[ItemLocation]:
    """Read the directory of a list.

    Parameters
    ----------
    directory : tuple of int
        What the shape column holds for the sample.
    size : int
        Number of the sample's bytes.

    Raises
    ------
    CorruptionError
        ``directory`` does not describe ``size`` bytes.
    """
    found: list[ItemLocation] = []
    rest = iter(directory)
    try:
        count, end = next(rest), 0
        for _ in range(count):
            begin, end = end, end + next(rest)
            rank = next(rest)
            found.append(ItemLocation(begin, end, tuple(next(rest) for _ in range(rank))))
    except (StopIteration, RuntimeError):  # the latter where a shape ends too early
        end = -1
    wrong = any(place.begin > place.end or min(place.shape, default=0) < 0 for place in found)
    if end != size or wrong or next(rest, None) is not None:
        raise CorruptionError(
            f"A list of {size} bytes has a directory that does not fit. Restore its chunk from a "
            "copy."
        )
    return found


class SequenceCodec(Codec):
    """Codec of ``sequence[...]`` and ``polygon``.

    Parameters
    ----------
    spec : TensorSpec
        What the tensor holds.
    item : Codec
        The codec of one item.
    """

    def __init__(self, spec: TensorSpec, item: Codec) -> None:
        super().__init__(spec)
        self.item = item

    def encode(self, value: object) -> Encoded:
        """Return the bytes of all items, and their directory."""
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise SampleError(
                f"{shorten(value)} of type {type(value).__name__} is not a list. Give a list of "
                "values, which may be empty."
            )
        pieces: list[Any] = []
        directory = [0]
        for number, each in enumerate(value):
            if each is None:
                raise SampleError(f"item {number}: a list must not contain None. Leave it out.")
            try:
                blob = as_item(self.item.encode(each), self.item)
            except SampleError as error:
                raise SampleError(f"item {number}: {error.message}") from error
            pieces.append(blob.data)
            directory += (len(blob.data), len(blob.shape), *blob.shape)
        directory[0] = len(pieces)
        return Blob(b"".join(pieces), tuple(directory))

    def decode(self, stored: Blob) -> object:
        """Return the items as a list."""
        return [self.item.decode(each) for each in self.items(stored)]

    def items(self, stored: Blob) -> Iterator[Encoded]:
        """Yield what the column of a tensor of the item's spec would store for each item."""
        view = memoryview(stored.data)
        for place in item_locations(stored.shape, len(view)):
            yield from_item(Blob(view[place.begin : place.end], place.shape), self.item)


def as_item(encoded: Encoded, codec: Codec) -> Blob:
    """Return the bytes of what a codec made of a value, whatever its layout."""
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
            f"lists of dtype {codec.spec.dtype} cannot be stored. Use a list type of Arrow."
        )
    # A link; a lake keeps no other mapping.
    return Blob(json.dumps(encoded).encode(), ())


def from_item(blob: Blob, codec: Codec) -> Encoded:
    """Undo :func:`as_item`.

    Raises
    ------
    CorruptionError
        The bytes cannot be those of such a value.
    """
    storage = codec.storage
    if storage.layout is Layout.BLOB:
        return blob
    try:
        if storage.element is not None:
            found = np.frombuffer(blob.data, storage.element)
            return found.reshape(storage.shape)[()]
        text = str(blob.data, "utf-8")
        return json.loads(text) if codec.spec.linked else text
    except ValueError as error:
        raise CorruptionError(
            f"An item of a list cannot be read: {error}. Restore its chunk from a copy."
        ) from error
