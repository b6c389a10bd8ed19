"""Compare the statistics of a chunk in its segment with its values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dasklake._format.chunk import ChunkHead
from dasklake._format.class_names import read_class_names
from dasklake._format.segment import chunk_key_at
from dasklake._format.statistics import (
    UNMEASURABLE,
    decode_statistics,
    indices_of,
    measure,
    presence,
)
from dasklake._log.log import Log
from dasklake._model.commit import Commit
from dasklake._model.statistics import StoredStatistics
from dasklake._model.tensor_history import TensorHistory, stored_specs
from dasklake._schema.arrow_layout import shape_column
from dasklake._schema.measurable import bound_kind, has_values
from dasklake._schema.schema import Schema, TensorSpec
from dasklake.exceptions import CorruptionError

#: Byte range in a chunk: the first, and the one after the last.
Span = tuple[int, int]


class ChunkVersion(NamedTuple):
    """The tensors of a version that names a chunk.

    Attributes
    ----------
    schema : Schema
        The tensors of the version.
    histories : mapping of str to TensorHistory
        Histories of tensors that were added or renamed.
    first : int
        Number of the chunk's first sample in the version.
    """

    schema: Schema
    histories: Mapping[str, TensorHistory]
    first: int


def find_versions(
    logs: Mapping[str, Log], commits: Mapping[str, Iterable[Commit]], keys: set[str]
) -> dict[str, ChunkVersion]:
    """Return the newest version that names each of some chunks, by key.

    Parameters
    ----------
    logs : mapping of str to Log
        The logs of the branches.
    commits : mapping of str to iterable of Commit
        Their versions, newest first.
    keys : set of str
        Keys of the chunks.
    """
    remaining = set(keys)
    versions: dict[str, ChunkVersion] = {}
    for branch, history in commits.items():
        for commit in history:
            if not remaining:
                return versions
            try:
                manifest = logs[branch].manifest(commit)
            except CorruptionError:
                continue  # reported already
            firsts = np.cumsum(manifest.rows) - manifest.rows
            for i, first in enumerate(firsts.tolist()):
                key = chunk_key_at(manifest, i)
                if key in remaining:
                    remaining.remove(key)
                    versions[key] = ChunkVersion(commit.schema, commit.histories, first)
    return versions


class StatisticsCheck:
    """A comparison of the statistics of one chunk with its values.

    Parameters
    ----------
    head : ChunkHead
        The head of the chunk. Its memory is filled by the caller.
    text : str
        JSON of the statistics.
    version : ChunkVersion
        A version that names the chunk.
    """

    def __init__(self, head: ChunkHead, text: str, version: ChunkVersion) -> None:
        self._head = head
        self._text = text
        specs = stored_specs(version.schema, version.histories, version.first)
        names = head.batch.schema.names
        #: Tensors that the version does not have any more cannot be compared.
        self._specs = {name: spec for name, spec in specs.items() if name in names}

    def spans(self) -> list[Span]:
        """Return the byte ranges of the chunk that the comparison needs."""
        base = self._head.memory.ctypes.data
        return [
            (buffer.address - base, buffer.address - base + buffer.size)
            for name, spec in self._specs.items()
            for buffer in self._buffers(name, spec)
            if buffer is not None and buffer.size
        ]

    def _buffers(self, name: str, spec: TensorSpec) -> Iterator[Any]:
        column, shapes = self._columns(name)
        buffers = column.buffers()
        yield from buffers if has_values(spec) else buffers[:1]
        yield from () if shapes is None else shapes.buffers()

    def _columns(self, name: str) -> tuple[Any, Any]:
        batch, shapes = self._head.batch, shape_column(name)
        return batch.column(name), batch.column(shapes) if shapes in batch.schema.names else None

    def run(self) -> None:
        """Compare the statistics of all tensors.

        Raises
        ------
        CorruptionError
            An entry is not valid, or contradicts the values.
        """
        try:
            entries = decode_statistics(self._text, None, strict=True)
        except ValueError as error:
            raise CorruptionError("the statistics in its segment are not valid") from error
        for name, entry in entries.items():
            if name not in self._specs:
                continue
            try:
                exact = self._measure(name, self._specs[name])
            except UNMEASURABLE as error:
                raise CorruptionError(f"tensor {name!r} does not match the schema") from error
            text = bound_kind(self._specs[name]) == "text"
            difference = contradiction(entry, exact, text=text)
            if difference:
                raise CorruptionError(
                    f"the statistics of tensor {name!r} in its segment are wrong: {difference}"
                )

    def _measure(self, name: str, spec: TensorSpec) -> StoredStatistics:
        column, shapes = self._columns(name)
        for array in (column, shapes) if has_values(spec) else (shapes,):
            if array is not None:
                array.validate(full=True)
        column = column if has_values(spec) else presence(column)
        names = read_class_names(self._head.batch.schema.field(name))
        return measure(column, shapes, spec, names, exact=True)


def contradiction(
    entry: StoredStatistics, exact: StoredStatistics, *, text: bool = False
) -> str | None:
    """Return the first difference between an entry and exact statistics, or None.

    What the entry leaves out is not compared. Bounds of ``text`` may be wider than the values.
    """
    for name in ("nulls", "nan", "objects", "shape"):
        stored, real = getattr(entry, name), getattr(exact, name)
        if stored is not None and stored != real:
            return f"{name} must be {real}, got {stored}"
    for name in ("min", "max"):
        stored, real = getattr(entry, name), getattr(exact, name)
        if stored is not None and not _is_bound(name, stored, real, text=text):
            return f"{name} must be {real!r}, got {stored!r}"
    classes = _classes(entry)
    if classes is not None:
        real_classes = _classes(exact) or {}
        if entry.counts is None:
            real_classes = dict.fromkeys(real_classes)
        if classes != real_classes:
            return f"the labels are {real_classes}, not {classes}"
    return None


def _is_bound(name: str, bound: Any, value: Any, *, text: bool) -> bool:
    """Return whether a bound is that of a value. Numbers are exact, text may be cut."""
    if text and isinstance(bound, str) and isinstance(value, str):
        return bound <= value if name == "min" else bound >= value
    return bool(bound == value)


def _classes(entry: StoredStatistics) -> dict[Any, int | None] | None:
    """Return the classes of an entry with their counts, or None if it has no classes."""
    if entry.names is not None:
        labels: list[Any] = list(entry.names)
    elif entry.classes is not None:
        try:
            labels = indices_of(entry.classes)
        except ValueError:
            labels = [entry.classes]
    else:
        return None
    counts = [None] * len(labels) if entry.counts is None else list(entry.counts)
    return dict(zip(labels, counts, strict=False))
