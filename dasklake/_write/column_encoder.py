"""Check the columns that a batched transform returns, and encode them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._codecs.codec import Codec
from dasklake._codecs.convert import lossless, refuse_masked
from dasklake._codecs.sample import raw_value
from dasklake._codecs.transfer import encode_value
from dasklake._schema.arrow_layout import Layout, python_values
from dasklake._schema.values import Samples
from dasklake._write.chunk_writer import Column
from dasklake._write.encoder import Encoder, is_stored, restored_values, without_times
from dasklake._write.link_queue import copied
from dasklake._write.row_blocks import numbers_of
from dasklake.exceptions import SampleError

#: A column of a result: None if no row has a value.
Columns = dict[str, Any]


class ColumnEncoder:
    """Check and encode the results of a batched transform.

    Parameters
    ----------
    encoder : Encoder
        The encoder of single samples.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def columns(self, result: Any, rows: int) -> tuple[Columns, int]:
        """Return the columns of a result, and their number of rows.

        Parameters
        ----------
        result : mapping, DataFrame, Arrow table, or the column of the only tensor
            What the transform returned.
        rows : int
            Number of rows that it was given; that of the result if no column has values.

        Raises
        ------
        SampleError
            ``result`` is not a mapping of tensor names to columns, its columns have different numbers
            of rows, or they are not the tensors.
        """
        given = self._named(result)
        self._encoder.check_names(given)
        columns = {name: _column(name, raw_value(given, name)) for name in given}
        lengths = {name: len(column) for name, column in columns.items() if column is not None}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise SampleError(
                f"all columns of a block must have the same number of rows, got: {listed}. Return one "
                "value of each tensor for each row."
            )
        return columns, next(iter(lengths.values()), rows)

    def _named(self, result: Any) -> Mapping[str, Any]:
        if isinstance(result, pd.DataFrame):
            return {str(name): result[name] for name in result.columns}
        if isinstance(result, pa.Table | pa.RecordBatch):
            return dict(zip(result.schema.names, result.columns, strict=True))
        if isinstance(result, Mapping):
            return result
        only = self._encoder.only
        if only is None or result is None or isinstance(result, Samples):
            returned = "None" if result is None else type(result).__name__
            raise SampleError(
                "with batched=True, transform must return a mapping of tensor names to columns, got "
                f"{returned}. Return a dict of arrays or lists, or omit batched=True."
            )
        return {only: result}

    def encode(self, columns: Columns, rows: int) -> dict[str, Column] | None:
        """Encode columns as a whole; None if a column can only be encoded sample by sample.

        Parameters
        ----------
        columns : mapping
            The columns.
        rows : int
            Their number of rows.
        """
        if self._encoder.groups:
            return None
        encoded: dict[str, Column] = {}
        try:
            for name, codec in self._encoder.codecs.items():
                column = _encoded(columns.get(name), codec, rows)
                if column is None:
                    return None
                encoded[name] = column
        except SampleError:
            return None  # encoded one by one, so that the error names the tensor
        return encoded

    def samples(self, columns: Columns, rows: int) -> list[dict[str, Any]]:
        """Encode the rows one by one.

        Parameters
        ----------
        columns : mapping
            The columns.
        rows : int
            Their number of rows.

        Raises
        ------
        SampleError
            A value does not match its tensor.
        """
        values = [_values(column, rows) for column in columns.values()]
        samples = zip(*values, strict=True) if values else repeat((), rows)
        return [self._encoder.encode(dict(zip(columns, s, strict=True))) for s in samples]


def _column(name: str, column: Any) -> Any:
    """Return a column as a list, or an array of numpy, pandas or Arrow; None for no values."""
    if isinstance(column, pd.Index | pd.api.extensions.ExtensionArray):
        return pd.Series(column)
    if column is None or isinstance(column, list | pd.Series | pa.Array | pa.ChunkedArray):
        return column
    if not isinstance(column, np.ndarray) and hasattr(column, "__array__"):
        column = np.asarray(column)  # of PyTorch, for example
    if isinstance(column, np.ndarray) and column.ndim:
        try:
            refuse_masked(column)
        except SampleError as error:
            raise SampleError(error.message, tensor=name) from error
        return column
    if isinstance(column, Sequence) and not isinstance(column, str | bytes | bytearray):
        return list(column)
    kind = type(column).__name__
    raise SampleError(
        f"the column must be an array or a list with one value for each row, got {kind}. Return a "
        "column, such as [value] * rows.",
        tensor=name,
    )


def _encoded(column: Any, codec: Codec, rows: int) -> Column | None:
    """Encode a column; None if it needs more than its own values."""
    typed = None if column is None or is_stored(column) else _typed(column, codec)
    array = None if typed is None else codec.encode_column(typed)
    if array is not None:
        return without_times(column, array)
    if not _is_small(codec):
        return None
    values = _values(column, rows)
    return [None if value is None else copied(encode_value(value, codec)) for value in values]


def _is_small(codec: Codec) -> bool:
    """Return whether values are scalars, labels or documents.

    Others have to be verified, are large, or need more memory than in the chunk.
    """
    spec = codec.spec
    if spec.linked or spec.sequence:
        return False
    is_label = spec.kind.name == "class_label"
    return codec.storage.layout is Layout.ARROW or is_label or spec.kind.codec == "json"


def _typed(column: Any, codec: Codec) -> Any:
    """Return a column in the form that codecs encode at once, apart from the user's memory.

    None if its values have no common type, so that each of them has to be checked.
    """
    spec = codec.spec
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return column
    if isinstance(column, list) or (isinstance(column, np.ndarray) and column.dtype.kind == "O"):
        numbers = numbers_of(column)
        if numbers is not None:
            dtype = spec.numpy_dtype if spec.shape == () else None
            return numbers if dtype is None else lossless(numbers, dtype)
        # Codecs take columns of pandas, in which NaN among texts is a missing one.
        if not set(map(type, column)) <= {str, type(None)}:
            return None
        column = np.fromiter(column, object, len(column))
    if spec.kind.name == "class_label" and _is_text(column):
        return pd.Series(pd.Categorical(column))
    # A transform may use the memory again for the next block.
    return column.copy()


def _is_text(column: Any) -> bool:
    return isinstance(column.dtype, pd.StringDtype) or column.dtype.kind in "UO"


def _values(column: Any, rows: int) -> Iterator[Any]:
    """Yield the values of a column, and None for missing ones."""
    if column is None:
        return repeat(None, rows)
    if isinstance(column, pd.Series):
        return restored_values(column)
    if isinstance(column, pa.Array | pa.ChunkedArray):
        return iter(python_values(column))
    return iter(column)
