"""Select, join, compare and describe stored values of one tensor without decoding them.

A column is a sequence of parts, such as one for each chunk: the tensor's Arrow column, and its column
of shapes if it has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._codecs.registry import codec_for
from dasklake._codecs.sequence import SequenceCodec
from dasklake._format.columns import ColumnBuilder, iterate_stored, missing_column
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec
from dasklake._schema.values import Blob

#: A tensor's column and its column of shapes.
Part = tuple[pa.Array, pa.Array | None]
Parts = tuple[Part, ...]

#: Bytes of the digest of a value.
_DIGEST = 16

#: Most characters of a text that a description shows.
_SHOWN = 24


def encoded_part(values: Sequence[Any], spec: TensorSpec) -> Part:
    """Return encoded values, and None for missing ones, as one part."""
    builder = ColumnBuilder("", spec)
    for value in values:
        builder.append(value)
    columns = [column for _, column in builder.finish()]
    return columns[0], columns[1] if len(columns) > 1 else None


def stored_values(parts: Parts, spec: TensorSpec) -> Iterator[Any]:
    """Yield a copy of each stored value, or None for a missing one."""
    for column, shapes in parts:
        yield from iterate_stored(column, shapes, spec)


def slice_rows(parts: Parts, start: int, stop: int) -> Parts:
    """Return consecutive rows without copying them."""
    result, begin = [], 0
    for column, shapes in parts:
        first, last = max(start - begin, 0), min(stop - begin, len(column))
        if first < last:
            rows = None if shapes is None else shapes.slice(first, last - first)
            result.append((column.slice(first, last - first), rows))
        begin += len(column)
    return tuple(result)


def take_rows(parts: Parts, rows: npt.NDArray[np.intp], spec: TensorSpec) -> Parts:
    """Return copies of some rows; -1 stands for a missing value.

    Only the rows that are asked for are copied, not the parts that they are in.
    """
    if (rows < 0).any():
        count = sum(len(column) for column, _ in parts)
        parts = (*parts, missing_column(spec, 1))
        rows = np.where(rows < 0, count, rows)
    ends = np.cumsum([len(column) for column, _ in parts])
    numbers = np.searchsorted(ends, rows, side="right")
    taken = tuple(
        _take(parts[number], rows[numbers == number] - (ends[number - 1] if number else 0))
        for number in np.unique(numbers)
    )
    if len(taken) < 2 or (np.diff(numbers) >= 0).all():
        return taken
    places = np.argsort(np.argsort(numbers, kind="stable"))
    return (_take(joined(taken, spec), places),)


def _take(part: Part, rows: npt.NDArray[Any]) -> Part:
    column, shapes = part
    indices = pa.array(rows, pa.int64())
    return column.take(indices), None if shapes is None else shapes.take(indices)


def joined(parts: Parts, spec: TensorSpec) -> Part:
    """Return the rows of all parts as one part."""
    if not parts:
        return missing_column(spec, 0)
    if len(parts) == 1:
        return parts[0]
    columns = pa.concat_arrays([column for column, _ in parts])
    if parts[0][1] is None:
        return columns, None
    return columns, pa.concat_arrays([shapes for _, shapes in parts])


def compact(part: Part) -> Part:
    """Return a part whose buffers hold its rows only, so that a slice is pickled as such."""
    return _compact(part[0]), None if part[1] is None else _compact(part[1])


def _compact(column: pa.Array) -> pa.Array:
    if not column.offset and column.get_total_buffer_size() <= column.nbytes + len(column) + 1024:
        return column
    return pa.concat_arrays([column])


def size_of(parts: Parts) -> int:
    """Return the number of stored bytes."""
    columns = (column for part in parts for column in part if column is not None)
    return sum(int(column.nbytes) for column in columns)


def missing_rows(parts: Parts) -> npt.NDArray[np.bool_]:
    """Return a mask of the missing values."""
    masks = [column.is_null().to_numpy(zero_copy_only=False) for column, _ in parts]
    return np.concatenate([*masks, np.zeros(0, bool)]).astype(bool)


def digests(parts: Parts, spec: TensorSpec) -> npt.NDArray[np.object_]:
    """Return a digest of each stored value, the same in every process; None for a missing one."""
    result = [None if value is None else _digest(value) for value in stored_values(parts, spec)]
    column = np.empty(len(result), object)
    column[:] = result
    return column


def _digest(value: Any) -> bytes:
    if isinstance(value, Blob):
        content: Any = value.data
        form = repr(value.shape)
    elif isinstance(value, np.ndarray | np.generic):
        content, form = value.tobytes(), repr((value.dtype, value.shape))
    else:
        content, form = repr(value).encode("utf-8", "surrogatepass"), type(value).__name__
    digest = blake2b(content, digest_size=_DIGEST, person=b"dasklake-value")
    digest.update(form.encode())
    return digest.digest()


def with_key_names(part: Part, spec: TensorSpec, keys: Mapping[str, str]) -> Part:
    """Return links with the present names of their credentials keys.

    Parameters
    ----------
    part : Part
        Links, or lists of links.
    spec : TensorSpec
        Description of the tensor.
    keys : mapping of str to str
        New names of renamed keys.
    """
    stored = iterate_stored(*part, spec)
    return encoded_part([v and _renamed(v, spec, keys) for v in stored], spec)


def _renamed(stored: Any, spec: TensorSpec, keys: Mapping[str, str]) -> Any:
    if not spec.sequence:
        return {**stored, "creds_key": keys.get(stored["creds_key"], stored["creds_key"])}
    codec = cast("SequenceCodec", codec_for(spec))
    items: list[Any] = [_renamed(item, spec.item, keys) for item in codec.items(stored)]
    pieces = [json.dumps(item).encode() for item in items]
    directory = [len(pieces)]
    for piece in pieces:
        directory += (len(piece), 0)
    return Blob(b"".join(pieces), tuple(directory))


def descriptions(parts: Parts, spec: TensorSpec) -> list[str]:
    """Return a short description of each value, such as ``<image 480x640x3>``, from its shape."""
    return [text for part in parts for text in _descriptions(part, spec)]


def _descriptions(part: Part, spec: TensorSpec) -> list[str]:
    column, shapes = part
    missing = missing_rows((part,))
    storage = storage_of(spec)
    name = spec.htype if spec.kind.name != "generic" or spec.sequence else str(spec.dtype)
    texts: list[str]
    if spec.linked:
        texts = [_shown(str(url)) for url in pa.compute.struct_field(column, "url").to_pylist()]
    elif spec.kind.codec == "json" and not spec.sequence:
        texts = [_text(column[i]) for i in range(len(column))]
    elif storage.layout is Layout.ARROW:
        texts = [_shown(str(value)) for value in column.to_pylist()]
    elif shapes is None:
        texts = [f"<{name} {'x'.join(map(str, spec.shape or ()))}>"] * len(column)
    else:
        lists = spec.sequence or spec.kind.codec == "polygon"
        texts = [
            f"<{name} of {shape[0]}>" if lists and shape else _with_axes(name, shape)
            for shape in shapes.to_pylist()
        ]
    return ["<NA>" if no else text for text, no in zip(texts, missing, strict=True)]


def _with_axes(name: str, shape: Sequence[int]) -> str:
    return f"<{name} {'x'.join(map(str, shape))}>" if shape else f"<{name}>"


def _text(value: Any) -> str:
    data = value.as_buffer()
    if data is None:
        return ""
    return _shown(bytes(memoryview(data)[: 4 * _SHOWN + 4]).decode("utf-8", "ignore"))


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
