"""Columns of frames whose cells are stored values, for writers that copy them without decoding.

Numbers, text and class labels stay columns of pandas. In all other columns a cell is a
:class:`~dasklake._codecs.sample.StoredValue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dasklake._format.columns import iterate_stored
from dasklake._read.decoder import Decoder
from dasklake._read.pandas_columns import Part
from dasklake._schema.arrow_layout import Layout, storage_of
from dasklake._schema.schema import TensorSpec

__all__ = ["has_stored_cells", "stored_cells"]


def has_stored_cells(spec: TensorSpec) -> bool:
    """Return whether the cells of a tensor are stored values, as in :func:`stored_cells`."""
    storage = storage_of(spec)
    if storage.layout is not Layout.ARROW or spec.linked:
        return True
    text = pa.types.is_large_string(storage.type) or pa.types.is_string(storage.type)
    return storage.element is None and not text


def stored_cells(
    parts: Sequence[Part], spans: Sequence[range], name: str, decoder: Decoder
) -> pd.Series | None:
    """Return a tensor as a column of stored values, or None if a column of pandas is exact.

    Parameters
    ----------
    parts : sequence of (pyarrow.Array, pyarrow.Array or None)
        The tensor's columns in some chunks.
    spans : sequence of range
        Numbers of the samples of each chunk.
    name : str
        The tensor.
    decoder : Decoder
        Decoder of the tensor.
    """
    spec = decoder.spec(name)
    if not has_stored_cells(spec) and not _has_ambiguous_gaps(parts, spec):
        return None
    cells: list[Any] = []
    for part, span in zip(parts, spans, strict=True):
        for number, value in zip(span, iterate_stored(*part, spec), strict=True):
            cells.append(decoder.entry(name, value, number))
    column = np.empty(len(cells), object)
    column[:] = cells
    return pd.Series(column, dtype=object)


def _has_ambiguous_gaps(parts: Sequence[Part], spec: TensorSpec) -> bool:
    """Return whether pandas could confuse a missing value with NaN or NaT, which are values."""
    dtype = spec.numpy_dtype
    if dtype is None or dtype.kind not in "fcmM":
        return False
    # pandas has one NaT, for values and for gaps; its floats have NaN as a value.
    return dtype.kind in "mM" or any(column.null_count for column, _ in parts)
