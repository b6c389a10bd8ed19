"""Decoded size of a chunk that is stored as it is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dasklake._codecs.decoded_size import bytes_of_shapes, expands
from dasklake._model.commit import Commit
from dasklake._schema.arrow_layout import shape_column
from dasklake.exceptions import LakeError


def decoded_bytes(batch: pa.RecordBatch, head: Commit, first: int) -> int:
    """Return the decoded bytes of the values of a chunk that expand.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        The columns of the chunk.
    head : Commit
        Commit of the version.
    first : int
        Number of a sample in the version from which on the names in the chunk do not change.

    Returns
    -------
    int
        0 if shapes are not valid: they are not needed to store the chunk, and a reader reports them.
    """
    total = 0
    for name, spec in head.schema.items():
        history = head.histories.get(name)
        stored = name if history is None else history.name_at(name, first)
        if stored is None or not expands(spec) or shape_column(stored) not in batch.schema.names:
            continue
        try:
            column, shapes = batch.column(stored), batch.column(shape_column(stored))
            column.validate(full=True)
            shapes.validate(full=True)
            sizes = pc.binary_length(column).fill_null(0).to_numpy()
            total += int(bytes_of_shapes(spec, shapes, sizes).sum())
        except (pa.ArrowException, LakeError, KeyError, ValueError, TypeError, AttributeError):
            return 0
    return total
