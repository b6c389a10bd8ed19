"""Statistics of the chunks of one version, in terms of its tensors and class names.

They come from segments, which may be those of an untrusted lake: an entry that is not valid counts as
unknown. A valid but wrong entry can hide samples from a filter; ``verify`` reports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any

import numpy as np

from dasklake._format.statistics import decode_statistics, indices_of
from dasklake._model.manifest import Manifest
from dasklake._model.statistics import StoredStatistics, TensorStatistics
from dasklake._model.tensor_history import TensorHistory
from dasklake._schema.measurable import bound_kind
from dasklake._schema.schema import Schema, TensorSpec


class VersionStatistics:
    """Statistics of all chunks of one version, decoded chunk by chunk.

    Parameters
    ----------
    manifest : Manifest
        The chunks of the version, with their statistics.
    schema : Schema
        The tensors of the version.
    histories : mapping of str to TensorHistory
        Histories of tensors that were added or renamed.
    """

    def __init__(
        self, manifest: Manifest, schema: Schema, histories: Mapping[str, TensorHistory]
    ) -> None:
        self.schema = schema
        self.rows = manifest.rows
        self._texts = manifest.statistics
        self._histories = histories
        self._converters: dict[str, Converter] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _firsts(self) -> list[int]:
        firsts: list[int] = (np.cumsum(self.rows) - self.rows).tolist()
        return firsts

    def of(self, chunk: int, names: Iterable[str]) -> dict[str, TensorStatistics]:
        """Return the statistics of some tensors in a chunk; unknown ones are left out."""
        rows, stored = int(self.rows[chunk]), {}
        statistics: dict[str, TensorStatistics] = {}
        for name in names:
            history = self._histories.get(name)
            own = name if history is None else history.name_at(name, self._firsts[chunk])
            if own is None:
                statistics[name] = TensorStatistics(rows, nulls=rows)
            else:
                stored[name] = own
        text = None if self._texts is None else self._texts[chunk].as_py()
        entries = decode_statistics(text, stored.values()) if stored else {}
        for name, own in stored.items():
            entry = entries.get(own)
            converted = None if entry is None else self._converter(name)(entry, rows)
            if converted is not None:
                statistics[name] = converted
        return statistics

    def _converter(self, name: str) -> Converter:
        if name not in self._converters:
            self._converters[name] = Converter(self.schema[name])
        return self._converters[name]


class Converter:
    """Convert stored statistics of one tensor to the terms of the version.

    Parameters
    ----------
    spec : TensorSpec
        Description of the tensor in the version.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._kind = bound_kind(spec)
        self._index = {name: i for i, name in enumerate(spec.class_names or ())}

    def __call__(self, entry: StoredStatistics, rows: int) -> TensorStatistics | None:
        """Return the statistics, or None if they are not valid."""
        if entry.nulls + entry.nan > rows:
            return None
        try:
            least, most = self._bound(entry.min), self._bound(entry.max)
            if least is not None and most is not None and not least <= most:
                return None
            classes, counts = self._classes(entry)
        except (ValueError, KeyError, InvalidOperation):
            return None
        objects, shape = entry.objects, entry.shape
        if objects is not None and not objects[0] <= objects[1] <= objects[2]:
            return None
        if shape is not None and not _are_ordered(*shape):
            return None
        return TensorStatistics(
            rows, entry.nulls, entry.nan, least, most, classes, counts, objects, shape
        )

    def _bound(self, bound: Any) -> Any:
        """Return a bound as a comparable value; raise ValueError if it is of another kind."""
        kind, types = self._kind, type(bound)
        if bound is None:
            return None
        if kind == "float" and types in (int, float):
            return bound
        if kind == "float" and bound in ("inf", "-inf"):
            return float(bound)
        if kind == "decimal" and types is str:
            number = Decimal(bound)
            if number.is_finite():
                return number
        plain = {"bool": bool, "int": int, "text": str}
        if kind in plain and types is plain[kind]:
            return bound
        raise ValueError(f"{bound!r} is not a bound of kind {kind}")

    def _classes(
        self, entry: StoredStatistics
    ) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Return the indices of the classes that occur in ascending order, and their counts."""
        counts = entry.counts
        if entry.names is not None:
            indices = [self._index[name] for name in entry.names]
        elif entry.classes is not None:
            indices = indices_of(entry.classes)
        else:
            return None, None
        if len(set(indices)) < len(indices) or (counts is not None and len(counts) != len(indices)):
            raise ValueError("classes and counts differ in length, or a class is listed twice")
        if counts is None:
            return tuple(sorted(indices)), None
        pairs = sorted(zip(indices, counts, strict=True))
        return tuple(index for index, _ in pairs), tuple(count for _, count in pairs)


def _are_ordered(least: tuple[int, ...], most: tuple[int, ...]) -> bool:
    return len(least) == len(most) and all(a <= b for a, b in zip(least, most, strict=True))
