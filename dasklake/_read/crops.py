"""Read parts of values: only the bytes that an index selects, if they are stored apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from dasklake._codecs.compression import check_length
from dasklake._codecs.decoded_size import bytes_of_shape
from dasklake._codecs.mask import MaskCodec
from dasklake._codecs.registry import Codec, codec_for
from dasklake._codecs.sequence import SequenceCodec, from_item, item_locations
from dasklake._media.file import File
from dasklake._read.axis_index import (
    Axis,
    AxisIndex,
    Range,
    SampleId,
    as_slices,
    selected_ranges,
    too_many_axes,
)
from dasklake._read.corruption import OnCorrupt, decode_or_skip
from dasklake._read.decoder import call_decoder
from dasklake._read.reader import Reader
from dasklake._read.row_reader import RowReader
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob
from dasklake.exceptions import InvalidInputError

#: Bytes up to which a whole value is fetched: a part is hardly cheaper.
_SMALL = 64 * 2**10

#: In sample of a sample that is left out.
_SKIPPED = object()

_Positions = tuple[int | range, ...]


class CropReader:
    """Reads the same part of samples of one tensor.

    Of uncompressed arrays, only the pages are fetched that hold the part; of a list, only the
    items. Other values are decoded, then cropped.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    name : str
        The tensor.
    index : AxisIndex
        The part.

    Raises
    ------
    InvalidInputError
        The values of the tensor have no axes.
    IndexError
        ``index`` has more axes than the values.
    """

    def __init__(self, reader: Reader, name: str, index: AxisIndex) -> None:
        self._reader = reader
        self._name = name
        self._index = index
        self._spec = spec = reader.schema[name]
        _check_axes(spec, name, index)
        self._codec = codec_for(spec)
        self._dtype = _dtype_of_bytes(spec)

    @property
    def is_small(self) -> bool:
        """True if values are so small that they are fetched as a whole, many at once."""
        spec = self._spec
        return spec.fixed and bytes_of_shape(spec, spec.shape) <= _SMALL

    def none(self) -> npt.NDArray[Any] | list[Any]:
        """Return the parts of no samples."""
        spec = self._spec
        if not spec.fixed or spec.numpy_dtype is None:
            return []
        values = np.broadcast_to(np.empty((), spec.numpy_dtype), (0, *spec.shape))
        positions = self._index.resolve(spec.shape, f"tensor {self._name!r}")
        return values[(slice(None), *as_slices(positions))].copy()

    def one(self, row: int) -> Any:
        """Return the part of one sample, or None for no value."""
        number, offset = self._reader.plan.locate(row)
        read = partial(self._read, offsets=[offset], rows=[row], on_corrupt="raise")
        return self._reader.using(number, read)[0]

    def many(self, rows: Sequence[int]) -> list[Any]:
        """Return the parts of some samples; with ``on_corrupt="skip"``, without damaged ones."""
        parts: list[Any] = []
        on_corrupt = self._reader.origin.on_corrupt
        for number, offsets, numbers in self._reader.by_chunk(rows):
            read = partial(self._read, offsets=offsets, rows=numbers, on_corrupt=on_corrupt)
            parts += self._reader.read_or_skip(number, read) or ()
        return [part for part in parts if part is not _SKIPPED]

    def _read(
        self,
        reader: RowReader,
        offsets: Sequence[int],
        rows: Sequence[int],
        on_corrupt: OnCorrupt,
    ) -> list[Any]:
        """Return the parts of some rows of one chunk."""
        samples = [SampleId(self._name, row) for row in rows]
        if self._dtype is not None:
            return self._numbers(reader, offsets, samples, self._dtype)
        if isinstance(self._codec, SequenceCodec):
            decoders = self._items(reader, offsets, samples, self._codec.item)
        else:
            stored = (value for (value,) in reader.read_many(offsets, [self._name]))
            decoders = [
                None if value is None else partial(_decode, self._codec, value, self._index, sample)
                for value, sample in zip(stored, samples, strict=True)
            ]
        url = self._reader.origin.store.url
        return [
            decode and _decode_or_skip(decode, on_corrupt, url, row)
            for decode, row in zip(decoders, rows, strict=True)
        ]

    def _numbers(
        self,
        reader: RowReader,
        offsets: Sequence[int],
        samples: Sequence[SampleId],
        dtype: np.dtype[Any],
    ) -> list[Any]:
        """Return parts of arrays that are stored as their elements in C order."""
        spans = reader.value_spans(offsets, self._name)
        indices: list[tuple[Axis, ...]] = []
        ranges: list[Range] = []
        for span, sample in zip(spans, samples, strict=True):
            if span is None:
                indices.append(())
                continue
            check_length(span.shape, dtype, span.end - span.begin)
            positions = self._index.resolve(span.shape, sample)
            indices.append(as_slices(positions))
            ranges += [
                (span.begin + begin, span.begin + end)
                for begin, end in selected_ranges(positions, span.shape, dtype.itemsize)
            ]
        reader.chunk.load(ranges)
        return [
            span and reader.part(self._name, span, dtype, index)
            for span, index in zip(spans, indices, strict=True)
        ]

    def _items(
        self, reader: RowReader, offsets: Sequence[int], samples: Sequence[SampleId], codec: Codec
    ) -> list[Callable[[], Any] | None]:
        """Fetch the items of lists that the index selects, and return functions that decode them."""
        first, rest = self._index.split()
        decoders: list[Callable[[], Any] | None] = []
        ranges: list[Range] = []
        memory = reader.chunk.head.memory
        for span, sample in zip(reader.value_spans(offsets, self._name), samples, strict=True):
            if span is None:
                decoders.append(None)
                continue
            items = item_locations(span.shape, span.end - span.begin)
            (position,) = first.resolve([len(items)], sample)
            chosen = (
                items[position : position + 1]
                if isinstance(position, int)
                else [items[number] for number in position]
            )
            blobs = [
                Blob(memory[span.begin + item.begin : span.begin + item.end].data, item.shape)
                for item in chosen
            ]
            ranges += [(span.begin + item.begin, span.begin + item.end) for item in chosen]
            decode = partial(_decode_items, codec, blobs, rest, sample)
            decoders.append(partial(_first_of, decode) if isinstance(position, int) else decode)
        reader.chunk.load(ranges)
        return decoders


def _check_axes(spec: TensorSpec, name: str, index: AxisIndex) -> None:
    """Check that the values of a tensor have the axes of an index, as far as the schema shows.

    Raises
    ------
    InvalidInputError
        The values have no axes.
    IndexError
        ``index`` has more axes than the values.
    """
    if spec.sequence:
        _, rest = index.split()
        if len(rest):
            _check_axes(spec.item, name, rest)
        return
    if spec.linked:
        raise InvalidInputError(
            f"The values of tensor {name!r} are links, which have no axes. Read the target first: "
            f"lake[{name!r}][i].numpy()."
        )
    if not spec.encoded and spec.numpy_dtype is None:
        raise InvalidInputError(
            f"The values of tensor {name!r} have no axes. Read the value first, as in "
            f"lake[{name!r}][i]."
        )
    if spec.fixed:
        index.resolve(spec.shape, f"tensor {name!r}")
    elif spec.shape is not None and len(index) > len(spec.shape):
        raise too_many_axes(len(index), len(spec.shape), f"tensor {name!r}")


def _dtype_of_bytes(spec: TensorSpec) -> np.dtype[Any] | None:
    """Return the dtype of values that are stored as their elements in C order, else None."""
    storage = storage_of(spec)
    if storage.layout is Layout.TENSOR:
        return spec.numpy_dtype
    is_plain = spec.compression is None and not spec.sequence
    if storage.layout is Layout.BLOB and is_plain and spec.kind.codec in ("array", "mask"):
        return spec.numpy_dtype
    return None


def _decode(codec: Codec, stored: Any, index: AxisIndex, sample: SampleId) -> Any:
    """Decode a stored value, and return a part of it that does not keep the rest in memory."""
    if isinstance(codec, MaskCodec) and codec.has_separate_masks:
        slices = as_slices(index.resolve(stored.shape, sample))
        return _copied(call_decoder(partial(codec.decode_part, index=slices), stored, *sample))
    value: Any = call_decoder(codec.decode, stored, *sample)
    slices = as_slices(index.resolve(value.shape, sample))
    if isinstance(value, File):
        return call_decoder(partial(_part_of_file, index=slices), value, *sample)
    return _copied(value[slices])


def _decode_items(
    codec: Codec, blobs: Sequence[Blob], index: AxisIndex, sample: SampleId
) -> list[Any]:
    # Copied once the bytes are fetched: the items must not be views of the chunk.
    copies = [Blob(memoryview(bytearray(blob.data)), blob.shape) for blob in blobs]
    items = [call_decoder(partial(from_item, codec=codec), copy, *sample) for copy in copies]
    if len(index):
        return [_decode(codec, item, index, sample) for item in items]
    return [call_decoder(codec.decode, item, *sample) for item in items]


def _first_of(decode: Callable[[], list[Any]]) -> Any:
    return decode()[0]


def _part_of_file(file: File, index: tuple[Axis, ...]) -> Any:
    """Return a part of the content of a file, of which only the needed rows are decoded."""
    first, *rest = index
    rows = file[first]
    return _copied(rows[tuple(rest) if isinstance(first, int) else (slice(None), *rest)])


def stacked(parts: list[Any]) -> npt.NDArray[Any] | list[Any]:
    """Return parts as one array if they have the same shape, else as they are."""
    shapes = {p.shape if isinstance(p, np.ndarray | np.generic) else None for p in parts}
    return np.stack(parts) if len(shapes) == 1 and None not in shapes else parts


def _copied(part: Any) -> Any:
    owned = not isinstance(part, np.ndarray) or part.base is None
    return part if owned else part.copy()


def _decode_or_skip(decode: Callable[[], Any], on_corrupt: OnCorrupt, url: str, row: int) -> Any:
    decoded = decode_or_skip(lambda: (decode(),), on_corrupt, url, row)
    return _SKIPPED if decoded is None else decoded[0]
