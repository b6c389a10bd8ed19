"""Summarize tensors from the statistics of chunks, and measure only chunks that lack them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import structs

from dasklake._format.statistics import MAX_TEXT
from dasklake._model.statistics import TensorStatistics
from dasklake._read.corruption import warn_once
from dasklake._read.measure import Offsets, measure_chunk
from dasklake._read.plan import ReadPlan
from dasklake._read.reader import Reader
from dasklake._read.rows import Rows
from dasklake._schema.measurable import bound_kind, has_objects, has_values, is_label, is_time
from dasklake._schema.same_length import count_axis
from dasklake._schema.schema import TensorSpec
from dasklake._storage.retry import in_context
from dasklake.exceptions import CorruptionError

#: Chunks measured at the same time.
_THREADS = 8

Shape = tuple[int, ...]


def summarize(reader: Reader, rows: Rows, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a summary of some tensors, by name.

    Parameters
    ----------
    reader : Reader
        Reader of the version.
    rows : range or numpy.ndarray
        Numbers of the samples.
    names : sequence of str
        The tensors.

    Raises
    ------
    CorruptionError
        A chunk without statistics is damaged.
    """
    summaries = {name: _Summary(reader.schema[name]) for name in names}
    statistics = reader.statistics() if len(rows) else None
    unmeasured: list[tuple[int, Offsets, list[str]]] = []
    for chunk, offsets in _parts(reader.plan, rows) if statistics is not None else ():
        lacking = list(names)
        if offsets is None and statistics is not None:
            entries = statistics.of(chunk, names)
            lacking = [n for n in names if not summaries[n].takes(chunk, entries.get(n))]
        if lacking:
            unmeasured.append((chunk, offsets, lacking))
    for name, entry in _measure(reader, unmeasured):
        summaries[name].add(entry)
    undecided: dict[int, list[str]] = {}
    for name, summary in summaries.items():
        for chunk in summary.undecided():
            undecided.setdefault(chunk, []).append(name)
    for name, entry in _measure(reader, [(c, None, texts) for c, texts in undecided.items()]):
        summaries[name].add_bounds(entry)
    return {name: summary.result() for name, summary in summaries.items()}


def _measure(
    reader: Reader, parts: Sequence[tuple[int, Offsets, list[str]]]
) -> Iterator[tuple[str, TensorStatistics]]:
    """Measure some tensors of some chunks. Damaged chunks are skipped if the reader skips them."""

    def measure(part: tuple[int, Offsets, list[str]]) -> dict[str, TensorStatistics]:
        chunk, offsets, names = part
        location = reader.plan.location(chunk)
        try:
            return measure_chunk(reader.origin, location, names, offsets)
        except CorruptionError as error:
            if reader.origin.on_corrupt == "raise":
                raise
            warn_once(reader.origin.store.url, location, error)
            return {}

    if parts:
        with ThreadPoolExecutor(_THREADS) as pool:
            for statistics in pool.map(in_context(measure), parts):
                yield from statistics.items()


def _parts(plan: ReadPlan, rows: Rows) -> Iterator[tuple[int, Offsets]]:
    """Yield the chunks of some samples with the offsets of these; None for a whole chunk."""
    if isinstance(rows, range):
        row = rows.start
        while row < rows.stop:
            chunk, begin = plan.locate(row)
            length = plan.location(chunk).rows
            end = min(length, begin + rows.stop - row)
            row += end - begin
            yield chunk, None if end - begin == length else np.arange(begin, end)
        return
    chunks, offsets = plan.locate_all(rows)
    order = np.argsort(chunks, kind="stable")
    chunks, offsets = chunks[order], offsets[order]
    edges = np.flatnonzero(np.diff(chunks, prepend=-1, append=-1))
    for start, stop in pairwise(edges.tolist()):
        chunk, selected = int(chunks[start]), offsets[start:stop]
        whole = len(np.unique(selected)) == len(selected) == plan.location(chunk).rows
        yield chunk, None if whole else selected


@dataclass(slots=True)
class _Summary:
    """Summary of one tensor, to which the statistics of chunks are added.

    Attributes
    ----------
    spec : TensorSpec
        Description of the tensor.
    """

    spec: TensorSpec
    count: int = 0
    nulls: int = 0
    nan: int = 0
    min: Any = None
    max: Any = None
    #: Statistics of chunks whose bounds of text may be cut.
    cut: dict[int, TensorStatistics] = field(default_factory=dict)
    #: Number of labels by index; None if a chunk has too many classes to count.
    classes: dict[int, int] | None = field(default_factory=dict)
    objects: tuple[int, int, int] | None = None
    #: Whether all values have objects.
    counted: bool = True
    shape: tuple[Shape, Shape] | None = None

    def takes(self, chunk: int, entry: TensorStatistics | None) -> bool:
        """Add the statistics of a chunk from its segment, if they are complete."""
        if entry is None or not self._is_complete(entry):
            return False
        if bound_kind(self.spec) == "text" and entry.present:
            least, most = _if_exact(entry.min), _if_exact(entry.max)
            if least is None or most is None:
                self.cut[chunk] = entry
            entry = structs.replace(entry, min=least, max=most)
        self.add(entry)
        return True

    def _is_complete(self, entry: TensorStatistics) -> bool:
        spec = self.spec
        if not entry.present:
            return True
        if has_objects(spec) and entry.objects is None and spec.shape is not None:
            return False
        if has_values(spec) and is_label(spec):
            return entry.counts is not None
        return bound_kind(spec) is None or entry.min is not None or entry.present == entry.nan

    def add(self, entry: TensorStatistics) -> None:
        """Add the statistics of a chunk."""
        self.count += entry.present
        self.nulls += entry.nulls
        self.nan += entry.nan
        if not entry.present:
            return
        self.add_bounds(entry)
        if entry.classes is None or entry.counts is None:
            self.classes = None
        elif self.classes is not None:
            for index, count in zip(entry.classes, entry.counts, strict=True):
                self.classes[index] = self.classes.get(index, 0) + count
        # Values of any rank may be scalars, which have no objects.
        self.counted = self.counted and entry.objects is not None
        if entry.objects is not None:
            least, most, total = entry.objects if self.objects is None else self.objects
            self.objects = (
                min(least, entry.objects[0]),
                max(most, entry.objects[1]),
                entry.objects[2] + (0 if self.objects is None else total),
            )
        if entry.shape is not None and entry.shape[0]:
            shortest, longest = entry.shape if self.shape is None else self.shape
            self.shape = (
                tuple(map(min, shortest, entry.shape[0])),
                tuple(map(max, longest, entry.shape[1])),
            )

    def add_bounds(self, entry: TensorStatistics) -> None:
        """Add the least and the largest value of a chunk."""
        least, most = entry.min, entry.max
        if entry.classes:
            least, most = entry.classes[0], entry.classes[-1]
        if least is not None:
            self.min = least if self.min is None else min(self.min, least)
        if most is not None:
            self.max = most if self.max is None else max(self.max, most)

    def undecided(self) -> list[int]:
        """Return the chunks that must be read to know the least and the largest text."""
        least = min([e.min for e in self.cut.values()], default=None)
        most = max([e.max for e in self.cut.values() if e.max is not None], default=None)
        return [
            chunk
            for chunk, entry in self.cut.items()
            if entry.max is None
            or (_if_exact(entry.min) is None and entry.min == least)
            or (_if_exact(entry.max) is None and entry.max == most)
        ]

    def result(self) -> dict[str, Any]:
        """Return the summary for users."""
        spec = self.spec
        summary: dict[str, Any] = {"count": self.count, "nulls": self.nulls}
        kind = bound_kind(spec)
        if kind == "float" or is_time(spec):
            summary["nan"] = self.nan
        label = is_label(spec) and has_values(spec)
        if label and self.classes is not None:
            summary["classes"] = self._named_classes(self.classes)
        if kind is not None and not (label and spec.class_names is not None):
            summary |= {"min": value_of(self.min, spec), "max": value_of(self.max, spec)}
        axis = count_axis(spec)
        if has_objects(spec) and self.counted:
            least, most, total = self.objects or (None, None, 0)
            summary |= {"objects": total, "min_objects": least, "max_objects": most}
        elif (
            not has_objects(spec)
            and axis is not None
            and spec.shape
            and spec.kind.name != "generic"
        ):
            number = spec.shape[axis] or 0
            summary |= {
                "objects": number * self.count,
                "min_objects": number if self.count else None,
                "max_objects": number if self.count else None,
            }
        if self.shape is not None:
            summary |= {"min_shape": self.shape[0], "max_shape": self.shape[1]}
        return summary

    def _named_classes(self, classes: dict[int, int]) -> dict[Any, int]:
        """Return the counts of classes by name, in the order of the indices."""
        names = self.spec.class_names or ()
        return {
            names[index] if index < len(names) else index: classes[index]
            for index in sorted(classes)
        }


def _if_exact(text: Any) -> Any:
    """Return a bound of text, or None if it may be cut."""
    return text if text is not None and len(text) < MAX_TEXT else None


def value_of(bound: Any, spec: TensorSpec) -> Any:
    """Return a bound as a sample has it."""
    if bound is None:
        return None
    dtype = spec.numpy_dtype
    if dtype is not None:
        if dtype.kind in "mM":
            return np.array(bound, np.int64).view(dtype)[()]
        return dtype.type(bound)
    kind = spec.arrow_type
    if is_time(spec):
        integer = pa.int32() if kind.bit_width == 32 else pa.int64()  # type: ignore[union-attr] # set for times
        return pa.array([bound], integer).view(kind)[0].as_py()
    return bound
