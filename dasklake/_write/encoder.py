"""From what a partition holds to encoded samples: items, blocks of columns, and the checks.

A sample is a mapping of tensor names to values. A missing tensor, an unknown one and a value that
does not fit are errors that name the tensor; nothing is ever shifted against its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.constraints import LengthCheck
from dasklake._codecs.registry import Codec, codec_for
from dasklake._format.columns import ColumnBuilder
from dasklake._schema.samples import Samples
from dasklake._schema.schema import Schema
from dasklake._schema.values import storage_of
from dasklake.exceptions import SampleError

__all__ = ["Encoder", "Item", "items_of"]


@dataclass(frozen=True, slots=True)
class Item:
    """One input sample, or a block of them.

    Attributes
    ----------
    count : int
        Input samples in it.
    values : callable
        Returns them one by one.
    columns : mapping or None
        The block's columns by name, where it has any.
    """

    count: int
    values: Callable[[], Iterable[Any]]
    columns: Mapping[str, Any] | None = None


def items_of(kind: str, names: tuple[str, ...], parts: tuple[Any, ...]) -> Iterator[Item]:
    """Yield what a partition holds, as it comes.

    Parameters
    ----------
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    names : tuple of str
        Names of the arrays.
    parts : tuple
        The partition of each collection.
    """
    if kind == "bag":
        # Not a loop, whose variable would keep each item alive while the next one is made.
        yield from map(_item, parts[0])
    elif kind == "dataframe":
        frame = _with_index(parts[0])
        columns = {str(name): frame[name] for name in frame.columns}
        yield Item(len(frame), lambda: _rows(columns), columns)
    else:
        yield from _array_items(kind, names, parts)


def _item(value: Any) -> Item:
    return Item(1, lambda: (value,))


def _array_items(kind: str, names: tuple[str, ...], parts: tuple[Any, ...]) -> Iterator[Item]:
    columns = dict(zip(names, parts, strict=True))
    lengths = {name: len(part) for name, part in columns.items()}
    if len(set(lengths.values())) != 1:
        raise SampleError(f"the arrays have different lengths in one partition: {lengths}")

    def values() -> Iterator[Any]:
        rows = zip(*columns.values(), strict=True)
        return (row[0] if kind == "array" else dict(zip(names, row, strict=True)) for row in rows)

    # A lone array's items are its rows; without a transform they are samples of one tensor.
    yield Item(len(parts[0]), values, columns)


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    named = [name for name in frame.index.names if name is not None]
    return frame.reset_index(named) if named else frame


def _rows(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = list(columns)
    for row in zip(*map(_values, columns.values()), strict=True):
        yield dict(zip(names, row, strict=True))


def _values(column: pd.Series) -> Iterator[Any]:
    """Yield the values of a column, None where it has none; the NaN of a float is a value."""
    missing = _missing(column)
    if missing is None:
        return iter(column)
    return (None if no else value for value, no in zip(column, missing, strict=True))


def _missing(column: pd.Series) -> Any:
    """Return where a column has no value; None where its dtype has no marker for that."""
    dtype = column.dtype
    if dtype == np.dtype(object):
        # NaN is pandas' marker beside strings; elsewhere it may be a number.
        if pd.api.types.infer_dtype(column, skipna=True) == "string":
            return column.isna().array
        return [value is None or value is pd.NA or value is pd.NaT for value in column]
    if isinstance(dtype, np.dtype) and dtype.kind not in "mM":
        return None
    return column.isna().array


class Encoder:
    """Checks samples against a schema and encodes them.

    Parameters
    ----------
    schema : Schema
        What a sample has to hold.
    strict : bool, default True
        Whether values are checked beyond dtype, shape, class names and ``same_length``.
    """

    def __init__(self, schema: Schema, *, strict: bool = True) -> None:
        self.schema = schema
        self.codecs: dict[str, Codec] = {
            name: codec_for(spec, strict=strict) for name, spec in schema.items()
        }
        self.groups = [LengthCheck({n: schema[n] for n in group}) for group in schema.same_length]
        self.storages = {name: storage_of(spec) for name, spec in schema.items()}
        self.only = next(iter(schema)) if len(schema) == 1 else None

    def builders(self) -> dict[str, ColumnBuilder]:
        """Return empty columns for a chunk."""
        return {name: ColumnBuilder(name, self.schema[name]) for name in self.schema}

    def encode_all(self, made: Any, *, transformed: bool = False) -> list[dict[str, Any]]:
        """Encode what was made of one item: a sample, or :class:`Samples` of any number.

        Raises
        ------
        SampleError
            As :meth:`encode`; then none of them is to be written.
        """
        samples = made if isinstance(made, Samples) else (made,)
        return [self.encode(sample, transformed=transformed) for sample in samples]

    def encode(self, sample: Any, *, transformed: bool = False) -> dict[str, Any]:
        """Encode one sample.

        Parameters
        ----------
        sample : mapping, or the value of a lone tensor
            The sample.
        transformed : bool, default False
            Whether the user's transform returned it; None is then a forgotten ``return``.

        Raises
        ------
        SampleError
            A tensor is missing or unknown, or its value does not fit.
        """
        if transformed and sample is None:
            raise SampleError("transform returned None; return a mapping of tensor names to values")
        if not isinstance(sample, Mapping):
            if self.only is None:
                raise SampleError(
                    f"a sample is a mapping of tensor names to values, not {type(sample).__name__}"
                )
            sample = {self.only: sample}
        if sample.keys() != self.codecs.keys():
            self._check_names(sample)
        encoded = {}
        for name, codec in self.codecs.items():
            value = sample.get(name)
            try:
                encoded[name] = None if value is None else codec.encode(value)
            except SampleError as error:
                raise SampleError(error.message, tensor=name) from error
        for check_lengths in self.groups:
            check_lengths(encoded)
        return encoded

    def _check_names(self, sample: Mapping[str, Any]) -> None:
        for name in sample:
            if name not in self.codecs:
                known = ", ".join(map(repr, self.schema))
                raise SampleError(f"the schema has no such tensor; it has {known}", tensor=name)
        for name, spec in self.schema.items():
            if name not in sample and not spec.optional:
                raise SampleError(
                    "the sample has no value for it; give None, or make it optional=True",
                    tensor=name,
                )

    def encode_block(self, columns: Mapping[str, Any]) -> dict[str, pa.Array] | None:
        """Encode a block column by column; None where a column has to go sample by sample."""
        if columns.keys() != self.codecs.keys():
            return None
        encoded = {}
        for name, codec in self.codecs.items():
            column = codec.encode_column(columns[name])
            if column is None:
                return None
            encoded[name] = _without_times(columns[name], column)
        return encoded


def _without_times(values: Any, encoded: pa.Array) -> pa.Array:
    """Return a column of times with no value where pandas has none, as sample by sample."""
    if not (isinstance(values, pd.Series) and values.dtype.kind in "mM"):
        return encoded
    missing = values.isna().to_numpy()
    if not missing.any():
        return encoded
    return pc.if_else(pa.array(missing), pa.scalar(None, encoded.type), encoded)
