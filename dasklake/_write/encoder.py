"""Split a partition into blocks of items, and check and encode samples.

A sample is a mapping of tensor names to values. Missing tensors, unknown tensors and invalid values
are errors that name the tensor, so that the columns of a chunk always stay aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.constraints import LengthCheck
from dasklake._codecs.convert import refuse_masked
from dasklake._codecs.registry import Codec, codec_for
from dasklake._codecs.sample import Sample, StoredColumn, raw_value
from dasklake._codecs.transfer import encode_value
from dasklake._format.columns import ColumnBuilder
from dasklake._schema.arrow_layout import python_values
from dasklake._schema.schema import Schema
from dasklake._schema.values import Samples
from dasklake.exceptions import LinkError, SampleError


@dataclass(frozen=True, slots=True)
class Block:
    """One or more input items.

    Attributes
    ----------
    count : int
        Number of items.
    items : callable
        Returns an iterable of the items.
    columns : mapping or None
        The columns by name, if the input has columns.
    floats : mapping
        The numpy type of each column of a frame that holds floats. Its values are Python's floats
        in the items.
    """

    count: int
    items: Callable[[], Iterable[Any]]
    columns: Mapping[str, Any] | None = None
    floats: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)

    def sample(self, item: Any) -> Any:
        """Return the sample of an item that is not transformed, with the dtypes of its columns."""
        if not self.floats:
            return item
        floats = self.floats
        for name, numpy_type in floats.items():
            value = item[name]
            if value is not None:
                item[name] = numpy_type(value)
        return item


def blocks_of(
    kind: str, names: tuple[str, ...], parts: tuple[Any, ...], index: tuple[str, ...] = ()
) -> Iterator[Block]:
    """Yield the blocks of a partition one at a time.

    Parameters
    ----------
    kind : str
        ``"bag"``, ``"dataframe"``, ``"array"`` or ``"arrays"``.
    names : tuple of str
        Names of the arrays.
    parts : tuple
        The partition of each collection.
    index : tuple of str
        For each level of the index of a frame, its tensor, or an empty name.
    """
    if kind == "bag":
        # A loop's variable would keep each item alive while the next one is made.
        yield from map(_block, parts[0])
    elif kind == "dataframe":
        columns = frame_columns(parts[0], index)
        yield Block(len(parts[0]), lambda: rows_of(columns), columns, _float_types(columns))
    else:
        yield _array_block(kind, names, parts)


def _block(item: Any) -> Block:
    return Block(1, lambda: (item,))


def _array_block(kind: str, names: tuple[str, ...], parts: tuple[Any, ...]) -> Block:
    columns = dict(zip(names, parts, strict=True))
    lengths = {name: len(part) for name, part in columns.items()}
    if len(set(lengths.values())) != 1:
        raise SampleError(f"the arrays have different lengths in one partition: {lengths}")

    def items() -> Iterator[Any]:
        rows = zip(*columns.values(), strict=True)
        return (row[0] if kind == "array" else dict(zip(names, row, strict=True)) for row in rows)

    # The items of a single array are its rows, which are samples of one tensor if not transformed.
    return Block(len(parts[0]), items, columns)


def frame_columns(frame: pd.DataFrame, index: tuple[str, ...]) -> dict[str, pd.Series]:
    """Return the levels of the index that are written, and the columns."""
    labels = frame.index
    if any(index) and labels.nlevels != len(index):
        raise SampleError(
            f"a partition has an index of {labels.nlevels} levels, not {len(index)} as in the frame's "
            "metadata. Pass meta=... to the operation that made it."
        )
    columns = {str(name): frame[name] for name in frame.columns}
    if index == ("",) and not _only_numbers(labels):
        raise SampleError(
            f"a partition has an index of dtype {labels.dtype} that the frame's metadata do not show. "
            "Pass meta=... to the operation that made it, or drop it with reset_index(drop=True)."
        )
    for number, tensor in enumerate(index):
        if tensor and tensor not in columns:
            columns[tensor] = pd.Series(labels.get_level_values(number))
    return columns


def _only_numbers(labels: pd.Index) -> bool:
    """Return whether an index may only number the rows."""
    return labels.nlevels == 1 and labels.name is None and labels.dtype.kind in "iu"


def _float_types(columns: Mapping[str, pd.Series]) -> dict[str, Callable[[Any], Any]]:
    """Return the numpy type of each column of floats."""
    types: dict[str, Callable[[Any], Any]] = {}
    for name, column in columns.items():
        dtype = column.dtype
        if isinstance(dtype, pd.SparseDtype):
            dtype = dtype.subtype
        if getattr(dtype, "kind", "") == "f":
            types[name] = np.dtype(f"f{dtype.itemsize}").type
    return types


def rows_of(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows as dicts. Stored values are decoded only if a transform uses them."""
    names = list(columns)
    kind = Sample if any(map(is_stored, columns.values())) else dict
    for row in zip(*map(_values, columns.values()), strict=True):
        yield kind(zip(names, row, strict=True))


def is_stored(column: Any) -> bool:
    """Return whether a column holds values that were read from a lake and are not decoded."""
    return isinstance(column, pd.Series) and isinstance(column.array, StoredColumn)


def _values(column: pd.Series) -> Iterator[Any]:
    """Yield the values of a column, and None for missing ones; NaN in a float column is a value."""
    if isinstance(column.array, StoredColumn):
        return column.array.stored()
    if column.dtype == pd.ArrowDtype(pa.time64("ns")):
        return iter(python_values(pa.array(column)))
    missing = _missing(column)
    if missing is None:
        return iter(column)
    return (None if no else value for value, no in zip(column, missing, strict=True))


def restored_values(column: pd.Series) -> Iterator[Any]:
    """Yield the values of a column with its dtype, and None for missing ones."""
    values = _values(column)
    numpy_type = _float_types({"": column}).get("")
    if numpy_type is None:
        return values
    return (None if value is None else numpy_type(value) for value in values)


def _missing(column: pd.Series) -> Any:
    """Return a mask of the missing values; None if the dtype cannot mark values as missing."""
    dtype = column.dtype
    if dtype == np.dtype(object):
        # NaN marks missing values among strings. In other object columns it may be a number.
        if pd.api.types.infer_dtype(column, skipna=True) == "string":
            return column.isna().array
        return [value is None or value is pd.NA or value is pd.NaT for value in column]
    if isinstance(dtype, np.dtype) and dtype.kind not in "mM":
        return None
    return column.isna().array


class Encoder:
    """Check samples against a schema, and encode them.

    Parameters
    ----------
    schema : Schema
        Schema of the samples.
    strict : bool, default True
        Whether values are checked beyond dtype, shape, class names and ``same_length``.
    """

    def __init__(self, schema: Schema, *, strict: bool = True) -> None:
        self.schema = schema
        self.codecs: dict[str, Codec] = {
            name: codec_for(spec, strict=strict) for name, spec in schema.items()
        }
        self.groups = [LengthCheck({n: schema[n] for n in group}) for group in schema.same_length]
        self.only = next(iter(schema)) if len(schema) == 1 else None

    def builders(self) -> dict[str, ColumnBuilder]:
        """Return empty columns for a chunk."""
        return {name: ColumnBuilder(name, self.schema[name]) for name in self.schema}

    def labels_are_indices(self, name: str) -> bool:
        """Return whether labels were indices so far, and could have been names."""
        return getattr(self.codecs[name], "has_names", None) is False

    def encode_all(self, result: Any, *, transformed: bool = False) -> list[dict[str, Any]]:
        """Encode the result of one item: a sample, or any number of :class:`Samples`.

        Raises
        ------
        SampleError
            As :meth:`encode`; the caller must then write none of the samples.
        """
        samples = result if isinstance(result, Samples) else (result,)
        return [self.encode(sample, transformed=transformed) for sample in samples]

    def encode(self, sample: Any, *, transformed: bool = False) -> dict[str, Any]:
        """Encode one sample.

        Parameters
        ----------
        sample : mapping, or the value of the only tensor
            The sample.
        transformed : bool, default False
            Whether the user's transform returned the sample. None then means that ``return`` was
            forgotten.

        Raises
        ------
        SampleError
            ``sample`` lacks a tensor, has an unknown one, or a value that does not match its spec.
        """
        if transformed and sample is None:
            raise SampleError("transform returned None; return a mapping of tensor names to values")
        if not isinstance(sample, Mapping):
            if self.only is None:
                raise SampleError(
                    "a sample must be a mapping of tensor names to values, got "
                    f"{type(sample).__name__}"
                )
            sample = {self.only: sample}
        if sample.keys() != self.codecs.keys():
            self.check_names(sample)
        encoded = {}
        for name, codec in self.codecs.items():
            value = raw_value(sample, name)
            try:
                encoded[name] = None if value is None else encode_value(value, codec)
            except LinkError as error:
                raise LinkError(error.message, tensor=name, reason=error.reason) from error
            except SampleError as error:
                raise SampleError(error.message, tensor=name) from error
        for check_lengths in self.groups:
            check_lengths(encoded)
        return encoded

    def check_names(self, sample: Mapping[str, Any]) -> None:
        """Check that a mapping has the tensors of the schema.

        Raises
        ------
        SampleError
            ``sample`` lacks a tensor that is not optional, or has an unknown one.
        """
        for name in sample:
            if name not in self.codecs:
                names = ", ".join(map(repr, self.schema))
                raise SampleError(
                    f"the schema does not have this tensor; it has {names}", tensor=name
                )
        for name, spec in self.schema.items():
            if name not in sample and not spec.optional:
                raise SampleError(
                    "the sample must have a value for this tensor; give None, or declare it with "
                    "optional=True",
                    tensor=name,
                )

    def encode_block(self, columns: Mapping[str, Any]) -> dict[str, pa.Array] | None:
        """Encode columns as a whole; None if a column can only be encoded sample by sample.

        Raises
        ------
        SampleError
            A column is a masked array, or its dtype does not fit.
        """
        if columns.keys() != self.codecs.keys() or any(map(is_stored, columns.values())):
            return None
        encoded = {}
        for name, codec in self.codecs.items():
            refuse_masked(columns[name])
            column = codec.encode_column(columns[name])
            if column is None:
                return None
            encoded[name] = without_times(columns[name], column)
        return encoded


def without_times(values: Any, encoded: pa.Array) -> pa.Array:
    """Return a column of times in which the values that pandas marks as missing are null."""
    if not (isinstance(values, pd.Series) and values.dtype.kind in "mM"):
        return encoded
    missing = values.isna().to_numpy()
    if not missing.any():
        return encoded
    return pc.if_else(pa.array(missing), pa.scalar(None, encoded.type), encoded)
