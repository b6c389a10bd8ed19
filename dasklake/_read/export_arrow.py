"""Samples as Arrow record batches, and as Parquet files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dask.delayed import Delayed, delayed

from dasklake._read.export_huggingface import huggingface_column, huggingface_metadata
from dasklake._read.export_plan import ExportPlan
from dasklake._schema.schema import TensorSpec
from dasklake.exceptions import InvalidInputError

#: Most bytes of a row group of Parquet in memory, but at least a row.
_ROW_GROUP_BYTES = 8 * 2**20

#: Library that reads what is exported, where it wants other types than Arrow programs.
Flavor = Literal["huggingface"] | None


@dataclass(frozen=True)
class ArrowForm:
    """Turn frames of Arrow types into record batches.

    Attributes
    ----------
    schema : pyarrow.Schema
        The columns. The metadata of each field has the htype and the dtype of its tensor.
    specs : mapping of str to TensorSpec
        The tensors.
    flavor : {None, "huggingface"}
        Library whose types are used where they differ from those of Arrow programs.
    """

    schema: pa.Schema
    specs: Mapping[str, TensorSpec]
    flavor: Flavor = None

    def batch(self, block: pd.DataFrame) -> pa.RecordBatch:
        """Return a partition of the frame as a batch."""
        columns = [
            _column(block[f.name], self.specs[f.name], self.flavor).cast(f.type)
            for f in self.schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def arrow_form(
    frame: dd.DataFrame, specs: Mapping[str, TensorSpec], flavor: Flavor = None
) -> ArrowForm:
    """Return the form of the batches of a frame of Arrow types.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        The frame.
    specs : mapping of str to TensorSpec
        Its tensors.
    flavor : {None, "huggingface"}
        Library that reads the batches.

    Raises
    ------
    InvalidInputError
        Arrow has no type for a tensor.
    """
    empty = frame._meta  # noqa: SLF001 # has no public form
    schema = pa.schema(
        pa.field(
            name,
            _type_of(empty[name], specs[name], flavor),
            # Arrays of times are integers, and of complex numbers pairs of floats.
            metadata={"htype": specs[name].htype, "dtype": str(specs[name].dtype)},
        )
        for name in frame.columns
    )
    if flavor == "huggingface":
        schema = schema.with_metadata(huggingface_metadata(schema, specs))
    return ArrowForm(schema, dict(specs), flavor)


def _type_of(series: pd.Series, spec: TensorSpec, flavor: Flavor) -> pa.DataType:
    try:
        return _column(series, spec, flavor).type
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise InvalidInputError(
            f"Tensor {series.name!r} has values that Arrow has no type for ({error}). Leave it out "
            "with columns=."
        ) from error


def arrow_batches(frame: dd.DataFrame, form: ArrowForm) -> Iterator[pa.RecordBatch]:
    """Yield the partitions of a frame. One is in memory at a time."""
    for part in frame.to_delayed():
        yield form.batch(part.compute(scheduler="sync"))


def batches_of(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Divide or join batches into batches of ``size`` rows. The last one may have fewer."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        begin = 0
        while rows + batch.num_rows - begin >= size:
            taken = size - rows
            waiting.append(batch.slice(begin, taken))
            yield _joined(waiting)
            waiting, rows, begin = [], 0, begin + taken
        if begin < batch.num_rows:
            waiting.append(batch.slice(begin))
            rows += batch.num_rows - begin
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return some batches as one."""
    if len(batches) == 1:
        return batches[0]
    columns = [
        pa.concat_arrays([batch.column(index) for batch in batches])
        for index in range(batches[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def parquet_tasks(frame: dd.DataFrame, form: ArrowForm, plan: ExportPlan) -> list[Delayed]:
    """Return the tasks that write the missing files of Parquet, one for each partition of a frame."""
    write = delayed(_write, pure=False)
    parts = frame.to_delayed()
    return [write(parts[number], form, plan, number) for number in plan.missing()]


def _write(block: pd.DataFrame, form: ArrowForm, plan: ExportPlan, number: int) -> None:
    """Write a file in row groups of a bounded size, because the writer holds a group several times.

    It needs up to twelve bytes for each number of a list.
    """
    batch = form.batch(block)
    rows = max(1, _ROW_GROUP_BYTES * batch.num_rows // max(1, batch.nbytes))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, form.schema) as writer:
        for begin in range(0, batch.num_rows, rows):
            writer.write_batch(batch.slice(begin, rows), row_group_size=rows)
    del batch
    plan.put(number, memoryview(sink.getvalue()))
    del sink
    pa.default_memory_pool().release_unused()


def _column(series: pd.Series, spec: TensorSpec, flavor: Flavor) -> pa.Array:
    """Return a column in Arrow's type. NaN is a number, not a missing value."""
    column = _plain_column(series)
    if flavor == "huggingface":
        return huggingface_column(column, spec, str(series.name))
    if spec.class_names and pa.types.is_large_list(column.type):
        return _named(column, spec.class_names)
    return column


def _plain_column(series: pd.Series) -> pa.Array:
    column = pa.array(series, from_pandas=series.dtype.kind not in "fc")
    if isinstance(column, pa.ChunkedArray):
        # Not combine_chunks(): without chunks, it fails for extension types with a permutation.
        chunks = column.chunks
        column = pa.concat_arrays(chunks) if chunks else pa.nulls(0, column.type)
    return column


def _named(labels: pa.LargeListArray, class_names: tuple[str, ...]) -> pa.Array:
    """Return lists of labels as lists of names."""
    if not pa.types.is_large_string(labels.type.value_type):
        return labels
    if labels.offset:
        labels = pa.concat_arrays([labels])
    texts = labels.values  # noqa: PD011 # of Arrow
    indices = pc.index_in(texts, pa.array(class_names, texts.type))
    names = pa.DictionaryArray.from_arrays(indices, pa.array(class_names, pa.string()))
    missing = labels.is_null() if labels.null_count else None
    offsets = np.asarray(labels.offsets)
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), names, mask=missing)
