"""What a worker does: read some tensors of some consecutive chunks."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dasklake._format.columns import fixed_numbers, rows_of
from dasklake._model.commit import Commit
from dasklake._model.schema import Schema, TensorSpec
from dasklake._model.values import Layout, Link, shape_column, storage_of
from dasklake._read.frames import Part, dtype_of, series_of
from dasklake._read.links import LinkedImage
from dasklake._read.plan import ChunkPlace
from dasklake._read.source import OpenChunk
from dasklake._store.log import Log
from dasklake._store.objects import ObjectStore
from dasklake.codecs.base import Codec, codec_for
from dasklake.exceptions import InvalidInputError, LakeError, ObjectNotFoundError, SampleError

__all__ = [
    "Decoder",
    "Origin",
    "empty_frame",
    "open_chunk",
    "read_array",
    "read_frame",
    "read_rows",
]


class Origin:
    """The version that is read; travels with each task.

    The schema stays behind: it may be far larger than a task, and each process reads it once from
    the commit.

    Parameters
    ----------
    store : ObjectStore
        The lake's objects.
    commit : Commit
        The version.
    """

    def __init__(self, store: ObjectStore, commit: Commit) -> None:
        self.store = store
        self.branch = commit.branch
        self.version = commit.version
        self.id = commit.id
        _schemas.put(self.id, commit.schema)

    def __dask_tokenize__(self) -> Any:
        # What a version holds never changes; where it lies tells copies apart.
        return ("dasklake-version", self.store.url, self.branch, self.version, self.id)

    @property
    def schema(self) -> Schema:
        """The tensors of the version."""
        found = _schemas.get(self.id)
        if found is None:
            found = Log(self.store, self.branch).read(self.version).schema
            _schemas.put(self.id, found)
        return found

    def missing(self, key: str) -> LakeError:
        """Say why an object of the version is not there: expired, or lost."""
        return Log(self.store, self.branch).missing(self.version, key)


class _Schemas:
    """The schemas of the versions that this process read last, by the id of their commits."""

    def __init__(self, most: int = 32) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: dict[str, Schema] = {}

    def get(self, commit: str) -> Schema | None:
        """Return a schema; None where it is not here."""
        return self._found.get(commit)

    def put(self, commit: str, schema: Schema) -> None:
        """Keep a schema, in the place of the oldest where there are too many."""
        with self._lock:
            self._found.pop(commit, None)
            self._found[commit] = schema
            while len(self._found) > self._most:
                del self._found[next(iter(self._found))]


_schemas = _Schemas()


class Decoder:
    """Turns what chunks store into what users see.

    Parameters
    ----------
    schema : mapping of str to TensorSpec
        The tensors.
    """

    def __init__(self, schema: Mapping[str, TensorSpec]) -> None:
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
        return LinkedImage.of(value) if isinstance(value, Link) else value


def open_chunk(origin: Origin, place: ChunkPlace, *, whole: bool = False) -> OpenChunk:
    """Open a chunk.

    Raises
    ------
    VersionExpiredError
        It is gone because the version was expired.
    CorruptionError
        It is damaged, or gone from a version that was not expired.
    """
    try:
        return OpenChunk(origin.store, place, whole=whole)
    except ObjectNotFoundError as error:
        raise origin.missing(place.key) from error


def _columns(origin: Origin, place: ChunkPlace, names: Sequence[str]) -> dict[str, Part]:
    """Fetch all that a chunk holds of some tensors."""
    chunk = open_chunk(origin, place, whole=len(names) == len(origin.schema))
    try:
        chunk.load_tensors(names)
    except ObjectNotFoundError as error:
        raise origin.missing(place.key) from error
    batch = chunk.head.batch
    known = set(batch.schema.names)
    found = {}
    for name in names:
        shapes = shape_column(name)
        found[name] = (batch.column(name), batch.column(shapes) if shapes in known else None)
    return found


def read_rows(
    origin: Origin, places: Sequence[ChunkPlace], names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the samples of some chunks, in order."""
    schema = origin.schema
    names = list(schema) if names is None else names
    decoder = Decoder({name: schema[name] for name in names})
    for place in places:
        columns = _columns(origin, place, names)
        stored = [rows_of(*columns[name], schema[name]) for name in names]
        for sample, row in enumerate(zip(*stored, strict=True), place.first):
            yield {
                name: decoder.decode(name, value, sample)
                for name, value in zip(names, row, strict=True)
            }


def read_frame(
    places: Sequence[ChunkPlace], *, origin: Origin, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one partition of a frame, indexed by the place in the version."""
    schema = origin.schema
    names = list(schema) if columns is None else list(columns)
    if not places:
        return empty_frame(schema, names)
    read = [_columns(origin, place, names) for place in places]
    first = places[0].first
    index = pd.RangeIndex(first, first + sum(place.rows for place in places))
    series = {name: series_of([part[name] for part in read], schema[name]) for name in names}
    frame = pd.DataFrame(series, columns=pd.Index(names), copy=False)
    frame.index = index
    return frame


def empty_frame(schema: Schema, names: Sequence[str]) -> pd.DataFrame:
    """Return a frame without rows, of the dtypes that a full one has."""
    columns = {name: pd.Series([], dtype=dtype_of(schema[name])) for name in names}
    return pd.DataFrame(columns, columns=pd.Index(names), index=pd.RangeIndex(0))


def read_array(places: Sequence[ChunkPlace], origin: Origin, name: str) -> npt.NDArray[Any]:
    """Return one block of an array: axis 0 = samples.

    Raises
    ------
    InvalidInputError
        A sample has no value, and the dtype has nothing to stand for that.
    """
    spec = origin.schema[name]
    shape = array_shape(name, spec)
    dtype = np.dtype(str(spec.dtype))
    found = np.empty((sum(place.rows for place in places), *shape), dtype)
    at = 0
    for place in places:
        column, shapes = _columns(origin, place, [name])[name]
        block = found[at : at + place.rows]
        if storage_of(spec).layout is Layout.BLOB:
            codec = codec_for(spec)
            for i, stored in enumerate(rows_of(column, shapes, spec)):
                if stored is not None:
                    block[i] = codec.decode(stored)
        else:
            flat = np.ascontiguousarray(fixed_numbers(column, spec)).reshape(place.rows, -1)
            block[...] = flat.view(dtype).reshape(block.shape)
        _blank(block, column, place, name)
        at += place.rows
    return found


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


def array_blocks(places: Sequence[Sequence[ChunkPlace]]) -> tuple[int, ...]:
    """Return the number of samples in each block."""
    return tuple(sum(place.rows for place in group) for group in places)


def _blank(block: npt.NDArray[Any], column: Any, place: ChunkPlace, name: str) -> None:
    """Put into rows without a value what says so."""
    if not column.null_count:
        return
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if block.dtype.kind not in "fcmM":
        row = place.first + int(np.flatnonzero(missing)[0])
        raise InvalidInputError(
            f"Tensor {name!r} has no value in sample {row}, and {block.dtype} has nothing to stand "
            "for that. Use to_dask_bag() or to_dask_dataframe()."
        )
    block[missing] = "NaT" if block.dtype.kind in "mM" else math.nan
