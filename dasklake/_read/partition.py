"""What a worker does: read some tensors of some consecutive chunks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dasklake._codecs.compression import most_decoded
from dasklake._codecs.registry import Codec, codec_for
from dasklake._format.columns import iterate_stored, missing_column, view_numbers
from dasklake._read.chunk_reader import MALFORMED
from dasklake._read.column_checks import checked_part
from dasklake._read.corruption import warn_once
from dasklake._read.linked_values import linked
from dasklake._read.origin import Origin, open_chunk
from dasklake._read.pandas_columns import Part, dtype_of, series_of
from dasklake._read.plan import ChunkLocation
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import Schema, TensorSpec
from dasklake._schema.values import Link
from dasklake.exceptions import (
    CorruptionError,
    InvalidInputError,
    LakeError,
    ObjectNotFoundError,
    SampleError,
)

__all__ = [
    "Decoder",
    "empty_frame",
    "read_array",
    "read_frame",
    "read_rows",
]


#: Kinds of dtypes that have something to stand for no value.
_WITH_NONE = "fcmM"


class Decoder:
    """Turns what chunks store into what users see.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors.
    keys : mapping of str to str
        Credentials keys that were renamed.
    """

    def __init__(self, schema: Mapping[str, TensorSpec], keys: Mapping[str, str]) -> None:
        self._specs = schema
        self._keys = keys
        self._codecs: dict[str, Codec] = {name: codec_for(spec) for name, spec in schema.items()}

    def decode(self, name: str, stored: Any, sample: int) -> Any:
        """Return a value; None for no value.

        Raises
        ------
        SampleError
            The bytes are as they were written, and cannot be decoded.
        """
        if stored is None:
            return None
        try:
            value = self._codecs[name].decode(stored)
        except SampleError as error:
            raise SampleError(error.message, tensor=name, sample=str(sample)) from error
        except LakeError:
            raise
        except MALFORMED as error:
            raise CorruptionError(
                f"Tensor {name!r} of sample {sample} is not what the schema says ({error}). Restore "
                "its chunk from a copy; `dasklake verify` names it where it was changed."
            ) from error
        if isinstance(value, Link):
            return linked(self._specs[name], stored, self._keys)
        if isinstance(value, list) and value and isinstance(value[0], Link):
            return [linked(self._specs[name], asdict(each), self._keys) for each in value]
        return value


def _columns(
    origin: Origin, location: ChunkLocation, names: Sequence[str]
) -> dict[str, Part | None]:
    """Fetch all that a chunk holds of some tensors; None for those that were added later."""
    called = {name: origin.stored_name(name, location) for name in names}
    held = [name for name in called.values() if name is not None]
    if not held:
        return dict.fromkeys(names)
    chunk = open_chunk(origin, location, whole=len(names) == len(origin.schema))
    try:
        chunk.load_tensors(held)
    except ObjectNotFoundError as error:
        raise origin.missing(location.key) from error
    schema = origin.schema
    return {
        name: None if column is None else checked_part(chunk, column, schema[name])
        for name, column in called.items()
    }


def _kept(
    origin: Origin, locations: Sequence[ChunkLocation], names: Sequence[str]
) -> Iterator[tuple[ChunkLocation, dict[str, Part | None]]]:
    """Yield what chunks hold of some tensors, without those that are damaged if they may be."""
    for location in locations:
        try:
            columns = _columns(origin, location, names)
        except CorruptionError as error:
            if origin.on_corrupt == "raise":
                raise
            warn_once(origin.store.url, location, error)
            continue
        yield location, columns


def _values(part: Part | None, spec: TensorSpec, rows: int) -> Iterable[Any]:
    """Return what each sample of a chunk stores of a tensor; None for no value."""
    return repeat(None, rows) if part is None else iterate_stored(*part, spec)


def read_rows(
    origin: Origin, locations: Sequence[ChunkLocation], names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the samples of some chunks, in order."""
    schema = origin.schema
    names = list(schema) if names is None else names
    decoder = Decoder({name: schema[name] for name in names}, origin.keys)
    for location, columns in _kept(origin, locations, names):
        stored = [_values(columns[name], schema[name], location.rows) for name in names]
        for sample, row in enumerate(zip(*stored, strict=True), location.first):
            yield {
                name: decoder.decode(name, value, sample)
                for name, value in zip(names, row, strict=True)
            }


def read_frame(
    locations: Sequence[ChunkLocation], *, origin: Origin, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one partition of a frame, indexed by the row number in the version."""
    schema = origin.schema
    names = list(schema) if columns is None else list(columns)
    read = list(_kept(origin, locations, names))
    if not read:
        return empty_frame(schema, names)
    series = {}
    for name in names:
        spec = schema[name]
        parts = [columns[name] or missing_column(spec, location.rows) for location, columns in read]
        try:
            series[name] = series_of(parts, spec)
        except LakeError:
            raise
        except MALFORMED as error:
            raise _misfit(error, name, [location for location, _ in read]) from error
    frame = pd.DataFrame(series, columns=pd.Index(names), copy=False)
    frame.index = _index([location for location, _ in read])
    return frame


def _index(locations: Sequence[ChunkLocation]) -> pd.Index:
    """Return the row numbers of some chunks in the version."""
    spans = [(location.first, location.first + location.rows) for location in locations]
    if all(a[1] == b[0] for a, b in pairwise(spans)):
        return pd.RangeIndex(spans[0][0], spans[-1][1])
    return pd.Index(np.concatenate([np.arange(*span, dtype=np.int64) for span in spans]))


def _misfit(error: Exception, name: str, locations: Sequence[ChunkLocation]) -> CorruptionError:
    """Say that chunks do not hold what the schema says."""
    return CorruptionError(
        f"Tensor {name!r} of samples {locations[0].first} to {locations[-1].first + locations[-1].rows - 1} "
        f"is not what the schema says ({error}). Restore {locations[0].key} and those after it."
    )


def empty_frame(schema: Schema, names: Sequence[str]) -> pd.DataFrame:
    """Return a frame without rows, of the dtypes that a full one has."""
    columns = {name: pd.Series([], dtype=dtype_of(schema[name])) for name in names}
    return pd.DataFrame(columns, columns=pd.Index(names), index=pd.RangeIndex(0))


def read_array(locations: Sequence[ChunkLocation], origin: Origin, name: str) -> npt.NDArray[Any]:
    """Return one block of an array: axis 0 = samples.

    Raises
    ------
    InvalidInputError
        A sample has no value, and the dtype has nothing to stand for that.
    """
    spec = origin.schema[name]
    shape = array_shape(name, spec)
    dtype = np.dtype(str(spec.dtype))
    rows = sum(location.rows for location in locations)
    wanted = rows * math.prod(shape) * dtype.itemsize
    if wanted > most_decoded(sum(location.size for location in locations)):
        raise _misfit(ValueError(f"{wanted} bytes"), name, locations)
    found = np.empty((rows, *shape), dtype)
    at = 0
    for location in locations:
        block = found[at : at + location.rows]
        at += location.rows
        try:
            part = _columns(origin, location, [name])[name]
        except CorruptionError as error:
            # The shape was promised: only what can stand for no value can be left out.
            if origin.on_corrupt == "raise" or dtype.kind not in _WITH_NONE:
                raise
            warn_once(origin.store.url, location, error)
            block[...] = _none(dtype)
            continue
        column, shapes = missing_column(spec, location.rows) if part is None else part
        try:
            _fill(block, column, shapes, spec)
        except LakeError:
            raise
        except MALFORMED as error:
            raise _misfit(error, name, [location]) from error
        _blank(block, column, location, name)
    return found


def _fill(block: npt.NDArray[Any], column: Any, shapes: Any, spec: TensorSpec) -> None:
    """Copy what a chunk holds of a tensor into a block."""
    if storage_of(spec).layout is not Layout.BLOB:
        flat = np.ascontiguousarray(view_numbers(column, spec)).reshape(len(block), -1)
        block[...] = flat.view(block.dtype).reshape(block.shape)
        return
    codec = codec_for(spec)
    for i, stored in enumerate(iterate_stored(column, shapes, spec)):
        if stored is not None:
            value: Any = codec.decode(stored)
            if value.shape != block.shape[1:]:
                # numpy would repeat what is too small.
                raise ValueError(f"a sample has the shape {value.shape}")
            block[i] = value


def array_shape(name: str, spec: TensorSpec) -> tuple[int, ...]:
    """Return the shape of one sample, where all have the same.

    Raises
    ------
    InvalidInputError
        The tensor has no fixed shape, or no numbers.
    """
    if spec.linked or spec.numpy_dtype is None or spec.shape is None or None in spec.shape:
        raise InvalidInputError(
            f"Tensor {name!r} cannot be an array: its samples are not numbers of one shape. Use "
            "to_dask_bag() or to_dask_dataframe()."
        )
    return tuple(axis for axis in spec.shape if axis is not None)


def block_lengths(locations: Sequence[Sequence[ChunkLocation]]) -> tuple[int, ...]:
    """Return the number of samples in each block."""
    return tuple(sum(location.rows for location in group) for group in locations)


def _blank(block: npt.NDArray[Any], column: Any, location: ChunkLocation, name: str) -> None:
    """Put into rows without a value what says so."""
    if not column.null_count:
        return
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if block.dtype.kind not in _WITH_NONE:
        row = location.first + int(np.flatnonzero(missing)[0])
        raise InvalidInputError(
            f"Tensor {name!r} has no value in sample {row}, and {block.dtype} has nothing to stand "
            "for that. Use to_dask_bag() or to_dask_dataframe()."
        )
    block[missing] = _none(block.dtype)


def _none(dtype: np.dtype[Any]) -> Any:
    """Return what stands for no value."""
    return "NaT" if dtype.kind in "mM" else math.nan
