"""The class names that a chunk discovered, and the numbers of its labels.

They are in the metadata of the tensor's field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dasklake._format.columns import decode_metadata, encode_metadata, view_primitive

#: The stored type of labels with discovered names.
_LABEL = np.dtype("<u4")


def read_class_names(field: pa.Field) -> tuple[str, ...] | None:
    """Return a chunk's own list of class names of a tensor, or None if it does not have one.

    Raises
    ------
    ValueError
        The list in the field's metadata is not a list of strings.
    """
    names = decode_metadata(field).get("names")
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the class names of column {field.name!r} must be a list of strings")
    return tuple(names)


def renumber_labels(column: pa.Array, indices: npt.NDArray[np.uint32]) -> pa.Array:
    """Replace the numbers in a column of class labels.

    Parameters
    ----------
    column : pyarrow.Array
        Labels in any layout. Rows without a value stay so.
    indices : numpy.ndarray
        uint32: the new number of each old one.

    Raises
    ------
    IndexError
        A label is not among the old numbers.
    """
    if not len(column):
        return column
    if pa.types.is_large_binary(column.type):
        return _renumbered_blobs(column, indices)
    rows = column.storage if isinstance(column, pa.ExtensionArray) else column
    width, flat = 1, rows
    if rows is not column:
        width = rows.type.list_size
        flat = rows.values.slice(rows.offset * width, len(rows) * width)
    old = view_primitive(flat, _LABEL)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    new = np.zeros(len(old), _LABEL)
    present = np.repeat(~missing, width)
    new[present] = indices[old[present]]
    mask = missing if column.null_count else None
    if rows is column:
        return pa.array(new, column.type, mask=mask)
    mask = None if mask is None else pa.array(mask)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(new), width, mask=mask)
    return pa.ExtensionArray.from_storage(column.type, lists)


def _renumbered_blobs(column: pa.Array, indices: npt.NDArray[np.uint32]) -> pa.Array:
    if column.offset:
        column = pa.concat_arrays([column])  # copies it to buffers that begin with it
    validity, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(column) + 1)
    count = int(offsets[-1] - offsets[0]) // _LABEL.itemsize
    old = np.frombuffer(data, _LABEL, count, int(offsets[0])) if count else np.zeros(0, _LABEL)
    new = indices[old].astype(_LABEL, copy=False)
    buffers = [validity, pa.py_buffer(offsets - offsets[0]), pa.py_buffer(new)]
    return pa.Array.from_buffers(column.type, len(column), buffers, null_count=column.null_count)


def unify_class_names(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Give all chunks the same list of class names, for each tensor whose chunks have lists."""
    lists: dict[str, dict[str, int]] = {}
    for batch in batches:
        for field in batch.schema:
            for name in read_class_names(field) or ():
                positions = lists.setdefault(field.name, {})
                positions.setdefault(name, len(positions))
    return [_with_names(batch, lists) for batch in batches] if lists else list(batches)


def _with_names(batch: pa.RecordBatch, lists: Mapping[str, dict[str, int]]) -> pa.RecordBatch:
    fields, columns = list(batch.schema), list(batch.columns)
    for i, field in enumerate(fields):
        own, positions = read_class_names(field), lists.get(field.name, {})
        if own is not None:
            metadata = {**decode_metadata(field), "names": list(positions)}
            fields[i] = field.with_metadata(encode_metadata(metadata))
            columns[i] = renumber_labels(
                columns[i], np.array([positions[name] for name in own], _LABEL)
            )
    schema = pa.schema(fields, metadata=batch.schema.metadata)
    return pa.RecordBatch.from_arrays(columns, schema=schema)
